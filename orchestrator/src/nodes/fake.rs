//! An agent for tests: it obeys at once, and everything it is told to run is healthy.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::routing::{get, post, put};
use futures_util::TryStreamExt;
use futures_util::stream::unfold;
use tokio::sync::watch;
use tug_api::image::{Exchange, ResolveRequest, Resolved, Shape};
use tug_api::node::{ReportsQuery, TaskLogLine, TaskUse};
use tug_api::transport::Channel;
use tug_api::user::LogStream;
use tug_api::{ApiError, Code, lines};
use tug_model::assignment::{Assignment, Hints};
use tug_model::endpoints::{Endpoints, Known, ServiceEndpoints, Stamp};
use tug_model::lease::Lease;
use tug_model::node::{Capacity, KeyId, NodeInfo};
use tug_model::report::{Engine, Following, Health, Phase, Report, Said, TaskReport};
use tug_model::task::Desired;
use tug_model::{Bytes, Digest, Millis, NanoCpus, NodeId, Revision, TaskId, Timestamp};

/// The agent; clones are the same one.
#[derive(Debug, Clone)]
pub(crate) struct FakeAgent(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    told: watch::Sender<Assignment>,
    endpoints: Mutex<Endpoints>,
    /// The services of every message about endpoints.
    endpoint_puts: Mutex<Vec<Vec<ServiceEndpoints>>>,
    puts: Mutex<Vec<Assignment>>,
    hints: watch::Sender<Vec<Hints>>,
    members: watch::Sender<BTreeMap<NodeId, KeyId>>,
    leases: watch::Sender<Vec<Lease>>,
    uptime: AtomicU64,
    exchanges: watch::Sender<Vec<Exchange>>,
    asked: Mutex<Vec<Digest>>,
    behaviour: Mutex<Behaviour>,
    logs: Mutex<BTreeMap<TaskId, Vec<TaskLogLine>>>,
}

/// How the agent is out of order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Behaviour {
    /// It refuses every assignment with this.
    pub(crate) refuses: Option<String>,
    /// It answers every assignment with an internal error.
    pub(crate) fails: bool,
    /// It says nothing any more.
    pub(crate) is_silent: bool,
    /// It does not answer when it is given a lease.
    pub(crate) is_deaf_to_leases: bool,
    /// It acknowledges, but goes on following what it followed.
    pub(crate) forgets: bool,
    /// It takes endpoints, and goes on routing by those before.
    pub(crate) lags: bool,
    /// The containers of its tasks never become healthy.
    pub(crate) is_sick: bool,
    /// Its Engine's version.
    pub(crate) engine_version: Option<String>,
    /// Where other agents reach it.
    pub(crate) address: Option<String>,
    /// The images that it has.
    pub(crate) has: BTreeSet<Digest>,
    /// What it has under names of images.
    pub(crate) names: BTreeMap<String, Resolved>,
    /// What registries have, as it sees them.
    pub(crate) registry: BTreeMap<String, Digest>,
    /// The images that it says it lacks.
    pub(crate) lacks: BTreeSet<Digest>,
}

// === impl FakeAgent ===

impl FakeAgent {
    pub(crate) fn new(node: &str) -> Self {
        let node = NodeId::parse(node).unwrap();
        Self(Arc::new(Inner {
            told: watch::Sender::new(Assignment::empty(node)),
            endpoints: Mutex::default(),
            endpoint_puts: Mutex::default(),
            puts: Mutex::default(),
            hints: watch::Sender::default(),
            members: watch::Sender::default(),
            leases: watch::Sender::default(),
            uptime: AtomicU64::new(1),
            exchanges: watch::Sender::default(),
            asked: Mutex::default(),
            behaviour: Mutex::default(),
            logs: Mutex::default(),
        }))
    }

    pub(crate) fn channel(&self) -> Channel {
        Channel::service(self.router())
    }

    pub(crate) fn router(&self) -> Router {
        Router::new()
            .route("/assignment", put(assign))
            .route("/endpoints", get(known_endpoints).put(tell_endpoints))
            .route("/lease", put(lease))
            .route("/hints", put(hint))
            .route("/members", put(introduce))
            .route("/reports", get(reports))
            .route("/tasks/{id}/logs", get(logs))
            .route("/tasks/{id}/exec", post(async |body: Body| body))
            .route("/usage", get(usage))
            .route("/images", put(exchange))
            .route("/images/{id}", get(image))
            .route("/images/resolve", post(resolve))
            .with_state(self.clone())
    }

