//! Reading a token where nobody looks on: a file, standard input, or the keyboard without an echo.

use std::io;
use std::path::Path;

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::context::Context;
use crate::failure::Failure;

/// No token has as many bytes.
const LARGEST: u64 = 4096;

/// The terminal does not show what is typed, until this is dropped.
#[derive(Debug)]
struct Quiet {
    before: Termios,
}

/// The token's text, from `file`, or else from standard input.
pub(crate) async fn read(context: &mut Context, file: Option<&Path>) -> Result<String, Failure> {
    let text = match file {
        Some(path) => {
            let what = || format!("read the token from {}", path.display());
            let file = tokio::fs::File::open(path).await;
            whole(file.map_err(|error| Failure::caused(&what(), &error))?)
                .await
                .map_err(|error| Failure::caused(&what(), &error))?
        }
        None if context.screen.facts.stdin_terminal => ask(context).await?,
        None => whole(tokio::io::stdin()).await.map_err(|error| Failure::caused("read the token", &error))?,
    };
    if text.trim().is_empty() {
        return Err(Failure::usage("no token was given")
            .hint("it is asked for on a terminal; or use --token-file FILE, or standard input"));
    }
    Ok(text)
}

async fn whole(from: impl AsyncRead + Unpin) -> io::Result<String> {
    let mut text = String::new();
    from.take(LARGEST).read_to_string(&mut text).await?;
    Ok(text)
}

/// Asks on the terminal. When the user gives up, the terminal is as it was.
async fn ask(context: &mut Context) -> Result<String, Failure> {
    context.screen.note("Paste the token, which is not shown, and press Enter:");
    let quiet = Quiet::enter()?;
    let line = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        io::stdin().read_line(&mut line).map(|_| line)
    });
    let line = line.await.map_err(|error| Failure::caused("ask for the token", &error))?;
    drop(quiet);
    line.map_err(|error| Failure::caused("ask for the token", &error))
}

// === impl Quiet ===

impl Quiet {
    fn enter() -> Result<Self, Failure> {
        let failed = |error: rustix::io::Errno| Failure::caused("ask the terminal not to show it", &error);
        let before = tcgetattr(io::stdin()).map_err(failed)?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        // A token is longer than a line of some terminals may be.
        tcsetattr(io::stdin(), OptionalActions::Flush, &quiet).map_err(failed)?;
        Ok(Self { before })
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        // That the terminal is gone by now is nobody's concern.
        let _gone = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}
