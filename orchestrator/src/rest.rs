//! The REST API that users and agents speak: every path, and the rules that hold for all of them.
//!
//! Handlers read one snapshot and answer from it; what they change goes through `mutate`, once. Errors have one shape
//! ([`tug_api::error`]), whoever makes them. Streams end when the orchestrator stops.

mod accept;
#[cfg(test)]
mod bench;
mod document;
mod edge;
mod exec;
mod extract;
mod fleet;
mod json;
mod link;
mod logs;
mod look;
mod merge;
mod mutate;
mod own;
mod projects;
mod stand;
mod validate;
mod watch;

use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodRouter, delete, get, post, put};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch as cell};
use tokio_util::sync::CancellationToken;
use tug_api::{ApiError, Clock, Code};
use tug_model::report::Phase;

use self::stand::Stand;
use crate::metrics::{Levels, Metrics, OpenStream, PlannerLevels};
use crate::nodes::Nodes;
use crate::plan::View;
use crate::store::Store;

pub use self::document::document;

/// So many watches, logs and exec conversations are open at once.
const MOST_STREAMS: usize = 64;

/// What the API is made of.
#[derive(Debug)]
pub struct Config {
    /// What is kept.
    pub store: Store,
    /// Who can be asked.
    pub nodes: Nodes,
    /// What the control loop last saw and decided.
    pub view: cell::Receiver<Arc<View>>,
    /// What the control loop has done so far.
    pub planner: cell::Receiver<PlannerLevels>,
    /// The time of day.
    pub clock: Clock,
    /// What is counted.
    pub metrics: Metrics,
    /// When it is cancelled, streams end.
    pub closing: CancellationToken,
    /// The names of the folder of our own state, of which no container may be shown anything.
    pub private: Vec<PathBuf>,
}

/// What every handler has.
#[derive(Debug)]
struct Context {
    store: Store,
    nodes: Nodes,
    stand: Stand,
    planner: cell::Receiver<PlannerLevels>,
    clock: Clock,
    metrics: Metrics,
    closing: CancellationToken,
    private: Vec<PathBuf>,
    streams: Arc<Semaphore>,
    outputs: Arc<Semaphore>,
}

/// A stream's place among the open ones.
#[derive(Debug)]
struct Place {
    _permit: OwnedSemaphorePermit,
    _counted: OpenStream,
}

type Shared = Arc<Context>;

/// The API as a router.
pub fn router(config: Config) -> Router {
    let edge = Arc::new(edge::Edge::new(config.clock, config.metrics.clone()));
    let context = Arc::new(Context {
        stand: Stand::new(config.store.clone(), config.nodes.observed(), config.view),
        store: config.store,
        nodes: config.nodes,
        planner: config.planner,
        clock: config.clock,
        metrics: config.metrics,
        closing: config.closing,
        private: config.private,
        streams: Arc::new(Semaphore::new(MOST_STREAMS)),
        outputs: Arc::new(Semaphore::new(logs::MOST_OUTPUTS)),
    });
    let mut router = Router::new();
    for (path, methods) in routes() {
        router = router.route(path, methods);
    }
    router.fallback(edge::not_found).layer(from_fn_with_state(edge, edge::run)).with_state(context)
}

/// Every path, with what answers there.
fn routes() -> Vec<(&'static str, MethodRouter<Shared>)> {
    vec![
        ("/healthz", get(own::healthz)),
        ("/readyz", get(own::readyz)),
        ("/metrics", get(own::metrics)),
        ("/v1/openapi.json", get(own::openapi)),
        ("/v1/info", get(look::info)),
        ("/v1/projects", get(projects::list)),
        (
            "/v1/projects/{project}",
            get(projects::read).merge(put(projects::apply)).merge(delete(projects::remove)),
        ),
        ("/v1/projects/{project}/status", get(projects::status)),
        ("/v1/projects/{project}/plan", post(projects::plan)),
        ("/v1/projects/{project}/scale", post(projects::scale)),
        ("/v1/projects/{project}/restart", post(projects::restart)),
        ("/v1/projects/{project}/services/{service}/why", get(look::why)),
        ("/v1/projects/{project}/services/{service}/exec", post(exec::exec)),
        ("/v1/events", get(look::events)),
        ("/v1/watch", get(watch::watch)),
        ("/v1/logs", get(logs::logs)),
        ("/v1/nodes", get(fleet::nodes)),
        ("/v1/top", get(fleet::top)),
        (tug_api::node::LINK_PATH, get(link::link)),
    ]
}

// === impl Context ===

impl Context {
    /// A place for one more stream.
    fn place(&self, kind: &'static str) -> Result<Place, ApiError> {
        let permit = Arc::clone(&self.streams).try_acquire_owned().map_err(|_| {
            let message = format!("{MOST_STREAMS} watches, logs and exec conversations are open already");
            ApiError::new(Code::TooMany, message).hint("end one of them, then try again")
        })?;
        Ok(Place { _permit: permit, _counted: self.metrics.open(kind) })
    }

    /// What the metrics read from the state.
    fn levels(&self) -> Levels {
        let view = self.stand.view();
        let world = &view.world;
        let connected = world
            .nodes
            .keys()
            .filter(|id| world.observed.nodes.get(*id).is_some_and(|node| node.connected))
            .count();
        let mut levels = Levels {
            revision: world.revision.0,
            projects: world.projects.len(),
            nodes: [connected, world.nodes.len().saturating_sub(connected)],
            planner: *self.planner.borrow(),
            ..Levels::default()
        };
        for node in world.observed.nodes.values().filter(|node| node.connected) {
            for task in node.report.iter().flat_map(|report| &report.tasks) {
                *levels.tasks.entry(phase(&task.phase)).or_default() += 1;
            }
        }
        levels
    }
}

fn phase(phase: &Phase) -> &'static str {
    match phase {
        Phase::Pending => "pending",
        Phase::Pulling { .. } => "pulling",
        Phase::Creating => "creating",
        Phase::Running { .. } if phase.is_healthy() => "healthy",
        Phase::Running { .. } => "running",
        Phase::Waiting { .. } => "waiting",
        Phase::Stopping => "stopping",
        Phase::Exited { .. } => "exited",
    }
}

#[cfg(test)]
mod tests;
