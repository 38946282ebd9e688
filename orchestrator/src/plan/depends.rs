//! `depends_on`: what must be true of other services before a task is created. It gates nothing else.

use std::sync::Arc;

use tug_model::name::ServiceName;
use tug_model::spec::service::{Condition, Dependency};

use super::index::{Seen, SlotTasks};
use super::pass::Pass;
use super::wanted::Wanted;

/// What a dependency says.
enum Answer {
    Met,
    NotYet(String),
    Never(String),
}

/// Why a task of the service may not be created yet; `None` when it may.
///
/// Dependencies take their turn before their dependents, so what this very pass takes out of service does not count.
pub(super) fn unmet(pass: &Pass<'_>, service: &Wanted<'_>) -> Option<Arc<[String]>> {
    let mut reasons = Vec::new();
    for (name, dependency) in &service.spec.depends_on {
        match (ask(pass, service, name, dependency), dependency.required) {
            (Answer::Met, _) | (Answer::Never(_), false) => {}
            (Answer::NotYet(reason), _) | (Answer::Never(reason), true) => reasons.push(reason),
        }
    }
    if reasons.is_empty() { None } else { Some(reasons.into()) }
}

fn ask(pass: &Pass<'_>, service: &Wanted<'_>, name: &ServiceName, dependency: &Dependency) -> Answer {
    let Some(other) = pass.services.get((service.project, name)) else {
        return Answer::Never(format!("it depends on {name}, which is not part of the project"));
    };
    if other.slots.is_empty() {
        return Answer::Never(format!("it depends on {name}, which has no replicas"));
    }
    let (slots, _) = pass.index.slots(other, &pass.left);
    match dependency.condition {
        Condition::Started => started(name, slots.values()),
        Condition::Healthy => healthy(name, slots.values()),
        Condition::CompletedSuccessfully => completed(name, slots.values()),
    }
}

fn started<'a, 'w: 'a>(name: &ServiceName, mut slots: impl Iterator<Item = &'a SlotTasks<'w>>) -> Answer {
    let has_started = |seen: &Seen<'_>| seen.phase().is_some_and(tug_model::report::Phase::has_started);
    if slots.any(|slot| slot.current.iter().chain(&slot.outdated).any(has_started)) {
        return Answer::Met;
    }
    Answer::NotYet(format!("waiting for {name} to be started"))
}

fn healthy<'a, 'w: 'a>(name: &ServiceName, slots: impl Iterator<Item = &'a SlotTasks<'w>>) -> Answer {
    let mut all = true;
    for slot in slots {
        let mut tasks = slot.current.iter().chain(&slot.outdated);
        if tasks.any(|seen| seen.phase().is_some_and(tug_model::report::Phase::is_healthy)) {
            continue;
        }
        all = false;
        if let Some(failure) = slot.current.iter().find_map(Seen::failed_for_good) {
            return Answer::Never(format!("{name} failed: {failure}"));
        }
    }
    if all { Answer::Met } else { Answer::NotYet(format!("waiting for {name} to be healthy")) }
}

/// Only a run of the newest template counts: the new version of a service waits for the new migration.
fn completed<'a, 'w: 'a>(name: &ServiceName, slots: impl Iterator<Item = &'a SlotTasks<'w>>) -> Answer {
    let mut all = true;
    for slot in slots {
        if slot.current.iter().any(|seen| seen.phase().is_some_and(tug_model::report::Phase::has_succeeded)) {
            continue;
        }
        all = false;
        if let Some(failure) = slot.current.iter().find_map(Seen::failed_for_good) {
            return Answer::Never(format!("{name} failed: {failure}"));
        }
    }
    if all { Answer::Met } else { Answer::NotYet(format!("waiting for {name} to complete")) }
}
