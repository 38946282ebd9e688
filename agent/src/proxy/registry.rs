//! What all parts of a balancer know of tasks and nodes: connections are counted here and nowhere else.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tug_model::assignment::Hints;
use tug_model::report::ClosedPort;
use tug_model::{NodeId, TaskId};

use super::backends::{Lease, Target};
use crate::peer::{Neighbour, Pool};
use crate::route::{Backend, Location};

/// For how long after a failure a backend is passed over where there are others.
const SUSPICION: Duration = Duration::from_secs(1);

/// What all parts of a balancer, and those who ask it, know of its tasks and ports.
#[derive(Debug)]
pub(super) struct Registry {
    /// Without one, tasks of other nodes are given no connections.
    pool: Option<Arc<Pool>>,
    gauges: Mutex<BTreeMap<TaskId, Arc<Gauge>>>,
    nodes: Mutex<BTreeMap<NodeId, Arc<Reach>>>,
    hints: Mutex<Hints>,
    /// What other agents may have connections to: the tasks of this node that the newest table names.
    inside: Mutex<BTreeMap<(TaskId, u16), Target>>,
    closed_ports: Mutex<ClosedPorts>,
    /// The number of the table that connections are given by.
    applied: AtomicU64,
    changed: watch::Sender<u64>,
    origin: Instant,
}

#[derive(Debug, Default)]
struct ClosedPorts {
    published: Vec<ClosedPort>,
    /// The one for other agents.
    peers: Option<ClosedPort>,
}

/// One task.
#[derive(Debug)]
pub(super) struct Gauge {
    pub(super) task: TaskId,
    pub(super) open: AtomicU32,
    /// Whether the newest table names it.
    pub(super) routed: AtomicBool,
    /// Whether the orchestrator says that it does not serve.
    hinted: AtomicBool,
    /// In milliseconds since the registry's origin.
    suspected_until: AtomicU64,
}

/// Another node, as far as it is known from here.
#[derive(Debug)]
pub(super) struct Reach {
    pub(super) neighbour: Arc<Neighbour>,
    /// Whether the orchestrator says that it is silent.
    away: AtomicBool,
    /// In milliseconds since the registry's origin.
    doubted_until: AtomicU64,
}

// === impl Registry ===

impl Registry {
    pub(super) fn new(pool: Option<Arc<Pool>>) -> Self {
        Self {
            pool,
            gauges: Mutex::default(),
            nodes: Mutex::default(),
            hints: Mutex::default(),
            inside: Mutex::default(),
            closed_ports: Mutex::default(),
            applied: AtomicU64::new(0),
            changed: watch::channel(0).0,
            origin: Instant::now(),
        }
    }

    /// The open connections of each task that has any.
    pub(super) fn connections(&self) -> BTreeMap<TaskId, u32> {
        let gauges = lock(&self.gauges);
        let open = gauges.iter().map(|(task, gauge)| (task.clone(), gauge.open.load(Ordering::Relaxed)));
        open.filter(|(_, open)| *open > 0).collect()
    }

    pub(super) fn closed_ports(&self) -> Vec<ClosedPort> {
        let closed = lock(&self.closed_ports);
        let mut all: Vec<_> = closed.published.iter().chain(&closed.peers).cloned().collect();
        all.sort();
        all
    }

    pub(super) fn set_closed_ports(&self, mut ports: Vec<ClosedPort>) {
        ports.sort();
        let mut closed = lock(&self.closed_ports);
        if closed.published != ports {
            closed.published = ports;
            self.announce();
        }
    }

    /// The port for other agents could not be opened; `None`: it is.
    pub(super) fn set_closed_to_peers(&self, port: Option<ClosedPort>) {
        let mut closed = lock(&self.closed_ports);
        if closed.peers != port {
            closed.peers = port;
            self.announce();
        }
    }

    pub(super) fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// The number of the table that connections are given by.
    pub(super) fn applied(&self) -> u64 {
        self.applied.load(Ordering::Acquire)
    }

    /// From here on no connection is given to a task that the table of this number does not name.
    pub(super) fn set_applied(&self, number: u64) {
        if self.applied.swap(number, Ordering::AcqRel) != number {
            self.announce();
        }
    }

    /// From now on these are the nodes whose tasks may be given connections.
    pub(super) fn set_peers(&self, peers: &BTreeMap<NodeId, String>) {
        let Some(pool) = &self.pool else { return };
        pool.follow(peers);
        let hints = lock(&self.hints);
        let mut nodes = lock(&self.nodes);
        nodes.retain(|node, _| peers.contains_key(node));
        for node in peers.keys() {
            if let Some(neighbour) = pool.neighbour(node).filter(|_| !nodes.contains_key(node)) {
                let away = AtomicBool::new(hints.away.contains(node));
                let reach = Reach { neighbour, away, doubted_until: AtomicU64::new(0) };
                nodes.insert(node.clone(), Arc::new(reach));
            }
        }
    }