    pub(crate) fn behave(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut self.0.behaviour.lock().unwrap());
        self.0.told.send_modify(|_| {});
    }

    /// Every assignment that it was sent.
    pub(crate) fn puts(&self) -> Vec<Assignment> {
        self.0.puts.lock().unwrap().clone()
    }

    /// The hints that it was sent, each time whole.
    pub(crate) fn hints(&self) -> watch::Receiver<Vec<Hints>> {
        self.0.hints.subscribe()
    }

    /// Who belongs to the cluster, as it was told last.
    pub(crate) fn members(&self) -> watch::Receiver<BTreeMap<NodeId, KeyId>> {
        self.0.members.subscribe()
    }

    /// The leases that it was given.
    pub(crate) fn leases(&self) -> watch::Receiver<Vec<Lease>> {
        self.0.leases.subscribe()
    }

    /// What it was told about images, each time whole.
    pub(crate) fn exchanges(&self) -> watch::Receiver<Vec<Exchange>> {
        self.0.exchanges.subscribe()
    }

    /// The images that it was asked for.
    pub(crate) fn asked(&self) -> Vec<Digest> {
        self.0.asked.lock().unwrap().clone()
    }

    /// What it follows.
    pub(crate) fn told(&self) -> Assignment {
        self.0.told.borrow().clone()
    }

    /// The endpoints that it knows.
    pub(crate) fn endpoints(&self) -> Endpoints {
        self.0.endpoints.lock().unwrap().clone()
    }

    /// Every message about endpoints that it was sent.
    pub(crate) fn endpoint_puts(&self) -> Vec<Vec<ServiceEndpoints>> {
        self.0.endpoint_puts.lock().unwrap().clone()
    }

    pub(crate) fn write(&self, task: &TaskId, at: u64, line: &str) {
        let line = TaskLogLine { at: Timestamp(at), stream: LogStream::Stdout, line: line.to_owned() };
        self.0.logs.lock().unwrap().entry(task.clone()).or_default().push(line);
    }

    fn behaviour(&self) -> Behaviour {
        self.0.behaviour.lock().unwrap().clone()
    }

    fn report(&self) -> Report {
        let told = self.told();
        let health = if self.behaviour().is_sick { Health::Starting } else { Health::Healthy };
        let running = Phase::Running { health, address: None };
        let tasks = told.tasks.iter().filter(|task| !matches!(task.desired, Desired::Stop { .. }));
        Report {
            info: NodeInfo {
                address: self.behaviour().address,
                ..info(self.behaviour().engine_version.as_deref().unwrap_or("28.0.0"))
            },
            following: Following {
                cluster: told.cluster.clone(),
                epoch: told.epoch,
                generation: told.generation,
                endpoints: if self.behaviour().lags {
                    Revision(0)
                } else {
                    self.endpoints().stamp.generation
                },
            },
            engine: Engine::Up,
            tasks: tasks
                .map(|task| TaskReport {
                    id: task.id.clone(),
                    phase: running.clone(),
                    age: Millis(0),
                    restarts: 0,
                    connections: 0,
                })
                .collect(),
            uncounted: false,
            lacks: self.behaviour().lacks,
            closed_ports: Vec::new(),
            uptime: Some(Millis(self.0.uptime.fetch_add(1, Ordering::Relaxed))),
        }
    }
}

fn info(engine_version: &str) -> NodeInfo {
    NodeInfo {
        hostname: "attic".into(),
        os: "linux".into(),
        arch: "amd64".into(),
        capacity: Capacity { cpus: NanoCpus(4_000_000_000), memory: Bytes(8 << 30) },
        labels: BTreeMap::new(),
        engine_version: engine_version.to_owned(),
        agent_version: "0.1.0".into(),
        address: None,
    }
}

async fn assign(
    State(agent): State<FakeAgent>,
    axum::Json(told): axum::Json<Assignment>,
) -> Result<(), ApiError> {
    agent.0.puts.lock().unwrap().push(told.clone());
    let behaviour = agent.behaviour();
    if let Some(reason) = behaviour.refuses {
        return Err(ApiError::new(Code::Conflict, reason));
    }
    if behaviour.fails {
        return Err(ApiError::new(Code::Internal, "it does not work"));
    }
    if !behaviour.forgets {
        agent.0.told.send_replace(told);
    }
    Ok(())
}

