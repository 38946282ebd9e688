//! What a commit is made of. A change says *what* shall be, never how to get there, so that replaying the journal
//! needs nothing but the changes in it.
//!
//! Changes are what the journal holds: a variant or a field may be added with a default, never renamed or removed.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tug_model::event::Event;
use tug_model::node::Node;
use tug_model::project::StoredProject;
use tug_model::task::{Desired, Task, Template, TemplateHash};
use tug_model::token::Token;
use tug_model::{NodeId, ProjectName, Revision, TaskId, Timestamp};

use super::state::State;

/// One change of the state. The changes of a commit are made together or not at all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// A project is new or has a new version. Its `revision` is set to that of the commit.
    PutProject(Arc<StoredProject>),
    /// A project is no longer wanted.
    RemoveProject(ProjectName),
    /// A task is new, or something else shall become of it.
    PutTask(Arc<Task>),
    /// A task is forgotten; its template goes with the last task that is made of it.
    RemoveTask(TaskId),
    /// A template is there for the tasks that follow; putting it again is no change.
    PutTemplate {
        /// Its name, kept beside it: a later version of Tug may name it differently.
        hash: TemplateHash,
        /// The template.
        template: Arc<Template>,
    },
    /// A node is new or says something else about itself.
    PutNode(Arc<Node>),
    /// A node is forgotten, and that volumes have data on it.
    RemoveNode(NodeId),
    /// A volume has been used on a node: its data is there.
    PutHome {
        /// Its name in the Engine.
        volume: String,
        /// The node.
        node: NodeId,
    },
    /// It is forgotten that a volume has data on a node.
    RemoveHome {
        /// Its name in the Engine.
        volume: String,
        /// The node.
        node: NodeId,
    },
    /// A token is new, or was used.
    PutToken(Arc<Token>),
    /// A token is good for nothing any more. By its id.
    RemoveToken(String),
    /// Something happened. Its `revision` is set to that of the commit.
    Record(Arc<Event>),
    /// A request was answered, and the same request shall get the same answer again.
    Remember(Arc<Remembered>),
}

/// The answer to a request that carried an idempotency key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    /// The key, as the client chose it.
    pub key: String,
    /// A hash of the request: the same key with another request is a mistake.
    pub fingerprint: String,
    /// The status of the answer.
    pub status: u16,
    /// The body of the answer.
    pub body: serde_json::Value,
    /// When it was given.
    pub at: Timestamp,
}

/// A commit as it was made: what a watch carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Committed {
    /// Its number.
    pub revision: Revision,
    /// When it was made.
    pub at: Timestamp,
    /// What it changed, in order.
    pub changes: Vec<Change>,
}

// === impl Change ===

impl Change {
    /// A template under its name.
    pub fn template(template: Template) -> Self {
        Self::PutTemplate { hash: template.hash(), template: Arc::new(template) }
    }

    /// The change with the revision of its commit written where it belongs.
    #[must_use]
    pub(super) fn stamped(mut self, revision: Revision) -> Self {
        match &mut self {
            Self::PutProject(project) if project.revision != revision => {
                Arc::make_mut(project).revision = revision;
            }
            Self::Record(event) if event.revision != revision => Arc::make_mut(event).revision = revision,
            Self::PutProject(_)
            | Self::Record(_)
            | Self::RemoveProject(_)
            | Self::PutTask(_)
            | Self::RemoveTask(_)
            | Self::PutTemplate { .. }
            | Self::PutNode(_)
            | Self::RemoveNode(_)
            | Self::PutHome { .. }
            | Self::RemoveHome { .. }
            | Self::PutToken(_)
            | Self::RemoveToken(_)
            | Self::Remember(_) => {}
        }
        self
    }

    /// Whether the change leads to less: what is still accepted when the disk is full.
    fn shrinks(&self, state: &State) -> bool {
        match self {
            Self::RemoveProject(_)
            | Self::RemoveTask(_)
            | Self::RemoveNode(_)
            | Self::RemoveHome { .. }
            | Self::RemoveToken(_) => true,
            Self::PutTask(task) => task.desired != Desired::Run && state.tasks.contains_key(&task.id),
            Self::PutProject(_)
            | Self::PutTemplate { .. }
            | Self::PutNode(_)
            | Self::PutHome { .. }
            | Self::PutToken(_)
            | Self::Record(_)
            | Self::Remember(_) => false,
        }
    }

    /// Whether the change is only a note beside others.
    fn is_note(&self) -> bool {
        matches!(self, Self::Record(_) | Self::Remember(_) | Self::PutHome { .. })
    }
}

/// Whether a commit of these changes is one that makes room: it removes or stops something, and besides that only
/// takes notes.
pub(super) fn makes_room(state: &State, changes: &[Change]) -> bool {
    changes.iter().any(|change| change.shrinks(state))
        && changes.iter().all(|change| change.shrinks(state) || change.is_note())
}
