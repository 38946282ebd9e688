//! The seam to the container engine: what the agent asks of it, in the agent's own words.
//!
//! [`Runtime`] is implemented by [`docker::Docker`] and, in the simulation, by a fake. What goes in and comes out is
//! plain data; nothing outside this module knows bollard. Rules that every implementation keeps:
//!
//! - It only ever sees and touches containers whose labels name this node ([`label::NODE`]).
//! - Every call ends within its [`deadline`], with an error if need be. Feeds (logs, events, exec) live on.
//! - Calls may be dropped half way; what they left is seen by the next [`Runtime::list`].
//! - Errors and `Debug` never show the values of environment variables.

pub mod deadline;
pub mod docker;
mod error;
mod found;
pub mod label;
mod session;
mod store;
mod translate;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use tug_model::assignment::Resources;
use tug_model::quantity::{Bytes, Millis, NanoCpus};
use tug_model::spec::resource::{Network, Volume};
use tug_model::task::Template;
use tug_model::{NetworkName, ProjectName, VolumeName};

pub use error::{Cause, Operation, RuntimeError};
pub use found::{ContainerId, EngineHealth, Found, Identity, State};
pub use session::{
    EngineEvent, EventKind, ExecId, ExecRequest, ExecSession, LogLine, LogQuery, Output, Stats, Stream,
    TerminalSize,
};
pub use store::{Archive, ImageStore};

/// What a call returns.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, RuntimeError>>;

/// What a subscription delivers, until its end. Dropping it ends it.
pub type Feed<T> = BoxStream<'static, Result<T, RuntimeError>>;

/// Told how far a pull is, for people: `12.3 MiB of 80.1 MiB`.
pub type Progress = Box<dyn Fn(String) + Send + Sync>;

