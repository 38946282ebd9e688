//! The user's terminal while a command in a container has it: raw, and watched for its size.

use std::io;

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tug_api::frame::TerminalSize;

use crate::failure::Failure;

/// The terminal passes every key on as it is, until this is dropped.
#[derive(Debug)]
pub(crate) struct RawMode {
    before: Termios,
}

/// Says when the terminal has another size.
#[derive(Debug)]
pub(crate) struct Resizes {
    signal: Signal,
    last: Option<TerminalSize>,
}

/// How large the terminal is; `None` where there is none.
pub(crate) fn size() -> Option<TerminalSize> {
    let size = tcgetwinsize(io::stdout()).or_else(|_| tcgetwinsize(io::stdin())).ok()?;
    Some(TerminalSize { rows: size.ws_row, columns: size.ws_col })
        .filter(|size| size.rows > 0 && size.columns > 0)
}

// === impl RawMode ===

impl RawMode {
    /// Turns standard input, a terminal, raw.
    pub(crate) fn enter() -> Result<Self, Failure> {
        let before = tcgetattr(io::stdin())
            .map_err(|error| Failure::caused("ask the terminal for its mode", &error))?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Now, &raw)
            .map_err(|error| Failure::caused("make the terminal raw", &error))?;
        Ok(Self { before })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // What is typed ahead belongs to the shell; that the terminal is gone by now is nobody's concern.
        let _gone = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}

// === impl Resizes ===

impl Resizes {
    /// Begins to watch; `None` where the system has no such signal to give.
    pub(crate) fn new() -> Option<Self> {
        Some(Self { signal: signal(SignalKind::window_change()).ok()?, last: size() })
    }

    /// The next size that differs from the last one.
    pub(crate) async fn next(&mut self) -> Option<TerminalSize> {
        loop {
            self.signal.recv().await?;
            let now = size();
            if now.is_some() && now != self.last {
                self.last = now;
                return now;
            }
        }
    }
}
