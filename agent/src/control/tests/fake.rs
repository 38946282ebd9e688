//! An engine in memory, on tokio's clock: containers that run, crash, hang on to life, and die by somebody's hand.

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

impl Runtime for Engine {
    fn check(&self) -> Answer<'_, EngineInfo> {
        Box::pin(async {
            self.check_up(Operation::Check)?;
            Ok(EngineInfo {
                version: "20.10".to_owned(),
                api_version: "1.41".to_owned(),
                os: "linux".to_owned(),
                arch: "amd64".to_owned(),
                cpus: NanoCpus(2_000_000_000),
                memory: Bytes(1 << 30),
                root: PathBuf::from("/var/lib/docker"),
                keeps_containers: false,
            })
        })
    }

    fn list(&self) -> Answer<'_, Vec<Found>> {
        Box::pin(async {
            self.check_up(Operation::List)?;
            // It says how things stood when it was asked.
            let (listed, takes) = (self.listed(), self.lock().list_takes);
            tokio::time::sleep(takes).await;
            Ok(listed)
        })
    }

    fn events(&self) -> Answer<'_, Feed<EngineEvent>> {
        Box::pin(async {
            self.check_up(Operation::Events)?;
            let (sender, receiver) = mpsc::unbounded_channel();
            self.lock().listeners.push(sender);
            let events = stream::unfold(receiver, async |mut receiver| {
                let event = receiver.recv().await?;
                Some((Ok(event), receiver))
            });
            Ok(events.boxed())
        })
    }

    fn create<'a>(&'a self, request: &'a ContainerRequest) -> Answer<'a, ContainerId> {
        Box::pin(async move {
            self.check_up(Operation::Create)?;
            self.note(format!("create {}", request.identity.task));
            let mut inner = self.lock();
            let name = request.identity.task.to_string();
            if inner.containers.values().any(|container| container.found.name == name) {
                return Err(RuntimeError::new(Operation::Create, name, Cause::Conflict("in use".to_owned())));
            }
            inner.made += 1;
            let id = ContainerId::new(&format!("made{:04}", inner.made));
            let found = Found {
                id: id.clone(),
                name,
                identity: request.identity.clone(),
                state: State::Created,
                health: EngineHealth::None,
                addresses: BTreeMap::new(),
            };
            let behaviour = inner.images.get(&request.template.container.image).copied().unwrap_or_default();
            inner.containers.insert(id.clone(), Container { found, shown: None, behaviour, runs: 0 });
            inner.tell(&id, EventKind::Created);
            Ok(id)
        })
    }

    fn start<'a>(&'a self, id: &'a ContainerId) -> Answer<'a, ()> {
        Box::pin(async move {
            self.check_up(Operation::Start)?;
            self.note(format!("start {}", self.lock().containers[id].found.name));
            self.launch(id).await
        })
    }

    fn stop<'a>(&'a self, id: &'a ContainerId, grace: Millis) -> Answer<'a, ()> {
        Box::pin(async move {
            self.check_up(Operation::Stop)?;
            let (name, is_stubborn) = {
                let inner = self.lock();
                let Some(container) = inner.containers.get(id) else { return Ok(()) };
                (container.found.name.clone(), container.behaviour.is_stubborn)
            };
            self.note(format!("stop {name}"));
            let takes = if is_stubborn { grace.duration() } else { Duration::from_millis(10) };
            tokio::time::sleep(takes).await;
            self.lock().end(id, if is_stubborn { 137 } else { 0 });
            Ok(())
        })
    }

    fn kill<'a>(&'a self, id: &'a ContainerId, _: Option<&'a str>) -> Answer<'a, ()> {
        Box::pin(async move {
            self.check_up(Operation::Kill)?;
            let name = self.lock().containers.get(id).map(|it| it.found.name.clone());
            self.note(format!("kill {}", name.unwrap_or_default()));
            self.lock().end(id, 137);
            Ok(())
        })
    }

    fn unpause<'a>(&'a self, id: &'a ContainerId) -> Answer<'a, ()> {
        Box::pin(async move {
            let mut inner = self.lock();
            let now = inner.clock.now();
            inner.containers.get_mut(id).unwrap().found.state = State::Running { started_at: now };
            inner.tell(id, EventKind::Unpaused);
            Ok(())
        })
    }

    fn remove<'a>(&'a self, id: &'a ContainerId) -> Answer<'a, ()> {
        Box::pin(async move {
            self.check_up(Operation::Remove)?;
            let removed = self.lock().containers.remove(id);
            if let Some(container) = removed {
                self.note(format!("remove {}", container.found.name));
                self.lock().tell(id, EventKind::Removed);
            }
            Ok(())
        })
    }

    fn ensure_network<'a>(
        &'a self,
        project: &'a ProjectName,
        key: &'a NetworkName,
        network: &'a Network,
    ) -> Answer<'a, ()> {
        Box::pin(async move {
            self.check_up(Operation::Network)?;
            self.note(format!("network {}", network.engine_name));
            let (engine_name, project, key) = (network.engine_name.clone(), project.clone(), key.clone());
            let found = FoundNetwork { engine_name, project, key };
            let mut inner = self.lock();
            if !inner.networks.contains(&found) {
                inner.networks.push(found);
            }
            Ok(())
        })
    }

    fn ensure_volume<'a>(
        &'a self,
        _: &'a ProjectName,
        _: &'a VolumeName,
        volume: &'a Volume,
    ) -> Answer<'a, ()> {
        Box::pin(async move {
            self.note(format!("volume {}", volume.engine_name));
            Ok(())
        })
    }

    fn networks(&self) -> Answer<'_, Vec<FoundNetwork>> {
        Box::pin(async { Ok(self.lock().networks.clone()) })
    }

    fn remove_network<'a>(&'a self, engine_name: &'a str) -> Answer<'a, bool> {
        Box::pin(async move {
            self.note(format!("remove network {engine_name}"));
            let mut inner = self.lock();
            // A container of somebody else is on it.
            let in_use =
                inner.containers.values().any(|container| container.found.identity.cluster != "home");
            if !in_use {
                inner.networks.retain(|network| network.engine_name != engine_name);
            }
            Ok(!in_use)
        })
    }

    fn image_present<'a>(&'a self, reference: &'a str) -> Answer<'a, Option<String>> {
        Box::pin(async move {
            if let Ok(image) = Digest::parse(reference) {
                return Ok(self.1.has(&image).then(|| reference.to_owned()));
            }
            Ok(self.lock().images.contains_key(reference).then(|| format!("id of {reference}")))
        })
    }

    /// Every image is for amd64.
    fn image_present_for<'a>(&'a self, reference: &'a str, platform: &'a str) -> Answer<'a, Option<String>> {
        if platform == "linux/amd64" {
            return self.image_present(reference);
        }
        Box::pin(std::future::ready(Ok(None)))
    }

    fn pull<'a>(&'a self, reference: &'a str, _: Option<&'a str>, progress: Progress) -> Answer<'a, String> {
        Box::pin(async move {
            self.note(format!("pull {reference}"));
            progress("half".to_owned());
            if reference.contains("silent") {
                tokio::time::sleep(deadline::PULL_SILENCE).await;
                let cause = Cause::Stalled(deadline::PULL_SILENCE);
                return Err(RuntimeError::new(Operation::Pull, reference, cause));
            }
            tokio::time::sleep(Duration::from_secs(2)).await;
            if reference.contains("missing") {
                return Err(RuntimeError::new(
                    Operation::Pull,
                    reference,
                    Cause::NotFound("no such tag".into()),
                ));
            }
            self.has_image(reference, Behaviour::default());
            Ok(format!("id of {reference}"))
        })
    }

    fn images(&self) -> Option<&dyn ImageStore> {
        Some(&*self.1)
    }

    /// Two lines a run; followed until the run ends.
    fn logs<'a>(&'a self, id: &'a ContainerId, query: LogQuery) -> Answer<'a, Feed<LogLine>> {
        Box::pin(async move {
            let (at, run, cuts) = {
                let mut inner = self.lock();
                inner.logs_opened += 1;
                let container = inner.containers.get(id);
                let at = match container.map(|container| &container.found.state) {
                    Some(State::Running { started_at }) => *started_at,
                    Some(_) | None => inner.clock.now(),
                };
                (at, container.map_or(0, |container| container.runs), inner.cuts)
            };
            let line = |text: &'static str| {
                Ok(LogLine { stream: Stream::Stderr, at, text: bytes::Bytes::from_static(text.as_bytes()) })
            };
            let written = query.since.is_none_or(|since| since <= at);
            let lines = written.then(|| stream::iter([line("starting"), line("panic: no luck")]));
            let lines = stream::iter(lines).flatten();
            let (engine, id) = (self.clone(), id.clone());
            let end = async move {
                let runs = |engine: &Self| {
                    let inner = engine.lock();
                    inner.containers.get(&id).is_some_and(|container| {
                        inner.cuts == cuts
                            && container.runs == run
                            && matches!(container.found.state, State::Running { .. })
                    })
                };
                while query.follow && runs(&engine) {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                None::<Result<LogLine, RuntimeError>>
            };
            Ok(lines.chain(stream::once(end).filter_map(std::future::ready)).boxed())
        })
    }

    /// A command that writes what it reads, and ends with its input.
    fn exec<'a>(&'a self, id: &'a ContainerId, request: &'a ExecRequest) -> Answer<'a, ExecSession> {
        Box::pin(async move {
            if request.command.first().is_none_or(|program| program != "cat") {
                let cause = Cause::Refused("no such program".to_owned());
                return Err(RuntimeError::new(Operation::Exec, id.as_str(), cause));
            }
            // Smaller than what the test writes: the command stops reading until it has been read.
            let (ours, theirs) = tokio::io::duplex(1024);
            let output = stream::unfold(ours, async |mut reader| {
                let mut bytes = bytes::BytesMut::new();
                let read = tokio::io::AsyncReadExt::read_buf(&mut reader, &mut bytes).await.unwrap();
                let output = Output { stream: Stream::Stdout, bytes: bytes.freeze() };
                (read > 0).then_some((Ok(output), reader))
            });
            Ok(ExecSession { id: ExecId::new("e1"), output: output.boxed(), input: Box::pin(theirs) })
        })
    }

    fn exec_resize<'a>(&'a self, _: &'a ExecId, _: TerminalSize) -> Answer<'a, ()> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn exec_exit<'a>(&'a self, _: &'a ExecId) -> Answer<'a, Option<i64>> {
        Box::pin(std::future::ready(Ok(Some(7))))
    }

    /// Half a processor, always.
    fn stats<'a>(&'a self, _: &'a ContainerId) -> Answer<'a, Stats> {
        let passed = self.lock().began.elapsed().as_nanos();
        let stats = Stats { cpu_nanos: u64::try_from(passed / 2).unwrap(), ..Stats::default() };
        Box::pin(std::future::ready(Ok(stats)))
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