async fn known_endpoints(State(agent): State<FakeAgent>) -> axum::Json<Known> {
    axum::Json(agent.endpoints().known())
}

async fn tell_endpoints(
    State(agent): State<FakeAgent>,
    Query(stamp): Query<Stamp>,
    body: Body,
) -> Result<(), ApiError> {
    let news: Vec<ServiceEndpoints> = lines::read(body).try_collect().await.unwrap();
    agent.0.endpoint_puts.lock().unwrap().push(news.clone());
    let known = agent.endpoints().updated(&agent.told(), stamp, news);
    let known = known.map_err(|refusal| ApiError::new(Code::Conflict, refusal.to_string()))?;
    *agent.0.endpoints.lock().unwrap() = known;
    agent.0.told.send_modify(|_| {});
    Ok(())
}

async fn hint(State(agent): State<FakeAgent>, axum::Json(hints): axum::Json<Hints>) {
    agent.0.hints.send_modify(|all| all.push(hints));
}

async fn introduce(State(agent): State<FakeAgent>, axum::Json(members): axum::Json<BTreeMap<NodeId, KeyId>>) {
    agent.0.members.send_replace(members);
}

async fn lease(State(agent): State<FakeAgent>, axum::Json(lease): axum::Json<Lease>) {
    agent.0.leases.send_modify(|all| all.push(lease));
    if agent.behaviour().is_deaf_to_leases {
        std::future::pending::<()>().await;
    }
}

async fn exchange(State(agent): State<FakeAgent>, axum::Json(exchange): axum::Json<Exchange>) {
    agent.0.exchanges.send_modify(|all| all.push(exchange));
}

async fn resolve(
    State(agent): State<FakeAgent>,
    axum::Json(request): axum::Json<ResolveRequest>,
) -> axum::Json<Vec<Option<Resolved>>> {
    let behaviour = agent.behaviour();
    let known =
        |digest: &Digest| Resolved { id: None, digest: Some(digest.clone()), tagged_at: Timestamp(0) };
    let resolved = request.images.iter().map(|name| {
        if request.registry {
            return behaviour.registry.get(&name.reference).map(known);
        }
        behaviour.names.get(&name.reference).cloned()
    });
    axum::Json(resolved.collect())
}

async fn image(
    State(agent): State<FakeAgent>,
    Path(id): Path<String>,
) -> Result<axum::Json<Shape>, ApiError> {
    let id = Digest::parse(&id).unwrap();
    agent.0.asked.lock().unwrap().push(id.clone());
    let shape = Shape { layers: Vec::new(), size: Bytes(1), platform: String::new() };
    agent
        .behaviour()
        .has
        .contains(&id)
        .then_some(axum::Json(shape))
        .ok_or_else(|| ApiError::not_found("image"))
}

async fn reports(
    State(agent): State<FakeAgent>,
    Query(query): Query<ReportsQuery>,
) -> axum::response::Response {
    let told = agent.0.told.subscribe();
    let sent: Option<Report> = None;
    lines::response(unfold((agent, told, sent, query.brief), async |(agent, mut told, sent, brief)| {
        if sent.is_some() {
            let _every_second = tokio::time::timeout(Duration::from_secs(1), told.changed()).await;
        }
        told.borrow_and_update();
        if agent.behaviour().is_silent {
            return std::future::pending().await;
        }
        let report = agent.report();
        if sent.as_ref().is_some_and(|sent| brief && report.goes_on_from(sent)) {
            return Some((Said::Same { uptime: report.uptime }, (agent, told, sent, brief)));
        }
        Some((Said::Whole(Box::new(report.clone())), (agent, told, Some(report), brief)))
    }))
}

async fn logs(
    State(agent): State<FakeAgent>,
    Path(id): Path<String>,
) -> Result<axum::response::Response, ApiError> {
    let id = TaskId::parse(&id).unwrap();
    let lines = agent.0.logs.lock().unwrap().get(&id).cloned();
    let lines = lines.ok_or_else(|| ApiError::not_found("container"))?;
    Ok(lines::response(futures_util::stream::iter(lines)))
}

async fn usage(State(agent): State<FakeAgent>) -> axum::Json<Vec<TaskUse>> {
    let told = agent.told();
    let used = told.tasks.iter().map(|task| TaskUse {
        task: task.id.clone(),
        cpu: NanoCpus(5),
        memory: Bytes(6),
        memory_limit: None,
        pids: 7,
        received: Bytes(8),
        sent: Bytes(9),
    });
    axum::Json(used.collect())
}
