//! What the orchestrator asks the agent: the requests of `tug_api::node`.

mod exec;
mod logs;
mod usage;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::extract::{DefaultBodyLimit, Path, Query, Request, State};
use axum::response::Response;
use axum::routing::{get, post, put};
use axum::{Json, Router};
use futures_util::{TryStreamExt, stream};
use http::StatusCode;
use tokio::sync::watch;
use tug_api::error::chain;
use tug_api::image::{ResolveRequest, Resolved, Shape};
use tug_api::node::ReportsQuery;
use tug_api::{ApiError, Code, lines};
use tug_model::assignment::{Assignment, Hints};
use tug_model::endpoints::{Known, ServiceEndpoints, Stamp};
use tug_model::lease::Lease;
use tug_model::report::Said;
use tug_model::{Digest, TaskId};

use crate::control::{Follower, Inside, Rejection, Snapshot};
use crate::image::Images;
use crate::lease::LeaseBook;
use crate::peer::Members;
use crate::proxy::BalancerHandle;
use crate::runtime::{ContainerId, Runtime};

/// How everything stands, now and from now on.
type Snapshots = watch::Receiver<Option<Arc<Snapshot>>>;

/// Whom the requests are for.
#[derive(Clone)]
pub(crate) struct Asked {
    pub(crate) follower: Arc<Follower>,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) balancer: BalancerHandle,
    pub(crate) images: Arc<Images>,
    pub(crate) leases: Arc<LeaseBook>,
    pub(crate) members: Members,
}

/// What the handlers share.
#[derive(Clone)]
struct Shared {
    asked: Asked,
    snapshots: Snapshots,
    samples: Arc<Mutex<BTreeMap<ContainerId, usage::Sample>>>,
}

/// The largest assignment in bytes: ten thousand tasks and their configs.
const LARGEST: usize = 256 << 20;

/// The agent's router.
pub(crate) fn router(asked: Asked, snapshots: Snapshots) -> Router {
    Router::new()
        .route("/assignment", put(assignment))
        .route("/endpoints", get(known_endpoints).put(endpoints))
        .route("/lease", put(lease))
        .route("/hints", put(hints))
        .route("/members", put(members))
        .route("/reports", get(reports))
        .route("/tasks/{id}/logs", get(logs::logs))
        .route("/tasks/{id}/exec", post(exec::exec))
        .route("/usage", get(usage::usage))
        .route("/images", put(exchange))
        .route("/images/{id}", get(image))
        .route("/images/resolve", post(resolve))
        .layer(DefaultBodyLimit::max(LARGEST))
        .with_state(Shared { asked, snapshots, samples: Arc::default() })
}

async fn assignment(State(shared): State<Shared>, request: Request) -> Result<StatusCode, ApiError> {
    let assignment: Assignment = body(request).await?;
    answer(shared.asked.follower.accept(assignment))
}

/// What the node knows of the endpoints.
async fn known_endpoints(State(shared): State<Shared>) -> Json<Known> {
    json(shared.asked.follower.known_endpoints())
}

async fn endpoints(
    State(shared): State<Shared>,
    Query(stamp): Query<Stamp>,
    request: Request,
) -> Result<StatusCode, ApiError> {
    let news = lines::read::<ServiceEndpoints>(request.into_body()).try_collect().await;
    let news: Vec<ServiceEndpoints> = news.map_err(|error| ApiError::new(Code::Invalid, chain(&error)))?;
    answer(shared.asked.follower.accept_endpoints(stamp, news))
}

/// Whether the node follows what it was told.
fn answer(accepted: Result<(), Rejection>) -> Result<StatusCode, ApiError> {
    match accepted {
        Ok(()) => Ok(StatusCode::NO_CONTENT),
        Err(error @ Rejection::Refused(_)) => {
            tracing::warn!(reason = chain(&error), "the node does not follow what it is told");
            Err(ApiError::new(Code::Conflict, chain(&error)))
        }
        Err(error @ Rejection::Flawed(_)) => Err(ApiError::new(Code::Invalid, chain(&error))),
        Err(Rejection::Disk(error)) => {
            let code = if error.is_disk_full() { Code::StoreFull } else { Code::Internal };
            Err(ApiError::new(code, chain(&error)))
        }
    }
}

