//! Puts the agent together: state on disk, the control loop, the balancer, the router, the link.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tug_api::Clock;
use tug_api::error::chain;
use tug_api::folder::{self, FolderError};
use tug_model::NodeId;

use crate::control::{Control, Follower, Machine, Parts};
use crate::guard::{self, Guard};
use crate::health::Prober;
use crate::http::{self, Asked};
use crate::identity::{self, Keeper, Member};
use crate::image::Images;
use crate::lease::LeaseBook;
use crate::ledger::{self, Ledger, Lock};
use crate::link;
use crate::peer::{self, Members, Peers};
use crate::proxy::{self, Balancer, BalancerHandle};
use crate::route::Table;
use crate::runtime::Runtime;

/// What an agent is told when it starts.
#[derive(Debug)]
pub struct Config {
    /// Where it keeps what must outlive it.
    pub state_dir: PathBuf,
    /// The folder of which no container may be shown anything: the state lies in it, and perhaps that of others of our
    /// daemons.
    pub private: PathBuf,
    /// The node's id; `None`: the one it has had, or a new one made from the host's name.
    pub node: Option<NodeId>,
    /// The machine's name, for people.
    pub hostname: String,
    /// The node's labels, for placement.
    pub labels: BTreeMap<String, String>,
    /// The container engine. It is asked for containers of the node that [`Config::node_id`] names.
    pub runtime: Arc<dyn Runtime>,
    /// Asks tasks whether they serve.
    pub prober: Arc<dyn Prober>,
    /// The time of day.
    pub clock: Clock,
    /// Where the orchestrator is, which is dialled; `None` when it has the router itself.
    pub server: Option<Server>,
    /// The balancer; `None` does not run it: ports stay closed.
    pub balancer: Option<proxy::Config>,
    /// Other agents, whose tasks the balancer gives connections to as well; `None`: the node is alone.
    pub peer: Option<peer::Config>,
    /// Ends what is exclusive when the agent cannot; `None`: nobody does.
    pub guard: Option<guard::Config>,
    /// How many containers are made, started or removed at once.
    pub concurrency: usize,
    /// Decides where waits fall in their spread: the same seed waits the same.
    pub seed: u64,
}

/// Where an agent's orchestrator is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Server {
    /// On this machine, behind this socket.
    Socket(PathBuf),
    /// Elsewhere, as the node was told when it joined: its [`identity`] knows.
    Joined,
}

/// The agent, standing still.
#[derive(Debug)]
pub struct Agent {
    ledger: Arc<Ledger>,
    lock: Lock,
    control: Control,
    images: Arc<Images>,
    balancer: Option<Balancer>,
    balancer_handle: BalancerHandle,
    link: Option<link::Link>,
    keeper: Option<Keeper>,
    guard: Option<Guard>,
}

/// What others may ask of an agent.
#[derive(Debug, Clone)]
pub struct Handle {
    /// Who it is.
    pub node: NodeId,
    /// What the orchestrator asks: the requests of `tug_api::node`.
    pub router: Router,
    /// Who serves on which port, as the balancer is told.
    pub tables: watch::Receiver<Arc<Table>>,
    /// The balancer.
    pub balancer: BalancerHandle,
    /// What the node is in its cluster; `None` as long as no control plane has said so.
    pub member: watch::Receiver<Option<Member>>,
    /// By which address of this machine the orchestrator is reached; `None`: it is on this machine, or not reached yet.
    pub local: watch::Receiver<Option<IpAddr>>,
}

/// The end of the agent before this one is waited for so long.
const LOCK_WAIT: Duration = Duration::from_secs(5);
/// And looked for so often.
const LOCK_LOOK: Duration = Duration::from_millis(50);

