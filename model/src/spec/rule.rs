//! Rules on single values of a project, each with its message. One place decides: the reader of manifests says them at
//! line and column, the server at the field, so that neither takes what the other refuses.
//!
//! What takes several services to judge is checked where they are together.

mod image;

use std::fmt::Display;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::{Component, Path};

pub use image::image;

use super::deploy::Mode;
use crate::quantity::{Bytes, Millis, NanoCpus};

/// Whether a value may be; else what is wrong with it, fit to be shown.
pub type Verdict = Result<(), String>;

const DAY: Millis = Millis::from_secs(86_400);

/// What a wait may be: the time to stop, the pause before a restart.
pub const WAIT: RangeInclusive<Millis> = Millis(0)..=DAY;
/// What a time may be that cannot be nothing: how long a check takes, and how long until the next.
pub const PERIOD: RangeInclusive<Millis> = Millis(1)..=DAY;
/// The time from one of our probes to the next.
pub const PROBE_PACE: RangeInclusive<Millis> = Millis(100)..=DAY;
/// How many failures in a row make a task unhealthy by a probe.
pub const PROBE_RETRIES: RangeInclusive<u32> = 1..=1000;
/// The same by a health check, where 0 is the Engine's own number.
pub const HEALTH_RETRIES: RangeInclusive<u32> = 0..=1000;
/// The number of replicas.
pub const REPLICAS: RangeInclusive<u32> = 0..=Mode::MOST_REPLICAS;
/// A port.
pub const PORT: RangeInclusive<u16> = 1..=u16::MAX;
/// How readily memory is swapped out, in percent.
pub const SWAPPINESS: RangeInclusive<u8> = 0..=100;
/// What is added to the score by which the kernel chooses whom to kill for memory.
pub const OOM_SCORE: RangeInclusive<i64> = -1000..=1000;
/// The most variables of one container.
pub const MOST_VARIABLES: usize = 4096;
/// The nodes' own attributes that a constraint may name, beside `node.labels.KEY`.
pub const ATTRIBUTES: [&str; 5] =
    ["node.id", "node.hostname", "node.role", "node.platform.os", "node.platform.arch"];

const CPUS: RangeInclusive<NanoCpus> = NanoCpus(1_000_000)..=NanoCpus(4096 * 1_000_000_000);
/// Below this the Engine refuses to start a container.
const LEAST_MEMORY: Bytes = Bytes(6 << 20);
/// The longest label, key and value together.
const LONGEST_LABEL: usize = 64 << 10;
/// The longest `KEY=value` that Linux starts a process with, the NUL at its end included.
const LONGEST_VARIABLE: usize = 128 << 10;
const LONGEST_HOST_NAME: usize = 253;
const LONGEST_ENGINE_NAME: usize = 255;
const LONGEST_PROBE_PATH: usize = 2048;
const LONGEST_PATH: usize = 4096;

/// A text that a user wrote, fit to be shown: short, and without characters that mean something to a terminal.
pub fn shown(text: &str) -> String {
    text.chars().take(64).flat_map(char::escape_debug).collect()
}

/// `value` lies within `range`.
pub fn within<T: PartialOrd + Display>(value: &T, range: &RangeInclusive<T>) -> Verdict {
    let (least, most) = (range.start(), range.end());
    verdict(range.contains(value), || format!("{value} is out of range: use {least} to {most}"))
}

// --- names and words ---

/// A label or an annotation.
pub fn label(key: &str, value: &str) -> Verdict {
    if key.is_empty() {
        return Err("the name of the label is empty".to_owned());
    }
    if key == "tug" || key.starts_with("tug.") {
        return Err(format!("the label `{}` begins with `tug.`, which is reserved", shown(key)));
    }
    let longest = LONGEST_LABEL >> 10;
    let fits = key.len() + value.len() <= LONGEST_LABEL;
    verdict(fits, || format!("the label `{}` is longer than {longest} KiB", shown(key)))
}

/// The name of a variable.
pub fn variable_name(key: &str) -> Verdict {
    if key.is_empty() {
        return Err("the name of the variable is empty".to_owned());
    }
    match key.chars().find(|c| matches!(c, '=' | '\0') || c.is_whitespace()) {
        Some(odd) => Err(format!(
            "the name of the variable `{}` holds the character `{}`",
            shown(key),
            odd.escape_default()
        )),
        None => Ok(()),
    }
}

/// A variable. Its value may be a secret, and is never part of the message.
pub fn variable(key: &str, value: &str) -> Verdict {
    variable_name(key)?;
    let longest = LONGEST_VARIABLE >> 10;
    verdict(key.len() + value.len() + 2 <= LONGEST_VARIABLE, || {
        let key = shown(key);
        format!("the variable `{key}` is longer than {longest} KiB: no process can be started with it")
    })
}

/// The number of variables of a container.
pub fn variables(count: usize) -> Verdict {
    verdict(count <= MOST_VARIABLES, || format!("{count} variables; the most are {MOST_VARIABLES}"))
}

/// The name of a host, as a container may have.
pub fn host_name(text: &str) -> Verdict {
    let good = text.len() <= LONGEST_HOST_NAME
        && text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && text.chars().all(is_wide);
    let rule = "use at most 253 of a-z, A-Z, 0-9, ., - and _";
    verdict(good, || format!("`{}` is not a host name: {rule}", shown(text)))
}

