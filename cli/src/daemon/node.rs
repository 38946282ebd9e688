//! The node side as the binary puts it together: the local Docker Engine, probes over the network, a holder.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tug_agent::guard;
use tug_agent::health::Network;
use tug_agent::holder::HolderConfig;
use tug_agent::identity::{self, Membership, Origin};
use tug_agent::peer;
use tug_agent::proxy::{self, StopKind};
use tug_agent::runtime::Runtime;
use tug_agent::runtime::docker::Docker;
use tug_agent::{Agent, Config, Server};
use tug_api::Clock;
use tug_model::NodeId;

use crate::arguments::{Listening, NodeOptions};
use crate::failure::{CONFIGURATION, FAILED, Failure};

/// What a node is made of.
#[derive(Debug)]
pub(super) struct NodePlan {
    /// The folder that the user named; the agent's own is below it.
    pub(super) state_dir: PathBuf,
    /// Its id, if that is chosen already.
    pub(super) id: Option<NodeId>,
    /// Its labels.
    pub(super) labels: BTreeMap<String, String>,
    /// The Engine's socket.
    pub(super) docker: PathBuf,
    /// Where the orchestrator is.
    pub(super) server: Server,
    /// How the agents of other nodes reach it.
    pub(super) peer: Option<peer::Config>,
    /// What becomes of the listening sockets at the end.
    pub(super) at_stop: StopKind,
}

/// A node that can be run.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) agent: Agent,
    pub(super) runtime: Arc<dyn Runtime>,
}

// === impl NodePlan ===

impl NodePlan {
    /// The node that the options describe.
    pub(super) fn new(state_dir: PathBuf, options: &NodeOptions, server: Server) -> Result<Self, Failure> {
        let id = options.id.as_deref().map(NodeId::parse).transpose();
        Ok(Self {
            state_dir,
            id: id.map_err(|error| Failure::usage(error.to_string()))?,
            labels: labels(&options.labels)?,
            docker: engine_socket(&options.engine.docker)?,
            server,
            peer: peer(options)?,
            at_stop: StopKind::HandOver,
        })
    }

    /// A node that has joined: its id is known.
    pub(super) fn joined(
        state_dir: PathBuf,
        options: &NodeOptions,
        membership: &Membership,
    ) -> Result<Self, Failure> {
        let plan = Self::new(state_dir, options, Server::Joined)?;
        let known = &membership.facts.node;
        if let Some(other) = plan.id.as_ref().filter(|id| *id != known) {
            return Err(Failure {
                code: CONFIGURATION,
                ..Failure::new(format!("this machine joined its cluster as node {known}, not as {other}"))
                    .hint("leave --node away")
            });
        }
        Ok(Self { id: Some(known.clone()), ..plan })
    }

    /// Puts the node together.
    pub(super) async fn open(self, clock: Clock) -> Result<Node, Failure> {
        let state_dir = agent_dir(&self.state_dir);
        let unusable = |error: tug_agent::OpenError| unusable("the agent", &state_dir, &error);
        let hostname = Config::local_hostname();
        let node = Config::node_id(&state_dir, self.id, &hostname).map_err(unusable)?;
        let runtime: Arc<dyn Runtime> = Arc::new(Docker::new(&self.docker, node.clone()));
        let holder = holder(&self.state_dir)?;
        let guard = guard::Config { holder: holder.clone(), engine: self.docker };
        let balancer =
            proxy::Config { holder: Some(holder), at_stop: self.at_stop, ..proxy::Config::default() };
        let config = Config {
            state_dir: state_dir.clone(),
            private: self.state_dir,
            node: Some(node),
            hostname,
            labels: self.labels,
            runtime: Arc::clone(&runtime),
            prober: Arc::new(Network),
            clock,
            server: Some(self.server),
            balancer: Some(balancer),
            peer: self.peer,
            guard: Some(guard),
            concurrency: Config::CONCURRENCY,
            seed: seed()?,
        };
        let (agent, _handle) = Agent::open(config).await.map_err(unusable)?;
        Ok(Node { agent, runtime })
    }
}

