//! A new template: what runs by an older one is replaced, one replica at a time, the new one healthy before the old one
//! leaves. Where two of them would clash (`stop_first`), the old one goes before the new one is created. What runs by the
//! newest one and is to be somewhere else is replaced in the same way.
//!
//! What holds at every moment, whatever fails or changes in between:
//! - at most one slot of a service has two tasks that are to run, so there are never more than wanted + 1; beside those
//!   that a dead Engine will end anyway;
//! - a serving task leaves its slot only for one of the newest template that serves, or, with `stop_first`, only while
//!   every other task of the newest template serves: at most one replica is missing;
//! - a new template that has not proved itself anywhere replaces nothing that serves, except the first;
//! - what is known not to serve protects nothing, and is replaced without waiting for its turn.

use std::collections::BTreeMap;
use std::sync::Arc;

use tug_model::quantity::Slot;

use super::decision::{Obstacle, ObstacleKind};
use super::depends;
use super::drain::leave;
use super::fleet::Emptied;
use super::index::{Seen, SlotTasks, Standing};
use super::pass::Pass;
use super::wanted::Wanted;

type Slots<'w> = BTreeMap<Slot, SlotTasks<'w>>;

/// Goes one step on the way to the newest template.
pub(super) fn advance<'w>(pass: &mut Pass<'w>, service: &Wanted<'w>, slots: &mut Slots<'w>) {
    for slot in slots.values_mut() {
        drop_superseded(pass, slot);
    }
    if slots.values().all(|slot| slot.outdated.is_empty()) {
        return;
    }
    escape(pass, service, slots);
    let hold = hold(service, slots);
    let may_move = slots.values().flat_map(|slot| &slot.outdated).any(|old| hold.lets(service, old));
    if let Hold::All(reason) | Hold::Changes(reason) = &hold
        && !may_move
    {
        hinder_rest(pass, service, slots, &Obstacle::waiting(reason));
        return;
    }
    if let Some(reasons) = depends::unmet(pass, service) {
        let obstacle = Obstacle { kind: ObstacleKind::Dependency, reasons };
        hinder_rest(pass, service, slots, &obstacle);
        return;
    }
    if !replace_idle(pass, service, slots, &hold) {
        match missing(service, slots) {
            Some(reason) => hinder_rest(pass, service, slots, &Obstacle::waiting(reason)),
            None => replace_serving(pass, service, slots, &hold),
        }
    }
    for (number, slot) in slots.iter() {
        if let Some(unknown) = slot.outdated.iter().find(|seen| seen.standing() == Standing::Unknown) {
            pass.hinder(service, *number, Obstacle::waiting(unreported(unknown)));
        }
    }
    hinder_rest(pass, service, slots, &Obstacle::waiting("its turn comes after the one being replaced"));
}

/// Within one slot, what is no longer needed goes: everything older when the newest serves; all but the best where two
/// older ones met.
fn drop_superseded<'w>(pass: &mut Pass<'w>, slot: &mut SlotTasks<'w>) {
    let best = |tasks: &[Seen<'w>]| {
        tasks.iter().copied().max_by_key(|seen| (seen.standing(), seen.task.made_by(), &seen.task.id))
    };
    if let Some(newest) = best(&slot.current) {
        keep_only(pass, &mut slot.current, newest);
        if newest.is_ready() {
            for old in slot.outdated.drain(..) {
                leave(pass, old, format!("{} has taken its place", newest.task.id));
                slot.leaving.push(old);
            }
            return;
        }
    }
    if let Some(serving) = best(&slot.outdated) {
        keep_only(pass, &mut slot.outdated, serving);
    }
}

/// Everything but `best` goes, and what nobody knows anything about stays until `best` is known to serve.
fn keep_only<'w>(pass: &mut Pass<'w>, tasks: &mut Vec<Seen<'w>>, best: Seen<'w>) {
    tasks.retain(|seen| {
        let is_best = seen.task.id == best.task.id;
        let protected = seen.standing() == Standing::Unknown && best.standing() == Standing::Unknown;
        if !is_best && !protected {
            leave(pass, *seen, format!("superseded by a newer version; {} stays meanwhile", best.task.id));
        }
        is_best || protected
    });
}

