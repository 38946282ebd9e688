//! What the outcomes of probes mean, as a pure state machine.

use tug_model::report::Health;
use tug_model::spec::service::Probe;
use tug_model::{Millis, Timestamp};

/// How the probes of one run went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkup {
    since: Timestamp,
    health: Health,
    was_probed: bool,
    /// Failures in a row.
    failures: u32,
    /// The wait before the next probe while the run has never been healthy.
    pace: Millis,
}

/// While a run has never been healthy, the second probe follows after this, and the waits grow from here: a fresh
/// replica counts as soon as it listens.
const FIRST_PACE: Millis = Millis(50);

// === impl Checkup ===

impl Checkup {
    /// Of a run that began now, as far as is known.
    pub fn new(now: Timestamp) -> Self {
        Self { since: now, health: Health::Starting, was_probed: false, failures: 0, pace: FIRST_PACE }
    }

    /// What the probes say.
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// Whether there was a probe.
    pub fn was_probed(&self) -> bool {
        self.was_probed
    }

    /// Takes in the outcome of a probe and says how long to wait before the next.
    pub fn take(&mut self, probe: &Probe, outcome: Result<(), String>, now: Timestamp) -> Millis {
        self.was_probed = true;
        let Err(reason) = outcome else {
            self.failures = 0;
            self.health = Health::Healthy;
            return probe.interval;
        };
        self.failures = self.failures.saturating_add(1);
        match self.health {
            Health::Healthy => {
                if self.failures >= probe.retries.max(1) && now >= self.since.plus(probe.start_period) {
                    self.health = Health::Unhealthy { reason };
                }
                probe.interval
            }
            // The first probes come faster than the interval, so it is time that counts, not failures.
            Health::Starting | Health::Unhealthy { .. } => {
                let patience = Millis(probe.interval.0.saturating_mul(u64::from(probe.retries)));
                if now >= self.since.plus(probe.start_period).plus(patience) {
                    self.health = Health::Unhealthy { reason };
                }
                let wait = self.pace.min(probe.interval);
                self.pace = Millis(self.pace.0.saturating_mul(5) / 4);
                wait
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe() -> Probe {
        Probe::tcp(80)
    }

    fn no() -> Result<(), String> {
        Err("refused".to_owned())
    }

    #[test]
    fn one_success_makes_healthy_and_three_failures_make_unhealthy() {
        let mut checkup = Checkup::new(Timestamp(0));
        assert_eq!(checkup.take(&probe(), no(), Timestamp(0)), Millis(50));
        assert_eq!(checkup.take(&probe(), Ok(()), Timestamp(50)), Millis(1000));
        assert_eq!(*checkup.health(), Health::Healthy);
        for n in 1..=2 {
            checkup.take(&probe(), no(), Timestamp(50 + 1000 * n));
            assert_eq!(*checkup.health(), Health::Healthy, "after {n} failures");
        }
        checkup.take(&probe(), no(), Timestamp(3050));
        assert_eq!(*checkup.health(), Health::Unhealthy { reason: "refused".to_owned() });
        checkup.take(&probe(), Ok(()), Timestamp(4050));
        assert_eq!(*checkup.health(), Health::Healthy);
        checkup.take(&probe(), no(), Timestamp(5050));
        assert_eq!(*checkup.health(), Health::Healthy, "the count began anew");
    }

    #[test]
    fn a_slow_start_is_probed_often_and_judged_by_time() {
        let probe = Probe { start_period: Millis(5000), ..probe() };
        let mut checkup = Checkup::new(Timestamp(0));
        let (mut now, mut probes) = (Timestamp(0), 0);
        while *checkup.health() == Health::Starting {
            let wait = checkup.take(&probe, no(), now);
            assert!(wait >= Millis(50) && wait <= probe.interval, "{wait}");
            if *checkup.health() == Health::Starting {
                now = now.plus(wait);
                probes += 1;
            }
        }
        assert!((8000..9000).contains(&now.0), "start period and three intervals, not {now}");
        assert!((12..30).contains(&probes), "{probes}");
    }
}
