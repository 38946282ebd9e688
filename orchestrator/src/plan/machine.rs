//! How a machine stands, for people: in a word, and why.

use std::collections::BTreeSet;

use tug_api::user::NodeState;
use tug_model::name::NodeId;
use tug_model::node::Availability;
use tug_model::quantity::Timestamp;
use tug_model::report::{Engine, Phase};
use tug_model::task::{Desired, Task};

use super::fleet::{Fleet, Presence, flaps_until};
use super::{View, World};

/// How a node stands at `now`, and what there is to say about it; `None` when there is no such node.
pub fn stand(view: &View, id: &NodeId, now: Timestamp) -> Option<(NodeState, Vec<String>)> {
    let world = &view.world;
    let node = world.nodes.get(id)?;
    let fleet = Fleet::new(world, now);
    let machine = fleet.machine(id);
    let observed = world.observed.nodes.get(id);
    let mut reasons = Vec::new();
    let left: Vec<&Task> = left(world, id).collect();
    let is_drained = node.availability != Availability::Active;
    let engine = observed.and_then(|it| it.report.as_ref()).map(|report| &report.engine);
    let deaf = observed.and_then(|it| it.deaf.as_ref());
    let state = match (machine.presence, deaf, engine) {
        (Presence::Dead { silent }, ..) => {
            reasons.push(format!("silent for {silent}: its tasks are replaced elsewhere"));
            NodeState::Dead
        }
        (Presence::Lost | Presence::Awaited, ..) => {
            reasons.extend(fleet.brake(id));
            NodeState::Away
        }
        (Presence::Connected, ..) if is_drained && left.is_empty() => NodeState::Drained,
        (Presence::Connected, Some(deaf), _) => {
            reasons.push(format!("it does not take its assignment: {}", deaf.reason));
            NodeState::Disobedient
        }
        (Presence::Connected, None, Some(Engine::Down { .. })) => NodeState::EngineDown,
        (Presence::Connected, None, Some(Engine::Up) | None) if is_drained => NodeState::Draining,
        (Presence::Connected, None, Some(Engine::Up) | None) => NodeState::Ready,
    };
    if let Some(until) = observed.and_then(|observed| flaps_until(observed, now)) {
        let wait = until.since(now);
        reasons.push(format!(
            "its connection was lost again and again: for another {wait} it gets nothing that another node can take"
        ));
    }
    if is_drained {
        reasons.extend(left.into_iter().map(|task| waits_for(view, task)));
    }
    Some((state, reasons))
}

/// What is still to leave a node: everything that runs there, or may.
fn left<'w>(world: &'w World, id: &'w NodeId) -> impl Iterator<Item = &'w Task> {
    let report = world.observed.nodes.get(id).and_then(|observed| observed.report.as_ref());
    let ended: BTreeSet<_> = report
        .iter()
        .flat_map(|report| &report.tasks)
        .filter(|task| matches!(task.phase, Phase::Exited { .. }))
        .map(|task| &task.id)
        .collect();
    let tasks = world.tasks.values().map(AsRef::as_ref);
    tasks.filter(move |task| task.node == *id && !(task.desired == Desired::Run && ended.contains(&task.id)))
}

/// What a task that is to leave waits for.
fn waits_for(view: &View, task: &Task) -> String {
    let obstacle = view.plan.obstacles.get(&task.service_ref()).and_then(|slots| slots.get(&task.slot));
    match (task.desired, obstacle) {
        (Desired::Run, Some(obstacle)) => format!("{}: {}", task.id, obstacle.reasons.join("; ")),
        (Desired::Run, None) => format!("{} is still there", task.id),
        (Desired::Drain { .. }, _) => format!("{} is draining", task.id),
        (Desired::Stop { .. }, _) => format!("{} is stopping", task.id),
    }
}