/// What this machine is in a cluster that it joined from elsewhere.
pub(super) fn joined(state_dir: &Path) -> Result<Option<Membership>, Failure> {
    let folder = agent_dir(state_dir);
    let kept = identity::Folder::of(&folder).load();
    let kept = kept.map_err(|error| unusable("the agent", &folder, &tug_agent::OpenError::from(error)))?;
    Ok(kept.filter(|membership| matches!(membership.facts.origin, Origin::Joined { .. })))
}

/// How the agents of other nodes reach the node that the options describe.
fn peer(options: &NodeOptions) -> Result<Option<peer::Config>, Failure> {
    let Listening::At(listen) = options.peer_listen else { return Ok(None) };
    let advertised = options.peer_advertise.as_ref();
    let advertise = advertised.map(|one| one.with_port_of(listen, "--peer-advertise")).transpose()?;
    Ok(Some(peer::Config { listen, advertise }))
}

/// The agent's own folder below the one that the user named: a control plane may keep its state beside it.
pub(super) fn agent_dir(state_dir: &Path) -> PathBuf {
    state_dir.join("agent")
}

/// How the agent that keeps its state below `state_dir` finds its holder.
pub(super) fn holder(state_dir: &Path) -> Result<HolderConfig, Failure> {
    let executable = std::env::current_exe().map_err(|error| Failure::caused("find this program", &error))?;
    let state_dir =
        std::path::absolute(state_dir).map_err(|error| Failure::caused("find the state folder", &error))?;
    let arguments: Vec<OsString> = vec!["hold".into(), "--state-dir".into(), state_dir.clone().into()];
    Ok(HolderConfig { executable, arguments, socket: agent_dir(&state_dir).join("holder.sock") })
}

/// State that cannot be used: one line, and an exit code that tells a service manager not to try again, unless another
/// process has the state, which will end.
pub(super) fn unusable(who: &str, state_dir: &Path, error: &(dyn std::error::Error + 'static)) -> Failure {
    let what = format!("{who} cannot use its state in {}", state_dir.display());
    let is_locked = error.downcast_ref().is_some_and(tug_agent::OpenError::is_locked)
        || error.downcast_ref().is_some_and(tug_orchestrator::app::Error::is_locked);
    Failure { code: if is_locked { FAILED } else { CONFIGURATION }, ..Failure::caused(&what, error) }
}

/// The path in `unix:///path` or `/path`.
pub(super) fn engine_socket(engine: &str) -> Result<PathBuf, Failure> {
    let path = engine.strip_prefix("unix://").unwrap_or(engine);
    if path.contains("://") {
        return Err(Failure::usage(format!("{engine}: a node runs the Docker Engine of its own machine"))
            .hint("name its socket with --docker or DOCKER_HOST, as in unix:///var/run/docker.sock"));
    }
    Ok(path.into())
}

fn labels(pairs: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    let pair = |pair: &String| match pair.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(Failure::usage(format!("the label `{}` is not KEY=VALUE", pair.escape_default()))),
    };
    pairs.iter().map(pair).collect()
}

fn seed() -> Result<u64, Failure> {
    getrandom::u64().map_err(|error| Failure::new(format!("draw a random number: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_sockets_are_read() {
        let read = labels(&["disk=ssd".into(), "a=".into(), "b=c=d".into()]).unwrap();
        assert_eq!((read["disk"].as_str(), read["a"].as_str(), read["b"].as_str()), ("ssd", "", "c=d"));
        assert!(labels(&["disk".into()]).is_err() && labels(&["=x".into()]).is_err());
        assert_eq!(engine_socket("unix:///run/d.sock").unwrap(), Path::new("/run/d.sock"));
        assert_eq!(engine_socket("/run/d.sock").unwrap(), Path::new("/run/d.sock"));
        assert!(engine_socket("ssh://host").is_err());
    }

    #[test]
    fn the_holder_is_found_by_the_folder_that_the_user_named() {
        let holder = holder(Path::new("/s")).unwrap();
        assert_eq!(holder.socket, Path::new("/s/agent/holder.sock"));
        assert_eq!(holder.arguments, ["hold", "--state-dir", "/s"]);
    }
}
