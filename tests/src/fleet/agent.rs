//! An agent without a machine: it speaks the real protocol, finds every task healthy, and counts bytes.
//!
//! Its work is done by threads of its own runtime, so that what the control plane costs can be told apart.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ops::{Add, Sub};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use axum::{Json, Router};
use http::{Request, StatusCode};
use serde::Deserialize;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tower::{ServiceExt, service_fn};
use tug_api::node::ReportsQuery;
use tug_api::transport::Channel;
use tug_model::endpoints::{Known, Stamp};
use tug_model::node::{Capacity, NodeInfo};
use tug_model::project::ServiceRef;
use tug_model::report::{Engine, Following, Health, Phase, Report, Said, TaskReport};
use tug_model::spec::service::Port;
use tug_model::task::Desired;
use tug_model::{Bytes as Size, Millis, NanoCpus, NodeId, ProjectName, ServiceName, TaskId};

use crate::sim::{Cable, Link};

/// Larger than anything that is sent.
const LARGEST: usize = 1 << 30;

/// An agent; clones are the same one.
#[derive(Debug, Clone)]
pub struct Agent(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    node: NodeId,
    runtime: Handle,
    told: watch::Sender<Told>,
    traffic: Mutex<Traffic>,
    cable: Mutex<CancellationToken>,
}

/// What it was told, as far as that matters here.
#[derive(Debug, Default)]
struct Told {
    following: Following,
    tasks: Vec<TaskId>,
    versions: BTreeMap<ServiceRef, String>,
}

/// Messages and bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Count {
    /// Messages.
    pub messages: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
}

/// What went over the wire, without the transport's own overhead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Assignments, to the agent.
    pub assignments: Count,
    /// Endpoints, to the agent.
    pub endpoints: Count,
    /// Hints, to the agent.
    pub hints: Count,
    /// Of who belongs to the cluster.
    pub members: Count,
    /// Reports, from the agent.
    pub reports: Count,
}

#[derive(Deserialize)]
struct Assigned {
    cluster: String,
    epoch: u64,
    generation: tug_model::Revision,
    tasks: Vec<AssignedTask>,
}

#[derive(Deserialize)]
struct AssignedTask {
    id: TaskId,
    desired: Desired,
}

#[derive(Deserialize)]
struct Endpoints {
    project: ProjectName,
    service: ServiceName,
    version: String,
    ports: Vec<Port>,
}

// === impl Agent ===

impl Agent {
    /// The agent of the node with this number.
    pub(super) fn new(number: usize, runtime: Handle) -> Result<Self> {
        let node = NodeId::parse(&format!("n{number:05}"))?;
        let (told, traffic, cable) = <_>::default();
        Ok(Self(Arc::new(Inner { node, runtime, told: watch::Sender::new(told), traffic, cable })))
    }

    /// Its node.
    pub fn node(&self) -> &NodeId {
        &self.0.node
    }

    /// How many tasks it was told to have.
    pub fn tasks(&self) -> usize {
        self.0.told.borrow().tasks.len()
    }

