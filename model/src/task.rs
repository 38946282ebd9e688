//! A task: one attempt to run one slot on one node, which is one container. It never moves and is never reused;
//! what replaces it is a new task in the same slot. The agent may start its container again, by the restart policy.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::name::{NetworkName, NodeId, ProjectName, ServiceName, TaskId, VolumeName};
use crate::project::ServiceRef;
use crate::quantity::{Revision, Slot, Timestamp};
use crate::spec::Project;
use crate::spec::container::{Container, MountSource};
use crate::spec::resource::{Config, Network, Volume};
use crate::spec::service::{Port, PortMode, Probe, Restart, Service};

/// What the planner decided about one container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Its id, and its container's name.
    pub id: TaskId,
    /// Whose it is.
    pub project: ProjectName,
    /// Which service of the project.
    pub service: ServiceName,
    /// Which replica; with a global service, a number per node.
    pub slot: Slot,
    /// Where it runs.
    pub node: NodeId,
    /// What it is made of.
    pub template: TemplateHash,
    /// What shall become of it.
    pub desired: Desired,
    /// When it was decided.
    pub created_at: Timestamp,
    /// The commit that made it, if it runs only under a lease: its starts are numbered from there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exclusive: Option<Revision>,
}

/// What shall become of a task. It is written only by the planner and moves only down this list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum Desired {
    /// The agent keeps it running; it is in the routes while it is healthy.
    Run,
    /// It runs on, out of the routes, until its connections have ended or its grace has passed.
    Drain {
        /// The commit that took it out of the routes; every live agent must have said that it routes by it.
        since: Revision,
        /// When.
        at: Timestamp,
    },
    /// The agent stops and removes its container. When no agent reports it any more, the task is forgotten.
    Stop {
        /// The commit that decided it; an agent's silence about the task counts only from there.
        since: Revision,
    },
}

/// The name of a [`Template`]: the first 16 hexadecimal digits of the BLAKE3 hash of its canonical JSON.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(transparent)]
pub struct TemplateHash(String);

/// Everything that an agent needs to know to run a task of a service. Two tasks with equal templates are
/// interchangeable, so a template is stored and sent once, however many replicas there are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Template {
    /// The container.
    pub container: Container,
    /// When it is started again.
    pub restart: Restart,
    /// How the agent probes it, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<Probe>,
    /// The ports that the Engine binds on the node ([`PortMode::Host`]).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_ports: Vec<Port>,
    /// The container ports that others may reach: `expose` and the targets of `ports`, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exposed: Vec<u16>,
    /// It runs only under a lease.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub exclusive: bool,
    /// How often a restart was asked for.
    #[serde(default)]
    pub restarts_asked: u64,
    /// What of its project it uses, as it was when the template was made: a task whose project has changed or gone
    /// still has what it was made from.
    #[serde(default, skip_serializing_if = "Needs::is_empty")]
    pub needs: Needs,
}

/// What a container uses of its project.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default)]
pub struct Needs {
    /// Its networks, by their key.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = BTreeMap<String, Network>)]
    pub networks: BTreeMap<NetworkName, Network>,
    /// Its named volumes, by their key.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = BTreeMap<String, Volume>)]
    pub volumes: BTreeMap<VolumeName, Volume>,
    /// The contents of its configs, by hash.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub configs: BTreeMap<String, Config>,
}

// === impl Task ===

impl Task {
    /// The service it belongs to.
    pub fn service_ref(&self) -> ServiceRef {
        ServiceRef { project: self.project.clone(), service: self.service.clone() }
    }

    /// The commit that made it, which its id names. It tells the order of tasks, whatever the clock did meanwhile: of two
    /// tasks of one slot the later one has the higher number.
    pub fn made_by(&self) -> Revision {
        let number = self.id.as_str().rsplit('.').next().and_then(|number| number.parse().ok());
        number.map(Revision).unwrap_or_default()
    }

    /// The id of the task that commit `revision` makes for this slot: unique, because a commit makes at most one
    /// task for a slot.
    pub fn id_for(project: &ProjectName, service: &ServiceName, slot: Slot, revision: Revision) -> TaskId {
        let text = format!("{project}.{service}.{slot}.{revision}");
        TaskId::parse(&text).expect("names of at most 63 characters and two numbers make a task id")
    }
}

// === impl Desired ===

impl Desired {
    /// Whether the task may be given new connections.
    pub fn is_routed(self) -> bool {
        matches!(self, Self::Run)
    }
}

// === impl Template ===

impl Template {
    /// What tasks of `service`, which is one of `project`, are made of.
    pub fn of(project: &Project, service: &Service) -> Self {
        let mut exposed: Vec<u16> = service.expose.clone();
        exposed.extend(service.ports.iter().map(|port| port.target));
        exposed.sort_unstable();
        exposed.dedup();
        Self {
            container: service.container.clone(),
            restart: service.restart.clone(),
            probe: service.effective_probe(),
            host_ports: service.ports.iter().filter(|port| port.mode == PortMode::Host).cloned().collect(),
            exposed,
            exclusive: service.exclusive,
            restarts_asked: service.restarts_asked,
            needs: Needs::of(project, &service.container),
        }
    }

    /// The name of this template.
    pub fn hash(&self) -> TemplateHash {
        let json = serde_json::to_vec(self).expect("a template holds nothing that JSON cannot");
        TemplateHash(blake3::hash(&json).to_hex().chars().take(16).collect())
    }
}

// === impl Needs ===

impl Needs {
    fn of(project: &Project, container: &Container) -> Self {
        let networks = container.networks.keys().filter_map(|key| project.networks.get_key_value(key));
        let volumes = container.mounts.iter().filter_map(|mount| match &mount.source {
            MountSource::Volume { name, .. } => project.volumes.get_key_value(name),
            MountSource::Anonymous | MountSource::Bind { .. } | MountSource::Tmpfs { .. } => None,
        });
        let configs = container.configs.iter().filter_map(|mount| {
            let config = project.configs.get(&mount.config).filter(|config| config.hash() == mount.hash)?;
            Some((mount.hash.clone(), config.clone()))
        });
        let owned = |(key, value): (&NetworkName, &Network)| (key.clone(), value.clone());
        Self {
            networks: networks.map(owned).collect(),
            volumes: volumes.map(|(key, value)| (key.clone(), value.clone())).collect(),
            configs: configs.collect(),
        }
    }

    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

// === impl TemplateHash ===

impl TemplateHash {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TemplateHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}
