//! The wall clock, read once. From then on it moves with tokio's clock, which a test can pause and advance.

use std::time::{SystemTime, UNIX_EPOCH};

use tokio::time::Instant;
use tug_model::{Millis, Timestamp};

/// Tells the time of day. Cheap to copy; all copies agree.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    origin: Instant,
    origin_time: Timestamp,
}

impl Clock {
    /// A clock that starts at the machine's time of day.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
    pub fn system() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self::starting_at(Timestamp(Millis::from(since_epoch).0))
    }

    /// A clock that says `time` now: for simulations, which must not depend on the day they run.
    pub fn starting_at(time: Timestamp) -> Self {
        Self { origin: Instant::now(), origin_time: time }
    }

    /// The time of day.
    pub fn now(&self) -> Timestamp {
        self.at(Instant::now())
    }

    /// The time of day at `instant`, which may lie in the future.
    pub fn at(&self, instant: Instant) -> Timestamp {
        self.origin_time.plus(instant.saturating_duration_since(self.origin).into())
    }
}
