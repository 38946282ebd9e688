//! The orchestrator put together: the one place that knows all its parts.
//!
//! ```text
//! rest ──▶ store ──▶ control ──▶ store          nodes ──▶ agents
//!            └─────────────────────────────────▶ nodes ──▶ control (observed)
//! ```
//!
//! Nothing in [`Orchestrator`] needs a socket: a simulation asks the router and registers agents directly. [`serve`]
//! puts it on a Unix socket.

mod entrance;
mod socket;
#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::{CancellationToken, DropGuard};
use tug_api::Clock;
use tug_api::folder::{self, FolderError};
use tug_model::Millis;

use self::entrance::Entrance;
pub use self::entrance::EntranceError;
use crate::authority::{Authority, AuthorityError};
use crate::control::Control;
use crate::metrics::Metrics;
use crate::nodes::{Nodes, Publisher};
use crate::plan::{Timing, View};
use crate::rest::{self, Servers};
use crate::store::{self, MemoryDisk, OpenError, Store, Writer};

/// How long certificates are valid unless told otherwise: thirty days.
pub const CERTIFICATE_LIFE: Millis = Millis::from_secs(30 * 24 * 60 * 60);

/// How an orchestrator is run.
#[derive(Debug, Clone)]
pub struct Config {
    /// Its folder, which nobody else may write to; `None` in a simulation.
    pub state_dir: Option<PathBuf>,
    /// The folder of which no container may be shown anything, for the same reason: the state lies in it, and perhaps
    /// that of others of our daemons.
    pub private: Option<PathBuf>,
    /// Where [`serve`] listens.
    pub socket: Option<PathBuf>,
    /// Where [`serve`] listens for other machines, by TLS; `None`: nobody else can be part of the cluster.
    pub listen: Option<Listen>,
    /// The time of day.
    pub clock: Clock,
    /// How long a node or an Engine may be silent.
    pub timing: Timing,
    /// Where the state is kept, and how.
    pub store: store::Config,
}

/// How other machines reach the orchestrator.
#[derive(Debug, Clone)]
pub struct Listen {
    /// The address to listen on; port 0 is any that is free.
    pub address: SocketAddr,
    /// What nodes and users are told to dial, as `host:port`; empty: the address that is listened on, or this machine's own.
    pub servers: Vec<String>,
    /// How long the certificates are valid that it signs.
    pub certificate_life: Millis,
}

/// The orchestrator: it must run for anything to happen.
#[derive(Debug)]
pub struct Orchestrator {
    writer: Writer,
    control: Control,
    publisher: Publisher,
    closing: DropGuard,
}

/// What others have of a running orchestrator. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle {
    /// The API.
    pub router: Router,
    /// The agents.
    pub nodes: Nodes,
    /// What is kept.
    pub store: Store,
    /// What the control loop last saw and decided.
    pub view: watch::Receiver<Arc<View>>,
    authority: Option<Arc<Authority>>,
    metrics: Metrics,
    closing: CancellationToken,
}

