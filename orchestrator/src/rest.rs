//! The REST API that users and agents speak: every path, and the rules that hold for all of them.
//!
//! Handlers read one snapshot and answer from it; what they change goes through `mutate`, once. Errors have one shape
//! ([`tug_api::error`]), whoever makes them. Streams end when the orchestrator stops.

mod accept;
#[cfg(test)]
mod access;
mod authorise;
#[cfg(test)]
mod bench;
mod document;
mod edge;
mod exec;
mod extract;
mod fleet;
mod gate;
mod join;
mod json;
mod link;
mod logs;
mod look;
mod machines;
mod merge;
mod mutate;
mod own;
mod pins;
mod places;
mod projects;
mod servers;
mod stand;
mod tokens;
mod validate;
mod volumes;
mod watch;

use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodRouter, delete, get, post, put};
use http::Method;
use tokio::sync::{Semaphore, watch as cell};
use tokio_util::sync::CancellationToken;
use tug_api::{ApiError, Clock, Code};
use tug_model::report::Phase;
use tug_model::token::AccessRole;

use self::authorise::{Guard, Need, Who};
use self::places::{Places, Taken};
use self::stand::Stand;
use crate::authority::Authority;
use crate::metrics::{Levels, Metrics, OpenStream, PlannerLevels};
use crate::nodes::Nodes;
use crate::plan::View;
use crate::store::Store;

pub use self::document::document;
pub use self::servers::Servers;

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
    /// Signs certificates; `None`: nobody joins.
    pub(crate) authority: Option<Arc<Authority>>,
    /// Where other machines reach this control plane, as `host:port`.
    pub servers: Servers,
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
    authority: Option<Arc<Authority>>,
    servers: Servers,
    gate: gate::Gate,
    private: Vec<PathBuf>,
    places: Places,
    outputs: Arc<Semaphore>,
}

/// A stream's place among the open ones.
#[derive(Debug)]
struct Place {
    _taken: Taken,
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
        authority: config.authority,
        servers: config.servers,
        gate: gate::Gate::default(),
        private: config.private,
        places: Places::new(),
        outputs: Arc::new(Semaphore::new(logs::MOST_OUTPUTS)),
    });
    let mut router = Router::new();
    for (_, path, need, methods) in routes() {
        let guard = Guard { need, context: Arc::clone(&context) };
        router = router.route(path, methods.route_layer(from_fn_with_state(guard, authorise::check)));
    }
    router.fallback(edge::not_found).layer(from_fn_with_state(edge, edge::run)).with_state(context)
}

/// Every path, what it needs, and what answers there.
fn routes() -> Vec<(Method, &'static str, Need, MethodRouter<Shared>)> {
    const LOOK: Need = Need::Role(AccessRole::Viewer);
    const DEPLOY: Need = Need::Role(AccessRole::Deployer);
    const ADMIN: Need = Need::Role(AccessRole::Admin);
    vec![
        (Method::GET, "/healthz", Need::Nothing, get(own::healthz)),
        (Method::GET, "/readyz", Need::Known, get(own::readyz)),
        (Method::GET, "/metrics", LOOK, get(own::metrics)),
        (Method::GET, "/v1/openapi.json", Need::Known, get(own::openapi)),
        (Method::GET, "/v1/whoami", Need::Known, get(tokens::whoami)),
        (Method::GET, "/v1/info", Need::Known, get(look::info)),
        (Method::GET, "/v1/projects", LOOK, get(projects::list)),
        (Method::GET, "/v1/projects/{project}", LOOK, get(projects::read)),
        (Method::PUT, "/v1/projects/{project}", DEPLOY, put(projects::apply)),
        (Method::DELETE, "/v1/projects/{project}", DEPLOY, delete(projects::remove)),
        (Method::GET, "/v1/projects/{project}/status", LOOK, get(projects::status)),
        (Method::POST, "/v1/projects/{project}/plan", LOOK, post(projects::plan)),
        (Method::POST, "/v1/projects/{project}/scale", DEPLOY, post(projects::scale)),
        (Method::POST, "/v1/projects/{project}/restart", DEPLOY, post(projects::restart)),
        (Method::GET, "/v1/projects/{project}/services/{service}/why", LOOK, get(look::why)),
        (Method::POST, "/v1/projects/{project}/services/{service}/exec", DEPLOY, post(exec::exec)),
        (Method::GET, "/v1/events", LOOK, get(look::events)),
        (Method::GET, "/v1/watch", LOOK, get(watch::watch)),
        (Method::GET, "/v1/logs", LOOK, get(logs::logs)),
        (Method::GET, "/v1/nodes", LOOK, get(fleet::nodes)),
        (Method::GET, "/v1/nodes/{node}", LOOK, get(machines::read)),
        (Method::DELETE, "/v1/nodes/{node}", ADMIN, delete(machines::remove)),
        (Method::PUT, "/v1/nodes/{node}/availability", ADMIN, put(machines::availability)),
        (Method::PUT, "/v1/nodes/{node}/labels", ADMIN, put(machines::labels)),
        (Method::POST, "/v1/nodes/{node}/certificate", ADMIN, post(join::certificate)),
        (Method::DELETE, "/v1/nodes/{node}/volumes/{volume}", ADMIN, delete(volumes::forget)),
        (Method::GET, "/v1/volumes", LOOK, get(volumes::list)),
        (Method::GET, "/v1/top", LOOK, get(fleet::top)),
        (Method::GET, "/v1/tokens", ADMIN, get(tokens::list)),
        (Method::POST, "/v1/tokens", ADMIN, post(tokens::create)),
        (Method::DELETE, "/v1/tokens/{token}", ADMIN, delete(tokens::remove)),
        (Method::POST, "/v1/join", Need::Nothing, post(join::join)),
        (Method::POST, "/v1/renew", Need::Nothing, post(join::renew)),
        (Method::GET, tug_api::node::LINK_PATH, Need::Node, get(link::link)),
    ]
}

// === impl Context ===

impl Context {
    /// A place for one more stream of `who`.
    fn place(&self, kind: &'static str, who: &Who) -> Result<Place, ApiError> {
        Ok(Place { _taken: self.places.take(who)?, _counted: self.metrics.open(kind) })
    }

    /// What signs certificates.
    fn authority(&self) -> Result<Arc<Authority>, ApiError> {
        self.authority.clone().ok_or_else(|| {
            ApiError::new(
                Code::Unavailable,
                "this control plane has no certificate authority: nobody can join",
            )
            .hint("run it with a state folder: tug server")
        })
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
