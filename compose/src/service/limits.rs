//! What a container may use: `deploy.resources.limits` and the older keys beside it.

use tug_model::spec::container::{Limits, Ulimit};
use tug_model::spec::rule;
use tug_model::{Bytes, NanoCpus};

use crate::reader::{Cursor, Fields};
use crate::schema;

pub(super) fn read(fields: &Fields<'_>, deploy: Option<&Fields<'_>>) -> Limits {
    let resources = deploy
        .and_then(|deploy| deploy.get("resources"))
        .and_then(|cursor| cursor.fields(&schema::RESOURCES));
    let limits = resources
        .as_ref()
        .and_then(|resources| resources.get("limits"))
        .and_then(|cursor| cursor.fields(&schema::LIMITS));
    let reservations = resources
        .as_ref()
        .and_then(|resources| resources.get("reservations"))
        .and_then(|cursor| cursor.fields(&schema::RESERVATIONS));
    let limit = |key| limits.as_ref().and_then(|limits| limits.get(key));
    let pids = -1..=4_194_304;
    let reserved_of = |key| reservations.as_ref().and_then(|reservations| reservations.get(key));
    let read = Limits {
        cpus: one_of(fields.get("cpus").as_ref(), limit("cpus").as_ref(), cpus),
        memory: one_of(fields.get("mem_limit").as_ref(), limit("memory").as_ref(), memory),
        memory_reservation: one_of(
            fields.get("mem_reservation").as_ref(),
            reserved_of("memory").as_ref(),
            memory,
        ),
        memory_swap: fields.get("memswap_limit").and_then(|cursor| swap(&cursor)),
        memory_swappiness: fields.number("mem_swappiness", rule::SWAPPINESS),
        pids: one_of(fields.get("pids_limit").as_ref(), limit("pids").as_ref(), |cursor| {
            cursor.number(pids.clone()).filter(|pids| *pids != 0)
        }),
        cpu_shares: fields.number("cpu_shares", 0..=262_144),
        cpu_quota: fields.get("cpu_quota").and_then(|cursor| microseconds(&cursor)),
        cpu_period: fields.get("cpu_period").and_then(|cursor| microseconds(&cursor)),
        cpuset: fields.get("cpuset").and_then(|cursor| cpuset(&cursor)),
        shm_size: fields.bytes("shm_size"),
        oom_score_adj: fields.number("oom_score_adj", rule::OOM_SCORE),
        oom_kill_disable: fields.get("oom_kill_disable").and_then(|cursor| cursor.flag()),
        ulimits: fields.get("ulimits").map(|cursor| ulimits(&cursor)).unwrap_or_default(),
        storage_opt: fields.options("storage_opt"),
    };
    let kept_at = reserved_of("memory").or_else(|| fields.get("mem_reservation"));
    if let (Some(kept), Some(cursor)) = (read.memory_reservation, kept_at) {
        cursor.kept((), rule::reservation(kept, read.memory));
    }
    read
}

/// The value of the old key or of the new one; both only if they agree.
fn one_of<T: PartialEq + Copy>(
    old: Option<&Cursor<'_>>,
    new: Option<&Cursor<'_>>,
    read: impl Fn(&Cursor<'_>) -> Option<T>,
) -> Option<T> {
    let old_value = old.and_then(&read);
    let new_value = new.and_then(&read);
    if let (Some(a), Some(b), Some(old), Some(new)) = (old_value, new_value, old, new)
        && a != b
    {
        old.error(format!("differs from `{}`; give one of the two", new.path));
    }
    new_value.or(old_value)
}

fn cpus(cursor: &Cursor<'_>) -> Option<NanoCpus> {
    cursor.filled()?;
    let cpus = cursor.cpus().filter(|cpus| cpus.0 > 0)?;
    cursor.kept(cpus, rule::cpus(cpus))
}

/// An amount of memory that a container can live in; 0 is none given.
pub(super) fn memory(cursor: &Cursor<'_>) -> Option<Bytes> {
    cursor.filled()?;
    let bytes = cursor.bytes().filter(|bytes| bytes.0 > 0)?;
    cursor.kept(bytes, rule::memory(bytes))
}

fn swap(cursor: &Cursor<'_>) -> Option<i64> {
    let text = cursor.filled()?;
    if text == "-1" {
        return Some(-1);
    }
    cursor.bytes().and_then(|bytes| i64::try_from(bytes.0).ok()).filter(|bytes| *bytes != 0)
}

/// Microseconds as a number, or a duration.
fn microseconds(cursor: &Cursor<'_>) -> Option<i64> {
    let text = cursor.filled()?;
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return cursor.number(0..=i64::MAX);
    }
    cursor.duration().and_then(|length| i64::try_from(length.0 * 1000).ok())
}

fn cpuset(cursor: &Cursor<'_>) -> Option<String> {
    let text = cursor.filled()?;
    let part = |part: &str| match part.split_once('-') {
        None => part.parse::<u16>().is_ok(),
        Some((first, last)) => match (first.parse::<u16>(), last.parse::<u16>()) {
            (Ok(first), Ok(last)) => first <= last,
            _ => false,
        },
    };
    if text.split(',').all(part) {
        return Some(text);
    }
    cursor.error(format!("\"{text}\" is not a set of processors like 0-2,4"));
    None
}

fn ulimits(cursor: &Cursor<'_>) -> Vec<Ulimit> {
    const NAMES: [&str; 15] = [
        "as",
        "core",
        "cpu",
        "data",
        "fsize",
        "locks",
        "memlock",
        "msgqueue",
        "nice",
        "nofile",
        "nproc",
        "rss",
        "rtprio",
        "rttime",
        "sigpending",
    ];
    let mut found = Vec::new();
    for (entry, value) in cursor.entries() {
        let name = entry.key.clone();
        if !NAMES.contains(&name.as_str()) && name != "stack" {
            let hint = crate::suggest::nearest(&name, NAMES.into_iter().chain(["stack"]));
            let message = format!("`{name}` is not a limit of processes");
            value.report.add(crate::Level::Error, (entry.place, &value.path), &message, hint);
            continue;
        }
        let limit = if value.is_map() {
            let Some(fields) = value.fields(&schema::ULIMIT) else { continue };
            let soft = fields.number("soft", -1..=i64::MAX);
            let hard = fields.number("hard", -1..=i64::MAX);
            soft.or(hard).zip(hard.or(soft))
        } else {
            value.number(-1..=i64::MAX).map(|both| (both, both))
        };
        let Some((soft, hard)) = limit else { continue };
        value.kept((), rule::ulimit(soft, hard));
        found.push(Ulimit { name, soft, hard });
    }
    found
}
