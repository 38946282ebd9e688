//! `x-exclusive`: never two tasks of one service at once, whatever breaks.
//!
//! A task of an exclusive service is created only when no other one of it can run. That is so when its record has gone, for
//! then its node has said that its container has; or, where its node is silent, when every [lease](tug_model::lease) that
//! the node was given has surely ended: the node stops it then by itself.
//!
//! Leases are given out by the sessions with the agents, which go by the [`Grants`] of the newest pass: a session of
//! which this pass has not heard gives out none. So what a pass takes for silent is given no lease before the next one, which
//! knows what this one has decided.

use std::collections::BTreeMap;

use tug_model::lease::{Leased, OVER_AFTER};
use tug_model::name::NodeId;
use tug_model::quantity::Timestamp;
use tug_model::report::Engine;
use tug_model::task::{Desired, Task};

use super::World;
use super::decision::Obstacle;
use super::index::SlotTasks;
use super::pass::Pass;
use super::wanted::Wanted;

/// Which leases may be given out, by node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Grants(pub BTreeMap<NodeId, Grant>);

/// The leases of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The session that may give them out.
    pub session: u64,
    /// What they are for, sorted.
    pub tasks: Vec<Leased>,
}

/// When an exclusive task has surely ended.
enum End {
    /// When its node says so.
    Told,
    /// At that time.
    At(Timestamp),
    /// That cannot be known, and why.
    Unknown(&'static str),
    /// It has.
    Past,
}

/// The leases that may be given out by what `world` is: for everything exclusive on nodes that are heard.
pub fn grants(world: &World) -> Grants {
    let mut grants = BTreeMap::new();
    for task in world.tasks.values().filter(|task| task.exclusive.is_some()) {
        let observed = world.observed.nodes.get(&task.node);
        let Some(observed) = observed.filter(|observed| observed.connected) else { continue };
        if !world.nodes.contains_key(&task.node) {
            continue;
        }
        let empty = || Grant { session: observed.session, tasks: Vec::new() };
        let grant: &mut Grant = grants.entry(task.node.clone()).or_insert_with(empty);
        grant.tasks.push(Leased { id: task.id.clone(), may_start: task.desired == Desired::Run });
    }
    Grants(grants)
}

/// Why no task of a service may be created yet, because another one may run; `None`: it may.
pub(super) fn held<'w>(pass: &mut Pass<'w>, service: &Wanted<'w>) -> Option<Obstacle> {
    if !service.spec.exclusive {
        return None;
    }
    if let Some(until) = knows_all_at(pass.world, pass.now) {
        pass.wake_at(until);
        let wait = until.since(pass.now);
        return Some(Obstacle::waiting(format!(
            "the control plane went back to an earlier state: for another {wait} something may run that it forgot"
        )));
    }
    let tasks: Vec<&Task> = pass.index.of(service.key()).iter().map(|seen| seen.task).collect();
    tasks.into_iter().find_map(|task| may_run(pass, task)).map(Obstacle::waiting)
}

/// Says of an exclusive slot on a silent node what its successor would wait for.
pub(super) fn explain<'w>(
    pass: &mut Pass<'w>,
    service: &Wanted<'w>,
    slot: &SlotTasks<'w>,
) -> Option<Obstacle> {
    if !service.spec.exclusive {
        return None;
    }
    let tasks: Vec<&Task> = slot.current.iter().chain(&slot.outdated).map(|seen| seen.task).collect();
    let silent = tasks.into_iter().filter(|task| !matches!(end(pass.world, task), End::Told));
    silent.collect::<Vec<_>>().into_iter().find_map(|task| may_run(pass, task)).map(Obstacle::waiting)
}

/// Whether an exclusive task on a node that was removed has surely ended; if not, it is looked at again when it has.
pub(super) fn has_ended(pass: &mut Pass<'_>, task: &Task) -> bool {
    may_run(pass, task).is_none()
}

/// Why a task may run; `None`: it does not.
fn may_run(pass: &mut Pass<'_>, task: &Task) -> Option<String> {
    let (id, node) = (&task.id, &task.node);
    match end(pass.world, task) {
        End::Past => None,
        End::Told => Some(format!("waiting for {id} to stop")),
        End::At(until) if until <= pass.now => None,
        End::At(until) => {
            pass.wake_at(until);
            let wait = until.since(pass.now);
            Some(format!("node {node} may still run {id}: its lease ends in {wait}"))
        }
        End::Unknown(why) => Some(format!(
            "node {node} may still run {id}: {why}; if you know that it does not, `tug node rm {node} --force` says so"
        )),
    }
}

fn end(world: &World, task: &Task) -> End {
    let is_known = world.nodes.contains_key(&task.node);
    let observed = world.observed.nodes.get(&task.node).filter(|_| is_known);
    if observed.is_some_and(|observed| observed.connected) {
        return End::Told;
    }
    if task.exclusive.is_none() {
        // Nothing but a person's word ends what runs without a lease.
        return if is_known { End::Unknown("it was started without a lease") } else { End::Past };
    }
    let report = observed.and_then(|observed| observed.report.as_ref());
    if report.is_some_and(|report| report.engine != Engine::Up) {
        return End::Unknown("its Docker Engine did not answer when it was last heard of");
    }
    End::At(world.leases_end(&task.node))
}

/// Until when the control plane may not know of everything that runs; `None`: it does. An older state that it was given
/// back knows nothing of what was decided later.
fn knows_all_at(world: &World, now: Timestamp) -> Option<Timestamp> {
    let until = world.since.plus(OVER_AFTER);
    (world.epoch > 1 && until > now).then_some(until)
}
