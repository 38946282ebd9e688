//! What streams out of containers and of the engine: logs, commands, measurements, events.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use tokio::io::AsyncWrite;
use tug_model::quantity::{self, Timestamp};

use super::{ContainerId, RuntimeError};

/// Which of the two outputs of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stream {
    /// Standard output; everything, with a terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Which part of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogQuery {
    /// Only what was written at this time or later.
    pub since: Option<Timestamp>,
    /// Only this many of the last lines.
    pub tail: Option<u32>,
    /// Go on with what is written from now on, until the container stops.
    pub follow: bool,
}

/// One line of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// Where it was written.
    pub stream: Stream,
    /// When the engine read it.
    pub at: Timestamp,
    /// The line without its end; longer than [`LogLine::LONGEST`] is cut, with a mark.
    pub text: Bytes,
}

/// A command to run inside a container.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct ExecRequest {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Give it a terminal.
    pub tty: bool,
    /// Give it a standard input.
    pub stdin: bool,
    /// More environment, as `NAME=value`.
    pub environment: Vec<String>,
    /// Another user than the container's.
    pub user: Option<String>,
    /// Another directory than the container's.
    pub working_dir: Option<String>,
    /// The terminal's size at the start.
    pub size: Option<TerminalSize>,
}

/// The size of a terminal in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TerminalSize {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

/// The engine's id of a running command.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExecId(Arc<str>);

/// A command that runs inside a container.
pub struct ExecSession {
    /// Its id.
    pub id: ExecId,
    /// What it writes; ends with it.
    pub output: BoxStream<'static, Result<Output, RuntimeError>>,
    /// Its standard input; shutting it down is the end of the file.
    pub input: Pin<Box<dyn AsyncWrite + Send>>,
}

/// What a command wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Where.
    pub stream: Stream,
    /// What.
    pub bytes: Bytes,
}

/// What a container uses, counted since its start where it is a sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Processor time used so far, in billionths of a second. Two samples and the time between them make a rate.
    pub cpu_nanos: u64,
    /// Memory in use, without the page cache.
    pub memory: quantity::Bytes,
    /// What it may use; the machine's memory where it has no limit.
    pub memory_limit: quantity::Bytes,
    /// Processes and threads.
    pub pids: u64,
    /// Received over all networks.
    pub received: quantity::Bytes,
    /// Sent over all networks.
    pub sent: quantity::Bytes,
    /// Read from block devices.
    pub read: quantity::Bytes,
    /// Written to block devices.
    pub written: quantity::Bytes,
}

/// Something happened to a container of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineEvent {
    /// Which one.
    pub container: ContainerId,
    /// What.
    pub kind: EventKind,
}

/// What happened to a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EventKind {
    /// It was made.
    Created,
    /// Its process was started.
    Started,
    /// Its process ended.
    Died,
    /// The kernel killed something in it for memory.
    OutOfMemory,
    /// The engine's health check changed its mind.
    Health,
    /// It was frozen.
    Paused,
    /// It goes on.
    Unpaused,
    /// Somebody gave it another name.
    Renamed,
    /// It is gone.
    Removed,
}

// === impl LogLine ===

impl LogLine {
    /// The longest line in bytes.
    pub const LONGEST: usize = 16 * 1024;
    /// What a cut line ends with.
    pub const CUT: &str = " … [cut]";
}

// === impl ExecRequest ===

impl fmt::Debug for ExecRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Arguments and environment may carry secrets.
        f.debug_struct("ExecRequest")
            .field("program", &self.command.first())
            .field("tty", &self.tty)
            .finish_non_exhaustive()
    }
}

// === impl ExecId ===

impl ExecId {
    /// The id `text`.
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

// === impl ExecSession ===

impl fmt::Debug for ExecSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExecSession").field("id", &self.id).finish_non_exhaustive()
    }
}
