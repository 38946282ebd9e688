//! What a plan is: the decisions, each with its reason, and the reasons why nothing more was decided.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use tug_model::name::{NodeId, ProjectName, ServiceName, TaskId};
use tug_model::project::ServiceRef;
use tug_model::quantity::{Revision, Slot, Timestamp};
use tug_model::task::{Desired, Task, Template, TemplateHash};

/// All that is decided about a world, and why, including why not.
#[must_use = "a plan that nobody carries out changes nothing"]
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// What shall change, in one commit.
    pub decisions: Vec<Decision>,
    /// What stands against the rest.
    pub obstacles: Obstacles,
    /// When to look again although nothing changed; always later than the plan.
    pub wake_at: Option<Timestamp>,
    /// That so many nodes went away at once that their tasks are left where they are.
    pub brake: Option<String>,
}

/// One change, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// What.
    pub change: Change,
    /// Why, without a full stop.
    pub why: String,
}

/// What is decided about one task. Nothing here names the commit that it becomes part of: who commits it fills that in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A new task.
    Create(Create),
    /// The task leaves the routes; its connections may end.
    Drain(TaskId),
    /// The task is stopped and removed by its agent.
    Stop(TaskId),
    /// The task has gone and its record goes too.
    Forget(TaskId),
    /// A volume has its data on a node from now on.
    Settle {
        /// Its name in the Engine.
        volume: String,
        /// The node.
        node: NodeId,
    },
}

/// A new task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Create {
    /// Whose it is.
    pub project: ProjectName,
    /// Which service.
    pub service: ServiceName,
    /// Which replica.
    pub slot: Slot,
    /// Where it shall run.
    pub node: NodeId,
    /// The name of its template.
    pub hash: TemplateHash,
    /// What it is made of.
    pub template: Arc<Template>,
}

/// Why slots are not as they are wanted, by service and slot.
pub type Obstacles = BTreeMap<ServiceRef, BTreeMap<Slot, Obstacle>>;

/// Why a slot is not as it is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obstacle {
    /// What kind of thing stands in the way.
    pub kind: ObstacleKind,
    /// One sentence each, without a full stop. Slots that share a reason share the memory.
    pub reasons: Arc<[String]>,
}

/// Kinds of obstacles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ObstacleKind {
    /// No node can take a task: it stays so until a node or the manifest changes.
    NoPlace,
    /// A dependency is not there yet, or has failed.
    Dependency,
    /// Something that is under way has to end first.
    Waiting,
}

// === impl Create ===

impl Create {
    /// The task as the commit `revision`, made at `now`, records it.
    pub fn task(&self, revision: Revision, now: Timestamp) -> Task {
        Task {
            id: Task::id_for(&self.project, &self.service, self.slot, revision),
            project: self.project.clone(),
            service: self.service.clone(),
            slot: self.slot,
            node: self.node.clone(),
            template: self.hash.clone(),
            desired: Desired::Run,
            created_at: now,
            exclusive: self.template.exclusive.then_some(revision),
        }
    }
}

// === impl Obstacle ===

impl Obstacle {
    /// A thing under way that has to end first.
    pub fn waiting(reason: impl Into<String>) -> Self {
        Self { kind: ObstacleKind::Waiting, reasons: [reason.into()].into() }
    }
}

// === impl Display ===

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create(Create { project, service, slot, node, .. }) => {
                write!(f, "create {project}.{service}.{slot} on {node}")
            }
            Self::Drain(id) => write!(f, "drain {id}"),
            Self::Stop(id) => write!(f, "stop {id}"),
            Self::Forget(id) => write!(f, "forget {id}"),
            Self::Settle { volume, node } => write!(f, "settle {volume} on {node}"),
        }
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.change, self.why)
    }
}

impl fmt::Display for Plan {
    /// The decisions and the obstacles, one a line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for decision in &self.decisions {
            writeln!(f, "{decision}")?;
        }
        for (service, slots) in &self.obstacles {
            for (slot, obstacle) in slots {
                let ServiceRef { project, service } = service;
                writeln!(f, "- {project}.{service}.{slot}: {}", obstacle.reasons.join("; "))?;
            }
        }
        if let Some(brake) = &self.brake {
            writeln!(f, "brake: {brake}")?;
        }
        if let Some(at) = self.wake_at {
            writeln!(f, "look again at {}", at.0)?;
        }
        Ok(())
    }
}