/// A line of `/etc/hosts`.
pub fn extra_host(host: &str, address: &str) -> Verdict {
    if host.is_empty() || !host.chars().all(is_wide) {
        return Err(format!("`{}` is not a host name", shown(host)));
    }
    let is_address = address == "host-gateway" || address.parse::<IpAddr>().is_ok();
    verdict(is_address, || format!("`{}` is neither an IP address nor `host-gateway`", shown(address)))
}

/// The name of a network or volume in the Engine.
pub fn engine_name(text: &str) -> Verdict {
    let good = text.len() <= LONGEST_ENGINE_NAME
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(is_wide);
    let rule = "use at most 255 of a-z, A-Z, 0-9, ., - and _, starting with a letter or digit";
    verdict(good, || format!("`{}` is not a name for the Engine: {rule}", shown(text)))
}

/// What a constraint compares.
pub fn attribute(text: &str) -> Verdict {
    let is_label = text.strip_prefix("node.labels.").is_some_and(|label| !label.is_empty());
    verdict(is_label || ATTRIBUTES.contains(&text), || {
        let known = ATTRIBUTES.join(", ");
        format!("`{}` is not known of a node: use {known} or node.labels.NAME", shown(text))
    })
}

/// The path that an HTTP probe asks for.
pub fn probe_path(text: &str) -> Verdict {
    let good = text.starts_with('/')
        && text.len() <= LONGEST_PROBE_PATH
        && text.chars().all(|c| c.is_ascii_graphic());
    verdict(good, || "must be a path like /healthz of at most 2048 characters, without spaces".to_owned())
}

/// An absolute path, as it is.
pub fn path(text: &str) -> Verdict {
    if !text.starts_with('/') {
        return Err(format!("`{}` must be an absolute path", shown(text)));
    }
    if text.split('/').any(|part| part == "..") {
        return Err(format!("`{}`: write the path without `..`", shown(text)));
    }
    verdict(text.len() <= LONGEST_PATH, || format!("the path is longer than {LONGEST_PATH} characters"))
}

/// Where something is mounted in a container.
pub fn mount_target(text: &str) -> Verdict {
    path(text)?;
    verdict(Path::new(text).parent().is_some(), || {
        "the root of the container cannot be mounted over".to_owned()
    })
}

/// A path within a volume.
pub fn subpath(text: &str) -> Verdict {
    let is_inside = Path::new(text).components().all(|part| matches!(part, Component::Normal(_)));
    verdict(is_inside && !text.is_empty(), || {
        format!("`{}` must be a path within the volume, without `..`", shown(text))
    })
}

/// The test of a health check, as the Engine is told.
pub fn health_test(words: &[String]) -> Verdict {
    let good = match words.first().map(String::as_str) {
        None => true,
        Some("NONE") => words.len() == 1,
        Some("CMD-SHELL") => words.len() == 2,
        Some("CMD") => words.len() >= 2,
        Some(_) => false,
    };
    verdict(good, || "use [\"CMD\", PROGRAM, …], [\"CMD-SHELL\", LINE] or [\"NONE\"]".to_owned())
}

// --- amounts ---

/// Processor time.
pub fn cpus(cpus: NanoCpus) -> Verdict {
    let (least, most) = (CPUS.start(), CPUS.end().0 / 1_000_000_000);
    verdict(CPUS.contains(&cpus), || format!("use {least} to {most} processors, e.g. 0.5"))
}

/// Memory that a container can live in.
pub fn memory(memory: Bytes) -> Verdict {
    if i64::try_from(memory.0).is_err() {
        return Err("that is more than any machine has".to_owned());
    }
    verdict(memory >= LEAST_MEMORY, || {
        format!("{memory} is less than the {LEAST_MEMORY} that a container needs; write e.g. 512m")
    })
}

/// Memory that is kept for a container, and the most that it may use.
pub fn reservation(kept: Bytes, limit: Option<Bytes>) -> Verdict {
    match limit.filter(|limit| kept > *limit) {
        Some(limit) => Err(format!("{kept} are reserved, and the limit is {limit}")),
        None => Ok(()),
    }
}

/// How many replicas an exclusive service has.
pub fn exclusive(mode: Mode) -> Verdict {
    match mode {
        Mode::Replicated(0 | 1) => Ok(()),
        Mode::Replicated(count) => Err(format!(
            "an exclusive service never runs twice at once, so it has at most 1 replica, not {count}"
        )),
        Mode::Global => {
            Err("an exclusive service never runs twice at once, and a global one does".to_owned())
        }
    }
}

/// The two limits of one resource of a process.
pub fn ulimit(soft: i64, hard: i64) -> Verdict {
    let good = soft >= -1 && hard >= -1 && (hard == -1 || (soft != -1 && soft <= hard));
    verdict(good, || format!("the soft limit {soft} is above the hard limit {hard}; -1 is none"))
}

fn is_wide(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_')
}

fn verdict(good: bool, message: impl FnOnce() -> String) -> Verdict {
    if good { Ok(()) } else { Err(message()) }
}