    /// What it was sent, and said.
    pub fn traffic(&self) -> Traffic {
        *self.0.traffic.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new connection to it.
    pub fn connect(&self) -> Channel {
        let cut = CancellationToken::new();
        *self.0.cable.lock().unwrap_or_else(PoisonError::into_inner) = cut.clone();
        let (router, runtime) = (self.router(), self.0.runtime.clone());
        let elsewhere = service_fn(move |request: Request<Body>| {
            let answering = runtime.spawn(router.clone().oneshot(request));
            async move {
                let failed = |_| StatusCode::INTERNAL_SERVER_ERROR.into_response();
                Ok::<_, Infallible>(answering.await.map_or_else(failed, |Ok(response)| response))
            }
        });
        Link::channel(Router::new().fallback_service(elsewhere), cut, watch::channel(Cable::WHOLE).1, 0)
    }

    /// Its connection is lost.
    pub fn cut(&self) {
        self.0.cable.lock().unwrap_or_else(PoisonError::into_inner).cancel();
    }

    fn router(&self) -> Router {
        Router::new()
            .route("/assignment", put(assign))
            .route("/endpoints", get(known_endpoints).put(tell_endpoints))
            .route("/hints", put(hint))
            .route("/members", put(introduce))
            .route("/reports", get(reports))
            .with_state(self.clone())
    }

    fn count(&self, kind: impl FnOnce(&mut Traffic) -> &mut Count, bytes: usize) {
        let mut traffic = self.0.traffic.lock().unwrap_or_else(PoisonError::into_inner);
        let count = kind(&mut traffic);
        count.messages += 1;
        count.bytes += bytes as u64;
    }

    fn report(&self) -> Report {
        let told = self.0.told.borrow();
        let tasks = told.tasks.iter().map(|id| TaskReport {
            id: id.clone(),
            phase: Phase::Running { health: Health::Healthy, address: None },
            age: Millis(0),
            restarts: 0,
            connections: 0,
        });
        let info = NodeInfo {
            hostname: self.0.node.to_string(),
            os: "linux".into(),
            arch: "amd64".into(),
            capacity: Capacity { cpus: NanoCpus(u64::MAX / 2), memory: Size(u64::MAX / 2) },
            labels: BTreeMap::new(),
            engine_version: "28.0.0".into(),
            agent_version: "0.1.0".into(),
            address: Some(format!("{}.example:7444", self.0.node)),
        };
        Report {
            info,
            following: told.following.clone(),
            engine: Engine::Up,
            tasks: tasks.collect(),
            uncounted: false,
            closed_ports: Vec::new(),
            uptime: None,
            lacks: std::collections::BTreeSet::new(),
        }
    }
}

async fn whole(body: Body) -> Result<Bytes, StatusCode> {
    axum::body::to_bytes(body, LARGEST).await.map_err(|_| StatusCode::BAD_REQUEST)
}

fn parse<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, StatusCode> {
    serde_json::from_slice(bytes).map_err(|_| StatusCode::UNPROCESSABLE_ENTITY)
}

async fn assign(State(agent): State<Agent>, body: Body) -> Result<StatusCode, StatusCode> {
    let body = whole(body).await?;
    agent.count(|traffic| &mut traffic.assignments, body.len());
    let Assigned { cluster, epoch, generation, tasks } = parse(&body)?;
    let stays = |task: &AssignedTask| !matches!(task.desired, Desired::Stop { .. });
    agent.0.told.send_modify(|told| {
        let endpoints = told.following.endpoints;
        told.following = Following { cluster, epoch, generation, endpoints };
        told.tasks = tasks.into_iter().filter(stays).map(|task| task.id).collect();
    });
    Ok(StatusCode::NO_CONTENT)
}

async fn known_endpoints(State(agent): State<Agent>) -> Json<Known> {
    let told = agent.0.told.borrow();
    let versions = told.versions.iter().map(|(service, version)| (service.clone(), version.clone()));
    Json(Known { generation: told.following.endpoints, versions: versions.collect() })
}

async fn tell_endpoints(
    State(agent): State<Agent>,
    Query(stamp): Query<Stamp>,
    body: Body,
) -> Result<StatusCode, StatusCode> {
    let body = whole(body).await?;
    agent.count(|traffic| &mut traffic.endpoints, body.len());
    let lines = body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let news: Vec<Endpoints> = lines.map(parse).collect::<Result<_, _>>()?;
    agent.0.told.send_modify(|told| {
        told.following.endpoints = stamp.generation;
        for Endpoints { project, service, version, ports } in news {
            let service = ServiceRef { project, service };
            if ports.is_empty() {
                told.versions.remove(&service);
            } else {
                told.versions.insert(service, version);
            }
        }
    });
    Ok(StatusCode::NO_CONTENT)
}

async fn hint(State(agent): State<Agent>, body: Body) -> Result<StatusCode, StatusCode> {
    agent.count(|traffic| &mut traffic.hints, whole(body).await?.len());
    Ok(StatusCode::NO_CONTENT)
}

async fn introduce(State(agent): State<Agent>, body: Body) -> Result<StatusCode, StatusCode> {
    agent.count(|traffic| &mut traffic.members, whole(body).await?.len());
    Ok(StatusCode::NO_CONTENT)
}

async fn reports(State(agent): State<Agent>, Query(query): Query<ReportsQuery>) -> Response {
    let (lines, mut received) = mpsc::channel::<Bytes>(1);
    tokio::spawn(async move {
        let mut told = agent.0.told.subscribe();
        let mut sent: Option<Report> = None;
        loop {
            told.borrow_and_update();
            let newest = agent.report();
            let is_old = sent.as_ref().is_some_and(|sent| query.brief && newest.goes_on_from(sent));
            let line =
                if is_old { Said::Same { uptime: None } } else { Said::Whole(Box::new(newest.clone())) };
            let Ok(mut text) = serde_json::to_vec(&line) else { return };
            text.push(b'\n');
            agent.count(|traffic| &mut traffic.reports, text.len());
            if lines.send(text.into()).await.is_err() {
                return;
            }
            sent = Some(newest);
            let _every_second = tokio::time::timeout(Duration::from_secs(1), told.changed()).await;
        }
    });
    let lines = futures_util::stream::poll_fn(move |context| {
        received.poll_recv(context).map(|line| line.map(Ok::<_, Infallible>))
    });
    Body::from_stream(lines).into_response()
}

// === impl Traffic ===

impl Traffic {
    /// What the agents were told.
    pub fn told(&self) -> Count {
        self.assignments + self.endpoints + self.hints + self.members
    }
}

impl Add for Traffic {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            assignments: self.assignments + other.assignments,
            endpoints: self.endpoints + other.endpoints,
            hints: self.hints + other.hints,
            members: self.members + other.members,
            reports: self.reports + other.reports,
        }
    }
}

impl Sub for Traffic {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self {
            assignments: self.assignments - other.assignments,
            endpoints: self.endpoints - other.endpoints,
            hints: self.hints - other.hints,
            members: self.members - other.members,
            reports: self.reports - other.reports,
        }
    }
}

impl Add for Count {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { messages: self.messages + other.messages, bytes: self.bytes + other.bytes }
    }
}

impl Sub for Count {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self { messages: self.messages - other.messages, bytes: self.bytes - other.bytes }
    }
}
