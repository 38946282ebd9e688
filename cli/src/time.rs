//! Times and lengths of time as people write and read them.

use std::time::{Duration, UNIX_EPOCH};

use tug_model::{Millis, Timestamp};

/// `10m`, `1h 30m`, or a plain number of seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.parse::<u64>() {
        return Ok(Duration::from_secs(seconds));
    }
    humantime::parse_duration(text).map_err(|_| "write a length of time such as 90s, 10m or 1h30m".to_owned())
}

/// A moment: an age such as `10m`, or a time such as `2026-01-31T12:00:00Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    /// So long ago.
    Ago(Millis),
    /// This time.
    At(Timestamp),
}

/// Reads a [`Moment`].
pub(crate) fn moment(text: &str) -> Result<Moment, String> {
    if let Ok(age) = duration(text) {
        return Ok(Moment::Ago(age.into()));
    }
    let at = humantime::parse_rfc3339_weak(text).map_err(|_| {
        "write an age such as 10m or 2h, or a UTC time such as 2026-01-31T12:00:00Z".to_owned()
    })?;
    let since = at.duration_since(UNIX_EPOCH).map_err(|_| "times before 1970 have no logs".to_owned())?;
    Ok(Moment::At(Timestamp(Millis::from(since).0)))
}

impl Moment {
    /// The point in time, seen from `now`.
    pub(crate) fn resolve(self, now: Timestamp) -> Timestamp {
        match self {
            Self::Ago(age) => Timestamp(now.0.saturating_sub(age.0)),
            Self::At(at) => at,
        }
    }
}

/// A length of time in at most two units: `3d 4h`, `12m`, `5s`.
pub(crate) fn age(length: Millis) -> String {
    let seconds = length.0 / 1000;
    let (large, small) = match seconds {
        0..60 => return format!("{seconds}s"),
        60..3600 => ((seconds / 60, "m"), (seconds % 60, "s")),
        3600..86400 => ((seconds / 3600, "h"), (seconds % 3600 / 60, "m")),
        _ => ((seconds / 86400, "d"), (seconds % 86400 / 3600, "h")),
    };
    if small.0 == 0 || large.0 >= 10 {
        return format!("{}{}", large.0, large.1);
    }
    format!("{}{} {}{}", large.0, large.1, small.0, small.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_are_read() {
        assert_eq!(duration("10m").unwrap(), Duration::from_secs(600));
        assert_eq!(duration("1h30m").unwrap(), Duration::from_secs(5400));
        assert_eq!(duration("90").unwrap(), Duration::from_secs(90));
        assert_eq!(duration("250ms").unwrap(), Duration::from_millis(250));
        for bad in ["", "soon", "-5m", "10 parsecs", "99999999999999999999d"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn moments_are_ages_or_times() {
        let now = Timestamp(1_000_000);
        assert_eq!(moment("10m").unwrap().resolve(now), Timestamp(400_000));
        assert_eq!(moment("9999h").unwrap().resolve(now), Timestamp(0));
        assert_eq!(moment("1970-01-01T00:01:00Z").unwrap().resolve(now), Timestamp(60_000));
        assert_eq!(moment("1970-01-01 00:01:00.5").unwrap().resolve(now), Timestamp(60_500));
        assert!(moment("yesterday").unwrap_err().contains("10m"));
    }

    #[test]
    fn ages_are_short() {
        let shown = |seconds| age(Millis::from_secs(seconds));
        assert_eq!(
            [0, 59, 60, 61, 600, 601, 3600, 5400, 90_000, 864_000].map(shown),
            ["0s", "59s", "1m", "1m 1s", "10m", "10m", "1h", "1h 30m", "1d 1h", "10d"]
        );
        assert_eq!(age(Millis(999)), "0s");
    }
}