/// What a dead Engine will end when it starts again gets its successors at once, all of it, and stays until they serve.
fn escape<'w>(pass: &mut Pass<'w>, service: &Wanted<'w>, slots: &mut Slots<'w>) {
    let is_stuck = |seen: &Seen<'_>| {
        seen.node.emptied == Some(Emptied::NoEngine { doomed: true }) && seen.task.template == service.hash
    };
    let stuck = |slot: &SlotTasks<'w>| {
        let old = slot.outdated.first().copied().filter(is_stuck);
        old.filter(|_| slot.running() == 1 && !slot.pending)
    };
    let is_anything = slots.values().any(|slot| stuck(slot).is_some());
    if service.stop_first || !is_anything || depends::unmet(pass, service).is_some() {
        return;
    }
    for (number, slot) in slots.iter_mut() {
        let Some(old) = stuck(slot) else { continue };
        match pass.room.place(pass.world, service, *number, None) {
            Ok(node) => {
                slot.pending = true;
                let why = why(service, &old);
                pass.create(service, *number, node, format!("replaces {}: {why}", old.task.id));
                let reason = format!("{} stays until its successor is healthy", old.task.id);
                pass.hinder(service, *number, Obstacle::waiting(reason));
            }
            Err(reasons) => pass.no_place(service, *number, beside(&reasons)),
        }
    }
}

/// What may not be replaced just now, and why.
enum Hold {
    /// Everything may.
    Nothing,
    /// What is only to be somewhere else may: that its template works is known.
    Changes(String),
    /// Nothing may.
    All(String),
}

impl Hold {
    fn lets(&self, service: &Wanted<'_>, old: &Seen<'_>) -> bool {
        match self {
            Self::Nothing => true,
            Self::Changes(_) => old.task.template == service.hash,
            Self::All(_) => false,
        }
    }
}

fn hold(service: &Wanted<'_>, slots: &Slots<'_>) -> Hold {
    let mut hold = Hold::Nothing;
    for (number, slot) in slots {
        if let Some(unproved) = slot.current.iter().find(|seen| !seen.is_ready()) {
            let id = &unproved.task.id;
            let reason = match unproved.keeps_failing() {
                Some(failure) => format!("the new version fails, so the old one stays: {id} {failure}"),
                None => format!("waiting for {id} to be healthy"),
            };
            if service.stop_first || !slot.outdated.is_empty() {
                return Hold::All(reason);
            }
            hold = Hold::Changes(reason);
        }
        if slot.pending {
            return Hold::All(format!(
                "waiting for {}.{}.{number} to be healthy",
                service.project, service.name
            ));
        }
        let unknown = slot.outdated.iter().find(|seen| seen.standing() == Standing::Unknown);
        let unknown = unknown.filter(|seen| !seen.node.is_out_of_reach());
        if let Some(unknown) = unknown.filter(|_| service.stop_first || slot.running() > 1) {
            return Hold::All(unreported(unknown));
        }
    }
    hold
}

/// Replaces what is known not to serve, all of it at once: there is nothing to lose.
fn replace_idle<'w>(pass: &mut Pass<'w>, service: &Wanted<'w>, slots: &mut Slots<'w>, hold: &Hold) -> bool {
    let mut begun = false;
    for (number, slot) in slots.iter_mut() {
        let Some(old) = slot.outdated.first().copied().filter(|old| hold.lets(service, old)) else {
            continue;
        };
        if matches!(old.standing(), Standing::Serving | Standing::Unknown) {
            continue;
        }
        let may_be_beside =
            old.node.is_out_of_reach() && !service.spec.exclusive && slot.clashing(service).is_none();
        if (!service.stop_first || may_be_beside)
            && let Ok(node) = pass.room.place(pass.world, service, *number, None)
        {
            go(pass, slot, old, &format!("{}, and it does not serve", why(service, &old)));
            pass.create(service, *number, node, format!("replaces {}", old.task.id));
            begun = true;
            continue;
        }
        match pass.room.place(pass.world, service, *number, Some(old)) {
            Ok(_) => {
                go(pass, slot, old, &format!("{}, and its successor needs its place", why(service, &old)));
                pass.hinder(service, *number, old.must_stop());
                begun = true;
            }
            Err(reasons) => pass.no_place(service, *number, reasons),
        }
    }
    begun
}

