//! The backends of each route, and who of them is given the next connection.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tug_model::TaskId;

use super::pick::{Candidate, pick};
use super::pipe::Pipe;
use super::registry::{Gauge, Reach, Registry, lock};
use crate::peer::TunnelError;
use crate::route::{Backend, Location};

/// A timer that is later than this was held up.
const LATE: Duration = Duration::from_millis(20);

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
    way: Way,
    gauge: Arc<Gauge>,
    /// How many connections of this route it was given.
    given: Arc<AtomicU64>,
}

/// How a task is reached.
#[derive(Debug, Clone)]
enum Way {
    /// On this node.
    Direct(SocketAddr),
    /// Through the agent of its node: a port inside its container.
    Through(Arc<Reach>, u16),
}

/// A connection to a backend, counted as open until this is dropped.
#[derive(Debug)]
pub(super) struct Lease {
    target: Target,
    registry: Arc<Registry>,
}

// === impl Route ===

impl Route {
    pub(super) fn new(registry: Arc<Registry>) -> Self {
        Self { registry, targets: watch::channel(Arc::default()).0, choice: Mutex::default() }
    }

    /// From now on connections go to `backends`.
    pub(super) fn set_backends(&self, backends: &[Backend]) {
        let backends: Vec<(&Backend, Way)> =
            backends.iter().filter_map(|backend| Some((backend, self.way(&backend.location)?))).collect();
        self.targets.send_if_modified(|targets| {
            let is_same = |(target, (backend, way)): (&Target, &(&Backend, Way))| target.is(backend, way);
            if targets.len() == backends.len() && targets.iter().zip(&backends).all(is_same) {
                return false;
            }
            // A new backend begins as if it had always had its share.
            let most = targets.iter().map(|target| target.given.load(Ordering::Relaxed)).max().unwrap_or(0);
            let target = |(backend, way): &(&Backend, Way)| {
                let known = targets.iter().find(|target| target.is(backend, way)).cloned();
                known.unwrap_or_else(|| Target {
                    way: way.clone(),
                    gauge: self.registry.gauge(&backend.task),
                    given: Arc::new(AtomicU64::new(most)),
                })
            };
            *targets = backends.iter().map(target).collect();
            true
        });
    }

    fn way(&self, location: &Location) -> Option<Way> {
        match location {
            Location::Here(address) => Some(Way::Direct(*address)),
            Location::There { node, port } => Some(Way::Through(self.registry.reach(node)?, *port)),
        }
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
        let now = self.registry.now();
        let _choice = lock(&self.choice);
        let targets = self.targets.borrow();
        let picked = pick(targets.iter().map(|target| target.candidate(tried, now)))?;
        let target = targets.get(picked.index)?.clone();
        target.given.store(picked.given, Ordering::Relaxed);
        Some(Lease::new(target, &self.registry))
    }
}

// === impl Target ===

impl Target {
    /// A task of this node.
    pub(super) fn here(address: SocketAddr, gauge: Arc<Gauge>) -> Self {
        Self { way: Way::Direct(address), gauge, given: Arc::default() }
    }

    fn is(&self, backend: &Backend, way: &Way) -> bool {
        let is_same_way = match (&self.way, way) {
            (Way::Direct(ours), Way::Direct(theirs)) => ours == theirs,
            (Way::Through(ours, our_port), Way::Through(theirs, their_port)) => {
                Arc::ptr_eq(ours, theirs) && our_port == their_port
            }
            (Way::Direct(_), Way::Through(..)) | (Way::Through(..), Way::Direct(_)) => false,
        };
        is_same_way && self.gauge.task == backend.task
    }

    fn candidate(&self, tried: &[TaskId], now: u64) -> Candidate {
        let (remote, is_away, is_doubted) = match &self.way {
            Way::Direct(_) => (false, false, false),
            Way::Through(reach, _) => (true, reach.is_away(), reach.is_doubted(now)),
        };
        Candidate {
            tried: tried.contains(&self.gauge.task),
            // Of the tasks of this node more is known here.
            hinted: remote && (is_away || self.gauge.is_hinted()),
            suspected: is_doubted || self.gauge.is_suspected(now),
            connections: self.gauge.open.load(Ordering::Relaxed),
            given: self.given.load(Ordering::Relaxed),
            remote,
        }
    }
}

// === impl Lease ===

impl Lease {
    /// One more connection to `target`.
    pub(super) fn new(target: Target, registry: &Arc<Registry>) -> Self {
        target.gauge.open.fetch_add(1, Ordering::Relaxed);
        Self { target, registry: Arc::clone(registry) }
    }

    pub(super) fn task(&self) -> &TaskId {
        &self.target.gauge.task
    }

    /// Lets other connections avoid this backend for a moment.
    pub(super) fn suspect(&self) {
        self.target.gauge.suspect(self.registry.soon());
    }

    /// Connects, within `limit`. Notes a failure where it says something of the backend, or of its whole node.
    pub(super) async fn connect(&self, limit: Duration) -> Option<Pipe> {
        let began = Instant::now();
        // A time-out that itself came late says that this machine is busy, and nothing of the backend.
        let is_late = || began.elapsed() >= limit + LATE;
        let (reason, is_ours) = match &self.target.way {
            Way::Direct(address) => match timeout(limit, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Some(Pipe::Socket(stream)),
                Ok(Err(error)) => (error.to_string(), is_our_own(&error)),
                Err(_) => (format!("no answer within {limit:?}"), is_late()),
            },
            Way::Through(reach, port) => {
                let heard = reach.neighbour.heard();
                match timeout(limit, reach.neighbour.tunnel(self.task(), *port)).await {
                    Ok(Ok(tunnel)) => {
                        self.registry.refute(&self.target.gauge, reach);
                        return Some(Pipe::Tunnel(tunnel));
                    }
                    Ok(Err(error)) => {
                        if matches!(error, TunnelError::Unreachable { .. }) {
                            reach.doubt(self.registry.soon());
                        }
                        (tug_api::error::chain(&error), false)
                    }
                    Err(_) => {
                        let is_late = is_late();
                        if !is_late && reach.neighbour.heard() == heard {
                            reach.doubt(self.registry.soon());
                        }
                        (format!("no answer within {limit:?}"), is_late)
                    }
                }
            }
        };
        tracing::debug!(task = %self.task(), reason, "backend not reached");
        if !is_ours {
            self.suspect();
        }
        None
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

/// Whether it was this process that could not connect, whatever the backend.
fn is_our_own(error: &std::io::Error) -> bool {
    use rustix::io::Errno;
    let own = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::ADDRNOTAVAIL];
    own.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn backend(number: u16) -> Backend {
        Backend {
            task: TaskId::parse(&format!("shop.web.{number}.7")).unwrap(),
            location: Location::Here(SocketAddr::from(([127, 0, 0, 1], number))),
        }
    }

    fn route(backends: &[Backend]) -> (Arc<Registry>, Route) {
        let registry = Arc::new(Registry::new(None));
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
        second.set_backends(&[Backend { location: backend(9).location, ..backend(1) }]);
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
        assert_eq!(registry.known_tasks(), 1);
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
        tokio::time::advance(Duration::from_secs(1)).await;
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
