//! When each process ran, to the millisecond: what an outsider would have seen, whatever the agent believes.

use tug_agent::runtime::{ContainerId, Identity};
use tug_model::Timestamp;

use super::Engine;

/// One run of a container's process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Of which container.
    pub container: ContainerId,
    /// Whose it is.
    pub identity: Identity,
    /// When it began.
    pub from: Timestamp,
    /// When it ended; `None`: it goes on.
    pub to: Option<Timestamp>,
}

impl Engine {
    /// Every run so far, in the order of their starts.
    pub fn runs(&self) -> Vec<Run> {
        self.lock().runs.clone()
    }

    /// Takes down whether the process of a container runs, after anything that may have changed that.
    pub(super) fn witness(&self, id: &ContainerId) {
        let now = self.now();
        let mut shared = self.lock();
        let identity =
            shared.containers.get(id).filter(|it| it.is_running()).and_then(|it| it.identity.clone());
        let open = shared.runs.iter_mut().rev().find(|run| run.container == *id && run.to.is_none());
        match (identity, open) {
            (Some(identity), None) => {
                shared.runs.push(Run { container: id.clone(), identity, from: now, to: None });
            }
            (None, Some(run)) => run.to = Some(now),
            (Some(_), Some(_)) | (None, None) => {}
        }
    }
}