/// Why an agent cannot start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// What it keeps on disk cannot be read or written.
    #[error("open the agent's state")]
    State(#[from] ledger::LedgerError),
    /// The folder that must be ours alone is not.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// What proves who the node is cannot be read or written.
    #[error("read the node's identity")]
    Identity(#[from] identity::Error),
}

// === impl Config ===

impl Config {
    /// The number of containers that are made at once where nothing else is said: the engine is no faster with more.
    pub const CONCURRENCY: usize = 8;

    /// The id that the node in `state_dir` has, made now if it has none. The runtime needs it before the agent, and so
    /// before the folder is this agent's.
    pub fn node_id(
        state_dir: &std::path::Path,
        wanted: Option<NodeId>,
        hostname: &str,
    ) -> Result<NodeId, OpenError> {
        Ok(Ledger::open(state_dir)?.node_before_lock(wanted, hostname)?)
    }

    /// What keeps the node's identity, if it has an orchestrator to show it to.
    fn keeper(&self, node: &NodeId) -> Result<Option<Keeper>, OpenError> {
        let Some(server) = &self.server else { return Ok(None) };
        let folder = identity::Folder::of(&self.state_dir);
        Ok(Some(Keeper::open(folder, server.way(), node.clone(), self.clock, self.seed)?))
    }

    /// The name of this machine.
    pub fn local_hostname() -> String {
        rustix::system::uname().nodename().to_string_lossy().into_owned()
    }
}

// === impl Server ===

impl Server {
    fn way(&self) -> identity::Way {
        match self {
            Self::Socket(path) => identity::Way::Socket(path.clone()),
            Self::Joined => identity::Way::Servers,
        }
    }

    fn place(server: Option<Self>, keeper: Option<&Keeper>) -> Result<Option<link::Place>, OpenError> {
        let Some((server, keeper)) = server.zip(keeper) else { return Ok(None) };
        Ok(Some(match server {
            Self::Socket(path) => link::Place::Socket(path),
            Self::Joined => link::Place::Servers { server: keeper.server()?, addresses: keeper.servers() },
        }))
    }
}

// === impl OpenError ===

impl OpenError {
    /// Whether another agent works on the folder. Later it may not: this is worth another try.
    pub fn is_locked(&self) -> bool {
        match self {
            Self::State(error) => error.is_locked(),
            Self::Folder(_) | Self::Identity(_) => false,
        }
    }
}

// === impl Agent ===

impl Agent {
    /// Reads what is on disk and puts everything together. No container is changed before [`Agent::run`].
    ///
    /// In an upgrade the agent before this one may still be on its way out: for a moment, its end is waited for.
    pub async fn open(config: Config) -> Result<(Self, Handle), OpenError> {
        let private = folder::prepare(&config.private)?;
        let ledger = Arc::new(Ledger::open(&config.state_dir)?);
        let lock = lock(&ledger).await?;
        let node = ledger.node(config.node.clone(), &config.hostname)?;
        let follower = Arc::new(Follower::new(Arc::clone(&ledger), &node)?);
        let (table, tables) = watch::channel(Arc::new(Table::default()));
        let keeper = config.keeper(&node)?;
        let member = keeper.as_ref().map_or_else(|| watch::Sender::new(None).subscribe(), Keeper::member);
        let (local_sender, local) = watch::channel(None);
        let runtime = Arc::clone(&config.runtime);
        let images = Arc::new(Images::new(runtime, member.clone(), config.state_dir.join("images")));
        let (members, router) = (Members::default(), images.router());
        let peers = config.peer.as_ref();
        let peers = peers.map(|it| Peers::new(it, member.clone(), local.clone(), router, members.clone()));
        let (peers, address) = peers.unzip();
        let (balancer, balancer_handle) =
            Balancer::new(config.balancer.clone().unwrap_or_default(), tables.clone(), peers);
        let (snapshot, snapshots) = watch::channel(None);
        let leases = Arc::new(LeaseBook::open(Arc::clone(&ledger), config.clock)?);
        let guard = config.guard.map(|config| Guard::new(config, &node, &leases));
        let asked = Asked {
            follower: Arc::clone(&follower),
            runtime: Arc::clone(&config.runtime),
            balancer: balancer_handle.clone(),
            images: Arc::clone(&images),
            leases: Arc::clone(&leases),
            members,
        };
        let router = http::router(asked, snapshots);
        let control = Control::new(Parts {
            runtime: config.runtime,
            prober: config.prober,
            clock: config.clock,
            ledger: Arc::clone(&ledger),
            follower,
            leases,
            balancer: balancer_handle.clone(),
            table,
            snapshot,
            machine: Machine { hostname: config.hostname, labels: config.labels, address },
            images: Arc::clone(&images),
            configs: config.state_dir.join("configs"),
            private,
            concurrency: config.concurrency,
            seed: config.seed,
        })?;
        let place = Server::place(config.server, keeper.as_ref())?;
        let link = place.map(|place| link::Link {
            place,
            node: node.clone(),
            boot: link::boot_id(),
            router: router.clone(),
            local: local_sender,
            seed: config.seed,
        });
        let handle = Handle { node, router, tables, balancer: balancer_handle.clone(), member, local };
        let balancer = config.balancer.map(|_| balancer);
        Ok((Self { ledger, lock, control, images, balancer, balancer_handle, link, keeper, guard }, handle))
    }

    /// Keeps the node as it is told until `stop`. Containers run on after that, and connections until they end, or for
    /// as long as they may.
    pub async fn run(self, stop: CancellationToken) {
        let drained = CancellationToken::new();
        let balancer = async {
            if let Some(balancer) = self.balancer {
                balancer.run(stop.clone()).await;
            }
            drained.cancel();
        };
        let link = async {
            if let Some(link) = self.link {
                link.run(stop.clone()).await;
            }
        };
        let keeper = async {
            if let Some(keeper) = self.keeper {
                keeper.run(stop.clone()).await;
            }
        };
        // The next agent may take over as soon as this one touches no container any more. Its connections drain on, and
        // the next agent is told so before it can look.
        let control = async {
            self.control.run(stop.clone()).await;
            let draining = self.ledger.drain();
            drop(self.lock);
            if let Err(error) = &draining {
                tracing::warn!(reason = chain(error), "the next agent does not know of the open connections");
            }
            let relief = relieve(&self.ledger, &self.balancer_handle);
            let _ended_before = drained.run_until_cancelled(relief).await;
            drained.cancelled().await;
        };
        let guard = async {
            if let Some(guard) = self.guard {
                guard.run(stop.clone()).await;
            }
        };
        let images = self.images.run(stop.clone());
        tokio::join!(biased; Box::pin(control), balancer, link, Box::pin(keeper), guard, images);
    }
}

/// Waits for the next agent, and lets the connections of this one take their time then.
async fn relieve(ledger: &Ledger, balancer: &BalancerHandle) {
    while !ledger.is_locked() {
        tokio::time::sleep(LOCK_LOOK).await;
    }
    tracing::info!("another agent has taken over: open connections go on here until they end");
    balancer.relieve();
}

/// Takes the folder, as soon as the agent before this one has left it.
async fn lock(ledger: &Ledger) -> Result<Lock, ledger::LedgerError> {
    let until = tokio::time::Instant::now() + LOCK_WAIT;
    loop {
        match ledger.lock() {
            Err(error) if error.is_locked() && tokio::time::Instant::now() < until => {
                tokio::time::sleep(LOCK_LOOK).await;
            }
            taken => return taken,
        }
    }
}
