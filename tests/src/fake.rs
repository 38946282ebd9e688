//! A container engine without containers, for the simulation: it keeps the rules of [`tug_agent::runtime::Runtime`], runs on tokio's clock,
//! and does what an image's name says. Faults are switched on from outside: see [`Faults`].

mod container;
mod runtime;
mod witness;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{broadcast, oneshot};
use tokio::time::Instant;
use tug_agent::runtime::{ContainerId, EngineEvent, EventKind, FoundNetwork, Operation};
use tug_api::Clock;
use tug_model::{NodeId, TaskId, Timestamp};

pub use container::{Behaviour, Container, Process};
pub use witness::Run;

/// One node's engine. Cheap to clone; all clones are the same engine.
#[derive(Debug, Clone)]
pub struct Engine {
    node: NodeId,
    shared: Arc<Mutex<Shared>>,
    events: broadcast::Sender<EngineEvent>,
}

/// What can go wrong with an engine.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Faults {
    /// Every call fails at once.
    pub down: bool,
    /// Every call fails when its time is up.
    pub hung: bool,
    /// Of a hundred calls that change something, so many fail without effect.
    pub failing: u8,
    /// Of a hundred calls that change something, so many take effect and report a failure all the same.
    pub lost_replies: u8,
    /// Of a hundred events, so many are never seen.
    pub lost_events: u8,
    /// Of a hundred events, so many are seen twice.
    pub doubled_events: u8,
    /// Of a hundred removals, so many are refused because the container is being removed, and end later.
    pub slow_removals: u8,
    /// Every call takes up to this much longer.
    pub slowness: Duration,
}

#[derive(Debug)]
struct Shared {
    clock: Clock,
    containers: BTreeMap<ContainerId, Container>,
    networks: BTreeMap<String, FoundNetwork>,
    volumes: BTreeSet<String>,
    images: BTreeSet<String>,
    faults: Faults,
    dice: fastrand::Rng,
    made: u64,
    /// How often anything was asked of a container that is not ours.
    trespasses: u64,
    /// Every run of a process, in the order of their starts.
    runs: Vec<Run>,
    /// Tasks whose running containers were ended on request, since this was last asked for.
    ended: Vec<TaskId>,
    /// The next operation of this kind takes effect and never answers; who set the trap is told.
    trap: Option<(Operation, oneshot::Sender<()>)>,
}

// === impl Engine ===

impl Engine {
    /// The engine of `node`. The same seed gives the same luck.
    pub fn new(node: NodeId, clock: Clock, seed: u64) -> Self {
        let shared = Shared {
            clock,
            containers: BTreeMap::new(),
            networks: BTreeMap::new(),
            volumes: BTreeSet::new(),
            images: BTreeSet::new(),
            faults: Faults::default(),
            dice: fastrand::Rng::with_seed(seed),
            made: 0,
            trespasses: 0,
            runs: Vec::new(),
            ended: Vec::new(),
            trap: None,
        };
        Self { node, shared: Arc::new(Mutex::new(shared)), events: broadcast::channel(4096).0 }
    }

    /// From now on `faults` happen.
    pub fn set_faults(&self, faults: Faults) {
        self.lock().faults = faults;
    }

    /// From now on the machine's time of day is that of `clock`.
    pub fn set_clock(&self, clock: Clock) {
        self.lock().clock = clock;
    }

    /// The next `operation` takes effect and never answers. What this gives is told when that has happened.
    pub fn trap(&self, operation: Operation) -> oneshot::Receiver<()> {
        let (sprung, told) = oneshot::channel();
        self.lock().trap = Some((operation, sprung));
        told
    }

    /// No operation is trapped any more.
    pub fn disarm(&self) {
        self.lock().trap = None;
    }

    /// The tasks whose running containers were ended on request since the last time that this was asked.
    pub fn take_ended(&self) -> Vec<TaskId> {
        std::mem::take(&mut self.lock().ended)
    }

    /// Looks at every container, ours or not.
    pub fn look<T>(&self, each: impl FnMut(&Container) -> Option<T>) -> Vec<T> {
        let mut shared = self.lock();
        shared.sweep();
        shared.containers.values().filter_map(each).collect()
    }

    /// Every container, ours or not.
    pub fn containers(&self) -> Vec<Container> {
        self.look(|container| Some(container.clone()))
    }

