//! Whether a machine is fit for Tug, and what to do where it is not: `tug doctor`.
//!
//! [`look`] finds out how things are, [`judge`] says what that means. Only the first touches the machine.

pub(crate) mod judge;
pub(crate) mod look;

use std::net::IpAddr;
use std::path::PathBuf;

use serde::Serialize;

/// How things are on a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Facts {
    /// The Docker Engine.
    pub(crate) engine: Result<Engine, NoEngine>,
    /// The file system on which it keeps images, containers and volumes; `None`: it cannot be looked at from here.
    pub(crate) engine_disk: Option<Disk>,
    /// The folder in which the daemons keep their state.
    pub(crate) state: State,
    /// Who listens on the ports that matter here.
    pub(crate) listeners: Vec<Listener>,
    /// Whether this machine is a node of a control plane elsewhere.
    pub(crate) has_joined: bool,
    /// The control plane.
    pub(crate) server: Server,
}

/// What the Engine says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Engine {
    /// Its version.
    pub(crate) version: String,
    /// The newest version of the API that it speaks, such as `1.41`.
    pub(crate) api: String,
    /// It is Podman, which speaks Docker's API.
    pub(crate) is_podman: bool,
    /// It runs without root.
    pub(crate) is_rootless: bool,
    /// Containers outlive a restart of it.
    pub(crate) live_restore: bool,
    /// It is part of a Docker Swarm.
    pub(crate) in_swarm: bool,
    /// `1` or `2`; empty: it does not say.
    pub(crate) cgroup_version: String,
    /// Limits of memory are enforced.
    pub(crate) memory_limit: bool,
    /// How images and containers are kept, such as `overlay2`.
    pub(crate) storage_driver: String,
}

/// Why the Engine does not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NoEngine {
    /// Where it was looked for.
    pub(crate) socket: String,
    /// What stands in the way.
    pub(crate) reason: String,
    /// This user may not ask it.
    pub(crate) is_forbidden: bool,
}

/// A file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Disk {
    /// What lies on it.
    pub(crate) path: PathBuf,
    /// Bytes that may still be written.
    pub(crate) free: u64,
    /// Bytes altogether.
    pub(crate) total: u64,
}

/// The folder of the daemons.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct State {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// What was found there; `None`: nothing yet.
    pub(crate) found: Result<Option<Folder>, String>,
    /// The file system that it is on, or will be.
    pub(crate) disk: Option<Disk>,
    /// What kind of file system that is.
    pub(crate) kind: FileSystem,
}

/// A folder, by its metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Folder {
    /// It is one, and no file.
    pub(crate) is_directory: bool,
    /// Whose it is.
    pub(crate) owner: u32,
    /// Who looks.
    pub(crate) us: u32,
    /// Its permissions.
    pub(crate) mode: u32,
}

/// Kinds of file systems, as far as they matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileSystem {
    /// It keeps what is written.
    Lasting,
    /// It is in memory.
    Memory,
    /// It is another machine's.
    Network,
}

/// A socket that listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listener {
    /// On which address.
    pub(crate) address: IpAddr,
    /// On which port.
    pub(crate) port: u16,
    /// The name of the program; `None`: it is not ours to see.
    pub(crate) owner: Option<String>,
}

/// The control plane, seen from here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Server {
    /// None is known.
    Unknown,
    /// It does not answer.
    Silent {
        /// Where it was looked for, and why it was not found.
        reason: String,
    },
    /// It answers.
    Answers {
        /// Its version.
        version: String,
        /// How many milliseconds its clock is ahead of ours; `None`: it does not say.
        ahead: Option<i64>,
    },
}

/// One line of the outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// What was checked.
    pub(crate) check: &'static str,
    /// How it is.
    pub(crate) level: Level,
    /// What was found.
    pub(crate) message: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) remedy: Option<String>,
}

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    /// As it should be.
    Ok,
    /// It works, but not as well as it could, or not for long.
    Warn,
    /// Tug will not work, or is not safe.
    Fail,
}

// === impl Finding ===

impl Finding {
    /// All is well.
    pub(crate) fn ok(check: &'static str, message: impl Into<String>) -> Self {
        Self { check, level: Level::Ok, message: message.into(), remedy: None }
    }

    /// It could be better.
    pub(crate) fn warn(check: &'static str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check, level: Level::Warn, message: message.into(), remedy: Some(remedy.into()) }
    }

    /// It will not do.
    pub(crate) fn fail(check: &'static str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check, level: Level::Fail, message: message.into(), remedy: Some(remedy.into()) }
    }
}
