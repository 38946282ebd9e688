//! What the loop tells others: who serves, to the balancer, and how everything stands, to the orchestrator.

use std::collections::{BTreeMap, BTreeSet};
use std::mem::discriminant;
use std::sync::Arc;

use tokio::time::Instant;
use tug_model::node::{Capacity, NodeInfo};
use tug_model::report::{Health, Phase, Report, TaskReport};
use tug_model::task::Desired;
use tug_model::{TaskId, Timestamp};

use super::{COALESCE, Control, SECOND};
use crate::peer::Address;
use crate::plan::{self, Doing, ImageWanted, Key, Orders, Serving, View};
use crate::route::Table;
use crate::runtime::{ContainerId, EngineHealth, Found, State};

/// How everything stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Snapshot {
    /// For the orchestrator.
    pub(crate) report: Report,
    /// The container of each task that has one.
    pub(crate) containers: BTreeMap<TaskId, Inside>,
}

/// The container of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Inside {
    pub(crate) container: ContainerId,
    /// Since when it runs, if it does.
    pub(crate) running: Option<Timestamp>,
}

/// What is known about the machine without asking the engine.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    pub(crate) hostname: String,
    pub(crate) labels: BTreeMap<String, String>,
    /// Where other agents reach this one, if they may.
    pub(crate) address: Option<Address>,
}

// === impl Control ===

impl Control {
    /// Tells the balancer who serves, if that has changed, and takes note of how far it is.
    pub(super) fn publish_table(&mut self, orders: &Orders) {
        if !self.is_open {
            return;
        }
        let view = View { orders, found: self.sight.found(), memory: &self.memory, now: self.clock.now() };
        let mut serving = Vec::new();
        for task in orders.tasks().keys() {
            if let Some(found) = view.container(task)
                && matches!(found.state, State::Running { .. })
                && (!view.is_exclusive(found) || self.memory.leases.until(task).is_some())
                && self.health(found) == Health::Healthy
            {
                serving.push(Serving { task: task.clone(), address: found.address() });
            }
        }
        let routes = plan::routes(orders, &serving);
        let peers = plan::peers(orders);
        self.table.send_if_modified(|current| {
            let changed = current.number == 0 || current.routes != routes || current.peers != peers;
            if changed {
                *current = Arc::new(Table { number: current.number + 1, routes, peers });
            }
            changed
        });
        let number = self.table.borrow().number;
        self.routing.published(number, orders.following());
        if self.routing.applied(self.balancer.applied()) {
            self.report_soon();
        }
    }

    /// Changes so far are reported soon, together.
    pub(super) fn report_soon(&mut self) {
        self.report_at = self.report_at.min(Instant::now() + COALESCE);
    }

    /// Tells how everything stands, when it is time.
    pub(super) fn report(&mut self, orders: &Orders, now: Timestamp) {
        let tasks = self.tasks(orders, now);
        let moved = tasks.len() != self.phases.len()
            || tasks.iter().any(|(task, phase)| self.phases.get(task).is_none_or(|known| known.0 != *phase));
        let has_told = self.snapshot.borrow().is_some();
        let mut phases = BTreeMap::new();
        for (task, phase) in tasks {
            let since = match self.phases.get(&task) {
                Some((known, since)) if is_same_standing(known, &phase) => *since,
                // What moves after it was told has just begun; what was there before us, when the engine says.
                Some(_) if has_told => now,
                Some(_) | None => self.began(orders, &task).filter(|at| *at < now).unwrap_or(now),
            };
            phases.insert(task, (phase, since));
        }
        self.phases = phases;
        if moved {
            self.report_soon();
        }
        if !self.is_open {
            self.report_at = Instant::now() + SECOND;
        }
        if self.report_at > Instant::now() {
            return;
        }
        self.report_at = Instant::now() + SECOND;
        self.uncounted = self.uncounted && self.ledger.is_draining();
        self.snapshot.send_replace(Some(Arc::new(self.snapshot(orders, now))));
        self.tidy(orders);
    }

    /// When the container of `task` began to stand as it does, by the engine. An agent that has just started knows no more.
    fn began(&self, orders: &Orders, task: &TaskId) -> Option<Timestamp> {
        let view = View { orders, found: self.sight.found(), memory: &self.memory, now: self.clock.now() };
        match view.container(task)?.state {
            State::Running { started_at: at } | State::Exited { finished_at: at, .. } => Some(at),
            State::Created | State::Paused | State::Restarting | State::Dead | State::Removing => None,
        }
    }

