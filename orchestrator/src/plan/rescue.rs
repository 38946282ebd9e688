//! What stood on a machine that is gone stands up again elsewhere: at once, since nothing is lost by it.
//!
//! A task is given up only for one that has a place. Where none has, it stays meant to run, so that it is there as soon as
//! its node is; only a drain whose deadline has passed takes it away all the same.

use std::collections::BTreeMap;
use std::sync::Arc;

use tug_model::quantity::Slot;
use tug_model::report::{Phase, Report};
use tug_model::spec::deploy::Mode;
use tug_model::spec::service::RestartOn;

use super::World;
use super::decision::{Obstacle, ObstacleKind};
use super::depends;
use super::drain::leave;
use super::exclusive;
use super::fleet::{Emptied, Presence};
use super::index::{Seen, SlotTasks};
use super::pass::Pass;
use super::wanted::Wanted;

/// Replaces the tasks of one service that are on dead machines, or stay on one whose drain is over.
pub(super) fn rescue<'w>(
    pass: &mut Pass<'w>,
    service: &Wanted<'w>,
    slots: &mut BTreeMap<Slot, SlotTasks<'w>>,
) {
    if service.spec.deploy.mode == Mode::Global {
        return;
    }
    let mut unmet: Option<Option<Arc<[String]>>> = None;
    for (number, slot) in slots.iter_mut() {
        for seen in slot.current.iter().chain(&slot.outdated).chain(slot.clashing(service)) {
            if let Some(at) = seen.node.next {
                pass.wake_at(at);
            }
        }
        let given_up = |seen: &&Seen<'w>| reason(pass, service, seen).is_some();
        let gone: Vec<Seen<'w>> =
            slot.outdated.iter().chain(&slot.current).filter(given_up).copied().collect();
        let Some(last) = gone.last().copied() else {
            hold(pass, service, *number, slot);
            continue;
        };
        let stays = slot.running() > gone.len();
        let unmet = if stays { &None } else { unmet.get_or_insert_with(|| depends::unmet(pass, service)) };
        let place = match unmet {
            _ if stays => None,
            Some(reasons) => Some(Err((ObstacleKind::Dependency, Arc::clone(reasons)))),
            None if let Some(held) = exclusive::held(pass, service) => Some(Err((held.kind, held.reasons))),
            None if is_over(&last) && last.clashes(service) => None,
            None if let Some(old) = slot.clashing(service) => {
                let Obstacle { kind, reasons } = old.must_stop();
                Some(Err((kind, reasons)))
            }
            None => {
                let place = pass.room.place(pass.world, service, *number, None);
                Some(place.map_err(|reasons| (ObstacleKind::NoPlace, reasons)))
            }
        };
        let may_go = !matches!(place, Some(Err(_)));
        for seen in gone.iter().filter(|seen| may_go || is_over(seen)) {
            let why = reason(pass, service, seen).unwrap_or_default();
            leave(pass, *seen, why);
            slot.take_out(*seen);
        }
        match place {
            Some(Ok(node)) => {
                slot.pending = true;
                pass.create(service, *number, node, format!("replaces {}", last.task.id));
            }
            Some(Err((kind, reasons))) => {
                slot.pending = slot.running() == 0;
                pass.hinder(service, *number, Obstacle { kind, reasons });
            }
            None => {}
        }
    }
}

/// Says why a slot on a machine that is away is left as it is.
fn hold<'w>(pass: &mut Pass<'w>, service: &Wanted<'w>, number: Slot, slot: &SlotTasks<'w>) {
    let reason = |seen: &Seen<'w>| {
        let (id, node) = (&seen.task.id, &seen.task.node);
        match seen.node.presence {
            Presence::Dead { .. } if last_report(pass.world, seen).is_none() => Some(format!(
                "nobody knows whether {id} ran to its end on node {node}; `tug node rm {node}` gives it up"
            )),
            Presence::Dead { .. } if service.stop_first && !seen.node.is_long_dead => Some(format!(
                "node {node} is away; two of {} at once would clash, so it is given the time to come back",
                service.name
            )),
            Presence::Dead { .. } => None,
            Presence::Connected | Presence::Lost | Presence::Awaited => pass.fleet.brake(node),
        }
    };
    if let Some(reason) = slot.current.iter().chain(&slot.outdated).find_map(reason) {
        pass.hinder(service, number, Obstacle::waiting(reason));
    } else if let Some(obstacle) = exclusive::explain(pass, service, slot) {
        pass.hinder(service, number, obstacle);
    }
}

fn is_over(seen: &Seen<'_>) -> bool {
    seen.node.emptied == Some(Emptied::Drain { over: true })
}

/// Why a task is given up where it is; `None`: it is not.
fn reason(pass: &Pass<'_>, service: &Wanted<'_>, seen: &Seen<'_>) -> Option<String> {
    let (world, node) = (pass.world, &seen.task.node);
    match seen.node.presence {
        Presence::Dead { .. } if may_have_ended(world, seen) => None,
        Presence::Dead { .. } if service.stop_first && !seen.node.is_long_dead => None,
        Presence::Dead { .. } if !world.nodes.contains_key(node) => Some(format!("node {node} was removed")),
        Presence::Dead { silent } => Some(format!("node {node} has been silent for {silent}")),
        Presence::Connected | Presence::Lost | Presence::Awaited if is_over(seen) && !seen.has_ended() => {
            Some(format!("the deadline for draining node {node} has passed"))
        }
        Presence::Connected if seen.clashes(service) => None,
        Presence::Connected => deaf(world, seen),
        Presence::Lost | Presence::Awaited => None,
    }
}

/// That the node does not take the assignment which has the task.
fn deaf(world: &World, seen: &Seen<'_>) -> Option<String> {
    let node = &seen.task.node;
    let deaf = world.observed.nodes.get(node)?.deaf.as_ref().filter(|_| seen.is_unheeded())?;
    Some(format!("node {node} does not take its assignment ({})", deaf.reason))
}

/// Whether a task that runs to its end has come to it, or nobody knows: it is not run a second time.
fn may_have_ended(world: &World, seen: &Seen<'_>) -> bool {
    let ends =
        seen.template.is_some_and(|it| it.restart.condition != RestartOn::Any && it.exposed.is_empty());
    if !ends || seen.at.is_none() {
        return false;
    }
    let Some(report) = last_report(world, seen) else { return true };
    let last = report.tasks.iter().find(|task| task.id == seen.task.id);
    last.is_some_and(|task| matches!(task.phase, Phase::Exited { .. }))
}

/// What the node of a task said last; `None`: nothing since the orchestrator started.
fn last_report<'w>(world: &'w World, seen: &Seen<'_>) -> Option<&'w Report> {
    world.observed.nodes.get(&seen.task.node)?.report.as_deref()
}
