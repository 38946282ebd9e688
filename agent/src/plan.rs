//! What to do next on this node: a pure function of the assignment, the containers that are there, what is remembered
//! of earlier tries, and the time.
//!
//! [`diff()`] is asked again after everything that happens, and whatever it says may be carried out in part or not at
//! all: the next answer starts from what is there then. Nothing here does IO, reads a clock or draws a number.

mod backoff;
mod diff;
mod lease;
mod memory;
mod orders;
mod phase;
mod restart;
mod routes;
mod step;
#[cfg(test)]
pub(crate) mod tests;

use tug_model::{TaskId, Timestamp};

use crate::runtime::{Found, State};

pub use backoff::{Pace, spread};
pub use diff::{Steps, diff};
pub use lease::{Held, Leases, Overdue, overdue};
pub use memory::{Ensured, Image, Memory, Try};
pub use orders::{Flaw, Orders};
pub use phase::{Doing, phase};
pub use restart::{End, History, Verdict};
pub(crate) use routes::address;
pub use routes::{Serving, peers, routes};
pub use step::{ImageWanted, Key, Step};

/// Everything that a decision on this node looks at.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// What the node was told.
    pub orders: &'a Orders,
    /// Every container with this node's label, of whatever cluster.
    pub found: &'a [Found],
    /// What is remembered.
    pub memory: &'a Memory,
    /// The time.
    pub now: Timestamp,
}

// === impl View ===

impl<'a> View<'a> {
    /// The containers of our cluster; all of them while no cluster is known.
    pub fn ours(self) -> impl Iterator<Item = &'a Found> {
        self.found.iter().filter(move |found| self.is_ours(found))
    }

    /// The container that stands for a task: where somebody made several, the one that runs.
    pub fn container(self, task: &TaskId) -> Option<&'a Found> {
        let theirs = self.found.iter().filter(|found| found.identity.task == *task);
        theirs.filter(|found| self.is_ours(found)).min_by_key(|found| preference(found))
    }

    fn is_ours(self, found: &Found) -> bool {
        let cluster = self.orders.cluster();
        cluster.is_empty() || found.identity.cluster == cluster
    }
}

/// The smaller, the rather is it the one container of its task.
fn preference(found: &Found) -> (u8, bool, &str) {
    let standing = match found.state {
        State::Running { .. } => 0,
        State::Paused | State::Restarting => 1,
        State::Exited { .. } => 2,
        State::Created => 3,
        State::Dead => 4,
        State::Removing => 5,
    };
    (standing, found.name != found.identity.task.as_str(), found.id.as_str())
}
