//! An engine in memory, on tokio's clock: containers that run, crash, hang on to life, and die by somebody's hand.

mod runtime;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{StreamExt, stream};
use tokio::sync::mpsc;
use tug_api::Clock;
use tug_model::quantity::{Bytes, Millis, NanoCpus};
use tug_model::spec::resource::{Network, Volume};
use tug_model::spec::service::ProbeCheck;
use tug_model::{Digest, NetworkName, ProjectName, VolumeName};

use crate::health::{ProbeError, Prober};
use crate::image::fake::Store;
use crate::runtime::{
    Answer, Cause, ContainerId, ContainerRequest, EngineEvent, EngineHealth, EngineInfo, EventKind, ExecId,
    ExecRequest, ExecSession, Feed, Found, FoundNetwork, ImageStore, LogLine, LogQuery, Operation, Output,
    Progress, Runtime, RuntimeError, State, Stats, Stream, TerminalSize, deadline,
};

/// The engine. Clones are the same one.
#[derive(Debug, Clone)]
pub(crate) struct Engine(Arc<Mutex<Inner>>, Arc<Store>);

/// How the containers of an image behave.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Behaviour {
    /// Ends by itself, so long after its start, with this code.
    pub(super) crashes: Option<(Duration, i64)>,
    /// Does not react to its stop signal.
    pub(super) is_stubborn: bool,
    /// Listens, for probes, only so long after its start.
    pub(super) warm_up: Duration,
}

#[derive(Debug)]
struct Inner {
    clock: Clock,
    containers: BTreeMap<ContainerId, Container>,
    networks: Vec<FoundNetwork>,
    images: BTreeMap<String, Behaviour>,
    listeners: Vec<mpsc::UnboundedSender<EngineEvent>>,
    log: Vec<(Duration, String)>,
    began: tokio::time::Instant,
    is_down: bool,
    list_takes: Duration,
    made: u32,
    working: usize,
    most_working: usize,
    cuts: u32,
    logs_opened: u32,
}

#[derive(Debug)]
struct Container {
    found: Found,
    /// What the list still shows of it, up to then.
    shown: Option<(Found, tokio::time::Instant)>,
    behaviour: Behaviour,
    runs: u64,
}

/// The engine tells of a death so long before its list does.
const LAG: Duration = Duration::from_millis(100);
/// What starting a container takes.
const START: Duration = Duration::from_millis(300);

impl Engine {
    pub(crate) fn new(clock: Clock) -> Self {
        Self(
            Arc::new(Mutex::new(Inner {
                clock,
                containers: BTreeMap::new(),
                networks: Vec::new(),
                images: BTreeMap::new(),
                listeners: Vec::new(),
                log: Vec::new(),
                began: tokio::time::Instant::now(),
                is_down: false,
                list_takes: Duration::from_millis(5),
                made: 0,
                working: 0,
                most_working: 0,
                cuts: 0,
                logs_opened: 0,
            })),
            Arc::default(),
        )
    }

    /// The images that can be shared.
    pub(crate) fn store(&self) -> &Store {
        &self.1
    }

    pub(super) fn has_image(&self, reference: &str, behaviour: Behaviour) {
        self.lock().images.insert(reference.to_owned(), behaviour);
    }

    pub(super) fn is_down(&self, is_down: bool) {
        let mut inner = self.lock();
        inner.is_down = is_down;
        if is_down {
            inner.listeners.clear();
        }
    }

    /// A list takes so long from now on.
    pub(super) fn lists_within(&self, time: Duration) {
        self.lock().list_takes = time;
    }

    /// Puts a container there, as if it had been made before.
    pub(super) fn put(&self, found: Found) {
        let container = Container { found, shown: None, behaviour: Behaviour::default(), runs: 0 };
        self.lock().containers.insert(container.found.id.clone(), container);
    }

    pub(super) fn containers(&self) -> Vec<Found> {
        self.lock().containers.values().map(|container| container.found.clone()).collect()
    }

    fn listed(&self) -> Vec<Found> {
        let now = tokio::time::Instant::now();
        let inner = self.lock();
        let shown = inner.containers.values().map(|container| match &container.shown {
            Some((found, until)) if *until > now => found.clone(),
            Some(_) | None => container.found.clone(),
        });
        shown.collect()
    }

    pub(super) fn networks_there(&self) -> usize {
        self.lock().networks.len()
    }

    /// The operations that changed something, with their times.
    pub(super) fn log(&self) -> Vec<(Duration, String)> {
        self.lock().log.clone()
    }

