//! The wall clock, read once. From then on it moves with tokio's clock, which a test can pause and advance. Beside it, for
//! what must not be fooled by a machine that sleeps, how long the machine has been up.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};
use tokio::time::Instant;
use tug_model::{Millis, Timestamp};

/// Tells the time of day. Cheap to copy; all copies agree.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    origin: Instant,
    origin_time: Timestamp,
    uptime: Uptime,
}

/// What tells how long the machine has been up.
#[derive(Debug, Clone, Copy)]
enum Uptime {
    /// The kernel.
    Machine,
    /// tokio's clock, of which so many percent pass.
    Simulated(u32),
}

impl Clock {
    /// A clock that starts at the machine's time of day.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
    pub fn system() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { uptime: Uptime::Machine, ..Self::starting_at(Timestamp(Millis::from(since_epoch).0)) }
    }

    /// A clock that says `time` now: for simulations, which must not depend on the day they run.
    pub fn starting_at(time: Timestamp) -> Self {
        Self { origin: Instant::now(), origin_time: time, uptime: Uptime::Simulated(100) }
    }

    /// The same clock on a machine where `percent` of a second pass in one.
    #[must_use]
    pub fn drifting(self, percent: u32) -> Self {
        Self { uptime: Uptime::Simulated(percent), ..self }
    }

    /// The time of day.
    pub fn now(&self) -> Timestamp {
        self.at(Instant::now())
    }

    /// The time of day at `instant`, which may lie in the future.
    pub fn at(&self, instant: Instant) -> Timestamp {
        self.origin_time.plus(instant.saturating_duration_since(self.origin).into())
    }

    /// How long the machine has been up, asleep or awake. tokio's clock stands still while it sleeps.
    pub fn uptime(&self) -> Millis {
        match self.uptime {
            Uptime::Machine => {
                let time = clock_gettime(ClockId::Boottime);
                let seconds = Duration::from_secs(time.tv_sec.cast_unsigned());
                (seconds + Duration::from_nanos(time.tv_nsec.cast_unsigned())).into()
            }
            Uptime::Simulated(percent) => {
                let passed: Millis = self.origin.elapsed().into();
                Millis(passed.0.saturating_mul(u64::from(percent)) / 100)
            }
        }
    }

    /// When the machine will have been up for so long, if it does not sleep.
    pub fn when_up_for(&self, uptime: Millis) -> Instant {
        let left = uptime.0.saturating_sub(self.uptime().0);
        let left = match self.uptime {
            Uptime::Machine => left,
            Uptime::Simulated(percent) => (left.saturating_mul(100)).div_ceil(u64::from(percent.max(1))),
        };
        Instant::now() + Duration::from_millis(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_machine_may_be_fast_or_slow() {
        let clock = Clock::starting_at(Timestamp(0));
        let (slow, fast) = (clock.drifting(95), clock.drifting(105));
        tokio::time::advance(Duration::from_secs(100)).await;
        assert_eq!(
            (slow.uptime(), clock.uptime(), fast.uptime()),
            (Millis(95_000), Millis(100_000), Millis(105_000))
        );
        tokio::time::advance(slow.when_up_for(Millis(96_000)) - Instant::now()).await;
        assert_eq!(slow.uptime(), Millis(96_000));
        assert_eq!(slow.when_up_for(Millis(5)), Instant::now());
    }

    #[test]
    fn a_machine_is_up_ever_longer() {
        let clock = Clock::system();
        let first = clock.uptime();
        assert!(first > Millis(0) && clock.uptime() >= first);
    }
}