    /// The names of the volumes.
    pub fn volumes(&self) -> BTreeSet<String> {
        self.lock().volumes.clone()
    }

    /// How often anything was asked of a container that is not ours.
    pub fn trespasses(&self) -> u64 {
        self.lock().trespasses
    }

    /// Whether the container with `address` serves.
    pub fn serves(&self, address: std::net::IpAddr) -> bool {
        let shared = self.lock();
        let serving = shared.containers.values().find(|container| container.address() == address);
        serving.is_some_and(Container::serves)
    }

    /// Somebody else starts a container here.
    pub fn add_foreign(&self, name: &str) {
        let mut shared = self.lock();
        let id = shared.next_id();
        let container = Container::foreign(id.clone(), name, shared.clock.now());
        shared.containers.insert(id, container);
    }

    /// Somebody kills a container of ours behind our back: the `nth` of those that run, if there is one.
    pub fn kill_one(&self, nth: usize) -> bool {
        let Some(id) = self.nth_running(nth) else { return false };
        self.end(&id, 137);
        true
    }

    /// Somebody removes a container of ours behind our back.
    pub fn remove_one(&self, nth: usize) -> bool {
        let Some(id) = self.nth_running(nth) else { return false };
        self.lock().containers.remove(&id);
        self.witness(&id);
        self.emit(&id, EventKind::Removed);
        true
    }

    /// The machine is switched off and on: every process of ours ends, what was made stays.
    pub fn reboot(&self) {
        let running: Vec<ContainerId> = self
            .lock()
            .containers
            .values()
            .filter(|c| c.is_running() && c.identity.is_some())
            .map(|c| c.id.clone())
            .collect();
        for id in running {
            self.end(&id, 255);
        }
    }

    fn nth_running(&self, nth: usize) -> Option<ContainerId> {
        let shared = self.lock();
        let running: Vec<&Container> =
            shared.containers.values().filter(|c| c.is_running() && c.identity.is_some()).collect();
        running.get(nth % running.len().max(1)).map(|container| container.id.clone())
    }

    /// The process of `id` ends, if it runs.
    fn end(&self, id: &ContainerId, code: i64) {
        let ended = {
            let mut shared = self.lock();
            let now = shared.clock.now();
            shared.containers.get_mut(id).is_some_and(|container| container.end(code, now))
        };
        self.witness(id);
        if ended {
            self.emit(id, EventKind::Died);
        }
    }

    fn emit(&self, id: &ContainerId, kind: EventKind) {
        let times = {
            let mut shared = self.lock();
            let Faults { lost_events, doubled_events, .. } = shared.faults;
            if shared.happens(lost_events) { 0 } else { 1 + u8::from(shared.happens(doubled_events)) }
        };
        for _ in 0..times {
            // Without a subscriber nobody misses it.
            let _ = self.events.send(EngineEvent { container: id.clone(), kind });
        }
    }

    fn clock(&self) -> Clock {
        self.lock().clock
    }

    fn now(&self) -> Timestamp {
        self.clock().now()
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Shared ===

impl Shared {
    fn next_id(&mut self) -> ContainerId {
        self.made += 1;
        ContainerId::new(&format!("{:064x}", self.made))
    }

    /// The container is gone a while after somebody asked for its removal.
    fn sweep(&mut self) {
        let now = Instant::now();
        self.containers.retain(|_, container| container.gone_at.is_none_or(|at| at > now));
    }

    /// Notes that `task` was ended on request while it ran.
    fn note_end(&mut self, id: &ContainerId) {
        let container = self.containers.get(id).filter(|container| container.confirmed);
        let identity = container.and_then(|container| container.identity.as_ref());
        self.ended.extend(identity.map(|identity| identity.task.clone()));
    }

    /// Whether `operation` is trapped: then who set the trap is told.
    fn is_trapped(&mut self, operation: Operation) -> bool {
        let Some((_, told)) = self.trap.take_if(|(wanted, _)| *wanted == operation) else { return false };
        // Who does not wait for it any more need not be told.
        let _ = told.send(());
        true
    }

    /// Rolls the dice: true `percent` times of a hundred.
    fn happens(&mut self, percent: u8) -> bool {
        percent > 0 && self.dice.u8(0..100) < percent
    }
}
