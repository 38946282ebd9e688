//! What keeps an exclusive service from running twice: a task of it runs only under a lease, and its successor is made only
//! when every lease on it has surely ended.
//!
//! ```text
//! node                       control plane
//! report, with `uptime` ───▶ notes that a lease is given out, by its own clock
//!                       ◀─── the lease, with the same `uptime`
//! ends LASTS after `uptime`  counts as over OVER_AFTER after it was noted
//! ```
//!
//! The node counts from before it asked, and the control plane from after that, so whatever time the messages take only
//! makes the lease shorter where it is used. The two clocks need to agree on nothing but the length of a second, and on
//! that within [`MARGIN`].

use serde::{Deserialize, Serialize};

use crate::name::TaskId;
use crate::quantity::{Millis, Revision};

/// A lease ends so long after the report was made that it answers.
pub const LASTS: Millis = Millis::from_secs(6);
/// A process whose lease has ended gets so long to end, at most; then it is killed.
pub const STOPS_WITHIN: Millis = Millis::from_secs(5);
/// For an engine that is slow to kill, and for clocks of which one is fast and the other slow: with 5 % each, the eleven
/// seconds of the node are 11.6, and the fourteen of the control plane are 13.3.
pub const MARGIN: Millis = Millis::from_secs(3);
/// Nothing runs any more under a lease that was given out so long ago.
pub const OVER_AFTER: Millis = Millis(LASTS.0 + STOPS_WITHIN.0 + MARGIN.0);
/// With less than this left of its lease, a task is not started any more.
pub const LEAST_TO_START: Millis = Millis::from_secs(2);

/// So many starts of one task have numbers of their own.
const STARTS: u64 = 1_000_000;

/// What the control plane answers a report with: for which tasks the node has a lease now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The cluster's id.
    pub cluster: String,
    /// Its epoch.
    pub epoch: u64,
    /// [`Report::uptime`](crate::report::Report::uptime) of the report: the lease counts from there.
    pub uptime: Millis,
    /// The tasks that it is for, sorted.
    pub tasks: Vec<Leased>,
}

/// A task in a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leased {
    /// Which.
    pub id: TaskId,
    /// Whether it may be started; if not, what runs of it may take the time to end that it is given.
    pub may_start: bool,
}

/// A number that every start of a slot has for itself, greater than those of all starts before it, on whatever node. It is
/// in the container's environment as [`FencingNumber::VARIABLE`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FencingNumber(pub u64);

// === impl FencingNumber ===

impl FencingNumber {
    /// The environment variable.
    pub const VARIABLE: &str = "TUG_FENCING_NUMBER";

    /// That of the `start`th start of the task that the commit `made` made: a later task has a greater one.
    pub fn of(made: Revision, start: u32) -> Self {
        let start = u64::from(start).min(STARTS - 1);
        Self(made.0.saturating_mul(STARTS).saturating_add(start))
    }
}

impl std::fmt::Display for FencingNumber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_with_a_slow_clock_is_done_before_a_control_plane_with_a_fast_one_goes_on() {
        let slow = |time: Millis| time.0 * 100 / 95;
        let fast = |time: Millis| time.0 * 100 / 105;
        let spare = fast(OVER_AFTER) - slow(Millis(LASTS.0 + STOPS_WITHIN.0));
        assert!(spare > 1_500, "{spare} ms are left for the engine");
    }

    #[test]
    fn fencing_numbers_rise_from_start_to_start_and_from_task_to_task() {
        let number = |made, start| FencingNumber::of(Revision(made), start);
        assert_eq!(number(12, 3).to_string(), "12000003");
        assert!(number(12, 1) < number(12, 2));
        assert!(number(12, u32::MAX) < number(13, 1));
    }
}
