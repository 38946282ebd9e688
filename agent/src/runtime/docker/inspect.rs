//! What only an inspect can tell about a container, and when the last one is still good.
//!
//! The Engine's list has no start time, no exit code as a number, no word on memory, and no text of a failed health
//! check. It has a sentence, `Up 5 minutes (healthy)` or `Exited (137) 2 seconds ago`, which gives away whether what
//! an earlier inspect said still holds: state and health are the same, and its age has not gone backwards.

use bollard::models::{ContainerInspectResponse, ContainerState, HealthStatusEnum};
use tug_model::quantity::Timestamp;

use crate::runtime::EngineHealth;

/// What is remembered of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) sentence: Sentence,
    pub(super) details: Details,
}

/// What an inspect tells beyond the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Details {
    pub(super) started_at: Timestamp,
    pub(super) finished_at: Timestamp,
    pub(super) exit_code: i64,
    pub(super) out_of_memory: bool,
    pub(super) health: EngineHealth,
}

/// The Engine's sentence about a container, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sentence {
    /// It runs.
    pub(super) is_up: bool,
    /// The word on its health.
    pub(super) health: HealthWord,
    /// The code in `Exited (137)`.
    pub(super) exit_code: Option<i64>,
    /// Its age in seconds, rounded as the Engine does.
    pub(super) age: u64,
}

/// The word on a container's health in the Engine's sentence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HealthWord {
    None,
    Starting,
    Healthy,
    Unhealthy,
}

// === impl Seen ===

impl Seen {
    /// Whether this still holds for a container with the sentence `now`. What an unhealthy container last said changes
    /// without a sign, so it never holds for one.
    pub(super) fn holds_for(&self, now: Sentence) -> bool {
        let then = self.sentence;
        then.is_up == now.is_up
            && then.health == now.health
            && now.health != HealthWord::Unhealthy
            && then.exit_code == now.exit_code
            && then.age <= now.age
    }
}

// === impl Details ===

impl Details {
    pub(super) fn of(response: ContainerInspectResponse) -> Self {
        let state = response.state.unwrap_or_default();
        Self {
            started_at: state.started_at.as_deref().and_then(parse_time).unwrap_or_default(),
            finished_at: state.finished_at.as_deref().and_then(parse_time).unwrap_or_default(),
            exit_code: state.exit_code.unwrap_or_default(),
            out_of_memory: state.oom_killed.unwrap_or_default(),
            health: health(state),
        }
    }

    /// The best guess for a container that could not be inspected in time.
    pub(super) fn guess(sentence: Sentence, created_at: Timestamp) -> Self {
        Self {
            started_at: created_at,
            finished_at: created_at,
            exit_code: sentence.exit_code.unwrap_or(255),
            out_of_memory: false,
            health: match sentence.health {
                HealthWord::None => EngineHealth::None,
                HealthWord::Starting => EngineHealth::Starting,
                HealthWord::Healthy => EngineHealth::Healthy,
                HealthWord::Unhealthy => EngineHealth::Unhealthy { output: String::new() },
            },
        }
    }
}

// === impl Sentence ===

impl Sentence {
    pub(super) fn parse(text: &str) -> Self {
        let health = if text.contains("(unhealthy)") {
            HealthWord::Unhealthy
        } else if text.contains("(healthy)") {
            HealthWord::Healthy
        } else if text.contains("(health: starting)") {
            HealthWord::Starting
        } else {
            HealthWord::None
        };
        let exit_code = text.strip_prefix("Exited (").and_then(|rest| rest.split_once(')'));
        Self {
            is_up: text.starts_with("Up "),
            health,
            exit_code: exit_code.and_then(|(code, _)| code.parse().ok()),
            age: age(text),
        }
    }
}

/// The seconds in `Up 5 minutes` or `Exited (0) About an hour ago`; 0 for `Less than a second`.
fn age(text: &str) -> u64 {
    const UNITS: [(&str, u64); 7] = [
        ("second", 1),
        ("minute", 60),
        ("hour", 3600),
        ("day", 86_400),
        ("week", 604_800),
        ("month", 2_592_000),
        ("year", 31_536_000),
    ];
    if text.contains("Less than") {
        return 0;
    }
    let words: Vec<&str> = text.split_whitespace().collect();
    for pair in words.windows(2) {
        let [count, unit] = pair else { continue };
        if let Some((_, seconds)) = UNITS.iter().find(|(name, _)| unit.trim_end_matches('s') == *name) {
            return count.parse::<u64>().unwrap_or(1).saturating_mul(*seconds);
        }
    }
    0
}

