//! How long to wait after a failure: doubling, capped, and, for what others share, spread.

use tug_model::Millis;

/// How the waits of one kind of operation grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// An operation on the engine: 1 s to 5 min.
    Engine,
    /// A pull, which a registry counts: 10 s to 5 min, spread by a fifth each way.
    Pull,
}

// === impl Pace ===

impl Pace {
    /// The wait after so many `failures` in a row. `seed` and `name` decide where in the spread it falls.
    pub fn wait(self, failures: u32, name: &str, seed: u64) -> Millis {
        let first = match self {
            Self::Engine => Millis::from_secs(1),
            Self::Pull => Millis::from_secs(10),
        };
        let wait = doubled(first, failures.saturating_sub(1), Millis::from_secs(300));
        match self {
            Self::Engine => wait,
            Self::Pull => Millis(wait.0 * (80 + draw(failures, name, seed) % 41) / 100),
        }
    }
}

/// `first`, doubled so many `times`, but never above `most`.
pub(super) fn doubled(first: Millis, times: u32, most: Millis) -> Millis {
    let factor = 1_u64.checked_shl(times).unwrap_or(u64::MAX);
    Millis(first.0.saturating_mul(factor)).min(most)
}

/// A share between a half and the whole, for waits that many nodes begin at the same moment.
pub fn spread(failures: u32, name: &str, seed: u64) -> f64 {
    let thousandths = u32::try_from(500 + draw(failures, name, seed) % 501).unwrap_or(1000);
    f64::from(thousandths) / 1000.0
}

/// A number that looks random and depends on nothing but the arguments (FNV-1a, then a finisher).
fn draw(failures: u32, name: &str, seed: u64) -> u64 {
    let start = 0xcbf2_9ce4_8422_2325 ^ seed ^ (u64::from(failures) << 32);
    let mut hash = start;
    for byte in name.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_five_minutes() {
        let waits: Vec<u64> = (1..=11).map(|n| Pace::Engine.wait(n, "web", 0).0 / 1000).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        assert_eq!(Pace::Engine.wait(u32::MAX, "web", 0), Millis::from_secs(300));
    }

    #[test]
    fn pulls_are_spread_and_the_same_seed_waits_the_same() {
        let first: Vec<Millis> = (0..50).map(|seed| Pace::Pull.wait(1, "nginx", seed)).collect();
        assert!(first.iter().all(|wait| (8_000..=12_000).contains(&wait.0)), "{first:?}");
        assert!(first.iter().any(|wait| *wait != first[0]), "{first:?}");
        assert_eq!(Pace::Pull.wait(3, "nginx", 7), Pace::Pull.wait(3, "nginx", 7));
        assert!(Pace::Pull.wait(99, "nginx", 7) <= Millis(360_000));
    }
}