/// Why there is no orchestrator, or why it ended.
#[derive(Debug, thiserror::Error)]
#[expect(clippy::error_impl_error, reason = "it is read as `app::Error` where it is used")]
pub enum Error {
    /// The folder of the state cannot be used as it is.
    #[error(transparent)]
    StateDir(#[from] FolderError),
    /// A folder could not be made.
    #[error("prepare the folder {}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
    /// The store cannot be opened.
    #[error("open the store")]
    Store(#[source] OpenError),
    /// No random number could be drawn for the id of a new cluster.
    #[error("draw a random cluster id")]
    Random(#[source] getrandom::Error),
    /// There is no socket to listen on.
    #[error("no socket was given to listen on")]
    NoSocket,
    /// Somebody answers on the socket.
    #[error("another orchestrator is running: it answers on {}", path.display())]
    Running {
        /// The socket.
        path: PathBuf,
    },
    /// What is there is no socket.
    #[error("{} is no socket: remove it, or listen somewhere else", path.display())]
    NotASocket {
        /// The file.
        path: PathBuf,
    },
    /// The socket could not be listened on.
    #[error("listen on {}", path.display())]
    Listen {
        /// The socket.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
    /// The address for other machines could not be listened on.
    #[error("listen on {address}")]
    ListenTls {
        /// The address.
        address: SocketAddr,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
    /// There is no TLS.
    #[error("let other machines in")]
    Entrance(#[source] EntranceError),
    /// The cluster's authority cannot be used.
    #[error("open the cluster's certificate authority")]
    Authority(#[source] AuthorityError),
    /// A part of it ended by a mistake of ours.
    #[error("the orchestrator broke down")]
    Crashed(#[source] JoinError),
}

// === impl Error ===

impl Error {
    /// Whether another process has the state, so that trying again later may help.
    pub fn is_locked(&self) -> bool {
        matches!(self, Self::Store(OpenError::Locked { .. }))
    }
}

/// Opens an orchestrator, listens on the socket (0600) and for other machines if so told, and serves until `stop`. Then
/// open requests end, the state is on disk, and the socket is gone.
pub async fn serve(mut config: Config, stop: CancellationToken) -> Result<(), Error> {
    let path = config.socket.clone().ok_or(Error::NoSocket)?;
    let clock = config.clock;
    let entrance = match &mut config.listen {
        None => None,
        Some(listen) => {
            let address = listen.address;
            let opened = Entrance::open(listen).await;
            let entrance = opened.map_err(|source| Error::ListenTls { address, source })?;
            listen.address = entrance.address;
            Some(entrance)
        }
    };
    let (orchestrator, handle) = Orchestrator::open(config).await?;
    let socket = socket::listen(&path)?;
    let address = entrance.as_ref().map(|entrance| entrance.address.to_string());
    let revision = handle.store.snapshot().revision;
    tracing::info!(socket = %path.display(), listen = address, %revision, "serving");

    let ended = CancellationToken::new();
    let mut running = JoinSet::new();
    running.spawn(orchestrator.run(ended.clone()));
    let local = tug_api::serve::unix(socket.listener, handle.router.clone(), stop.clone());
    let local = async { local.await.map_err(|source| Error::Listen { path, source }) };
    let others = handle.let_in(entrance, clock, &stop);
    // Streams would never end by themselves, and the listeners wait for open requests.
    let closing = async {
        stop.cancelled().await;
        handle.closing.cancel();
        Ok(())
    };
    // The end of one by an error is the end of all.
    let served = async { tokio::try_join!(local, others, closing).map(|_| ()) };
    let served = tokio::select! {
        biased;
        broken = running.join_next() => return finished(broken),
        served = served => served,
    };
    ended.cancel();
    finished(running.join_next().await)?;
    drop(socket.file);
    served
}

impl Handle {
    /// Serves other machines through the entrance, if there is one.
    async fn let_in(
        &self,
        entrance: Option<Entrance>,
        clock: Clock,
        stop: &CancellationToken,
    ) -> Result<(), Error> {
        let Some((entrance, authority)) = entrance.zip(self.authority.clone()) else { return Ok(()) };
        let address = entrance.address;
        let api = (self.router.clone(), self.metrics.clone());
        let served = entrance.serve(api, authority, clock, stop.clone()).await;
        served.map_err(Error::Entrance)?.map_err(|source| Error::ListenTls { address, source })
    }
}

fn finished(ended: Option<Result<Result<(), Error>, JoinError>>) -> Result<(), Error> {
    match ended {
        Some(Ok(result)) => result,
        Some(Err(error)) => Err(Error::Crashed(error)),
        None => Ok(()),
    }
}

/// What a folder of ours is called: its real path, and the one that it was given.
fn names(path: &Path) -> Result<Vec<PathBuf>, Error> {
    let real = folder::prepare(path)?;
    let given = std::path::absolute(path);
    let given = given.map_err(|source| Error::Folder { path: path.to_owned(), source })?;
    Ok(if given == real { vec![real] } else { vec![real, given] })
}

// === impl Config ===

impl Config {
    /// A daemon's: its state in a folder, its API on a socket.
    pub fn daemon(state_dir: impl Into<PathBuf>, socket: impl Into<PathBuf>) -> Result<Self, Error> {
        let state_dir = state_dir.into();
        let cluster = getrandom::u64().map_err(Error::Random)?;
        let store = store::Config::folder(state_dir.join("store"), format!("{cluster:016x}"));
        Ok(Self {
            private: Some(state_dir.clone()),
            state_dir: Some(state_dir),
            socket: Some(socket.into()),
            listen: None,
            clock: Clock::system(),
            timing: Timing::default(),
            store,
        })
    }

    /// A simulation's: its state on a disk in memory, its API wherever the router is asked.
    pub fn simulated(disk: &MemoryDisk, cluster: impl Into<String>, clock: Clock) -> Self {
        let store = store::Config::memory(disk, cluster);
        Self {
            state_dir: None,
            private: None,
            socket: None,
            listen: None,
            clock,
            timing: Timing::default(),
            store,
        }
    }
}

// === impl Orchestrator ===

impl Orchestrator {
    /// Reads the state and puts the parts together. Nothing is answered until it runs.
    pub async fn open(config: Config) -> Result<(Self, Handle), Error> {
        let private = config.private.as_deref().map_or(Ok(Vec::new()), names)?;
        if let Some(path) = &config.state_dir {
            folder::prepare(path)?;
        }
        let (store, writer) = store::open(config.store).await.map_err(Error::Store)?;
        let cluster = store.snapshot().cluster.clone();
        let life = config.listen.as_ref().map_or(CERTIFICATE_LIFE, |listen| listen.certificate_life);
        let authority = config.state_dir.as_deref().map(|path| {
            Authority::open(&path.join("authority"), &cluster, life, config.clock.now()).map(Arc::new)
        });
        let authority = authority.transpose().map_err(Error::Authority)?;
        let (nodes, publisher) = Nodes::new(store.clone(), config.clock);
        let (control, decided) = Control::new(store.clone(), nodes.observed(), config.clock, config.timing);
        nodes.lease_by(decided.grants());
        let (metrics, closing) = (Metrics::new(), CancellationToken::new());
        let router = rest::router(rest::Config {
            store: store.clone(),
            nodes: nodes.clone(),
            view: decided.view(),
            planner: decided.levels(),
            clock: config.clock,
            metrics: metrics.clone(),
            authority: authority.clone(),
            servers: config
                .listen
                .map(|listen| Servers::new(listen.servers, listen.address))
                .unwrap_or_default(),
            closing: closing.clone(),
            private,
        });
        let view = decided.view();
        let handle = Handle { router, nodes, store, view, authority, metrics, closing: closing.clone() };
        Ok((Self { writer, control, publisher, closing: closing.drop_guard() }, handle))
    }

    /// Runs until `stop`: first streams end, then nothing more is decided, then the agents are left alone, and last
    /// the store is closed. When this is dropped instead, everything ends at once, as in a crash.
    pub async fn run(self, stop: CancellationToken) -> Result<(), Error> {
        let Self { writer, control, publisher, closing } = self;
        let mut parts = JoinSet::new();
        let stops: [CancellationToken; 3] = std::array::from_fn(|_| CancellationToken::new());
        let [deciding, publishing, writing] = stops.clone();
        parts.spawn(async move {
            control.run(deciding).await;
        });
        parts.spawn(async move {
            publisher.run(publishing).await;
        });
        parts.spawn(async move {
            writer.run(writing).await;
        });
        let broken = tokio::select! {
            biased;
            () = stop.cancelled() => None,
            ended = parts.join_next() => ended,
        };
        drop(closing);
        if let Some(Err(error)) = broken {
            return Err(Error::Crashed(error));
        }
        for stop in stops {
            stop.cancel();
            if let Some(Err(error)) = parts.join_next().await {
                return Err(Error::Crashed(error));
            }
        }
        Ok(())
    }
}
