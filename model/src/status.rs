//! How things stand, for people and tools: intent, decision and observation in one view, computed, never stored.

use serde::{Deserialize, Serialize};

use crate::name::{NodeId, ProjectName, ServiceName, TaskId};
use crate::quantity::{Revision, Slot, Timestamp};
use crate::report::Phase;
use crate::spec::service::Port;
use crate::task::Desired;

/// How a project stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ProjectStatus {
    /// Its name.
    pub name: ProjectName,
    /// Which version of it is wanted, from 1; `None` while it is being removed.
    pub number: Option<u64>,
    /// The commit that accepted that version.
    pub revision: Revision,
    /// Its services, sorted by name; a removed service is here until its last task has gone.
    pub services: Vec<ServiceStatus>,
    /// Everything is as wanted: every replica of the newest template, healthy or complete, and nothing else.
    pub settled: bool,
}

/// How a service stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ServiceStatus {
    /// Its name.
    pub name: ServiceName,
    /// In a word.
    pub state: ServiceState,
    /// The image as written.
    pub image: String,
    /// How many replicas are wanted.
    pub wanted: u32,
    /// How many tasks serve, or have completed.
    pub ready: u32,
    /// How many of those are of the newest template.
    pub updated: u32,
    /// What is published.
    pub ports: Vec<Port>,
    /// Its tasks, sorted by slot, newest first within one.
    pub tasks: Vec<TaskStatus>,
    /// Why it is not as wanted, one sentence each; empty when it is.
    pub reasons: Vec<String>,
}

/// How a service stands, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ServiceState {
    /// All as wanted, and running.
    Ready,
    /// All as wanted, and run to the end with exit code 0.
    Completed,
    /// On the way.
    Progressing,
    /// A task keeps failing, or ended with an error: it will not get there without a change.
    Failing,
    /// The service is no longer wanted; its last tasks are stopping.
    Removing,
}

/// How a task stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TaskStatus {
    /// Its id.
    pub id: TaskId,
    /// Which replica.
    pub slot: Slot,
    /// Where.
    pub node: NodeId,
    /// What shall become of it.
    pub desired: Desired,
    /// Whether it is of the newest template.
    pub updated: bool,
    /// What its node last said; `None` when it has said nothing yet.
    pub phase: Option<Phase>,
    /// Why it is not known how it stands: `node b is away`; `None`: what its node says holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown: Option<String>,
    /// Since when it is in that phase; of what is unknown: since its node spoke last.
    pub since: Option<Timestamp>,
    /// How often it was started again.
    pub restarts: u32,
    /// Open connections through the node's balancer.
    pub connections: u32,
    /// When it was decided.
    pub created_at: Timestamp,
}

impl ServiceState {
    /// The state as it is written in JSON and shown to people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Completed => "completed",
            Self::Progressing => "progressing",
            Self::Failing => "failing",
            Self::Removing => "removing",
        }
    }
}
