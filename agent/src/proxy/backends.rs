//! The backends of each route, and how many connections each task has: counted here and nowhere else.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tug_model::TaskId;
use tug_model::report::ClosedPort;

use super::pick::{Candidate, pick};
use crate::route::Backend;

/// For how long after a failure a backend is passed over where there are others.
const SUSPICION: Duration = Duration::from_secs(1);

/// What all parts of a balancer, and those who ask it, know of its tasks and ports.
#[derive(Debug)]
pub(super) struct Registry {
    gauges: Mutex<BTreeMap<TaskId, Arc<Gauge>>>,
    closed_ports: Mutex<Vec<ClosedPort>>,
    /// The number of the table that connections are given by.
    applied: AtomicU64,
    changed: watch::Sender<u64>,
    origin: Instant,
}

/// One task.
#[derive(Debug)]
struct Gauge {
    task: TaskId,
    open: AtomicU32,
    /// Whether the newest table names it.
    routed: AtomicBool,
    /// In milliseconds since the registry's origin.
    suspected_until: AtomicU64,
}

/// A published port and who is behind it.
#[derive(Debug)]
pub(super) struct Route {
    registry: Arc<Registry>,
    targets: watch::Sender<Arc<[Target]>>,
    /// Held over choice and count, so that two connections at once don't both see the same backend as the best.
    choice: Mutex<()>,
}

/// A backend of a route, with its task's gauge at hand.
#[derive(Debug, Clone)]
pub(super) struct Target {
    address: SocketAddr,
    gauge: Arc<Gauge>,
    /// How many connections of this route it was given.
    given: Arc<AtomicU64>,
}

/// A connection to a backend, counted as open until this is dropped.
#[derive(Debug)]
pub(super) struct Lease {
    target: Target,
    registry: Arc<Registry>,
}

// === impl Registry ===

