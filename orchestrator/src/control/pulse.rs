//! Noticing that we stood still: the process or the whole machine was suspended. What is heard afterwards is old, and who
//! is silent then had nobody to talk to.

use std::time::Duration;

use tokio::time::Instant;

/// The loop looks at least so often, if only to see that time goes on.
pub(super) const EVERY: Duration = Duration::from_secs(1);
/// A look that comes so much later than it should was not merely slow.
const LATE: Duration = Duration::from_secs(3);

/// When the loop last looked.
#[derive(Debug)]
pub(super) struct Pulse {
    last: Instant,
}

// === impl Pulse ===

impl Pulse {
    /// One that begins now.
    pub(super) fn new() -> Self {
        Self { last: Instant::now() }
    }

    /// The loop looks. Says for how long it stood still, if it did.
    pub(super) fn beat(&mut self) -> Option<Duration> {
        let now = Instant::now();
        let gap = now.saturating_duration_since(self.last);
        self.last = now;
        (gap > EVERY + LATE).then_some(gap)
    }
}