/// Why a task is replaced, as an afterthought: that its service has changed goes without saying.
fn moved(service: &Wanted<'_>, old: &Seen<'_>) -> String {
    if old.task.template == service.hash { format!(": {}", why(service, old)) } else { String::new() }
}

/// Why a task is replaced.
fn why(service: &Wanted<'_>, old: &Seen<'_>) -> String {
    let node = &old.task.node;
    match old.node.emptied {
        _ if old.task.template != service.hash => "its service has changed".to_owned(),
        Some(Emptied::Drain { .. }) => format!("node {node} is being drained"),
        Some(Emptied::NoEngine { .. }) => format!("the Docker Engine of node {node} does not answer"),
        None => format!("it is to be on another node than {node}"),
    }
}

fn unreported(unknown: &Seen<'_>) -> String {
    format!("waiting for node {} to report {}", unknown.task.node, unknown.task.id)
}

/// Where the old one goes first, one is missing at a time: another that is to move, and does not serve, is missing already.
fn missing(service: &Wanted<'_>, slots: &Slots<'_>) -> Option<String> {
    let mut moving = slots.values().flat_map(|slot| &slot.outdated);
    let idle = moving.find(|seen| seen.task.template == service.hash && !seen.is_ready());
    let id = &idle.filter(|_| service.stop_first)?.task.id;
    Some(format!("waiting for {id}, which does not serve, to be replaced"))
}

/// Replaces one serving task: the first whose successor has a place.
fn replace_serving<'w>(pass: &mut Pass<'w>, service: &Wanted<'w>, slots: &mut Slots<'w>, hold: &Hold) {
    let mut full: Option<Arc<[String]>> = None;
    for (number, slot) in slots.iter_mut() {
        let Some(old) = slot.outdated.first().copied().filter(|old| hold.lets(service, old)) else {
            continue;
        };
        if old.standing() != Standing::Serving {
            continue;
        }
        let without = service.stop_first.then_some(old);
        let place = match &full {
            Some(reasons) => Err(Arc::clone(reasons)),
            None => pass.room.place(pass.world, service, *number, without),
        };
        match place {
            Ok(_) if service.stop_first => {
                go(pass, slot, old, &format!("{}, and its successor needs its place", why(service, &old)));
                pass.hinder(service, *number, old.must_stop());
                return;
            }
            Ok(node) => {
                slot.pending = true;
                pass.create(
                    service,
                    *number,
                    node,
                    format!("replaces {}, which stays until then{}", old.task.id, moved(service, &old)),
                );
                let reason = format!("{} stays until its successor is healthy", old.task.id);
                pass.hinder(service, *number, Obstacle::waiting(reason));
                return;
            }
            Err(reasons) => {
                let alike = service.slots.get(number).is_some_and(Option::is_none) && !service.stop_first;
                let reasons = if full.is_some() || service.stop_first { reasons } else { beside(&reasons) };
                full = alike.then(|| Arc::clone(&reasons));
                pass.no_place(service, *number, reasons);
            }
        }
    }
}

/// Why there is no place for a successor while the old task stays.
fn beside(reasons: &[String]) -> Arc<[String]> {
    let first = "its successor has no place while it stays".to_owned();
    std::iter::once(first).chain(reasons.iter().cloned()).collect()
}

/// Takes an old task out of its slot.
fn go<'w>(pass: &mut Pass<'w>, slot: &mut SlotTasks<'w>, old: Seen<'w>, why: &str) {
    leave(pass, old, why);
    slot.outdated.retain(|seen| seen.task.id != old.task.id);
    slot.leaving.push(old);
    slot.pending = true;
}

/// Every slot that still has an old task gets a reason, unless it has one of its own.
fn hinder_rest<'w>(pass: &mut Pass<'w>, service: &Wanted<'w>, slots: &Slots<'w>, obstacle: &Obstacle) {
    for (number, slot) in slots {
        if !slot.outdated.is_empty() {
            pass.hinder(service, *number, obstacle.clone());
        }
    }
}
