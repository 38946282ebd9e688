//! The holder: a tiny process that keeps duplicates of the agent's listening sockets, so that the death of the agent
//! closes none of them.

use std::ffi::OsString;
use std::path::PathBuf;

/// How the agent finds its holder, and starts one where none runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HolderConfig {
    /// The program to start: the agent's own binary.
    pub executable: PathBuf,
    /// Its arguments, such as `hold --socket …`.
    pub arguments: Vec<OsString>,
    /// The holder's socket, in the state directory.
    pub socket: PathBuf,
}