    /// Another node, if its tasks may be given connections.
    pub(super) fn reach(&self, node: &NodeId) -> Option<Arc<Reach>> {
        lock(&self.nodes).get(node).cloned()
    }

    /// Notes which tasks the newest table names, and forgets those that are neither named nor connected to.
    pub(super) fn set_routed<'a>(&self, backends: impl Iterator<Item = &'a Backend> + Clone) {
        let routed: BTreeSet<&TaskId> = backends.clone().map(|backend| &backend.task).collect();
        let here = backends.filter_map(|backend| match backend.location {
            Location::Here(address) => Some((&backend.task, address)),
            Location::There { .. } => None,
        });
        let inside = here.map(|(task, at)| ((task.clone(), at.port()), Target::here(at, self.gauge(task))));
        *lock(&self.inside) = inside.collect();
        let mut gauges = lock(&self.gauges);
        for (task, gauge) in gauges.iter() {
            let is_routed = routed.contains(task);
            let was_routed = gauge.routed.swap(is_routed, Ordering::Relaxed);
            // Its last connection may have ended just before, when that was no news yet.
            if was_routed && !is_routed && gauge.open.load(Ordering::Relaxed) == 0 {
                self.announce();
            }
        }
        // A gauge that a target or a lease still holds must stay, or its task would be counted twice.
        gauges.retain(|_, gauge| gauge.routed.load(Ordering::Relaxed) || Arc::strong_count(gauge) > 1);
    }

    /// A connection of another agent to a task here, if the newest table names it.
    pub(super) fn admit(self: &Arc<Self>, task: &TaskId, port: u16) -> Option<Lease> {
        // Counted under the lock: who has seen that the task is no longer named sees all its connections.
        let inside = lock(&self.inside);
        let target = inside.get(&(task.clone(), port))?;
        Some(Lease::new(target.clone(), self))
    }

    /// Whom the orchestrator knows not to serve, whole.
    pub(super) fn set_hints(&self, hints: Hints) {
        let mut current = lock(&self.hints);
        for (node, reach) in lock(&self.nodes).iter() {
            reach.away.store(hints.away.contains(node), Ordering::Relaxed);
        }
        for (task, gauge) in lock(&self.gauges).iter() {
            gauge.hinted.store(hints.unready.contains(task), Ordering::Relaxed);
        }
        *current = hints;
    }

    /// What is said of `task`, or of the whole node, is no longer true.
    pub(super) fn refute(&self, gauge: &Gauge, reach: &Reach) {
        if gauge.hinted.load(Ordering::Relaxed) || reach.away.load(Ordering::Relaxed) {
            let mut hints = lock(&self.hints);
            hints.unready.remove(&gauge.task);
            hints.away.remove(reach.neighbour.node());
            gauge.hinted.store(false, Ordering::Relaxed);
            reach.away.store(false, Ordering::Relaxed);
        }
    }

    pub(super) fn gauge(&self, task: &TaskId) -> Arc<Gauge> {
        let hints = lock(&self.hints);
        let mut gauges = lock(&self.gauges);
        let new = || Arc::new(Gauge::new(task, hints.unready.contains(task)));
        Arc::clone(gauges.entry(task.clone()).or_insert_with(new))
    }

    pub(super) fn announce(&self) {
        self.changed.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Milliseconds since its origin.
    pub(super) fn now(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Until when something that has just failed is passed over.
    pub(super) fn soon(&self) -> u64 {
        self.now() + u64::try_from(SUSPICION.as_millis()).unwrap_or(u64::MAX)
    }

    #[cfg(test)]
    pub(super) fn known_tasks(&self) -> usize {
        lock(&self.gauges).len()
    }
}

// === impl Gauge ===

impl Gauge {
    fn new(task: &TaskId, is_hinted: bool) -> Self {
        Self {
            task: task.clone(),
            open: AtomicU32::new(0),
            routed: AtomicBool::new(true),
            hinted: AtomicBool::new(is_hinted),
            suspected_until: AtomicU64::new(0),
        }
    }

    pub(super) fn is_hinted(&self) -> bool {
        self.hinted.load(Ordering::Relaxed)
    }

    pub(super) fn is_suspected(&self, now: u64) -> bool {
        self.suspected_until.load(Ordering::Relaxed) > now
    }

    pub(super) fn suspect(&self, until: u64) {
        self.suspected_until.store(until, Ordering::Relaxed);
    }
}

// === impl Reach ===

impl Reach {
    pub(super) fn is_away(&self) -> bool {
        self.away.load(Ordering::Relaxed)
    }

    pub(super) fn is_doubted(&self, now: u64) -> bool {
        self.doubted_until.load(Ordering::Relaxed) > now
    }

    pub(super) fn doubt(&self, until: u64) {
        self.doubted_until.store(until, Ordering::Relaxed);
    }
}

/// What these locks guard is whole at every moment, also after a panic elsewhere.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
