//! The one loop of the agent: whatever happens, it looks at everything it knows, publishes who serves, and begins the
//! steps that [`plan::diff`] names.
//!
//! A new assignment, an event, a list, the end of an operation, a probe and the passing of time all end in the same
//! `turn`. Operations on different tasks go on side by side; a task never has two. The engine's events are hints to look
//! again, with one exception: what has died leaves the routes at once.

mod configs;
mod follow;
mod intake;
mod jobs;
mod lease;
mod obtain;
mod private;
mod pulse;
mod report;
mod routing;
mod sight;
#[cfg(test)]
pub(crate) mod tests;
mod work;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tug_api::Clock;
use tug_api::error::chain;
use tug_model::report::{Following, Phase};
use tug_model::{TaskId, Timestamp};

use crate::health::{Checkups, Prober, Run};
use crate::image::Images;
use crate::lease::LeaseBook;
use crate::ledger::Ledger;
use crate::plan::{self, Memory, Orders, Serving, View};
use crate::proxy::BalancerHandle;
use crate::route::Table;
use crate::runtime::{Runtime, State};

pub(crate) use follow::{Follower, Rejection};
pub(crate) use report::{Inside, Machine, Snapshot};

use jobs::Jobs;
use pulse::Pulse;
use routing::Routing;
use sight::Sight;
use work::{Note, Tools};

/// What the loop is made of.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) prober: Arc<dyn Prober>,
    pub(crate) clock: Clock,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) follower: Arc<Follower>,
    pub(crate) leases: Arc<LeaseBook>,
    pub(crate) balancer: BalancerHandle,
    pub(crate) table: watch::Sender<Arc<Table>>,
    pub(crate) snapshot: watch::Sender<Option<Arc<Snapshot>>>,
    pub(crate) machine: Machine,
    /// Images that other nodes have.
    pub(crate) images: Arc<Images>,
    /// Where config files lie.
    pub(crate) configs: PathBuf,
    /// The folder of which no container may be shown anything, by its real path.
    pub(crate) private: PathBuf,
    /// How many containers are made, started or removed at once.
    pub(crate) concurrency: usize,
    /// Decides where waits fall in their spread.
    pub(crate) seed: u64,
}

/// The loop and what it knows.
#[derive(Debug)]
pub(crate) struct Control {
    clock: Clock,
    seed: u64,
    ledger: Arc<Ledger>,
    follower: Arc<Follower>,
    orders: watch::Receiver<Arc<Orders>>,
    balancer: BalancerHandle,
    balancer_changed: watch::Receiver<u64>,
    table: watch::Sender<Arc<Table>>,
    snapshot: watch::Sender<Option<Arc<Snapshot>>>,
    machine: Machine,
    tools: Arc<Tools>,
    notes: mpsc::UnboundedReceiver<Note>,
    leases_changed: watch::Receiver<()>,
    /// The listener for the engine's events; ends with this.
    ear: JoinSet<()>,
    jobs: Jobs,
    pulse: Pulse,
    sight: Sight,
    checkups: Checkups,
    memory: Memory,
    words: BTreeMap<TaskId, (Timestamp, String)>,
    pulling: BTreeMap<plan::ImageWanted, String>,
    phases: BTreeMap<TaskId, (Phase, Timestamp)>,
    routing: Routing,
    /// An earlier agent has yet to end connections, which are counted nowhere.
    uncounted: bool,
    /// The assignment whose config files are the only ones left.
    tidied: Following,
    /// Until when nothing is published, so that tasks which were healthy all along are not shown as starting.
    opens_at: Option<Instant>,
    is_open: bool,
    wake_at: Option<Timestamp>,
    /// Something runs under a lease.
    guarded: bool,
    report_at: Instant,
    more_at: Instant,
    histories_kept: (BTreeMap<TaskId, plan::History>, Instant),
}

/// Changes within this time share a report.
const COALESCE: Duration = Duration::from_millis(20);
/// The longest time between two reports, and the shortest between two writes of the histories.
const SECOND: Duration = Duration::from_secs(1);
/// While something runs under a lease, it is looked at so often: a machine that slept is slow to notice it otherwise.
const VIGIL: Duration = Duration::from_millis(250);
/// The engine's networks and its condition are looked at this often.
const MORE: Duration = Duration::from_secs(5);

// === impl Control ===

impl Control {
    /// The loop, standing still. The histories are those of the ledger.
    pub(crate) fn new(parts: Parts) -> Result<Self, crate::ledger::LedgerError> {
        let histories = parts.ledger.histories()?;
        let memory = Memory { histories: histories.clone(), ..Memory::default() };
        let (notes_sender, notes) = mpsc::unbounded_channel();
        let tools = Tools {
            runtime: parts.runtime,
            ledger: Arc::clone(&parts.ledger),
            leases: Arc::clone(&parts.leases),
            engine: tokio::sync::Semaphore::new(parts.concurrency.max(1)),
            configs: configs::ConfigFiles::new(parts.configs),
            private: private::Private::new(parts.private),
            images: parts.images,
            notes: notes_sender,
        };
        let now = Instant::now();
        Ok(Self {
            seed: parts.seed,
            orders: parts.follower.watch(),
            follower: parts.follower,
            balancer_changed: parts.balancer.changed(),
            balancer: parts.balancer,
            table: parts.table,
            snapshot: parts.snapshot,
            machine: parts.machine,
            tools: Arc::new(tools),
            notes,
            leases_changed: parts.leases.changes(),
            ear: JoinSet::new(),
            jobs: Jobs::new(parts.concurrency.max(1)),
            pulse: Pulse::new(),
            sight: Sight::default(),
            checkups: Checkups::new(parts.prober, parts.clock),
            memory,
            words: BTreeMap::new(),
            pulling: BTreeMap::new(),
            phases: BTreeMap::new(),
            routing: Routing::default(),
            uncounted: true,
            tidied: Following::default(),
            opens_at: None,
            is_open: false,
            wake_at: None,
            guarded: false,
            report_at: now,
            more_at: now,
            histories_kept: (histories, now),
            ledger: parts.ledger,
            clock: parts.clock,
        })
    }

