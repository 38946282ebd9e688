//! The simulated cluster: one orchestrator, some nodes, and what their user knows to be acknowledged.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::future::BoxFuture;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tug_agent::app::{self as agent, Agent};
use tug_agent::health::{ProbeError, Prober};
use tug_api::Clock;
use tug_api::client::{CallError, Client, Guard};
use tug_api::transport::Channel;
use tug_api::user::{Accepted, ApplyRequest, RestartRequest, ScaleRequest};
use tug_model::spec::service::ProbeCheck;
use tug_model::{NodeId, ProjectName, Revision, TaskId, Timestamp};
use tug_orchestrator::app::{self as orchestrator, Orchestrator};
use tug_orchestrator::store::{self, MemoryDisk};

use super::action::{Action, Request};
use super::link::Link;
use crate::fake::{Engine, Faults};

/// The day on which every simulation begins: 2026-01-01.
const BEGINNING: Timestamp = Timestamp(1_767_225_600_000);

/// A simulated cluster.
#[derive(Debug)]
pub struct Cluster {
    clock: Clock,
    disk: MemoryDisk,
    orchestrator: Option<Control>,
    pub(super) nodes: Vec<Node>,
    /// For each project that a write was acknowledged for: the newest of them.
    pub(super) acknowledged: BTreeMap<ProjectName, Revision>,
    /// Every task that was ever decided.
    pub(super) decided: BTreeSet<TaskId>,
    dice: fastrand::Rng,
}

#[derive(Debug)]
struct Control {
    handle: orchestrator::Handle,
    running: JoinHandle<()>,
}

/// A machine: an engine, an agent's folder, and an agent, if it runs.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) engine: Engine,
    folder: TempDir,
    agent: Option<Running>,
    /// The connection to the orchestrator; `None` while it is cut off.
    link: Option<CancellationToken>,
}

#[derive(Debug)]
struct Running {
    handle: agent::Handle,
    running: JoinHandle<()>,
}

/// Asks the fake engine whether a container serves.
struct FakeProber {
    engine: Engine,
    clock: Clock,
}

// === impl Cluster ===

impl Cluster {
    /// Starts an orchestrator and `nodes` machines, all connected.
    pub async fn start(seed: u64, nodes: usize) -> Result<Self> {
        let clock = Clock::starting_at(BEGINNING);
        let mut cluster = Self {
            clock,
            disk: MemoryDisk::default(),
            orchestrator: None,
            nodes: Vec::new(),
            acknowledged: BTreeMap::new(),
            decided: BTreeSet::new(),
            dice: fastrand::Rng::with_seed(seed ^ 0x5EED),
        };
        for number in 0..nodes {
            let id = NodeId::parse(&format!("n{number}"))?;
            let engine = Engine::new(id.clone(), clock, seed.wrapping_add(number as u64));
            let folder = shared_memory()?;
            cluster.nodes.push(Node { id, engine, folder, agent: None, link: None });
            cluster.start_agent(number).await?;
        }
        cluster.start_orchestrator().await?;
        for number in 0..nodes {
            cluster.connect(number);
        }
        cluster.pass(1000).await;
        Ok(cluster)
    }

    /// The virtual time since the beginning.
    pub fn now(&self) -> String {
        format!("{:>9.3}s", self.clock.now().since(BEGINNING).duration().as_secs_f64())
    }

    /// Lets `millis` of virtual time pass, and remembers which tasks were decided meanwhile.
    pub async fn pass(&mut self, millis: u64) {
        tokio::time::sleep(Duration::from_millis(millis)).await;
        if let Some(state) = self.state() {
            self.decided.extend(state.tasks.keys().cloned());
        }
    }

    /// One line that tells runs apart.
    pub fn summary(&self) -> String {
        let containers: Vec<String> = self
            .nodes
            .iter()
            .map(|node| {
                let all = node.engine.containers();
                format!("{} {}/{}", node.id, all.iter().filter(|one| one.is_running()).count(), all.len())
            })
            .collect();
        let revision = self.state().map(|state| state.revision);
        format!("revision {revision:?}, running {}", containers.join(", "))
    }