    fn snapshot(&self, orders: &Orders, now: Timestamp) -> Snapshot {
        // A lease counts from here: everything that is told was seen later.
        let uptime = self.tools.leases.uptime();
        let connections = self.balancer.connections();
        let tasks = self.phases.iter().map(|(task, (phase, since))| TaskReport {
            id: task.clone(),
            phase: phase.clone(),
            age: now.since(*since),
            restarts: self.memory.histories.get(task).map_or(0, plan::History::restarts),
            connections: connections.get(task).copied().unwrap_or(0),
        });
        let report = Report {
            info: self.info(),
            following: self.routing.following().clone(),
            engine: self.pulse.engine(now),
            tasks: tasks.collect(),
            uncounted: self.uncounted,
            closed_ports: self.balancer.closed_ports(),
            uptime: Some(uptime),
            lacks: self.tools.images.lacks(),
        };
        let view = View { orders, found: self.sight.found(), memory: &self.memory, now };
        let containers = self.phases.keys().filter_map(|task| {
            let found = view.container(task)?;
            let running = match found.state {
                State::Running { started_at } => Some(started_at),
                State::Created
                | State::Paused
                | State::Restarting
                | State::Exited { .. }
                | State::Dead
                | State::Removing => None,
            };
            Some((task.clone(), Inside { container: found.id.clone(), running }))
        });
        Snapshot { report, containers: containers.collect() }
    }

    fn info(&self) -> NodeInfo {
        let engine = self.pulse.info();
        NodeInfo {
            hostname: self.machine.hostname.clone(),
            os: engine.map_or_else(|| "linux".to_owned(), |engine| engine.os.clone()),
            arch: engine.map(|engine| engine.arch.clone()).unwrap_or_default(),
            capacity: engine.map_or_else(Capacity::default, |engine| Capacity {
                cpus: engine.cpus,
                memory: engine.memory,
            }),
            labels: self.machine.labels.clone(),
            engine_version: engine.map(|engine| engine.version.clone()).unwrap_or_default(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            address: self.machine.address.as_ref().and_then(Address::get),
        }
    }

    /// Where every task stands that has a container or shall have one. Before the engine was ever looked at, that is
    /// every task of the assignment: silence about one would mean that it is gone.
    fn tasks(&self, orders: &Orders, now: Timestamp) -> BTreeMap<TaskId, Phase> {
        let view = View { orders, found: self.sight.found(), memory: &self.memory, now };
        let found = view.ours().map(|found| &found.identity.task);
        let all: BTreeSet<&TaskId> = orders.tasks().keys().chain(found).collect();
        let mut phases = BTreeMap::new();
        for task in all {
            let phase = plan::phase(&view, task, &self.doing(&view, task));
            // What was just worked on may be there although the last list does not have it.
            let is_blind = !self.sight.has_looked() || !self.sight.is_settled(task);
            let unseen = (is_blind || self.jobs.is_busy(task)).then(|| {
                match orders.tasks().get(task).map(|assigned| assigned.desired) {
                    Some(Desired::Run | Desired::Drain { .. }) => Phase::Pending,
                    Some(Desired::Stop { .. }) | None => Phase::Stopping,
                }
            });
            if let Some(phase) = phase.or(unseen) {
                phases.insert(task.clone(), phase);
            }
        }
        phases
    }

    fn doing(&self, view: &View<'_>, task: &TaskId) -> Doing {
        let template = view.orders.template(task);
        let image = template.map(|template| ImageWanted::of(&template.container));
        Doing {
            busy: self.jobs.is_busy(task) || !self.sight.is_settled(task),
            pulling: image.and_then(|image| self.pulling.get(&image).cloned()),
            health: view.container(task).map_or(Health::Starting, |found| self.health(found)),
            last_words: self.words.get(task).map(|words| words.1.clone()).unwrap_or_default(),
        }
    }

    /// Whether a running container serves: its engine's health check and our probe must both say so.
    fn health(&self, found: &Found) -> Health {
        if self.sight.has_ended(&found.id) {
            return Health::Unhealthy { reason: "its process has ended".to_owned() };
        }
        match &found.health {
            EngineHealth::Starting => Health::Starting,
            EngineHealth::Unhealthy { output } => Health::Unhealthy { reason: output.clone() },
            EngineHealth::None | EngineHealth::Healthy => {
                let task = &found.identity.task;
                let orders = self.orders.borrow();
                let is_probed = orders.template(task).is_some_and(|template| template.probe.is_some());
                let unprobed = if is_probed { &Health::Starting } else { &Health::Healthy };
                self.checkups.health(task).unwrap_or(unprobed).clone()
            }
        }
    }

    /// Removes what nothing needs any more.
    fn tidy(&mut self, orders: &Orders) {
        self.memory.tries.retain(|key, _| match key {
            Key::Task(task) => self.phases.contains_key(task),
            Key::Image(_) | Key::Network(_) | Key::Volume(_) => true,
        });
        let unnamed =
            self.sight.found().iter().any(|found| !orders.tasks().contains_key(&found.identity.task));
        if !orders.is_told() || unnamed || !self.jobs.is_quiet() || self.tidied == orders.following() {
            return;
        }
        self.tidied = orders.following();
        let templates = orders.assignment().templates.values();
        if let Err(error) = self.tools.configs.keep_only(templates) {
            tracing::warn!(%error, "remove config files that nothing needs");
        }
    }
}

/// Whether a task that stood at `a` and stands at `b` has not moved, for its age.
fn is_same_standing(a: &Phase, b: &Phase) -> bool {
    match (a, b) {
        (Phase::Running { health: a, .. }, Phase::Running { health: b, .. }) => {
            discriminant(a) == discriminant(b)
        }
        _ => discriminant(a) == discriminant(b),
    }
}
