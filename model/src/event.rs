//! What happened, for people: `tug events`, `tug why`.

use serde::{Deserialize, Serialize};

use crate::name::{NodeId, ProjectName, ServiceName, TaskId};
use crate::quantity::{Revision, Timestamp};

/// One thing that happened. Events are kept in the store, the newest 5,000 of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Event {
    /// The commit that recorded it. Several events may share one.
    pub revision: Revision,
    /// When it was recorded.
    pub at: Timestamp,
    /// What kind of thing.
    pub kind: EventKind,
    /// Whose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<ProjectName>,
    /// Which service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceName>,
    /// Which task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskId>,
    /// Where.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeId>,
    /// What and why, in a sentence without a full stop.
    pub message: String,
}

/// Kinds of events.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// A project was accepted, scaled, restarted or removed by a user.
    Project,
    /// The planner decided something about a task.
    Planned,
    /// A task became healthy.
    Healthy,
    /// A running task stopped serving.
    Unhealthy,
    /// A task's process ended, or it could not be made.
    Failed,
    /// A task ran to its end with exit code 0.
    Completed,
    /// A node came, went or changed.
    Node,
    /// A token was made, used to join, or removed.
    Token,
}

impl EventKind {
    /// The kind as it is written in JSON and shown to people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Project => "project",
            Self::Planned => "planned",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
            Self::Failed => "failed",
            Self::Completed => "completed",
            Self::Node => "node",
            Self::Token => "token",
        }
    }
}