    /// The store's newest state, while the orchestrator runs.
    pub(super) fn state(&self) -> Option<Arc<store::State>> {
        self.orchestrator.as_ref().map(|control| control.handle.store.snapshot())
    }

    /// A client of the orchestrator, while it runs.
    pub(super) fn client(&self) -> Option<Client> {
        let control = self.orchestrator.as_ref()?;
        Some(Client::new(Channel::service(control.handle.router.clone())))
    }

    /// Does what `action` says.
    pub async fn perform(&mut self, action: &Action) -> Result<()> {
        match action {
            Action::Ask(request) => self.ask(request).await?,
            Action::Kill(node, which) => drop(self.nodes[*node].engine.kill_one(*which)),
            Action::RemoveContainer(node, which) => drop(self.nodes[*node].engine.remove_one(*which)),
            Action::Foreign(node) => self.nodes[*node].engine.add_foreign("postgres"),
            Action::CrashAgent(node) => {
                self.crash_agent(*node).await;
                self.start_agent(*node).await?;
                self.connect(*node);
            }
            Action::CrashOrchestrator => {
                self.crash_orchestrator().await;
                self.start_orchestrator().await?;
                self.connect_all();
            }
            Action::ToggleOrchestrator if self.orchestrator.is_some() => self.crash_orchestrator().await,
            Action::ToggleOrchestrator => {
                self.start_orchestrator().await?;
                self.connect_all();
            }
            Action::Cut(node) => self.cut(*node),
            Action::Mend(node) => {
                self.nodes[*node].link.get_or_insert_default();
                self.connect(*node);
            }
            Action::Faults(node, faults) => self.nodes[*node].engine.set_faults(*faults),
            Action::Reboot(node) => {
                self.crash_agent(*node).await;
                self.nodes[*node].engine.reboot();
                self.start_agent(*node).await?;
                self.connect(*node);
            }
        }
        Ok(())
    }

    /// A user's request. Without an orchestrator there is nobody to ask; a refusal is an answer too.
    async fn ask(&mut self, request: &Request) -> Result<()> {
        let Some(client) = self.client() else { return Ok(()) };
        let guard = Guard::default();
        let (name, answer): (&ProjectName, Result<Accepted, CallError>) = match request {
            Request::Apply(spec) => {
                let body = ApplyRequest { spec: (**spec).clone(), source: Vec::new() };
                (&spec.name, client.apply(&body, &guard).await)
            }
            Request::Scale { project, service, replicas } => {
                let body = ScaleRequest { replicas: BTreeMap::from([(service.clone(), *replicas)]) };
                (project, client.scale(project, &body, &guard).await)
            }
            Request::Restart(project) => {
                (project, client.restart(project, &RestartRequest { services: Vec::new() }, &guard).await)
            }
            Request::Remove(project) => (project, client.remove(project, &guard).await),
        };
        match answer {
            Ok(_) if matches!(request, Request::Remove(_)) => {
                self.acknowledged.remove(name);
            }
            Ok(accepted) if accepted.changed => {
                self.acknowledged.insert(name.clone(), accepted.revision);
            }
            Ok(_) | Err(CallError::Api(_)) => {}
            Err(error) => return Err(error).context("a healthy orchestrator answers"),
        }
        Ok(())
    }

    /// Everything that was broken is whole again.
    pub async fn heal(&mut self) -> Result<()> {
        if self.orchestrator.is_none() {
            self.start_orchestrator().await?;
        }
        for number in 0..self.nodes.len() {
            self.nodes[number].engine.set_faults(Faults::default());
            if self.nodes[number].agent.is_none() {
                self.start_agent(number).await?;
            }
            self.nodes[number].link.get_or_insert_default();
            self.connect(number);
        }
        Ok(())
    }

