//! `deploy` and `scale`: how many replicas, where, and how they change.

use tug_model::spec::deploy::{Deploy, Mode, Reservations};
use tug_model::spec::rule;

use super::limits::memory;
use super::placement;
use super::process::labels;
use crate::reader::{Cursor, Fields};
use crate::schema;

/// The fields of `deploy`, checked once for all who read in them.
pub(super) fn read<'a>(fields: &Fields<'a>) -> Option<Fields<'a>> {
    fields.get("deploy")?.fields(&schema::DEPLOY)
}

pub(super) fn spec(service: &Fields<'_>, deploy: Option<&Fields<'_>>) -> Deploy {
    let mode = mode(service, deploy);
    let Some(deploy) = deploy else { return Deploy { mode, ..Deploy::default() } };
    update(deploy, super::extension::says_exclusive(service, Some(deploy)).is_some());
    endpoint_mode(deploy);
    Deploy {
        mode,
        reservations: reservations(deploy),
        placement: deploy.get("placement").map(|cursor| placement::read(&cursor)).unwrap_or_default(),
        labels: deploy.get("labels").map(|cursor| labels(&cursor)).unwrap_or_default(),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Written {
    Replicated,
    Global,
    Job,
}

fn mode(service: &Fields<'_>, deploy: Option<&Fields<'_>>) -> Mode {
    let words = [
        ("replicated", Written::Replicated),
        ("global", Written::Global),
        ("replicated-job", Written::Job),
        ("global-job", Written::Job),
    ];
    let written = deploy.and_then(|deploy| deploy.get("mode"));
    let mode = written.as_ref().and_then(|cursor| cursor.choice(&words)).unwrap_or(Written::Replicated);
    let range = rule::REPLICAS;
    let scale = service.get("scale");
    let replicas = deploy.and_then(|deploy| deploy.get("replicas"));
    let scaled = scale.as_ref().and_then(|cursor| cursor.number(range.clone()));
    let number = replicas.as_ref().and_then(|cursor| cursor.number(range));
    if let (Some(a), Some(b), Some(cursor)) = (scaled, number, &scale)
        && a != b
    {
        cursor.error(format!("differs from `deploy.replicas: {b}`; give one of the two"));
    }
    match mode {
        Written::Job => {
            if let Some(cursor) = written {
                cursor.refuse("mode", "not yet: jobs");
            }
            Mode::Replicated(number.or(scaled).unwrap_or(1))
        }
        Written::Replicated => Mode::Replicated(number.or(scaled).unwrap_or(1)),
        Written::Global => {
            if let Some(cursor) = replicas.or(scale) {
                cursor.error("a global service has one replica on every node, not a number of them");
            }
            Mode::Global
        }
    }
}

fn reservations(deploy: &Fields<'_>) -> Reservations {
    let fields = deploy
        .get("resources")
        .and_then(|cursor| cursor.fields(&schema::RESOURCES))
        .and_then(|fields| fields.get("reservations"))
        .and_then(|cursor| cursor.fields(&schema::RESERVATIONS));
    let Some(fields) = fields else { return Reservations::default() };
    let filled = |key| fields.get(key).filter(|cursor| cursor.filled().is_some());
    Reservations {
        cpus: filled("cpus").and_then(|cursor| cursor.cpus()).unwrap_or_default(),
        memory: filled("memory").and_then(|cursor| memory(&cursor)).unwrap_or_default(),
    }
}

/// Until there is a rollout engine, a change goes one replica at a time, the new one first, and stops where a new one
/// does not get healthy. What asks for just that is honoured; of the rest it is said that it is not.
fn update(deploy: &Fields<'_>, is_exclusive: bool) {
    let later = |cursor: &Cursor<'_>, what: &str| cursor.warning(format!("not yet: {what}"));
    if let Some(cursor) = deploy.get("update_config") {
        let asked = rollout(&cursor);
        if let Some((cursor, _)) = asked.parallelism.filter(|(_, number)| *number != 1) {
            later(&cursor, "replicas are replaced one at a time");
        }
        if let Some((cursor, _)) = asked.delay.filter(|(_, delay)| delay.0 > 0) {
            later(&cursor, "the next replica is replaced as soon as the one before is healthy");
        }
        if let Some((cursor, _)) = asked.failure_action.filter(|(_, action)| *action != "pause") {
            later(&cursor, "a change whose new replica does not get healthy stops there (`pause`)");
        }
        if let Some((cursor, _)) = asked.order.filter(|(_, order)| *order != "start-first" && !is_exclusive) {
            later(
                &cursor,
                "the new replica starts first, but where it holds a host port or a written volume",
            );
        }
        if let Some((cursor, _)) = asked.monitor.filter(|(_, monitor)| monitor.0 > 0) {
            later(&cursor, "a new replica that is healthy is not watched any longer than others");
        }
        if let Some((cursor, _)) = asked.max_failure_ratio.filter(|(_, ratio)| ratio.0 > 0) {
            later(&cursor, "no failure is borne");
        }
    }
    if let Some(cursor) = deploy.get("rollback_config") {
        rollout(&cursor);
        later(&cursor, "nothing is rolled back by itself; apply the older file");
    }
}

type At<'a, T> = Option<(Cursor<'a>, T)>;

/// The keys of `update_config` and `rollback_config`, typed and checked.
#[derive(Default)]
struct Rollout<'a> {
    parallelism: At<'a, u32>,
    delay: At<'a, tug_model::Millis>,
    failure_action: At<'a, &'static str>,
    order: At<'a, &'static str>,
    monitor: At<'a, tug_model::Millis>,
    max_failure_ratio: At<'a, tug_model::NanoCpus>,
}

fn rollout<'a>(cursor: &Cursor<'a>) -> Rollout<'a> {
    let Some(fields) = cursor.fields(&schema::UPDATE) else { return Rollout::default() };
    let actions = ["pause", "continue", "rollback"].map(|word| (word, word));
    let orders = ["start-first", "stop-first"].map(|word| (word, word));
    let ratio = fields.get("max_failure_ratio").and_then(|cursor| {
        let ratio = cursor.cpus()?;
        if ratio.0 > 1_000_000_000 {
            cursor.error("must be from 0 to 1");
        }
        Some((cursor, ratio))
    });
    let at = |key: &'static str| fields.get(key);
    Rollout {
        parallelism: at("parallelism").and_then(|c| c.number(0..=10_000).map(|value| (c, value))),
        delay: at("delay").and_then(|c| c.duration().map(|value| (c, value))),
        failure_action: at("failure_action").and_then(|c| c.choice(&actions).map(|value| (c, value))),
        order: at("order").and_then(|c| c.choice(&orders).map(|value| (c, value))),
        monitor: at("monitor").and_then(|c| c.duration().map(|value| (c, value))),
        max_failure_ratio: ratio,
    }
}

fn endpoint_mode(deploy: &Fields<'_>) {
    let Some(cursor) = deploy.get("endpoint_mode") else { return };
    let words = ["vip", "dnsrr"].map(|word| (word, word));
    if cursor.choice(&words) == Some("vip") {
        cursor.warning("not yet: a name resolves to the addresses of all replicas (`dnsrr`)");
    }
}
