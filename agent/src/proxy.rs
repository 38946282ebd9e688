//! The balancer: published TCP ports, each connection given to one of the healthy tasks behind it.
//!
//! It follows the one [`Table`] that the agent's control loop publishes, and knows nothing of assignments, containers or
//! probes. Bytes are moved as they are: what is spoken inside is looked at only to see whether a request that got no
//! answer may be asked again (`connection` has the rule).
//!
//! - `ports` opens and closes the listening sockets; a port that cannot be opened is tried again every second.
//! - `registry` counts the connections of each task, those to tasks out of the table included: a task that the table
//!   no longer names keeps its connections until they end. `backends` gives connections to them.
//! - Tasks of other nodes are reached through the agents there ([`crate::peer`]); `inbound` is what those agents do then.
//! - `keeper` gives a duplicate of each listening socket to the holder ([`crate::holder`]), so that the ports
//!   outlive the agent.

mod backends;
mod connection;
mod inbound;
mod keeper;
mod listen;
mod owner;
mod pick;
mod pipe;
mod ports;
mod registry;
mod relay;
mod request;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::{Resource, getrlimit};
use tokio::sync::{Semaphore, watch};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tug_model::TaskId;
use tug_model::assignment::Hints;
use tug_model::report::ClosedPort;

use self::connection::Ending;
pub use self::connection::{Leave, Timing};
use self::keeper::Keeper;
use self::listen::Door;
use self::ports::Ports;
use self::registry::Registry;
use crate::holder::{self, HolderConfig};
use crate::peer::{Knock, Peers};
use crate::route::Table;

/// How often a port that could not be opened is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// How long the sockets of an earlier agent wait for a first table that asks for them.
const FIRST_TABLE: Duration = Duration::from_secs(30);

/// Files that the rest of the agent may need.
const OTHER_FILES: u64 = 256;

/// What the balancer may be told before it runs. The defaults are meant for everybody.
#[derive(Debug, Clone)]
pub struct Config {
    /// Keeps the listening sockets open while no agent runs; without one they close with the agent.
    pub holder: Option<HolderConfig>,
    /// What becomes of the listening sockets when the balancer is stopped.
    pub at_stop: StopKind,
    /// How many connections may be open at once. Where the system allows fewer files, fewer are.
    pub connections: usize,
    /// How long things may take.
    pub timing: Timing,
}

/// What becomes of the listening sockets when the balancer is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StopKind {
    /// The holder keeps them for the next agent.
    #[default]
    HandOver,
    /// They are closed, and the holder ends: the agent goes for good.
    Release,
}

/// Listens on the published ports and moves bytes.
#[derive(Debug)]
pub struct Balancer {
    config: Config,
    table: watch::Receiver<Arc<Table>>,
    peers: Option<Peers>,
    registry: Arc<Registry>,
    is_for_good: Arc<AtomicBool>,
    relieved: CancellationToken,
}

/// What others may ask of a balancer.
#[derive(Debug, Clone)]
pub struct BalancerHandle {
    registry: Arc<Registry>,
    is_for_good: Arc<AtomicBool>,
    relieved: CancellationToken,
}

// === impl Config ===

impl Default for Config {
    fn default() -> Self {
        Self { holder: None, at_stop: StopKind::HandOver, connections: 16 * 1024, timing: Timing::default() }
    }
}

// === impl Balancer ===

impl Balancer {
    /// A balancer that follows `table`. Without `peers`, tasks of other nodes are given no connections.
    pub fn new(
        config: Config,
        table: watch::Receiver<Arc<Table>>,
        peers: Option<Peers>,
    ) -> (Self, BalancerHandle) {
        let registry = Arc::new(Registry::new(peers.as_ref().map(|peers| Arc::clone(&peers.pool))));
        let is_for_good = Arc::new(AtomicBool::new(config.at_stop == StopKind::Release));
        let relieved = CancellationToken::new();
        let handle = BalancerHandle {
            registry: Arc::clone(&registry),
            is_for_good: Arc::clone(&is_for_good),
            relieved: relieved.clone(),
        };
        (Self { config, table, peers, registry, is_for_good, relieved }, handle)
    }

