//! A control plane with many machines that are not there: the real store, planner, sessions and API, and agents that obey
//! at once, find everything healthy, and count what they are sent.

mod agent;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::{StreamExt, TryStreamExt};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tug_api::client::{Client, Guard};
use tug_api::transport::Channel;
use tug_api::user::{ApplyRequest, ScaleRequest};
use tug_model::task::Desired;
use tug_model::{ProjectName, ServiceName};
use tug_orchestrator::app::{self, Config, Orchestrator};

pub use self::agent::{Agent, Count, Traffic};

/// So many services are one project; the first of them publishes a port.
const SERVICES: u32 = 10;
/// So many clients apply projects at once.
const CLIENTS: usize = 4;
/// The first published port.
const FIRST_PORT: u32 = 20_000;
/// Whatever is waited for takes at most so long.
const PATIENCE: Duration = Duration::from_secs(600);
/// Nothing was sent for so long: nothing more will be.
const QUIET: Duration = Duration::from_secs(5);

/// A control plane and its agents.
#[derive(Debug)]
pub struct Fleet {
    /// The control plane.
    pub handle: app::Handle,
    /// The agents, by number.
    pub agents: Vec<Agent>,
    client: Client,
    stop: CancellationToken,
    running: JoinHandle<Result<(), app::Error>>,
}

impl Fleet {
    /// A new cluster of `nodes` machines, whose agents live in `runtime`, all connected.
    pub async fn start(config: Config, nodes: usize, runtime: &Handle) -> Result<Self> {
        let (orchestrator, handle) = Orchestrator::open(config).await?;
        let stop = CancellationToken::new();
        let running = tokio::spawn(orchestrator.run(stop.clone()));
        let client = Client::new(Channel::service(handle.router.clone()));
        let agents = (0..nodes).map(|number| Agent::new(number, runtime.clone())).collect::<Result<_>>()?;
        let fleet = Self { handle, agents, client, stop, running };
        for agent in &fleet.agents {
            fleet.handle.nodes.register(agent.node().clone(), agent.connect());
        }
        fleet
            .until("all nodes are there", |fleet| {
                let view = fleet.handle.view.borrow();
                let connected = view.world.observed.nodes.values().filter(|node| node.is_heard()).count();
                connected == nodes && view.world.nodes.len() == nodes
            })
            .await?;
        Ok(fleet)
    }

    /// Wants `services` services of `replicas` each; returns when all of that is on disk.
    pub async fn apply(&self, services: u32, replicas: u32) -> Result<()> {
        let projects = (0..services.div_ceil(SERVICES)).map(|project| {
            let numbers = 0..SERVICES.min(services - project * SERVICES);
            let services: serde_json::Map<_, _> =
                numbers.map(|number| (format!("s{number}"), service(project, number, replicas))).collect();
            self.apply_one(serde_json::json!({ "name": format!("p{project}"), "services": services }))
        });
        futures_util::stream::iter(projects).buffered(CLIENTS).try_collect().await
    }

    async fn apply_one(&self, spec: serde_json::Value) -> Result<()> {
        let request = ApplyRequest { spec: serde_json::from_value(spec)?, source: Vec::new() };
        self.client.apply(&request, &Guard::default()).await.context("apply a project")?;
        Ok(())
    }

    /// Wants `replicas` of one service of the first project. Service 0 publishes a port, the others don't.
    pub async fn scale(&self, service: u32, replicas: u32) -> Result<()> {
        let service = ServiceName::parse(&format!("s{service}"))?;
        let request = ScaleRequest { replicas: [(service, replicas)].into() };
        self.client.scale(&ProjectName::parse("p0")?, &request, &Guard::default()).await?;
        Ok(())
    }

    /// How many tasks are to run, as the store has it.
    pub fn running(&self) -> usize {
        self.handle.store.snapshot().tasks.values().filter(|task| task.desired == Desired::Run).count()
    }

    /// Waits until so many tasks are decided, and that is on disk.
    pub async fn placed(&self, tasks: usize) -> Result<()> {
        let mut states = self.handle.store.watch();
        let placed = states.wait_for(|state| state.tasks.len() == tasks);
        tokio::time::timeout(PATIENCE, placed).await.context("not everything is placed")??;
        Ok(())
    }

    /// Waits until every connected agent follows what there is to follow.
    pub async fn acknowledged(&self) -> Result<()> {
        self.until("all is acknowledged", |fleet| {
            let view = fleet.handle.view.borrow();
            let observed = &view.world.observed;
            let is_level = observed.nodes.values().all(|node| node.is_level || !node.connected);
            is_level && observed.level == fleet.handle.store.snapshot().revision
        })
        .await
    }

    /// Waits until nothing is left to decide or to tell.
    pub async fn settled(&self) -> Result<()> {
        loop {
            self.acknowledged().await?;
            let (before, revision) = (self.traffic().told(), self.handle.store.snapshot().revision);
            sleep(QUIET).await;
            let is_decided = self.handle.view.borrow().plan.decisions.is_empty();
            let is_same = self.handle.store.snapshot().revision == revision;
            if is_decided && is_same && self.traffic().told() == before {
                return Ok(());
            }
        }
    }

    /// Everything that all agents were sent, and said.
    pub fn traffic(&self) -> Traffic {
        self.agents.iter().map(Agent::traffic).fold(Traffic::default(), |all, of_one| all + of_one)
    }

    /// Ends the control plane.
    pub async fn end(self) -> Result<()> {
        self.stop.cancel();
        Ok(self.running.await??)
    }

    /// Waits for a condition.
    pub async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let mut view = self.handle.view.clone();
        while !holds(self) {
            ensure!(Instant::now() < deadline, "never: {what}");
            let _ = tokio::time::timeout(Duration::from_millis(20), view.changed()).await;
        }
        Ok(())
    }
}

/// One service of a project.
fn service(project: u32, number: u32, replicas: u32) -> serde_json::Value {
    let port = serde_json::json!({
        "target": 80, "published": FIRST_PORT + project, "protocol": "tcp", "mode": "ingress",
    });
    serde_json::json!({
        "container": { "image": "nginx:1.27", "environment": { "NUMBER": number.to_string() } },
        "ports": if number == 0 { vec![port] } else { Vec::new() },
        "deploy": { "mode": { "replicated": replicas } },
    })
}

/// A control plane whose disk is in memory, for tests on a paused clock.
pub fn in_memory() -> Config {
    let clock = tug_api::Clock::starting_at(tug_model::Timestamp(1_767_225_600_000));
    Config::simulated(&tug_orchestrator::store::MemoryDisk::new(), "fleet", clock)
}

/// A control plane on a real disk, with no socket.
pub fn on_disk(folder: &std::path::Path) -> Config {
    let store = tug_orchestrator::store::Config::folder(folder.join("store"), "fleet");
    let clock = tug_api::Clock::system();
    let memory = Arc::new(tug_orchestrator::store::MemoryDisk::new());
    Config { store, ..Config::simulated(&memory, "fleet", clock) }
}
