//! The leases that the node has, and what runs without one. See `tug_model::lease`.
//!
//! Time is counted here as how long the machine has been up, so that a lease also ends while the machine sleeps.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tug_model::lease::{LASTS, LEAST_TO_START, Lease, STOPS_WITHIN};
use tug_model::{Millis, TaskId};

use super::View;
use super::step::Step;
use crate::runtime::Found;

/// The leases of a node, as they stand at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Leases {
    /// The moment.
    pub uptime: Millis,
    /// By task.
    pub held: BTreeMap<TaskId, Held>,
}

/// The lease of a task. Kept on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// When it ends.
    pub until: Millis,
    /// Whether the task may be started under it.
    pub may_start: bool,
}

/// What has to stop now because its lease has ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Overdue {
    /// A step for each container.
    pub steps: Vec<Step>,
    /// When the next lease ends under which something runs.
    pub next: Option<Millis>,
}

// === impl Leases ===

impl Leases {
    /// Takes a lease in, which never ends one earlier. A lease for a report that was not made yet is no lease.
    pub fn take(&mut self, lease: &Lease) {
        if lease.uptime > self.uptime {
            return;
        }
        let until = Millis(lease.uptime.0.saturating_add(LASTS.0));
        for task in &lease.tasks {
            let held = self.held.entry(task.id.clone()).or_insert(Held { until, may_start: false });
            held.until = held.until.max(until);
            held.may_start = task.may_start;
        }
        let uptime = self.uptime;
        self.held.retain(|_, held| held.until.0.saturating_add(STOPS_WITHIN.0) > uptime.0);
    }

    /// When the lease of a task ends; `None`: it has.
    pub fn until(&self, task: &TaskId) -> Option<Millis> {
        self.held.get(task).map(|held| held.until).filter(|until| *until > self.uptime)
    }

    /// Whether a task may be started now.
    pub fn may_start(&self, task: &TaskId) -> bool {
        let held = self.held.get(task).filter(|held| held.may_start);
        held.is_some_and(|held| held.until.0 >= self.uptime.0.saturating_add(LEAST_TO_START.0))
    }

    /// When what runs of each task has ended at the latest, unless there is another lease by then. What had to end before
    /// now is not among it.
    pub fn ends(&self) -> Vec<(TaskId, Millis)> {
        let end = |held: &Held| Millis(held.until.0.saturating_add(STOPS_WITHIN.0));
        let ends = self.held.iter().map(|(task, held)| (task.clone(), end(held)));
        ends.filter(|(_, end)| *end > self.uptime).collect()
    }

    /// How long what runs of a task may still take to stop after its lease has ended.
    pub fn grace(&self, task: &TaskId, wanted: Millis) -> Millis {
        let end = self.held.get(task).map_or(0, |held| held.until.0.saturating_add(STOPS_WITHIN.0));
        Millis(end.saturating_sub(self.uptime.0)).min(wanted)
    }
}

/// What has to stop now because its lease has ended, whatever else is known.
pub fn overdue(view: &View<'_>) -> Overdue {
    let (leases, mut overdue) = (&view.memory.leases, Overdue::default());
    for found in view.ours().filter(|found| view.is_exclusive(found) && found.state.may_run()) {
        let task = &found.identity.task;
        if let Some(until) = leases.until(task) {
            overdue.next = Some(overdue.next.map_or(until, |earlier| earlier.min(until)));
            continue;
        }
        let template = view.orders.template(task).map(|template| &template.container);
        let wanted = template.map_or(STOPS_WITHIN, |container| container.stop_grace_period.0);
        overdue.steps.push(Step::Halt {
            task: task.clone(),
            container: found.id.clone(),
            grace: leases.grace(task, wanted),
        });
    }
    overdue
}

// === impl View ===

impl View<'_> {
    /// Whether a container may run only under a lease: it says so itself, whoever has forgotten what it is.
    pub fn is_exclusive(self, found: &Found) -> bool {
        found.identity.fencing.is_some() || self.needs_lease(&found.identity.task)
    }

    /// Whether the orders say of a task that it may run only under a lease.
    pub fn needs_lease(self, task: &TaskId) -> bool {
        self.orders.tasks().get(task).is_some_and(|task| task.exclusive.is_some())
    }

    /// Whether a task has what it needs to be started.
    pub fn may_start(self, task: &TaskId) -> bool {
        !self.needs_lease(task) || self.memory.leases.may_start(task)
    }
}