    /// Balances until `stop`, then accepts no more and lets the open connections end: see [`Timing::hurried`] and
    /// [`Timing::relieved`]. With [`StopKind::HandOver`] the next agent may accept from the moment of the stop.
    pub async fn run(mut self, stop: CancellationToken) {
        holder::raise_file_limit();
        let door = Arc::new(Door {
            permits: Arc::new(Semaphore::new(connections_allowed(self.config.connections))),
            connections: TaskTracker::new(),
            timing: Arc::new(self.config.timing.clone()),
            ending: Ending { stop: stop.clone(), relieved: self.relieved.clone() },
        });
        let keeper = Keeper::new(self.config.holder.take());
        let pool = self.peers.as_ref().map(|peers| Arc::clone(&peers.pool));
        if let Some(peers) = self.peers.take() {
            self.listen(peers, &door, &stop);
        }
        let mut ports = Ports::new(Arc::clone(&self.registry), Arc::clone(&door), keeper);
        self.follow(&mut ports, &stop).await;
        ports.close(!self.is_for_good.load(Ordering::Relaxed)).await;
        door.connections.close();
        door.connections.wait().await;
        if let Some(pool) = pool {
            pool.close().await;
        }
    }

    /// Takes connections that other agents pass on, until `stop`.
    fn listen(&self, peers: Peers, door: &Arc<Door>, stop: &CancellationToken) {
        let (registry, shared) = (Arc::clone(&self.registry), Arc::clone(door));
        let answer = move |knock: Knock| {
            let Ok(permit) = Arc::clone(&shared.permits).try_acquire_owned() else {
                return knock.refuse();
            };
            let (registry, timing) = (Arc::clone(&registry), Arc::clone(&shared.timing));
            let serving = inbound::serve(knock, registry, timing, shared.ending.clone());
            shared.connections.spawn(async move {
                serving.await;
                drop(permit);
            });
        };
        let registry = Arc::clone(&self.registry);
        let closed = move |closed: Option<(u16, std::io::Error)>| {
            let closed = closed.map(|(port, error)| ClosedPort {
                port,
                reason: format!(
                    "port {port} cannot be opened for the agents of other nodes ({error}): free it, or choose another \
                     with --peer-listen"
                ),
            });
            registry.set_closed_to_peers(closed);
        };
        let lines = door.connections.clone();
        door.connections.spawn(peers.listener.run(answer, closed, lines, stop.clone()));
    }

    /// Follows the table until `stop`.
    async fn follow(&mut self, ports: &mut Ports, stop: &CancellationToken) {
        ports.inherit().await;
        let mut is_followed = true;
        // Before the control loop has said anything there is no reason to close what an earlier agent had.
        if self.table.borrow().number == 0 {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                changed = self.table.changed() => is_followed = changed.is_ok(),
                () = sleep(FIRST_TABLE) => {}
            }
        }
        loop {
            let table = Arc::clone(&self.table.borrow_and_update());
            ports.follow(&table).await;
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                // Without a control loop the last table holds.
                changed = self.table.changed(), if is_followed => is_followed = changed.is_ok(),
                () = ports.lost_holder() => {}
                () = sleep(RETRY), if ports.is_unfinished() => {}
            }
        }
    }
}

impl Drop for Balancer {
    /// Whether it has ended or was never run: who gives no connection to anybody follows every table.
    fn drop(&mut self) {
        self.registry.set_applied(u64::MAX);
    }
}

/// How many connections may be open at once: each needs two files.
fn connections_allowed(wanted: usize) -> usize {
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let allowed = usize::try_from(files.saturating_sub(OTHER_FILES) / 2).unwrap_or(usize::MAX);
    wanted.min(allowed.max(64)).min(Semaphore::MAX_PERMITS)
}

// === impl BalancerHandle ===

impl BalancerHandle {
    /// The open connections of each task that has any, also of those that the table no longer names.
    pub fn connections(&self) -> BTreeMap<TaskId, u32> {
        self.registry.connections()
    }

    /// The number of the table by which it routes: it gives no new connection to a task that this or a later table does
    /// not name, and those that it gave before are among [`BalancerHandle::connections`]. Of a balancer that has ended
    /// or is never run, a number that no table reaches.
    pub fn applied(&self) -> u64 {
        self.registry.applied()
    }

    /// The published ports that could not be opened, sorted, with the reasons.
    pub fn closed_ports(&self) -> Vec<ClosedPort> {
        self.registry.closed_ports()
    }

    /// Moves when it routes by another table, when the closed ports change, and when a task that the table no longer names has lost its last connection.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.registry.changed()
    }

    /// Whom the orchestrator knows not to serve, whole: they are tried last.
    pub fn set_hints(&self, hints: Hints) {
        self.registry.set_hints(hints);
    }

    /// Another balancer has taken over: once this one is stopped, its connections may take their time.
    pub fn relieve(&self) {
        self.relieved.cancel();
    }

    /// From now on a stop means [`StopKind::Release`].
    pub fn release_at_stop(&self) {
        self.is_for_good.store(true, Ordering::Relaxed);
    }
}