    /// Goes on until `stop`. No container is stopped by that.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        self.ear.spawn(work::listen(Arc::clone(&self.tools)));
        let mut orders_open = true;
        let mut balancer_open = true;
        while !stop.is_cancelled() {
            let timer = self.timer();
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                changed = self.orders.changed(), if orders_open => orders_open = changed.is_ok(),
                Some(note) = self.notes.recv() => self.note(note),
                done = self.jobs.ended() => self.done(done),
                Ok(()) = self.leases_changed.changed() => {}
                () = self.checkups.changed() => {}
                changed = self.balancer_changed.changed(), if balancer_open => balancer_open = changed.is_ok(),
                () = tokio::time::sleep_until(timer) => {}
            }
            // What has come at the same time is taken in at the same time.
            while let Ok(note) = self.notes.try_recv() {
                self.note(note);
            }
            self.turn();
        }
        self.keep_histories();
    }

    /// One look at everything.
    fn turn(&mut self) {
        let now = self.clock.now();
        let orders = Arc::clone(&self.orders.borrow_and_update());
        // First of all: the machine may have slept.
        self.halt(&orders, now);
        self.look();
        self.probe(&orders);
        self.open();
        self.publish_table(&orders);
        self.wake_at = None;
        if self.sight.has_looked() && !self.pulse.is_down() {
            let view = View { orders: &orders, found: self.sight.found(), memory: &self.memory, now };
            let steps = plan::diff(&view);
            self.wake_at = steps.wake_at;
            let sight = &self.sight;
            self.jobs.begin(&self.tools, &orders, steps.steps, |task| sight.is_settled(task));
        }
        self.report(&orders, now);
        if self.histories_kept.1 <= Instant::now() && self.histories_kept.0 != self.memory.histories {
            self.keep_histories();
        }
    }

    /// Stops what runs without a lease, also while the engine does not answer.
    fn halt(&mut self, orders: &Arc<Orders>, now: Timestamp) {
        self.memory.leases = self.tools.leases.now();
        let view = View { orders, found: self.sight.found(), memory: &self.memory, now };
        let overdue = plan::overdue(&view);
        self.guarded = overdue.next.is_some() || !overdue.steps.is_empty();
        self.jobs.halt(&self.tools, orders, overdue.steps);
    }

    fn timer(&self) -> Instant {
        let mut timer = self.report_at;
        let now = self.clock.now();
        if self.guarded {
            timer = timer.min(Instant::now() + VIGIL);
        }
        let opens_at = self.opens_at.filter(|_| !self.is_open);
        for at in [self.pulse.due(), opens_at].into_iter().flatten() {
            timer = timer.min(at);
        }
        if let Some(wake_at) = self.wake_at {
            timer = timer.min(Instant::now() + wake_at.since(now).duration());
        }
        timer
    }

    /// Looks at the engine if it is time.
    fn look(&mut self) {
        let now = Instant::now();
        if self.pulse.due().is_some_and(|due| due <= now) {
            self.pulse.begin();
            let more = self.more_at <= now || self.pulse.is_in_doubt();
            let look = work::look(Arc::clone(&self.tools), self.sight.ask(), more);
            self.jobs.look(look);
        }
    }

    /// Probes what runs and has a probe.
    fn probe(&mut self, orders: &Orders) {
        let view = View { orders, found: self.sight.found(), memory: &self.memory, now: self.clock.now() };
        let mut runs = Vec::new();
        for task in orders.tasks().keys() {
            let Some(probe) = orders.template(task).and_then(|template| template.probe.clone()) else {
                continue;
            };
            let Some(found) = view.container(task).filter(|found| !self.sight.has_ended(&found.id)) else {
                continue;
            };
            let State::Running { started_at } = found.state else { continue };
            let serving = Serving { task: task.clone(), address: found.address() };
            let Some(address) = plan::address(orders, &serving) else { continue };
            let address = std::net::SocketAddr::new(address, probe.port);
            runs.push(Run { task: task.clone(), container: found.id.clone(), started_at, address, probe });
        }
        self.checkups.follow(runs);
    }

    /// Nothing is published until tasks that were healthy all along have had the time to show it.
    fn open(&mut self) {
        let is_time = |at: Instant| at <= Instant::now() || self.checkups.all_were_probed();
        if !self.is_open && self.opens_at.is_some_and(is_time) {
            self.is_open = true;
            self.report_at = Instant::now();
        }
    }

    fn keep_histories(&mut self) {
        let histories = self.memory.histories.clone();
        if let Err(error) = follow::unhurried(|| self.ledger.keep_histories(&histories)) {
            tracing::warn!(reason = chain(&error), "the restarts are not kept");
        }
        self.histories_kept = (histories, Instant::now() + SECOND);
    }
}