    /// Ends everything.
    pub async fn stop(mut self) {
        for number in 0..self.nodes.len() {
            self.crash_agent(number).await;
        }
        self.crash_orchestrator().await;
    }

    // --- parts that come and go ---

    async fn start_orchestrator(&mut self) -> Result<()> {
        let config = orchestrator::Config::simulated(&self.disk, "simulated", self.clock);
        let (orchestrator, handle) =
            Orchestrator::open(config).await.context("the orchestrator opens its store")?;
        let running = tokio::spawn(async move {
            // It ends only by being killed; what it had to say by then is in the trace.
            drop(orchestrator.run(CancellationToken::new()).await);
        });
        self.orchestrator = Some(Control { handle, running });
        Ok(())
    }

    async fn crash_orchestrator(&mut self) {
        if let Some(control) = self.orchestrator.take() {
            kill(control.running).await;
        }
    }

    async fn start_agent(&mut self, number: usize) -> Result<()> {
        let node = &self.nodes[number];
        let prober = FakeProber { engine: node.engine.clone(), clock: self.clock };
        let config = agent::Config {
            state_dir: node.folder.path().to_owned(),
            private: node.folder.path().to_owned(),
            node: Some(node.id.clone()),
            hostname: node.id.to_string(),
            labels: BTreeMap::new(),
            runtime: Arc::new(node.engine.clone()),
            prober: Arc::new(prober),
            clock: self.clock,
            server: None,
            balancer: None,
            peer: None,
            concurrency: agent::Config::CONCURRENCY,
            seed: number as u64,
        };
        let (agent, handle) = Agent::open(config).await.context("the agent opens its folder")?;
        let running = tokio::spawn(agent.run(CancellationToken::new()));
        let node = &mut self.nodes[number];
        node.agent = Some(Running { handle, running });
        node.link.get_or_insert_default();
        Ok(())
    }

    async fn crash_agent(&mut self, number: usize) {
        let node = &mut self.nodes[number];
        if let Some(link) = &node.link {
            link.cancel();
        }
        if let Some(agent) = node.agent.take() {
            kill(agent.running).await;
        }
    }

    fn cut(&mut self, number: usize) {
        if let Some(link) = self.nodes[number].link.take() {
            link.cancel();
        }
    }

    fn connect_all(&mut self) {
        for number in 0..self.nodes.len() {
            self.connect(number);
        }
    }

    /// The agent dials the orchestrator, if both are there and nothing is cut.
    fn connect(&mut self, number: usize) {
        let delay = Duration::from_millis(self.dice.u64(0..20));
        let node = &mut self.nodes[number];
        let (Some(control), Some(agent), Some(link)) = (&self.orchestrator, &node.agent, &mut node.link)
        else {
            return;
        };
        link.cancel();
        *link = CancellationToken::new();
        let channel = Link::channel(agent.handle.router.clone(), link.clone(), delay);
        control.handle.nodes.register(node.id.clone(), channel);
    }
}

/// Ends a component in the middle of whatever it does.
async fn kill(running: JoinHandle<()>) {
    running.abort();
    // The only other way to end is to have panicked, which the trace of the run shows.
    let _ = running.await;
}

/// A folder that no disk slows down.
fn shared_memory() -> Result<TempDir> {
    let memory = std::path::Path::new("/dev/shm");
    if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() }.context("make a folder")
}

// === impl FakeProber ===

impl fmt::Debug for FakeProber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FakeProber")
    }
}

impl Prober for FakeProber {
    fn probe<'a>(
        &'a self,
        address: SocketAddr,
        _check: &'a ProbeCheck,
    ) -> BoxFuture<'a, Result<(), ProbeError>> {
        let serves = self.engine.serves(address.ip(), self.clock.now());
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(1)).await;
            if serves {
                return Ok(());
            }
            let source = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
            Err(ProbeError::Connect { address, source })
        })
    }
}
