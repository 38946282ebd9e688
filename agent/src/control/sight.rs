//! What the agent sees of its containers: the newest list, and what has become of it since.
//!
//! A list says how things stood when it was asked for. A task that was worked on after that is kept as it was seen
//! before, and nothing is decided about it until a list has come that was asked for later. So a list never undoes
//! what the agent just did. The engine tells of a death before its list knows: a container of which an event says that
//! it ended does not serve, whatever a list says, until that shows another run, or for a while.

use std::collections::{BTreeMap, BTreeSet};

use tug_model::{Millis, TaskId, Timestamp};

use crate::runtime::{ContainerId, Found, State};

/// The containers of the node.
#[derive(Debug, Default)]
pub(super) struct Sight {
    found: Vec<Found>,
    /// The number of the newest list asked for; 0 is none.
    asked: u64,
    /// The number of the newest list that came.
    listed: u64,
    /// Tasks that were worked on, with the number of the newest list asked for at that time.
    worked_on: BTreeMap<TaskId, u64>,
    /// Running containers that an event says have ended.
    ended: BTreeMap<ContainerId, Ended>,
}

/// A run that has ended, by an event.
#[derive(Debug, Clone, Copy)]
struct Ended {
    started_at: Timestamp,
    /// When the event came.
    at: Timestamp,
}

/// For so long an event is believed rather than the list. The engine takes down a network and a file system between
/// the two.
const BELIEVED: Millis = Millis::from_secs(5);

// === impl Sight ===

impl Sight {
    /// A list is asked for now; this is its number.
    pub(super) fn ask(&mut self) -> u64 {
        self.asked += 1;
        self.asked
    }

    /// A list has come.
    pub(super) fn take(&mut self, number: u64, list: Vec<Found>, now: Timestamp) {
        let is_settled = |worked_on: &BTreeMap<TaskId, u64>, task: &TaskId| {
            worked_on.get(task).is_none_or(|asked| number > *asked)
        };
        let earlier = std::mem::take(&mut self.found);
        let kept = earlier.into_iter().filter(|found| !is_settled(&self.worked_on, &found.identity.task));
        let fresh = list.into_iter().filter(|found| is_settled(&self.worked_on, &found.identity.task));
        self.found = kept.chain(fresh).collect();
        self.found.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
        self.listed = number;
        self.worked_on.retain(|_, asked| *asked >= number);
        let found = &self.found;
        self.ended.retain(|container, ended| {
            let still = found
                .iter()
                .any(|found| found.id == *container && started_at(found) == Some(ended.started_at));
            still && now.since(ended.at) < BELIEVED
        });
    }

    /// An operation on `task` has ended, and has removed these containers.
    pub(super) fn worked_on(&mut self, task: TaskId, removed: &BTreeSet<ContainerId>) {
        self.found.retain(|found| !removed.contains(&found.id));
        self.worked_on.insert(task, self.asked);
    }

    /// An event says that the process of `container` has ended or is frozen.
    pub(super) fn ended(&mut self, container: &ContainerId, now: Timestamp) {
        let found = self.found.iter().find(|found| found.id == *container);
        if let Some(started_at) = found.and_then(started_at) {
            self.ended.insert(container.clone(), Ended { started_at, at: now });
        }
    }

    /// An event says that `container` goes on.
    pub(super) fn goes_on(&mut self, container: &ContainerId) {
        self.ended.remove(container);
    }

    /// Whether a list has yet to show what an event told. What we stop ourselves is looked at when that is done.
    pub(super) fn is_behind(&self, is_busy: impl Fn(&TaskId) -> bool) -> bool {
        let unexpected = |found: &&Found| !is_busy(&found.identity.task);
        self.found.iter().filter(unexpected).any(|found| self.has_ended(&found.id))
    }

    /// Every container with this node's label.
    pub(super) fn found(&self) -> &[Found] {
        &self.found
    }

    /// Whether a list has ever come.
    pub(super) fn has_looked(&self) -> bool {
        self.listed > 0
    }

    /// Whether what is seen of `task` is newer than what was done to it.
    pub(super) fn is_settled(&self, task: &TaskId) -> bool {
        !self.worked_on.contains_key(task)
    }

    /// Whether an event says that `container` no longer serves.
    pub(super) fn has_ended(&self, container: &ContainerId) -> bool {
        self.ended.contains_key(container)
    }
}

fn started_at(found: &Found) -> Option<Timestamp> {
    match found.state {
        State::Running { started_at } => Some(started_at),
        State::Created
        | State::Paused
        | State::Restarting
        | State::Exited { .. }
        | State::Dead
        | State::Removing => None,
    }
}
