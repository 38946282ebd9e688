//! What can go wrong with the engine: which operation, on what, and why.

use std::fmt;
use std::time::Duration;

/// An operation on the engine failed.
#[derive(Debug, thiserror::Error)]
#[error("{operation} `{object}`")]
pub struct RuntimeError {
    /// What was tried.
    pub operation: Operation,
    /// On what: a container, a network, a volume, an image, or the engine's address.
    pub object: String,
    /// Why it failed.
    #[source]
    pub cause: Cause,
}

/// What was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// [`super::Runtime::check`].
    Check,
    /// [`super::Runtime::list`].
    List,
    /// [`super::Runtime::events`].
    Events,
    /// [`super::Runtime::create`].
    Create,
    /// [`super::Runtime::start`].
    Start,
    /// [`super::Runtime::stop`].
    Stop,
    /// [`super::Runtime::kill`].
    Kill,
    /// [`super::Runtime::unpause`].
    Unpause,
    /// [`super::Runtime::remove`].
    Remove,
    /// [`super::Runtime::ensure_network`], [`super::Runtime::networks`], [`super::Runtime::remove_network`].
    Network,
    /// [`super::Runtime::ensure_volume`].
    Volume,
    /// [`super::Runtime::image_present`].
    Image,
    /// [`super::Runtime::pull`].
    Pull,
    /// [`super::ImageStore::export`].
    Export,
    /// [`super::ImageStore::load`].
    Load,
    /// [`super::Runtime::logs`].
    Logs,
    /// [`super::Runtime::exec`] and what belongs to it.
    Exec,
    /// [`super::Runtime::stats`].
    Stats,
}

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// Nothing listens at the engine's address.
    #[error("no Docker Engine there: install one with `apt-get install docker.io`, or start it")]
    Missing,
    /// The engine's socket may not be opened.
    #[error("permission denied: run as root, or as a member of the group `docker`")]
    Forbidden,
    /// The connection failed or broke.
    #[error("the connection to the Docker Engine failed")]
    Connection(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// No answer in time.
    #[error("no answer from the Docker Engine within {} s", .0.as_secs())]
    Timeout(Duration),
    /// It answers a ping, and not what it would ask its container daemon.
    #[error("the Docker Engine answers a ping and, within {} s, nothing else: its containerd may hang", .0.as_secs())]
    Hollow(Duration),
    /// A pull got on no further. The engine waits for a registry as long as that likes.
    #[error("nothing has come for {} s: its registry hangs, or the way to it", .0.as_secs())]
    Stalled(Duration),
    /// The engine knows no such thing (404).
    #[error("{0}")]
    NotFound(String),
    /// The engine says that it clashes with what is there (409).
    #[error("{0}")]
    Conflict(String),
    /// Something of that name is there and is not ours.
    #[error("something of that name exists and is not Tug's ({0}): rename or remove it")]
    Foreign(String),
    /// It exists, made by us, with other settings than the manifest has now.
    #[error("{0}")]
    Differs(String),
    /// The engine finds the request wrong (another 4xx): the same request fails again.
    #[error("{0}")]
    Refused(String),
    /// The engine failed at it (5xx, or an error inside a stream).
    #[error("{0}")]
    Failed(String),
}

// === impl RuntimeError ===

impl RuntimeError {
    /// `operation` on `object` failed by `cause`.
    pub fn new(operation: Operation, object: impl Into<String>, cause: Cause) -> Self {
        Self { operation, object: object.into(), cause }
    }

    /// Whether the engine itself could not be reached or did not answer.
    pub fn is_engine_down(&self) -> bool {
        match self.cause {
            Cause::Missing
            | Cause::Forbidden
            | Cause::Connection(_)
            | Cause::Timeout(_)
            | Cause::Hollow(_) => true,
            Cause::Stalled(_)
            | Cause::NotFound(_)
            | Cause::Conflict(_)
            | Cause::Foreign(_)
            | Cause::Differs(_)
            | Cause::Refused(_)
            | Cause::Failed(_) => false,
        }
    }

    /// Whether the thing is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self.cause, Cause::NotFound(_))
    }

    /// Whether something that is there is in the way.
    pub fn is_conflict(&self) -> bool {
        matches!(self.cause, Cause::Conflict(_) | Cause::Foreign(_) | Cause::Differs(_))
    }

    /// Whether the same request can only fail again until a person changes something.
    pub fn is_permanent(&self) -> bool {
        matches!(self.cause, Cause::Refused(_) | Cause::Differs(_) | Cause::Foreign(_))
    }
}

// === impl Operation ===

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Check => "reach the engine at",
            Self::List => "list the containers of node",
            Self::Events => "watch the containers of node",
            Self::Create => "create container",
            Self::Start => "start container",
            Self::Stop => "stop container",
            Self::Kill => "signal container",
            Self::Unpause => "unpause container",
            Self::Remove => "remove container",
            Self::Network => "set up network",
            Self::Volume => "set up volume",
            Self::Image => "look for image",
            Self::Pull => "pull image",
            Self::Export => "give away image",
            Self::Load => "take an image",
            Self::Logs => "read the log of container",
            Self::Exec => "run a command in container",
            Self::Stats => "measure container",
        })
    }
}