/// For which exclusive tasks the node has a lease.
async fn lease(State(shared): State<Shared>, request: Request) -> Result<StatusCode, ApiError> {
    let lease: Lease = body(request).await?;
    let following = shared.asked.follower.following();
    match shared.asked.leases.take(&lease, &following) {
        Ok(()) => Ok(StatusCode::NO_CONTENT),
        Err(error) => Err(ApiError::new(Code::Conflict, error.to_string())),
    }
}

/// Whom the balancer tries last.
async fn hints(State(shared): State<Shared>, request: Request) -> Result<StatusCode, ApiError> {
    let hints: Hints = body(request).await?;
    shared.asked.balancer.set_hints(hints);
    Ok(StatusCode::NO_CONTENT)
}

/// Who belongs to the cluster.
async fn members(
    State(shared): State<Shared>,
    Query(stamp): Query<Stamp>,
    request: Request,
) -> Result<StatusCode, ApiError> {
    let members = body(request).await?;
    // Whose endpoints are not routed by, is not believed in this either.
    let known = shared.asked.follower.knows(stamp).map_err(Rejection::Refused);
    answer(known.map(|()| shared.asked.members.tell(members)))
}

/// Which images travel.
async fn exchange(State(shared): State<Shared>, request: Request) -> Result<StatusCode, ApiError> {
    shared.asked.images.tell(body(request).await?);
    Ok(StatusCode::NO_CONTENT)
}

/// Whether an image is here.
async fn image(State(shared): State<Shared>, Path(id): Path<String>) -> Result<Json<Shape>, ApiError> {
    let image = Digest::parse(&id).map_err(|error| ApiError::new(Code::BadRequest, error.to_string()))?;
    shared.asked.images.shape(&image).await.map(Json)
}

/// What names of images mean.
async fn resolve(
    State(shared): State<Shared>,
    request: Request,
) -> Result<Json<Vec<Option<Resolved>>>, ApiError> {
    let wanted: ResolveRequest = body(request).await?;
    Ok(Json(shared.asked.images.resolve(&wanted).await))
}

/// The newest report, then every one that follows; those that come while nobody reads are skipped.
async fn reports(State(mut shared): State<Shared>, Query(query): Query<ReportsQuery>) -> Response {
    shared.snapshots.mark_changed();
    let sent: Option<Arc<Snapshot>> = None;
    lines::response(stream::unfold(
        (shared.snapshots, sent, query.brief),
        async |(mut snapshots, sent, brief)| {
            loop {
                // The sender goes when the agent stops.
                snapshots.changed().await.ok()?;
                let Some(newest) = snapshots.borrow_and_update().clone() else { continue };
                let is_old = |sent: &Arc<Snapshot>| brief && newest.report.goes_on_from(&sent.report);
                if let Some(sent) = sent.as_ref().filter(|sent| is_old(sent)) {
                    let same = Said::Same { uptime: newest.report.uptime };
                    return Some((same, (snapshots, Some(Arc::clone(sent)), brief)));
                }
                let whole = Said::Whole(Box::new(newest.report.clone()));
                return Some((whole, (snapshots, Some(newest), brief)));
            }
        },
    ))
}

impl Shared {
    /// The container of a task.
    fn inside(&self, task: &TaskId) -> Result<Inside, ApiError> {
        let snapshot = self.snapshots.borrow().clone();
        let snapshot = snapshot.ok_or_else(|| {
            ApiError::new(Code::Unavailable, "the node has not looked at its containers yet")
        })?;
        let inside = snapshot.containers.get(task).cloned();
        inside.ok_or_else(|| ApiError::not_found(format!("container of task `{task}` on this node")))
    }
}

/// The task in a path.
fn task(Path(id): Path<String>) -> Result<TaskId, ApiError> {
    TaskId::parse(&id).map_err(|error| ApiError::new(Code::BadRequest, error.to_string()))
}

/// What a request says.
async fn body<T: serde::de::DeserializeOwned>(request: Request) -> Result<T, ApiError> {
    let body = axum::body::to_bytes(request.into_body(), LARGEST)
        .await
        .map_err(|error| ApiError::new(Code::BadRequest, chain(&error)))?;
    serde_json::from_slice(&body).map_err(|error| {
        let code = if error.is_data() { Code::Invalid } else { Code::JsonSyntax };
        ApiError::new(code, error.to_string())
    })
}

/// An answer as JSON.
fn json<T: serde::Serialize>(value: T) -> Json<T> {
    Json(value)
}