fn health(state: ContainerState) -> EngineHealth {
    let Some(health) = state.health else { return EngineHealth::None };
    match health.status {
        Some(HealthStatusEnum::STARTING) => EngineHealth::Starting,
        Some(HealthStatusEnum::HEALTHY) => EngineHealth::Healthy,
        Some(HealthStatusEnum::UNHEALTHY) => {
            let last = health.log.and_then(|mut log| log.pop()).and_then(|result| result.output);
            EngineHealth::Unhealthy { output: shortened(last.unwrap_or_default().trim()) }
        }
        Some(HealthStatusEnum::NONE | HealthStatusEnum::EMPTY) | None => EngineHealth::None,
    }
}

/// At most the last 512 characters.
fn shortened(text: &str) -> String {
    let cut = text.char_indices().rev().nth(511).map_or(0, |(at, _)| at);
    text.get(cut..).unwrap_or_default().to_owned()
}

/// A time as the Engine writes it, in UTC or with the offset of its own time zone. Year 1 stands for never.
pub(super) fn parse_time(text: &str) -> Option<Timestamp> {
    let (time, offset) = match text.len().checked_sub(6).and_then(|at| text.split_at_checked(at)) {
        Some((time, zone)) if zone.starts_with(['+', '-']) => (format!("{time}Z"), parse_offset(zone)?),
        Some(_) | None => (text.to_owned(), 0),
    };
    let since_epoch = humantime::parse_rfc3339(&time).ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    let millis = i64::try_from(since_epoch.as_millis()).ok()? - offset * 60_000;
    Some(Timestamp(u64::try_from(millis).ok()?))
}

/// The minutes in `+05:30`.
fn parse_offset(zone: &str) -> Option<i64> {
    let (hours, minutes) = zone.get(1..)?.split_once(':')?;
    let minutes = hours.parse::<i64>().ok()? * 60 + minutes.parse::<i64>().ok()?;
    Some(if zone.starts_with('-') { -minutes } else { minutes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engines_sentence_is_taken_apart() {
        let check = |text, is_up, health, exit_code, age| {
            assert_eq!(Sentence::parse(text), Sentence { is_up, health, exit_code, age }, "{text}");
        };
        check("Up Less than a second", true, HealthWord::None, None, 0);
        check("Up 3 seconds (health: starting)", true, HealthWord::Starting, None, 3);
        check("Up About a minute (healthy)", true, HealthWord::Healthy, None, 60);
        check("Up 2 hours (unhealthy)", true, HealthWord::Unhealthy, None, 7200);
        check("Up About an hour", true, HealthWord::None, None, 3600);
        check("Up 1 second", true, HealthWord::None, None, 1);
        check("Exited (137) 5 weeks ago", false, HealthWord::None, Some(137), 5 * 604_800);
        check("Exited (0) Less than a second ago", false, HealthWord::None, Some(0), 0);
        check("Created", false, HealthWord::None, None, 0);
    }

    #[test]
    fn what_was_seen_holds_until_the_sentence_changes_or_grows_younger() {
        let details = Details::guess(Sentence::parse("Up 1 second"), Timestamp(0));
        let check = |then, now, holds| {
            let seen = Seen { sentence: Sentence::parse(then), details: details.clone() };
            assert_eq!(seen.holds_for(Sentence::parse(now)), holds, "{then} -> {now}");
        };
        check("Up 5 seconds", "Up 6 seconds", true);
        check("Up 59 seconds", "Up About a minute", true);
        check("Up 5 minutes", "Up 3 seconds", false);
        check("Up 5 minutes (healthy)", "Up 6 minutes (unhealthy)", false);
        check("Up 5 minutes (unhealthy)", "Up 6 minutes (unhealthy)", false);
        check("Exited (0) 5 seconds ago", "Up 6 seconds", false);
        check("Exited (0) 5 seconds ago", "Exited (1) 6 seconds ago", false);
    }

    #[test]
    fn times_are_read_and_never_is_none() {
        assert_eq!(parse_time("1970-01-01T00:00:01.5Z"), Some(Timestamp(1500)));
        assert_eq!(parse_time("2026-01-02T03:04:05.123456789Z").map(|t| t.0 % 1000), Some(123));
        assert_eq!(parse_time("1970-01-01T05:30:01.25+05:30"), Some(Timestamp(1250)));
        assert_eq!(parse_time("1969-12-31T19:00:01-05:00"), None, "the library knows nothing before 1970");
        assert_eq!(parse_time("1970-01-01T00:00:01-01:00"), Some(Timestamp(3_601_000)));
        assert_eq!(parse_time("0001-01-01T00:00:00Z"), None);
        assert_eq!(parse_time("soon"), None);
    }

    #[test]
    fn the_end_of_a_long_health_text_is_kept() {
        let text = format!("{}end", "ü".repeat(1000));
        let short = shortened(&text);
        assert_eq!(short.chars().count(), 512);
        assert!(short.ends_with("end"));
        assert_eq!(shortened("ok"), "ok");
    }
}
