//! Whether tasks serve: probes made by the agent, each run of a container counted on its own.
//!
//! [`Checkups`] keeps one probe under way for every running task that has one. What the outcomes mean is decided by
//! the pure [`Checkup`]. The real [`Prober`] is [`Network`]; the simulation has its own.

mod checkup;
mod network;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::task::{AbortHandle, JoinSet};
use tug_api::Clock;
use tug_api::error::chain;
use tug_model::report::Health;
use tug_model::spec::service::{Probe, ProbeCheck};
use tug_model::{TaskId, Timestamp};

use crate::runtime::ContainerId;

pub use checkup::Checkup;
pub use network::Network;

/// Asks containers whether they serve.
pub trait Prober: fmt::Debug + Send + Sync + 'static {
    /// Makes one probe. The caller sees to it that it does not take longer than it may.
    fn probe<'a>(
        &'a self,
        address: SocketAddr,
        check: &'a ProbeCheck,
    ) -> BoxFuture<'a, Result<(), ProbeError>>;
}

/// Why a probe failed.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// No connection.
    #[error("connect to {address}")]
    Connect {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// No answer that is HTTP.
    #[error("ask {address} for {path}")]
    Http {
        /// Where.
        address: SocketAddr,
        /// For what.
        path: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An answer that says no.
    #[error("{path} answered with status {status}")]
    Status {
        /// What was asked for.
        path: String,
        /// 400 or more.
        status: u16,
    },
    /// No answer in time.
    #[error("no answer from {address} within {after}")]
    Timeout {
        /// Where.
        address: SocketAddr,
        /// The time it had.
        after: tug_model::Millis,
    },
}

/// One run of a container, and how to probe it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Whose.
    pub task: TaskId,
    /// Which container.
    pub container: ContainerId,
    /// When the engine started it: another time is another run.
    pub started_at: Timestamp,
    /// Where it listens.
    pub address: SocketAddr,
    /// What is asked.
    pub probe: Probe,
}

/// All probes of a node.
#[derive(Debug)]
pub struct Checkups {
    prober: Arc<dyn Prober>,
    clock: Clock,
    patients: BTreeMap<TaskId, Patient>,
    shots: JoinSet<Shot>,
    newest: u64,
}

#[derive(Debug)]
struct Patient {
    run: Run,
    checkup: Checkup,
    /// Names the probe that is under way; the outcome of another one is of an earlier run.
    number: u64,
    under_way: AbortHandle,
}

#[derive(Debug)]
struct Shot {
    task: TaskId,
    number: u64,
    outcome: Result<(), String>,
}

// === impl Checkups ===

impl Checkups {
    /// No probes yet.
    pub fn new(prober: Arc<dyn Prober>, clock: Clock) -> Self {
        Self { prober, clock, patients: BTreeMap::new(), shots: JoinSet::new(), newest: 0 }
    }

    /// Probes exactly these runs from now on. One that was probed already goes on as it was.
    pub fn follow(&mut self, runs: Vec<Run>) {
        let mut earlier = std::mem::take(&mut self.patients);
        for run in runs {
            let known = earlier.remove(&run.task).filter(|patient| patient.run == run);
            let patient = known.unwrap_or_else(|| self.begin(run));
            self.patients.insert(patient.run.task.clone(), patient);
        }
        for gone in earlier.values() {
            gone.under_way.abort();
        }
    }

    /// What the probes say about a task; `None` when it is not probed.
    pub fn health(&self, task: &TaskId) -> Option<&Health> {
        self.patients.get(task).map(|patient| patient.checkup.health())
    }

    /// Whether every run has been probed at least once.
    pub fn all_were_probed(&self) -> bool {
        self.patients.values().all(|patient| patient.checkup.was_probed())
    }

    /// Completes when the health of a task has changed; never while nothing is probed. Dropping it loses nothing.
    pub async fn changed(&mut self) {
        loop {
            match self.shots.join_next().await {
                None => std::future::pending().await,
                Some(Ok(shot)) => {
                    if self.take(shot) {
                        return;
                    }
                }
                // Aborted: its run is over.
                Some(Err(_)) => {}
            }
        }
    }

    /// Takes in an outcome and sends the next probe; returns whether anything changed.
    fn take(&mut self, shot: Shot) -> bool {
        let now = self.clock.now();
        let Some(patient) = self.patients.get_mut(&shot.task) else { return false };
        if patient.number != shot.number {
            return false;
        }
        let before = (patient.checkup.health().clone(), patient.checkup.was_probed());
        let wait = patient.checkup.take(&patient.run.probe, shot.outcome, now);
        let changed = before != (patient.checkup.health().clone(), true);
        self.newest += 1;
        patient.number = self.newest;
        let next = fire(Arc::clone(&self.prober), patient.run.clone(), (self.newest, wait));
        patient.under_way = self.shots.spawn(next);
        changed
    }

    fn begin(&mut self, run: Run) -> Patient {
        self.newest += 1;
        let shot = fire(Arc::clone(&self.prober), run.clone(), (self.newest, tug_model::Millis(0)));
        let under_way = self.shots.spawn(shot);
        Patient { checkup: Checkup::new(self.clock.now()), run, number: self.newest, under_way }
    }
}

async fn fire(prober: Arc<dyn Prober>, run: Run, (number, wait): (u64, tug_model::Millis)) -> Shot {
    tokio::time::sleep(wait.duration()).await;
    let Run { task, address, probe, .. } = run;
    let asked = tokio::time::timeout(probe.timeout.duration(), prober.probe(address, &probe.check));
    let outcome = asked.await.unwrap_or(Err(ProbeError::Timeout { address, after: probe.timeout }));
    Shot { task, number, outcome: outcome.map_err(|error| chain(&error)) }
}