impl Registry {
    pub(super) fn new() -> Self {
        Self {
            gauges: Mutex::default(),
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
        lock(&self.closed_ports).clone()
    }

    pub(super) fn set_closed_ports(&self, mut ports: Vec<ClosedPort>) {
        ports.sort();
        let mut current = lock(&self.closed_ports);
        if *current != ports {
            *current = ports;
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

    /// Notes which tasks the newest table names, and forgets those that are neither named nor connected to.
    pub(super) fn set_routed<'a>(&self, routed: impl Iterator<Item = &'a Backend>) {
        let routed: BTreeSet<&TaskId> = routed.map(|backend| &backend.task).collect();
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

    fn gauge(&self, task: &TaskId) -> Arc<Gauge> {
        let mut gauges = lock(&self.gauges);
        Arc::clone(gauges.entry(task.clone()).or_insert_with(|| Arc::new(Gauge::new(task))))
    }

    fn announce(&self) {
        self.changed.send_modify(|count| *count = count.wrapping_add(1));
    }

    fn millis(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

// === impl Gauge ===

impl Gauge {
    fn new(task: &TaskId) -> Self {
        Self {
            task: task.clone(),
            open: AtomicU32::new(0),
            routed: AtomicBool::new(true),
            suspected_until: AtomicU64::new(0),
        }
    }
}

// === impl Route ===

impl Route {
    pub(super) fn new(registry: Arc<Registry>) -> Self {
        Self { registry, targets: watch::channel(Arc::default()).0, choice: Mutex::default() }
    }

    /// From now on connections go to `backends`.
    pub(super) fn set_backends(&self, backends: &[Backend]) {
        self.targets.send_if_modified(|targets| {
            if targets.len() == backends.len() && targets.iter().zip(backends).all(|(t, b)| t.is(b)) {
                return false;
            }
            // A new backend begins as if it had always had its share.
            let most = targets.iter().map(|target| target.given.load(Ordering::Relaxed)).max().unwrap_or(0);
            let target = |backend: &Backend| match targets.iter().find(|target| target.is(backend)) {
                Some(known) => known.clone(),
                None => Target::new(backend, self.registry.gauge(&backend.task), most),
            };
            *targets = backends.iter().map(target).collect();
            true
        });
    }

    /// Moves whenever the backends change.
    pub(super) fn news(&self) -> watch::Receiver<Arc<[Target]>> {
        self.targets.subscribe()
    }

    /// Whether there is a backend that is not among `tried`.
    pub(super) fn has_untried(&self, tried: &[TaskId]) -> bool {
        self.targets.borrow().iter().any(|target| !tried.contains(&target.gauge.task))
    }

    /// Gives the connection to the best backend, preferably one that is not among `tried`.
    pub(super) fn lease(&self, tried: &[TaskId]) -> Option<Lease> {
        let now = self.registry.millis();
        let _choice = lock(&self.choice);
        let targets = self.targets.borrow();
        let picked = pick(targets.iter().map(|target| target.candidate(tried, now)))?;
        let target = targets.get(picked.index)?.clone();
        target.given.store(picked.given, Ordering::Relaxed);
        target.gauge.open.fetch_add(1, Ordering::Relaxed);
        Some(Lease { target, registry: Arc::clone(&self.registry) })
    }
}

// === impl Target ===

impl Target {
    fn new(backend: &Backend, gauge: Arc<Gauge>, given: u64) -> Self {
        Self { address: backend.address, gauge, given: Arc::new(AtomicU64::new(given)) }
    }

    fn is(&self, backend: &Backend) -> bool {
        self.address == backend.address && self.gauge.task == backend.task
    }

    fn candidate(&self, tried: &[TaskId], now: u64) -> Candidate {
        Candidate {
            tried: tried.contains(&self.gauge.task),
            suspected: self.gauge.suspected_until.load(Ordering::Relaxed) > now,
            connections: self.gauge.open.load(Ordering::Relaxed),
            given: self.given.load(Ordering::Relaxed),
        }
    }
}

// === impl Lease ===

impl Lease {
    pub(super) fn task(&self) -> &TaskId {
        &self.target.gauge.task
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.target.address
    }

    /// Lets other connections avoid this backend for a moment.
    pub(super) fn suspect(&self) {
        let until = self.registry.millis() + u64::try_from(SUSPICION.as_millis()).unwrap_or(u64::MAX);
        self.target.gauge.suspected_until.store(until, Ordering::Relaxed);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let gauge = &self.target.gauge;
        let was = gauge.open.fetch_sub(1, Ordering::Relaxed);
        if was == 1 && !gauge.routed.load(Ordering::Relaxed) {
            self.registry.announce();
        }
    }
}

/// What these locks guard is whole at every moment, also after a panic elsewhere.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend(number: u16) -> Backend {
        Backend {
            task: TaskId::parse(&format!("shop.web.{number}.7")).unwrap(),
            address: SocketAddr::from(([127, 0, 0, 1], number)),
        }
    }

    fn route(backends: &[Backend]) -> (Arc<Registry>, Route) {
        let registry = Arc::new(Registry::new());
        let route = Route::new(Arc::clone(&registry));
        route.set_backends(backends);
        (registry, route)
    }

    #[test]
    fn a_lease_is_counted_until_it_is_dropped() {
        let (registry, route) = route(&[backend(1)]);
        let lease = route.lease(&[]).unwrap();
        let other = route.lease(&[]).unwrap();
        assert_eq!(registry.connections(), BTreeMap::from([(backend(1).task, 2)]));
        drop(lease);
        assert_eq!(registry.connections(), BTreeMap::from([(backend(1).task, 1)]));
        drop(other);
        assert_eq!(registry.connections(), BTreeMap::new());
    }

    #[test]
    fn connections_of_one_task_over_two_ports_are_one_count() {
        let (registry, route) = route(&[backend(1)]);
        let second = Route::new(Arc::clone(&registry));
        second.set_backends(&[Backend { address: SocketAddr::from(([127, 0, 0, 1], 9)), ..backend(1) }]);
        let _leases = (route.lease(&[]), second.lease(&[]));
        assert_eq!(registry.connections(), BTreeMap::from([(backend(1).task, 2)]));
    }

    #[test]
    fn a_task_out_of_the_table_keeps_its_count_and_its_last_end_is_announced() {
        let (registry, route) = route(&[backend(1), backend(2)]);
        let changed = registry.changed();
        let lease = route.lease(&[backend(2).task]).unwrap();
        assert_eq!(lease.task(), &backend(1).task);
        route.set_backends(&[backend(2)]);
        registry.set_routed([backend(2)].iter());
        assert_eq!(registry.connections(), BTreeMap::from([(backend(1).task, 1)]));
        assert!(!changed.has_changed().unwrap());
        drop(lease);
        assert!(changed.has_changed().unwrap());
        registry.set_routed([backend(2)].iter());
        assert_eq!(lock(&registry.gauges).len(), 1);
    }

    #[test]
    fn a_task_that_comes_back_is_the_same_count() {
        let (registry, route) = route(&[backend(1)]);
        let lease = route.lease(&[]).unwrap();
        for backends in [&[][..], &[backend(1)][..]] {
            route.set_backends(backends);
            registry.set_routed(backends.iter());
        }
        let _second = route.lease(&[]).unwrap();
        assert_eq!(registry.connections(), BTreeMap::from([(backend(1).task, 2)]));
        drop(lease);
        assert_eq!(registry.connections(), BTreeMap::from([(backend(1).task, 1)]));
    }

    #[tokio::test(start_paused = true)]
    async fn suspicion_passes() {
        let (_, route) = route(&[backend(1), backend(2)]);
        let first = route.lease(&[]).unwrap();
        let bad = first.task().clone();
        first.suspect();
        drop(first);
        for _ in 0..5 {
            assert_ne!(route.lease(&[]).unwrap().task(), &bad);
        }
        tokio::time::advance(SUSPICION).await;
        let tasks = [route.lease(&[]).unwrap().task().clone(), route.lease(&[]).unwrap().task().clone()];
        assert!(tasks.contains(&bad), "{tasks:?}");
    }

    #[test]
    fn only_a_real_change_is_news() {
        let (_, route) = route(&[backend(1)]);
        let mut news = route.news();
        news.mark_unchanged();
        route.set_backends(&[backend(1)]);
        assert!(!news.has_changed().unwrap());
        route.set_backends(&[backend(2)]);
        assert!(news.has_changed().unwrap());
    }
}
