//! A container engine without containers, for the simulation: it keeps the rules of [`tug_agent::runtime::Runtime`], runs on tokio's clock,
//! and does what an image's name says. Faults are switched on from outside: see [`Faults`].

mod container;
mod runtime;
mod witness;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::broadcast;
use tug_agent::runtime::{ContainerId, EngineEvent, EventKind, FoundNetwork};
use tug_api::Clock;
use tug_model::NodeId;

pub use container::{Behaviour, Container, Process};
pub use witness::Run;

/// One node's engine. Cheap to clone; all clones are the same engine.
#[derive(Debug, Clone)]
pub struct Engine {
    node: NodeId,
    clock: Clock,
    shared: Arc<Mutex<Shared>>,
    events: broadcast::Sender<EngineEvent>,
}

/// What can go wrong with an engine.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Faults {
    /// Every call fails at once.
    pub down: bool,
    /// Of a hundred calls that change something, so many fail without effect.
    pub failing: u8,
    /// Of a hundred calls that change something, so many take effect and report a failure all the same.
    pub lost_replies: u8,
    /// Of a hundred events, so many are never seen.
    pub lost_events: u8,
    /// Every call takes up to this much longer.
    pub slowness: Duration,
}

#[derive(Debug)]
struct Shared {
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
}

// === impl Engine ===

impl Engine {
    /// The engine of `node`. The same seed gives the same luck.
    pub fn new(node: NodeId, clock: Clock, seed: u64) -> Self {
        let shared = Shared {
            containers: BTreeMap::new(),
            networks: BTreeMap::new(),
            volumes: BTreeSet::new(),
            images: BTreeSet::new(),
            faults: Faults::default(),
            dice: fastrand::Rng::with_seed(seed),
            made: 0,
            trespasses: 0,
            runs: Vec::new(),
        };
        Self { node, clock, shared: Arc::new(Mutex::new(shared)), events: broadcast::channel(4096).0 }
    }

    /// From now on `faults` happen.
    pub fn set_faults(&self, faults: Faults) {
        self.lock().faults = faults;
    }

    /// Every container, ours or not.
    pub fn containers(&self) -> Vec<Container> {
        self.lock().containers.values().cloned().collect()
    }

    /// The names of the volumes.
    pub fn volumes(&self) -> BTreeSet<String> {
        self.lock().volumes.clone()
    }

    /// How often anything was asked of a container that is not ours.
    pub fn trespasses(&self) -> u64 {
        self.lock().trespasses
    }

    /// Whether the container with `address` serves at `now`.
    pub fn serves(&self, address: std::net::IpAddr, now: tug_model::Timestamp) -> bool {
        let shared = self.lock();
        let serving = shared.containers.values().find(|container| container.address() == address);
        serving.is_some_and(|container| match container.process {
            Process::Running { since } => container.behaviour().serves_after(now.since(since).duration()),
            Process::New | Process::Ended { .. } => false,
        })
    }

    /// Somebody else starts a container here.
    pub fn add_foreign(&self, name: &str) {
        let mut shared = self.lock();
        let id = shared.next_id();
        let container = Container::foreign(id.clone(), name, self.clock.now());
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
        let now = self.clock.now();
        let ended = self.lock().containers.get_mut(id).is_some_and(|container| container.end(code, now));
        self.witness(id);
        if ended {
            self.emit(id, EventKind::Died);
        }
    }

    fn emit(&self, id: &ContainerId, kind: EventKind) {
        let lost = {
            let mut shared = self.lock();
            let often = shared.faults.lost_events;
            shared.happens(often)
        };
        if !lost {
            // Without a subscriber nobody misses it.
            let _ = self.events.send(EngineEvent { container: id.clone(), kind });
        }
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

    /// Rolls the dice: true `percent` times of a hundred.
    fn happens(&mut self, percent: u8) -> bool {
        percent > 0 && self.dice.u8(0..100) < percent
    }
}
