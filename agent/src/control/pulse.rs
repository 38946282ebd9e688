//! When the engine is looked at, and whether it answers.

use std::time::Duration;

use tokio::time::Instant;
use tug_api::error::chain;
use tug_model::Timestamp;
use tug_model::report::Engine;

use crate::runtime::{Cause, EngineInfo, RuntimeError};

/// The pace of looking, and the outcome.
#[derive(Debug)]
pub(super) struct Pulse {
    due: Instant,
    under_way: bool,
    /// What a look costs decides how soon the next one may follow.
    ended_at: Instant,
    spacing: Duration,
    info: Option<EngineInfo>,
    failures: u32,
    failing_since: Option<Timestamp>,
    reason: String,
    /// The last look found nothing that listens.
    is_gone: bool,
}

/// Without any event, the list is asked for this often.
const PERIOD: Duration = Duration::from_secs(5);
/// After a failure.
const RETRY: Duration = Duration::from_secs(1);
/// The engine counts as down after so many failures in a row.
const FAILURES: u32 = 3;
/// Looks that nothing hangs on take at most about a twentieth of the time: the engine works as long on one as we do.
const SHARE: u32 = 20;
const LEAST_SPACING: Duration = Duration::from_millis(50);
/// What is known to have happened shows in the list after about this time.
const SHORTLY: Duration = Duration::from_millis(20);
const MOST_SPACING: Duration = Duration::from_secs(1);

// === impl Pulse ===

impl Pulse {
    /// Of an engine that is to be looked at now.
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self {
            due: now,
            under_way: false,
            ended_at: now,
            spacing: Duration::ZERO,
            info: None,
            failures: 0,
            failing_since: None,
            reason: String::new(),
            is_gone: false,
        }
    }

    /// Something happened that cannot wait.
    pub(super) fn look_now(&mut self) {
        self.due = self.due.min(Instant::now());
    }

    /// Something happened; several such things share a look.
    pub(super) fn look_soon(&mut self) {
        self.due = self.due.min(Instant::now().max(self.ended_at + self.spacing));
    }

    /// The list does not yet show something that is known to have happened.
    pub(super) fn look_shortly(&mut self) {
        self.due = self.due.min(Instant::now() + SHORTLY);
    }

    /// When to look next; `None` while a look is under way.
    pub(super) fn due(&self) -> Option<Instant> {
        (!self.under_way).then_some(self.due)
    }

    /// A look begins.
    pub(super) fn begin(&mut self) {
        self.under_way = true;
        self.due = Instant::now() + PERIOD;
    }

    /// A look has ended well; returns whether the engine was down before.
    pub(super) fn succeeded(&mut self, info: Option<EngineInfo>, took: Duration) -> bool {
        self.end(took);
        let was_down = self.is_down();
        self.failures = 0;
        self.failing_since = None;
        if info.is_some() {
            self.info = info;
        }
        was_down
    }

    /// A look has failed; returns whether the engine counts as down from now on.
    pub(super) fn failed(&mut self, error: &RuntimeError, now: Timestamp, took: Duration) -> bool {
        self.end(took);
        self.due = self.due.min(Instant::now() + RETRY).max(Instant::now() + LEAST_SPACING);
        self.failures = self.failures.saturating_add(1);
        self.failing_since.get_or_insert(now);
        self.reason = chain(error);
        self.is_gone = matches!(error.cause, Cause::Missing);
        self.failures == FAILURES
    }

    /// Whether the last looks failed.
    pub(super) fn is_down(&self) -> bool {
        self.failures >= FAILURES
    }

    /// Whether the last look failed, or none has ended yet.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.failures > 0 || self.info.is_none()
    }

    /// What the engine says about itself, once it has.
    pub(super) fn info(&self) -> Option<&EngineInfo> {
        self.info.as_ref()
    }

    /// For the report.
    pub(super) fn engine(&self, now: Timestamp) -> Engine {
        match self.failing_since {
            Some(since) if self.is_down() => {
                let ends_all = self.info.as_ref().is_some_and(|info| !info.keeps_containers);
                let doomed = self.is_gone && ends_all;
                Engine::Down { reason: self.reason.clone(), age: now.since(since), doomed }
            }
            Some(_) | None => Engine::Up,
        }
    }

    fn end(&mut self, took: Duration) {
        self.under_way = false;
        self.ended_at = Instant::now();
        self.spacing = (took * SHARE).clamp(LEAST_SPACING, MOST_SPACING);
    }
}
