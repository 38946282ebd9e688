//! What the tests of the API stand on: the real router over a real store.

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::response::Response;
use http::{HeaderMap, Request, StatusCode};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use tug_api::Clock;
use tug_api::error::ErrorBody;
use tug_model::task::{Desired, Task, Template};
use tug_model::{Millis, NodeId, Revision, Slot, TaskId, Timestamp};

use super::{Config, router};
use crate::authority::Authority;
use crate::metrics::{Metrics, PlannerLevels};
use crate::nodes::Nodes;
use crate::plan::View;
use crate::store::{self, Change, MemoryDisk, Store};

pub(super) struct Bench {
    pub(super) store: Store,
    pub(super) nodes: Nodes,
    pub(super) router: Router,
    /// Ends the streams.
    pub(super) closing: CancellationToken,
    /// Held like the control loop holds it.
    _view: watch::Sender<Arc<View>>,
    _planner: watch::Sender<PlannerLevels>,
    stop: CancellationToken,
    running: Vec<JoinHandle<()>>,
    folder: Option<tempfile::TempDir>,
}

/// An answer, read whole.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) text: String,
}

impl Bench {
    /// Over a store in a folder.
    pub(super) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = store::Config::folder(folder.path().join("store"), "c1");
        Self { folder: Some(folder), ..Self::over(config).await }
    }

    /// Over a store in memory, for a paused clock.
    pub(super) async fn in_memory() -> (Self, MemoryDisk) {
        let disk = MemoryDisk::new();
        (Self::over(store::Config::memory(&disk, "c1")).await, disk)
    }

    async fn over(config: store::Config) -> Self {
        let (store, writer) = store::open(config).await.unwrap();
        let clock = Clock::starting_at(Timestamp(1_000_000));
        let (nodes, publisher) = Nodes::new(store.clone(), clock);
        let (view, seen) = watch::channel(Arc::default());
        let (planner, levels) = watch::channel(PlannerLevels::default());
        let (stop, closing) = (CancellationToken::new(), CancellationToken::new());
        let (writing, publishing) = (stop.clone(), stop.clone());
        let running = vec![
            tokio::spawn(async move {
                writer.run(writing).await;
            }),
            tokio::spawn(publisher.run(publishing)),
        ];
        let router = router(Config {
            store: store.clone(),
            nodes: nodes.clone(),
            view: seen,
            planner: levels,
            clock,
            metrics: Metrics::new(),
            authority: Some(Arc::new(Authority::for_test("c", Millis::from_secs(3600), clock.now()))),
            servers: super::Servers::new(vec!["tug.example:7443".to_owned()], ([192, 0, 2, 1], 7443).into()),
            closing: closing.clone(),
            private: vec!["/var/lib/tug".into(), "/srv/tug".into()],
        });
        Self { store, nodes, router, closing, _view: view, _planner: planner, stop, running, folder: None }
    }

    pub(super) async fn send(&self, request: Request<Body>) -> Response {
        self.router.clone().oneshot(request).await.unwrap()
    }

    pub(super) async fn ask(&self, request: Request<Body>) -> Answer {
        let (parts, body) = self.send(request).await.into_parts();
        let bytes = to_bytes(body, 64 << 20).await.unwrap();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        Answer { status: parts.status, headers: parts.headers, text }
    }

    pub(super) async fn get(&self, path: &str) -> Answer {
        self.ask(Request::get(path).body(Body::empty()).unwrap()).await
    }

    pub(super) async fn json(&self, method: &str, path: &str, body: &Value) -> Answer {
        self.ask(request(method, path, body)).await
    }

    pub(super) async fn apply(&self, spec: &Value) -> Answer {
        let path = format!("/v1/projects/{}", spec["name"].as_str().unwrap());
        self.json("PUT", &path, &json!({ "spec": spec })).await
    }

    /// Decides on a task of `web` in `slot`, as the control loop would.
    pub(super) async fn task(&self, slot: u32) -> TaskId {
        let spec = self.store.snapshot().projects.values().next().unwrap().spec.clone();
        let (service, web) = spec.services.iter().find(|(name, _)| name.as_str() == "web").unwrap();
        let template = Template::of(&spec, web);
        let task = Task {
            id: Task::id_for(&spec.name, service, Slot(slot), Revision(1)),
            project: spec.name.clone(),
            service: service.clone(),
            slot: Slot(slot),
            node: node(),
            template: template.hash(),
            desired: Desired::Run,
            created_at: Timestamp(1),
            exclusive: None,
        };
        let id = task.id.clone();
        let changes = vec![Change::template(template), Change::PutTask(Arc::new(task))];
        self.store.commit(Timestamp(1), move |_, _| changes).await.unwrap();
        id
    }

    pub(super) async fn end(self) {
        self.closing.cancel();
        self.stop.cancel();
        for running in self.running {
            running.await.unwrap();
        }
        drop(self.folder);
    }
}

impl Answer {
    pub(super) fn value(&self) -> Value {
        assert!(self.status.is_success(), "{self:?}");
        serde_json::from_str(&self.text).unwrap()
    }

    pub(super) fn error(&self) -> ErrorBody {
        let body: ErrorBody = serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("{self:?}"));
        assert_eq!(self.headers["x-request-id"], body.request_id.as_str());
        body
    }
}

pub(super) fn node() -> NodeId {
    NodeId::parse("n1").unwrap()
}

pub(super) fn request(method: &str, path: &str, body: &Value) -> Request<Body> {
    let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
    request.body(Body::from(body.to_string())).unwrap()
}

/// A small project.
pub(super) fn shop() -> Value {
    json!({
        "name": "shop",
        "services": {
            "web": {
                "container": { "image": "hello:1" },
                "deploy": { "mode": { "replicated": 3 } },
                "ports": [{ "target": 80, "published": 8080 }],
            },
            "db": { "container": { "image": "postgres:17" } },
            "watcher": { "container": { "image": "watcher" }, "deploy": { "mode": "global" } },
        },
    })
}