    pub(super) fn log_of(&self, word: &str) -> Vec<Duration> {
        self.log().into_iter().filter(|(_, text)| text.starts_with(word)).map(|(at, _)| at).collect()
    }

    pub(super) fn most_at_once(&self) -> usize {
        self.lock().most_working
    }

    /// The feeds of the logs break, while everything runs on.
    pub(super) fn cuts_logs(&self) {
        self.lock().cuts += 1;
    }

    /// How many logs were opened.
    pub(super) fn logs_opened(&self) -> u32 {
        self.lock().logs_opened
    }

    /// Somebody kills the process of a task.
    pub(super) fn somebody_kills(&self, name: &str) {
        let id = self.id(name);
        self.lock().end(&id, 137);
    }

    /// Somebody removes the container of a task.
    pub(super) fn somebody_removes(&self, name: &str) {
        let id = self.id(name);
        let mut inner = self.lock();
        inner.end(&id, 137);
        inner.containers.remove(&id);
        inner.tell(&id, EventKind::Removed);
    }

    /// Somebody pauses the container of a task.
    pub(super) fn somebody_pauses(&self, name: &str) {
        let id = self.id(name);
        let mut inner = self.lock();
        inner.containers.get_mut(&id).unwrap().found.state = State::Paused;
        inner.tell(&id, EventKind::Paused);
    }

    fn id(&self, name: &str) -> ContainerId {
        let inner = self.lock();
        let found = inner.containers.values().find(|container| container.found.name == name);
        found.expect("a container of that name").found.id.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }

    fn check_up(&self, operation: Operation) -> Result<(), RuntimeError> {
        if self.lock().is_down {
            return Err(RuntimeError::new(operation, "/run/fake.sock", Cause::Missing));
        }
        Ok(())
    }

    fn note(&self, text: String) {
        let mut inner = self.lock();
        let at = inner.began.elapsed();
        inner.log.push((at, text));
    }

    async fn launch(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        {
            let mut inner = self.lock();
            inner.working += 1;
            inner.most_working = inner.most_working.max(inner.working);
        }
        tokio::time::sleep(START).await;
        let mut inner = self.lock();
        inner.working -= 1;
        let now = inner.clock.now();
        let last = inner.containers.keys().position(|other| other == id);
        let Some(container) = inner.containers.get_mut(id) else {
            return Err(RuntimeError::new(Operation::Start, id.as_str(), Cause::NotFound("gone".to_owned())));
        };
        container.runs += 1;
        container.found.state = State::Running { started_at: now };
        let last = u8::try_from(last.unwrap_or(0) + 2).unwrap();
        let address = IpAddr::V4(Ipv4Addr::new(10, 0, 0, last));
        container.found.addresses = BTreeMap::from([("shop_default".to_owned(), address)]);
        let (run, behaviour) = (container.runs, container.behaviour);
        inner.tell(id, EventKind::Started);
        drop(inner);
        if let Some((after, code)) = behaviour.crashes {
            let (engine, id) = (self.clone(), id.clone());
            tokio::spawn(async move {
                tokio::time::sleep(after).await;
                let mut inner = engine.lock();
                if inner.containers.get(&id).is_some_and(|container| container.runs == run) {
                    inner.end(&id, code);
                }
            });
        }
        Ok(())
    }
}

impl Inner {
    fn end(&mut self, id: &ContainerId, code: i64) {
        let now = self.clock.now();
        let Some(container) = self.containers.get_mut(id) else { return };
        if !matches!(container.found.state, State::Running { .. } | State::Paused) {
            return;
        }
        container.shown = Some((container.found.clone(), tokio::time::Instant::now() + LAG));
        container.found.state = State::Exited { code, out_of_memory: false, finished_at: now };
        container.found.addresses.clear();
        self.tell(id, EventKind::Died);
    }

    fn tell(&mut self, id: &ContainerId, kind: EventKind) {
        self.listeners.retain(|listener| listener.send(EngineEvent { container: id.clone(), kind }).is_ok());
    }
}

/// Finds a container by its address; it listens once it is warm.
impl Prober for Engine {
    fn probe<'a>(&'a self, address: SocketAddr, _: &'a ProbeCheck) -> BoxFuture<'a, Result<(), ProbeError>> {
        Box::pin(async move {
            let inner = self.lock();
            let now = inner.clock.now();
            let listens = inner.containers.values().any(|container| {
                let State::Running { started_at } = container.found.state else { return false };
                container.found.address() == Some(address.ip())
                    && now.since(started_at).duration() >= container.behaviour.warm_up
            });
            if listens {
                return Ok(());
            }
            let source = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
            Err(ProbeError::Connect { address, source })
        })
    }
}
