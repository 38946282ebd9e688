//! Everything that one node shall run, whole: never a difference, always with a generation. Who serves behind the
//! published ports is told apart from it: [`crate::endpoints`].

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::name::{NetworkName, NodeId, ProjectName, ServiceName, TaskId, VolumeName};
use crate::quantity::{Revision, Slot, Timestamp};
use crate::spec::resource::{Config, Network, Volume};
use crate::task::{Desired, Template, TemplateHash};

/// What the control plane sends to one agent.
///
/// An agent obeys an assignment only if it comes from its own cluster and is not older than the one it has:
/// [`Assignment::superseded_by`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// The cluster's id, made once when its store was made.
    pub cluster: String,
    /// Raised whenever the store went back in time (a restore); a higher epoch wins over any generation.
    pub epoch: u64,
    /// The commit that it was computed from.
    pub generation: Revision,
    /// By which run of the control plane; `None`: it does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<Run>,
    /// Whose it is.
    pub node: NodeId,
    /// The tasks, sorted by id.
    pub tasks: Vec<AssignedTask>,
    /// What they are made of.
    pub templates: BTreeMap<TemplateHash, Template>,
    /// The networks and volumes of the projects that have tasks here.
    pub projects: BTreeMap<ProjectName, Resources>,
    /// The contents of the configs that they mount, by hash.
    pub configs: BTreeMap<String, Config>,
}

/// One run of a control plane, from opening its store to closing it. What it found there is all that earlier runs have ever
/// told anybody; where it is less, the store is a copy from before.
///
/// Written as one word, `AT.FOUND`, so that it may stand in a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Run {
    /// When it began. Two runs that began with the same commit differ in this.
    pub at: Timestamp,
    /// The newest commit that it found.
    pub found: Revision,
}

/// One task of an assignment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssignedTask {
    /// Its id, and its container's name.
    pub id: TaskId,
    /// Whose it is.
    pub project: ProjectName,
    /// Which service.
    pub service: ServiceName,
    /// Which replica.
    pub slot: Slot,
    /// What it is made of: a key of [`Assignment::templates`].
    pub template: TemplateHash,
    /// What shall become of it.
    pub desired: Desired,
    /// The commit that made it, if it runs only under a [lease](crate::lease).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exclusive: Option<Revision>,
}

/// What the services of a project share on a node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Resources {
    /// Networks, by their key.
    pub networks: BTreeMap<NetworkName, Network>,
    /// Volumes, by their key.
    pub volumes: BTreeMap<VolumeName, Volume>,
}

/// What an agent cannot see of the backends on other nodes: who is known not to serve. Sent whole whenever it changes, and
/// only a hint: who is named here is tried when nobody else is left.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Hints {
    /// Nodes that are silent.
    pub away: BTreeSet<NodeId>,
    /// Tasks that their own agents do not report as healthy.
    pub unready: BTreeSet<TaskId>,
}

impl Assignment {
    /// An assignment of nothing: what a node has before it was ever told anything.
    pub fn empty(node: NodeId) -> Self {
        Self {
            cluster: String::new(),
            epoch: 0,
            generation: Revision(0),
            run: None,
            node,
            tasks: Vec::new(),
            templates: BTreeMap::new(),
            projects: BTreeMap::new(),
            configs: BTreeMap::new(),
        }
    }

    /// Whether a node that follows `self` may follow `next` from now on, or why not.
    pub fn superseded_by(&self, next: &Self) -> Result<(), Refusal> {
        if self.node != next.node {
            return Err(Refusal::OtherNode { ours: self.node.clone(), theirs: next.node.clone() });
        }
        if !self.cluster.is_empty() && self.cluster != next.cluster {
            return Err(Refusal::OtherCluster { ours: self.cluster.clone(), theirs: next.cluster.clone() });
        }
        let (ours, theirs) = ((self.epoch, self.generation), (next.epoch, next.generation));
        if theirs < ours {
            return Err(Refusal::Older { ours: self.generation, theirs: next.generation });
        }
        if self.epoch == next.epoch { Run::knows(next.run, self.run, self.generation) } else { Ok(()) }
    }
}

impl From<Run> for String {
    fn from(run: Run) -> Self {
        format!("{}.{}", run.at.0, run.found.0)
    }
}

impl TryFrom<String> for Run {
    type Error = NoRun;

    fn try_from(text: String) -> Result<Self, NoRun> {
        let parts = text.split_once('.');
        let numbers = parts.and_then(|(at, found)| Some((at.parse().ok()?, found.parse().ok()?)));
        numbers.map(|(at, found)| Self { at: Timestamp(at), found: Revision(found) }).ok_or(NoRun(text))
    }
}

/// What should be a [`Run`] is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is no run of a control plane", .0.escape_default())]
pub struct NoRun(String);

impl Run {
    /// Whether `next` knows what `ours` told as of `generation`. A copy of a store from before that counts on by itself: its
    /// numbers become greater, and mean something else.
    pub(crate) fn knows(next: Option<Self>, ours: Option<Self>, generation: Revision) -> Result<(), Refusal> {
        match next {
            Some(run) if next != ours && run.found < generation => {
                Err(Refusal::Forgetful { ours: generation, found: run.found })
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// Why an agent does not obey an assignment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// It is for somebody else.
    #[error("the assignment is for node {theirs}, this is node {ours}")]
    OtherNode {
        /// This node.
        ours: NodeId,
        /// The node it names.
        theirs: NodeId,
    },
    /// It comes from a control plane with another store.
    #[error("the assignment is from cluster {theirs}, this node belongs to cluster {ours}")]
    OtherCluster {
        /// The cluster this node follows.
        ours: String,
        /// The cluster it names.
        theirs: String,
    },
    /// It is older than what the node already follows.
    #[error("the assignment has generation {theirs}, this node already follows {ours}")]
    Older {
        /// What the node follows.
        ours: Revision,
        /// What it was sent.
        theirs: Revision,
    },
    /// It comes from a store that does not know what the node was told before.
    #[error(
        "the control plane began with commit {found}, and this node already follows {ours}: its store is an older copy. Bring \
         the newest back, or make this one count with `tug restore`"
    )]
    Forgetful {
        /// What the node follows.
        ours: Revision,
        /// What the control plane began with.
        found: Revision,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_one_word() {
        let run = Run { at: Timestamp(1_700), found: Revision(12) };
        let json = serde_json::to_string(&run).unwrap();
        assert_eq!(json, "\"1700.12\"");
        assert_eq!(serde_json::from_str::<Run>(&json).unwrap(), run);
        for wrong in ["\"\"", "\"12\"", "\"a.1\"", "\"1.-2\"", "{}"] {
            assert!(serde_json::from_str::<Run>(wrong).is_err(), "{wrong}");
        }
    }
}
