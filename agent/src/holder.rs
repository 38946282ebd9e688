//! The holder: a tiny process beside the agent that outlives it. It keeps duplicates of the agent's listening sockets, and
//! ends what may not run on when the agent does not.
//!
//! A listening socket lives as long as any process has it. With the holder's duplicate, the death of the agent closes no
//! published port: clients wait in the system's queue until the next agent, which is given all sockets back, accepts
//! them. For the same reason an agent can be replaced by a newer one without refusing a single connection.
//!
//! An exclusive task runs under a lease, and the agent stops it when that ends. The holder is told of each lease; what runs
//! on when the agent should have killed it, it kills: an agent that is dead or stopped keeps nothing running.
//!
//! - The agent starts the holder when it first has something to keep or to charge it with ([`Client::find_or_start`]). The holder is its own
//!   session, so it survives the end of the agent and of its process group. (A service manager that kills everything a
//!   service has started must be told not to; for systemd that is `KillMode=process`.)
//! - There is one per socket path: a lock beside the socket sees to that.
//! - It ends when it is told to, when no agent was connected for [`ALONE`] and nothing is left to be ended, and when its
//!   socket's file was removed.
//! - It serves its own user only, and takes nothing but listening TCP sockets.
//!
//! `message` describes what is said.

mod charge;
mod client;
mod message;
mod process;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use client::{Client, ClientError};
pub(crate) use process::raise_file_limit;
pub use process::{HoldError, run};

/// How long a holder waits for an agent by default.
pub const ALONE: Duration = Duration::from_secs(60);

/// How the agent finds its holder, and starts one where none runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HolderConfig {
    /// The program to start: the agent's own binary.
    pub executable: PathBuf,
    /// Its arguments, such as `hold --socket …`: it must call [`run`] with [`HolderConfig::socket`].
    pub arguments: Vec<OsString>,
    /// The holder's socket, in the state directory: at most 100 bytes long.
    pub socket: PathBuf,
}

/// Where a published port listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// The address as it was asked for; `None` is every address.
    pub host_ip: Option<IpAddr>,
    /// The port.
    pub port: u16,
}

// === impl Place ===

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host_ip {
            None => write!(f, "*:{}", self.port),
            Some(IpAddr::V4(address)) => write!(f, "{address}:{}", self.port),
            Some(IpAddr::V6(address)) => write!(f, "[{address}]:{}", self.port),
        }
    }
}