/// A container engine on this node.
pub trait Runtime: fmt::Debug + Send + Sync + 'static {
    /// Whether the engine is well enough to work with, and what it is. Asks more of it than a ping, which an engine
    /// with a hung container daemon still answers.
    fn check(&self) -> Answer<'_, EngineInfo>;

    /// Every container of this node, whatever its state and cluster, sorted by name. Cheap: the caller asks every
    /// few seconds and after every event.
    fn list(&self) -> Answer<'_, Vec<Found>>;

    /// What happens to containers of this node, from now on. The caller subscribes again when it ends, and takes an
    /// event for nothing but a hint to look at [`Runtime::list`].
    fn events(&self) -> Answer<'_, Feed<EngineEvent>>;

    /// Makes a container; its networks and volumes exist. A container of the same identity that is already there
    /// is adopted; a foreign one of that name is an error. A failure leaves nothing behind.
    fn create<'a>(&'a self, request: &'a ContainerRequest) -> Answer<'a, ContainerId>;

    /// Starts a container that is created or has exited. A running one is left alone.
    fn start<'a>(&'a self, id: &'a ContainerId) -> Answer<'a, ()>;

    /// [`Runtime::create`] and [`Runtime::start`] as one step: if the start fails, the container goes again.
    fn run<'a>(&'a self, request: &'a ContainerRequest) -> Answer<'a, ContainerId> {
        Box::pin(async move {
            let id = self.create(request).await?;
            match self.start(&id).await {
                Ok(()) => Ok(id),
                Err(error) => {
                    // What cannot be removed now is seen by the next list.
                    let _ = self.remove(&id).await;
                    Err(error)
                }
            }
        })
    }

    /// Sends the container's stop signal, waits up to `grace`, then kills it. Returns when it has stopped; a container
    /// that does not run, or that is gone, is a success.
    fn stop<'a>(&'a self, id: &'a ContainerId, grace: Millis) -> Answer<'a, ()>;

    /// Sends a signal, such as `SIGHUP`; `None` is SIGKILL. A container that does not run is a success.
    fn kill<'a>(&'a self, id: &'a ContainerId, signal: Option<&'a str>) -> Answer<'a, ()>;

    /// Lets a paused container go on.
    fn unpause<'a>(&'a self, id: &'a ContainerId) -> Answer<'a, ()>;

    /// Removes a container, killing it if it runs, with its anonymous volumes. Returns when it is gone; one that is
    /// already gone is a success.
    fn remove<'a>(&'a self, id: &'a ContainerId) -> Answer<'a, ()>;

    /// Makes a network unless it is there. One of that name with other settings, or of somebody else, is an error;
    /// so is an external one that is missing.
    fn ensure_network<'a>(
        &'a self,
        project: &'a ProjectName,
        key: &'a NetworkName,
        network: &'a Network,
    ) -> Answer<'a, ()>;

    /// Makes a volume unless it is there, with the same rules. Nothing here ever removes a named volume.
    fn ensure_volume<'a>(
        &'a self,
        project: &'a ProjectName,
        key: &'a VolumeName,
        volume: &'a Volume,
    ) -> Answer<'a, ()>;

    /// The networks that this node made, sorted by name.
    fn networks(&self) -> Answer<'_, Vec<FoundNetwork>>;

    /// Removes a network that this node made, if no container uses it: returns whether it is gone.
    fn remove_network<'a>(&'a self, engine_name: &'a str) -> Answer<'a, bool>;

    /// The id of an image that the node has.
    fn image_present<'a>(&'a self, reference: &'a str) -> Answer<'a, Option<String>>;

    /// The same, if the image is for `platform`: `os/arch[/variant]`. A real engine may have it for another one;
    /// for an engine whose images fit every platform, this default does.
    fn image_present_for<'a>(&'a self, reference: &'a str, _platform: &'a str) -> Answer<'a, Option<String>> {
        self.image_present(reference)
    }

    /// Fetches an image and returns its id. The caller sees to it that one image is fetched once at a time.
    fn pull<'a>(
        &'a self,
        reference: &'a str,
        platform: Option<&'a str>,
        progress: Progress,
    ) -> Answer<'a, String>;

    /// How images are shared with other nodes. `None`: this engine's cannot be.
    fn images(&self) -> Option<&dyn ImageStore> {
        None
    }

    /// What a container wrote.
    fn logs<'a>(&'a self, id: &'a ContainerId, query: LogQuery) -> Answer<'a, Feed<LogLine>>;

    /// Runs a command inside a running container.
    fn exec<'a>(&'a self, id: &'a ContainerId, request: &'a ExecRequest) -> Answer<'a, ExecSession>;

    /// Tells the terminal of a command its new size.
    fn exec_resize<'a>(&'a self, exec: &'a ExecId, size: TerminalSize) -> Answer<'a, ()>;

    /// The exit code of a command; `None` while it runs.
    fn exec_exit<'a>(&'a self, exec: &'a ExecId) -> Answer<'a, Option<i64>>;

    /// What a container uses at this moment.
    fn stats<'a>(&'a self, id: &'a ContainerId) -> Answer<'a, Stats>;
}

/// Everything that is needed to make a container.
#[derive(Clone)]
pub struct ContainerRequest {
    /// Whose it is; also its labels and its name.
    pub identity: Identity,
    /// What it is made of.
    pub template: Arc<Template>,
    /// The networks and volumes of its project.
    pub resources: Arc<Resources>,
    /// Where its configs lie as files on the node, with their mode and owner, by their target in the container.
    pub config_files: BTreeMap<String, PathBuf>,
    /// The id of the image, from [`Runtime::image_present`] or [`Runtime::pull`].
    pub image: String,
}

/// A network that this node made.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FoundNetwork {
    /// Its name in the engine.
    pub engine_name: String,
    /// Whose it is.
    pub project: ProjectName,
    /// Its key there.
    pub key: NetworkName,
}

/// What the engine says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineInfo {
    /// Its version, such as `28.2.2`.
    pub version: String,
    /// The newest API version it speaks, such as `1.41`.
    pub api_version: String,
    /// `linux`.
    pub os: String,
    /// In Docker's words: `amd64`, `arm64` …
    pub arch: String,
    /// All its processors together.
    pub cpus: NanoCpus,
    /// The machine's memory.
    pub memory: Bytes,
    /// Where it keeps images, containers and volumes.
    pub root: PathBuf,
    /// Whether containers live on when it is started anew (`live-restore`).
    pub keeps_containers: bool,
}

// === impl ContainerRequest ===

impl fmt::Debug for ContainerRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The template carries the environment, and with it secrets.
        f.debug_struct("ContainerRequest")
            .field("identity", &self.identity)
            .field("image", &self.image)
            .finish_non_exhaustive()
    }
}
