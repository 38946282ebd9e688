//! The restart policy as a state machine: how a task's runs went, and whether and when the next one begins.
//!
//! Runs are told apart by the engine's own times of start and end, so it does not matter who started a container, how
//! often the same list is looked at, or whether an end was seen by this agent or by the one before it.

use serde::{Deserialize, Serialize};
use tug_model::spec::service::{Restart, RestartOn};
use tug_model::{Millis, Timestamp};

use super::backoff::doubled;
use crate::runtime::State;

/// How the runs of one task went. Kept on disk.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct History {
    /// How many runs there were.
    pub starts: u32,
    /// How many of the newest ends in a row were followed by a start and were no good run.
    pub streak: u32,
    /// When the newest run that was seen began.
    pub started_at: Option<Timestamp>,
    /// How it ended; `None` while it goes on.
    pub ended: Option<End>,
}

/// How a run ended, and what follows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// When, by the engine; names the end.
    pub finished_at: Timestamp,
    /// The exit code; 128 + n for signal n.
    pub code: i64,
    /// The kernel killed it for memory.
    pub out_of_memory: bool,
    /// When the next run begins; `None` if the policy says that this is the end.
    pub again_at: Option<Timestamp>,
}

/// What follows now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Start it.
    Start,
    /// Start it at that time.
    Wait(Timestamp),
    /// Never: this is the end.
    Over,
}

/// The exit code of a container that somebody removed while it ran.
const REMOVED: i64 = 137;

// === impl History ===

impl History {
    /// Takes in where the container stands; `None`: there is none. Returns whether a run ended that was not known to
    /// have ended.
    pub fn observe(&mut self, state: Option<&State>, policy: &Restart, now: Timestamp) -> bool {
        match state {
            Some(State::Running { started_at }) => {
                if self.started_at != Some(*started_at) || self.ended.is_some() {
                    self.begin(Some(*started_at));
                }
                false
            }
            Some(State::Exited { code, out_of_memory, finished_at }) => {
                if self.ended.as_ref().is_some_and(|end| end.finished_at == *finished_at) {
                    return false;
                }
                if self.ended.is_some() || self.started_at.is_none() {
                    // It began and ended between two looks.
                    self.begin(None);
                }
                self.end(policy, (*finished_at, *code, *out_of_memory), now);
                true
            }
            None => {
                let vanished = self.started_at.is_some() && self.ended.is_none();
                if vanished {
                    self.end(policy, (now, REMOVED, false), now);
                }
                vanished
            }
            // Neither the beginning of a run nor its end.
            Some(State::Created | State::Paused | State::Restarting | State::Dead | State::Removing) => false,
        }
    }

    /// What follows now; a task that never ran is started.
    pub fn verdict(&self, now: Timestamp) -> Verdict {
        match &self.ended {
            Some(End { again_at: None, .. }) => Verdict::Over,
            Some(End { again_at: Some(at), .. }) if *at > now => Verdict::Wait(*at),
            Some(End { again_at: Some(_), .. }) | None => Verdict::Start,
        }
    }

    /// How often it was started again.
    pub fn restarts(&self) -> u32 {
        self.starts.saturating_sub(1)
    }

    fn begin(&mut self, started_at: Option<Timestamp>) {
        self.starts = self.starts.saturating_add(1);
        self.started_at = started_at;
        self.ended = None;
    }

    fn end(
        &mut self,
        policy: &Restart,
        (finished_at, code, out_of_memory): (Timestamp, i64, bool),
        now: Timestamp,
    ) {
        let ran = self.started_at.map(|started_at| finished_at.since(started_at));
        let good = ran.is_some_and(|ran| ran >= policy.window.unwrap_or(Restart::GOOD_RUN));
        if good {
            self.streak = 0;
        }
        let again = match policy.condition {
            RestartOn::Never => false,
            RestartOn::Failure => code != 0,
            RestartOn::Any => true,
        };
        let again = again && policy.max_attempts.is_none_or(|most| self.streak < most);
        let wait = if good { Millis(0) } else { wait(policy, self.streak) };
        if again && !good {
            self.streak = self.streak.saturating_add(1);
        }
        let again_at = again.then(|| now.plus(wait));
        self.ended = Some(End { finished_at, code, out_of_memory, again_at });
    }
}

/// The wait after a run that did not last, when `streak` such ends came before it.
fn wait(policy: &Restart, streak: u32) -> Millis {
    if streak == 0 {
        return policy.delay.min(Restart::LONGEST_WAIT);
    }
    // A delay of nothing would never double.
    doubled(policy.delay.max(Restart::FIRST_WAIT), streak, Restart::LONGEST_WAIT)
}
