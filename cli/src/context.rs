//! What every command is given: the server, the screen, the time of day, and the wish to stop.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio_util::sync::CancellationToken;
use tug_api::Clock;
use tug_api::client::{Client, Guard};
use tug_model::Revision;

use crate::failure::{Failure, INTERRUPTED};
use crate::render::Screen;

/// What a command works with.
#[derive(Debug)]
pub(crate) struct Context {
    /// Asks the server.
    pub(crate) client: Client,
    /// That server is reached by TLS: it may be on another machine.
    pub(crate) is_elsewhere: bool,
    /// Where everything is shown.
    pub(crate) screen: Screen,
    /// The time of day.
    pub(crate) clock: Clock,
    /// Ctrl-C.
    pub(crate) interrupt: Interrupt,
    /// What the process was started with.
    pub(crate) surroundings: Surroundings,
}

/// What the process was started with, read once.
#[derive(Debug, Clone, Default)]
pub(crate) struct Surroundings {
    /// The folder it was started in.
    pub(crate) folder: PathBuf,
    /// The environment.
    pub(crate) environment: BTreeMap<String, String>,
}

/// Whether the user, or the system, asked the command to stop. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Interrupt {
    token: CancellationToken,
    code: Arc<AtomicU8>,
}

// === impl Context ===

#[cfg(test)]
impl Context {
    /// One of a process that was started with nothing, at the time of the samples.
    pub(crate) fn of(client: Client, screen: Screen) -> Self {
        let clock = Clock::starting_at(crate::sample::NOW);
        let (interrupt, surroundings) = (Interrupt::new(), Surroundings::default());
        Self { client, is_elsewhere: false, screen, clock, interrupt, surroundings }
    }
}

// === impl Interrupt ===

impl Interrupt {
    /// Nobody has asked yet.
    pub(crate) fn new() -> Self {
        Self { token: CancellationToken::new(), code: Arc::new(AtomicU8::new(INTERRUPTED)) }
    }

    /// Asks; the process shall exit with `code`.
    pub(crate) fn ask(&self, code: u8) {
        self.code.store(code, Ordering::Relaxed);
        self.token.cancel();
    }

    /// Whether somebody has asked.
    pub(crate) fn is_asked(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Waits until somebody asks.
    pub(crate) async fn asked(&self) {
        self.token.cancelled().await;
    }

    /// Waits until somebody has asked, and whoever waits for that too has been given a turn to act on it: it may have
    /// been looked at just before.
    pub(crate) async fn heard(&self) {
        self.asked().await;
        tokio::task::yield_now().await;
    }

    /// How a command ends that was asked to.
    pub(crate) fn failure(&self, message: &str) -> Failure {
        Failure { code: self.code.load(Ordering::Relaxed), ..Failure::new(message) }
    }
}

// === impl Surroundings ===

impl Surroundings {
    /// Those of this process. Variables that are no UTF-8 are left out: no manifest can name them.
    pub(crate) fn of_process() -> Result<Self, Failure> {
        let folder =
            std::env::current_dir().map_err(|error| Failure::caused("find the current folder", &error))?;
        let environment = std::env::vars_os()
            .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Ok(Self { folder, environment })
    }
}

/// A guard for a mutation: repeating it is safe, and with `base` it takes effect only on that revision.
pub(crate) fn guard(base: Option<Revision>) -> Result<Guard, Failure> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| Failure::new(format!("draw a random key: {error}")))?;
    let key = format!("{:032x}", u128::from_be_bytes(bytes));
    Ok(Guard { idempotency_key: Some(key), if_revision: base })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_says_something_on_an_interrupt_comes_before_who_does_not() {
        let interrupt = Interrupt::new();
        // Somebody asks right after the command has looked.
        let command = async {
            tokio::select! {
                biased;
                () = interrupt.asked() => "stopped waiting",
                () = std::future::poll_fn(|_| { interrupt.ask(130); std::task::Poll::Pending }) => "never",
            }
        };
        let said = tokio::select! {
            biased;
            said = command => said,
            () = interrupt.heard() => "",
        };
        assert_eq!(said, "stopped waiting");
    }

    #[tokio::test]
    async fn an_interrupt_decides_the_exit_code() {
        let interrupt = Interrupt::new();
        assert!(!interrupt.is_asked());
        interrupt.clone().ask(143);
        interrupt.asked().await;
        assert_eq!(interrupt.failure("stopped").code, 143);
    }

    #[test]
    fn every_mutation_has_a_key_of_its_own() {
        let (a, b) = (guard(Some(Revision(3))).unwrap(), guard(None).unwrap());
        assert_ne!(a.idempotency_key, b.idempotency_key);
        assert_eq!(a.idempotency_key.unwrap().len(), 32);
        assert_eq!((a.if_revision, b.if_revision), (Some(Revision(3)), None));
    }
}
