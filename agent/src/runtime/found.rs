//! Containers as they are found on the node.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use tug_model::lease::FencingNumber;
use tug_model::quantity::{Slot, Timestamp};
use tug_model::task::TemplateHash;
use tug_model::{NodeId, ProjectName, ServiceName, TaskId};

/// The engine's id of a container.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerId(Arc<str>);

/// Whose a container is: its labels, checked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Identity {
    /// The cluster's id.
    pub cluster: String,
    /// The node whose agent made it.
    pub node: NodeId,
    /// The task, which is also the container's name.
    pub task: TaskId,
    /// The project.
    pub project: ProjectName,
    /// The service.
    pub service: ServiceName,
    /// Which replica.
    pub slot: Slot,
    /// What it is made of.
    pub template: TemplateHash,
    /// The number of its start, if it may run only under a lease.
    pub fencing: Option<FencingNumber>,
}

/// A container that carries this node's label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The engine's id.
    pub id: ContainerId,
    /// Its name, which somebody may have changed.
    pub name: String,
    /// Whose it is.
    pub identity: Identity,
    /// Where it stands.
    pub state: State,
    /// What the engine's own health check says.
    pub health: EngineHealth,
    /// Its address on each network, by the network's name in the engine. Empty while it does not run.
    pub addresses: BTreeMap<String, IpAddr>,
}

/// Where a container stands. Times are the engine's; its clock is this machine's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Made, never started.
    Created,
    /// Its process runs.
    Running {
        /// Since when: another value is another start.
        started_at: Timestamp,
    },
    /// Its process is frozen.
    Paused,
    /// The engine is starting it again, which we never ask for.
    Restarting,
    /// Its process ended.
    Exited {
        /// Its exit code; 128 + n for signal n.
        code: i64,
        /// The kernel killed it for memory.
        out_of_memory: bool,
        /// When.
        finished_at: Timestamp,
    },
    /// The engine could not remove it.
    Dead,
    /// It is being removed.
    Removing,
}

/// What the engine's own health check says about a running container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EngineHealth {
    /// There is no check.
    None,
    /// It has not decided yet.
    Starting,
    /// It passes.
    Healthy,
    /// It fails.
    Unhealthy {
        /// What the last check wrote.
        output: String,
    },
}

// === impl ContainerId ===

impl ContainerId {
    /// The id `text`.
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.0.get(..12).unwrap_or(&self.0))
    }
}

// === impl State ===

impl State {
    /// Whether its process runs, or anybody could let it go on.
    pub fn may_run(&self) -> bool {
        match self {
            Self::Running { .. } | Self::Paused | Self::Restarting => true,
            Self::Created | Self::Exited { .. } | Self::Dead | Self::Removing => false,
        }
    }
}

// === impl Found ===

impl Found {
    /// An address to reach it at, from the node: that of the first network by name.
    pub fn address(&self) -> Option<IpAddr> {
        self.addresses.values().next().copied()
    }
}
