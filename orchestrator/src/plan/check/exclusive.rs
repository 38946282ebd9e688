//! What holds for exclusive services, found out without the planner's own rules about them.

use tug_model::lease::OVER_AFTER;
use tug_model::quantity::Timestamp;
use tug_model::report::Engine;
use tug_model::task::Task;

use crate::plan::decision::{Change, Plan};
use crate::plan::{NodeObserved, World};

/// No task of an exclusive service is created while another one of it may run, and none that may run is forgotten.
pub(super) fn never_two(world: &World, plan: &Plan, now: Timestamp, broken: &mut Vec<String>) {
    let mut created = Vec::new();
    for decision in &plan.decisions {
        match &decision.change {
            Change::Create(create) => {
                let spec = world.service(&create.project, &create.service);
                if !spec.is_some_and(|spec| spec.exclusive) {
                    continue;
                }
                let is_sibling =
                    |task: &&Task| task.project == create.project && task.service == create.service;
                let siblings = world.tasks.values().map(AsRef::as_ref).filter(is_sibling);
                let beside = siblings.filter(|task| may_run(world, task, now));
                broken.extend(beside.map(|task| format!("`{decision}` beside {}, which may run", task.id)));
                let service = (&create.project, &create.service);
                if created.contains(&service) {
                    broken.push(format!("`{decision}` beside another one"));
                }
                created.push(service);
            }
            Change::Forget(id) => {
                let removed = world.tasks.get(id).filter(|task| !world.nodes.contains_key(&task.node));
                if removed.is_some_and(|task| task.exclusive.is_some() && may_run(world, task, now)) {
                    broken.push(format!("`{decision}`, which may run"));
                }
            }
            Change::Drain(_) | Change::Stop(_) | Change::Settle { .. } => {}
        }
    }
}

/// What is recorded may run, unless its node is silent and has stopped it by itself. A node that was removed is a silent
/// one, and of what was there without a lease a person has said that it is gone.
fn may_run(world: &World, task: &Task, now: Timestamp) -> bool {
    let observed = world.nodes.get(&task.node).and_then(|_| world.observed.nodes.get(&task.node));
    let is_removed = !world.nodes.contains_key(&task.node);
    if task.exclusive.is_none() {
        return !is_removed;
    }
    let can_stop =
        |observed: &NodeObserved| observed.report.as_ref().is_none_or(|report| report.engine == Engine::Up);
    let stops_itself = observed.is_none_or(|observed| !observed.connected && can_stop(observed));
    let leased_at = world.observed.leased.get(&task.node).copied().unwrap_or_default();
    !stops_itself || now.since(leased_at.max(world.since)) < OVER_AFTER
}
