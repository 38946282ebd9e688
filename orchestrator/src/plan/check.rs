//! What holds for every plan, checked without the planner's own bookkeeping: from the world before and the world after.

mod exclusive;

use std::collections::{BTreeMap, BTreeSet};

use tug_model::name::{NodeId, TaskId};
use tug_model::node::Availability;
use tug_model::project::ServiceRef;
use tug_model::quantity::{Slot, Timestamp};
use tug_model::report::Engine;
use tug_model::spec::deploy::Mode;
use tug_model::spec::service::Service;
use tug_model::task::{Desired, Task, Template};

use super::decision::{Change, Create, Plan};
use super::index::Key;
use super::{World, place};

/// Every invariant that `plan` breaks, in words; empty for a sound plan.
pub fn check(world: &World, plan: &Plan, now: Timestamp) -> Vec<String> {
    let after = world.after(plan, now);
    let mut broken = Vec::new();
    each_task_once(world, plan, &mut broken);
    only_forward(world, &after, &mut broken);
    if plan.wake_at.is_some_and(|at| at <= now) {
        broken.push("the plan is to be made again at once".to_owned());
    }
    placed_well(world, &after, plan, &mut broken);
    exclusive::never_two(world, plan, now, &mut broken);
    let serving = serving(world);
    nobody_is_given_up_early(world, &after, plan, (&serving, now), &mut broken);
    let (before_by_service, after_by_service) = (by_service(world), by_service(&after));
    for (project, stored) in &world.projects {
        for (name, service) in &stored.spec.services {
            let key = (project, name);
            let before = before_by_service.get(&key).map_or(&[][..], Vec::as_slice);
            let then = after_by_service.get(&key).map_or(&[][..], Vec::as_slice);
            let change =
                Changed { world, after: &after, serving: &serving, key, service, at: now, before, now: then };
            change.never_too_many(&mut broken);
            change.nothing_served_is_lost(&mut broken);
            change.every_gap_has_a_reason(plan, &mut broken);
        }
    }
    broken
}

/// No task is decided about twice, nor one that does not exist; no slot gets two new tasks.
fn each_task_once(world: &World, plan: &Plan, broken: &mut Vec<String>) {
    let mut ids: BTreeSet<&TaskId> = BTreeSet::new();
    let mut slots = BTreeSet::new();
    for decision in &plan.decisions {
        let fresh = match &decision.change {
            Change::Create(create) => slots.insert((&create.project, &create.service, create.slot)),
            Change::Drain(id) | Change::Stop(id) | Change::Forget(id) => {
                world.tasks.contains_key(id) && ids.insert(id)
            }
            Change::Settle { volume, node } => {
                world.homes.get(volume).is_none_or(|homes| !homes.contains(node))
            }
        };
        if !fresh {
            broken.push(format!("`{decision}` is about nothing, or about something decided already"));
        }
    }
}

/// What shall become of a task never moves back.
fn only_forward(world: &World, after: &World, broken: &mut Vec<String>) {
    for (id, old) in &world.tasks {
        let new = after.tasks.get(id);
        if new.is_some_and(|new| rank(new.desired) < rank(old.desired)) {
            broken.push(format!("{id} moves back"));
        }
        if new.is_none() && !matches!(old.desired, Desired::Stop { .. }) {
            broken.push(format!("{id} is forgotten before it was stopped"));
        }
    }
}

fn rank(desired: Desired) -> u8 {
    match desired {
        Desired::Run => 0,
        Desired::Drain { .. } => 1,
        Desired::Stop { .. } => 2,
    }
}

/// New tasks are on nodes that are there, fit them, have room for them, and have their ports free.
fn placed_well(world: &World, after: &World, plan: &Plan, broken: &mut Vec<String>) {
    let mut new: BTreeMap<&NodeId, Vec<&Create>> = BTreeMap::new();
    for decision in &plan.decisions {
        if let Change::Create(create) = &decision.change {
            new.entry(&create.node).or_default().push(create);
        }
    }
    let mut tasks: BTreeMap<&NodeId, Vec<&Task>> = BTreeMap::new();
    for task in after.tasks.values().filter(|task| new.contains_key(&task.node)) {
        tasks.entry(&task.node).or_default().push(task);
    }
    for (node, creates) in new {
        let tasks = tasks.get(node).map_or(&[][..], Vec::as_slice);
        if !is_there(world, node) {
            broken.push(format!("tasks are created on {node}, which is not there"));
        }
        if world.nodes.get(node).is_some_and(|node| !node.is_active()) {
            broken.push(format!("tasks are created on {node}, which is being drained"));
        }
        over_capacity(after, node, tasks, &creates, broken);
        for create in creates {
            let suits = world.nodes.get(node).zip(world.service(&create.project, &create.service));
            if !suits.is_some_and(|(machine, spec)| place::suits(machine, spec)) {
                broken.push(format!("{node} does not suit {}/{}", create.project, create.service));
            }
        }
        ports_free(after, node, tasks, broken);
    }
}

/// A task that is to run on a silent node, where its service has a place for it, leaves only after the silence has lasted,
/// and not while half of the nodes are silent since the same moment; unless another one serves its slot, or stays on the
/// node where one is enough.
fn nobody_is_given_up_early(
    world: &World,
    after: &World,
    plan: &Plan,
    (serving, now): (&BTreeMap<&TaskId, bool>, Timestamp),
    broken: &mut Vec<String>,
) {
    let others = |task: &Task| {
        let (project, service) = (task.project.clone(), task.service.clone());
        let runs = after.tasks.values().filter(|other| other.desired == Desired::Run);
        runs.filter(move |other| other.service == service && other.project == project)
    };
    let is_served = |task: &Task| {
        let is_global = world
            .service(&task.project, &task.service)
            .is_some_and(|service| service.deploy.mode == Mode::Global);
        others(task).any(|other| {
            let serves = other.slot == task.slot && serving.contains_key(&other.id);
            serves || is_global && other.node == task.node
        })
    };
    let silent_since = |id: &NodeId| {
        let observed = world.observed.nodes.get(id);
        let lost_at = observed.and_then(|observed| observed.lost_at).unwrap_or_default();
        let is_silent = world.nodes.contains_key(id) && observed.is_none_or(|observed| !observed.is_heard());
        let fell_silent = observed.and_then(|observed| observed.silent_since);
        is_silent.then(|| fell_silent.unwrap_or(lost_at).max(world.since))
    };
    let after = |task: &Task| {
        let observed = world.observed.nodes.get(&task.node);
        let clashes = world.service(&task.project, &task.service).is_some_and(Service::is_stop_first);
        match observed.filter(|it| it.lost_at.is_some() && !clashes) {
            Some(observed) if observed.silent_since.is_some() => world.timing.silent_after,
            Some(_) => world.timing.closed_after,
            None => world.timing.lost_after,
        }
    };
    let created: BTreeSet<_> = plan
        .decisions
        .iter()
        .filter_map(|decision| match &decision.change {
            Change::Create(create) => Some((&create.project, &create.service, create.slot)),
            Change::Drain(_) | Change::Stop(_) | Change::Forget(_) | Change::Settle { .. } => None,
        })
        .collect();
    for decision in &plan.decisions {
        let (Change::Drain(id) | Change::Stop(id)) = &decision.change else { continue };
        let Some(task) = world.tasks.get(id).filter(|task| task.desired == Desired::Run) else { continue };
        let is_replaced = created.contains(&(&task.project, &task.service, task.slot)) && !is_served(task);
        let is_replaced = is_replaced && !is_overdue(world, task, now);
        let Some(since) = silent_since(&task.node).filter(|_| is_replaced) else { continue };
        let together = world.nodes.keys().filter(|id| silent_since(id) == Some(since)).count();
        let is_active = world.nodes.get(&task.node).is_some_and(|node| node.is_active());
        let braked = is_active && together >= 2 && 2 * together >= world.nodes.len();
        if braked || now < since.plus(after(task)) {
            broken.push(format!("{id} is given up too early"));
        }
    }
}

/// Whether the task is on a node that should have been empty by now.
fn is_overdue(world: &World, task: &Task, now: Timestamp) -> bool {
    let availability = world.nodes.get(&task.node).map(|node| node.availability);
    match availability {
        Some(Availability::Drain { at, deadline: Some(deadline) }) => {
            let at = if at > now { world.since } else { at };
            now >= at.plus(deadline)
        }
        Some(Availability::Drain { deadline: None, .. } | Availability::Active) | None => false,
    }
}

fn is_there(world: &World, node: &NodeId) -> bool {
    // What is still heard of a node that was removed does not count.
    let node = world.nodes.get(node).and_then(|node| world.observed.nodes.get(&node.id));
    let observed = node.filter(|observed| observed.connected);
    observed.and_then(|observed| observed.report.as_ref()).is_some_and(|report| report.engine == Engine::Up)
}

/// Whether the node of a task, which names what it runs, does not name this one, and never took an assignment that does.
fn was_never_begun(world: &World, task: &Task, now: Timestamp) -> bool {
    let Some(observed) = world.observed.nodes.get(&task.node) else { return false };
    let (Some(report), Some(deaf)) = (&observed.report, &observed.deaf) else { return false };
    let is_long = now.since(deaf.since.max(world.since)) >= world.timing.lost_after;
    let is_named = report.tasks.iter().any(|named| named.id == task.id);
    is_long && !is_named && report.following.generation < task.made_by()
}

/// A node that gets a task which reserves something, or may have only so many beside it, has room for it.
fn over_capacity(
    after: &World,
    node: &NodeId,
    tasks: &[&Task],
    creates: &[&Create],
    broken: &mut Vec<String>,
) {
    let capacity = after.nodes.get(node).map(|node| node.info.capacity).unwrap_or_default();
    let reserved = |project, service| {
        after.service(project, service).map(|service| service.deploy.reservations).unwrap_or_default()
    };
    let used = tasks.iter().map(|task| reserved(&task.project, &task.service));
    let (memory, cpus) = used.fold((0, 0), |sum, used| (sum.0 + used.memory.0, sum.1 + used.cpus.0));
    for create in creates {
        let asked = reserved(&create.project, &create.service);
        let memory = asked.memory.0 > 0 && memory > capacity.memory.0;
        let cpus = asked.cpus.0 > 0 && cpus > capacity.cpus.0;
        let service = after.service(&create.project, &create.service);
        let most = service.and_then(|service| service.deploy.placement.max_replicas_per_node);
        let key = (&create.project, &create.service);
        let crowded = most.is_some_and(|most| {
            let of_service = tasks.iter().filter(|task| (&task.project, &task.service) == key);
            of_service.map(|task| task.slot).collect::<BTreeSet<_>>().len() > most as usize
        });
        if memory || cpus || crowded {
            broken.push(format!("{node} has no room for {}.{}.{}", key.0, key.1, create.slot));
        }
    }
}

fn ports_free(after: &World, node: &NodeId, tasks: &[&Task], broken: &mut Vec<String>) {
    let mut taken = Vec::new();
    for task in tasks {
        for port in after.templates.get(&task.template).into_iter().flat_map(|t| &t.host_ports) {
            if taken.iter().any(|taken| place::ports_clash(taken, port)) {
                broken.push(format!("two tasks on {node} have host port {:?}", port.published));
            }
            taken.push(port.clone());
        }
    }
}

/// The tasks that a connected node says are healthy (`true`) or complete (`false`). A node that was removed is not asked,
/// although it may still be connected for a moment.
fn serving(world: &World) -> BTreeMap<&TaskId, bool> {
    let connected =
        world.observed.nodes.iter().filter(|(id, node)| node.connected && world.nodes.contains_key(*id));
    let tasks = connected.flat_map(|(_, observed)| &observed.report).flat_map(|report| &report.tasks);
    tasks
        .filter(|task| task.phase.is_healthy() || task.phase.has_succeeded())
        .map(|task| (&task.id, task.phase.is_healthy()))
        .collect()
}

fn by_service(world: &World) -> BTreeMap<Key<'_>, Vec<&Task>> {
    let mut all: BTreeMap<Key<'_>, Vec<&Task>> = BTreeMap::new();
    for task in world.tasks.values() {
        all.entry((&task.project, &task.service)).or_default().push(task);
    }
    all
}

/// One service before the plan and after it.
struct Changed<'w> {
    world: &'w World,
    after: &'w World,
    serving: &'w BTreeMap<&'w TaskId, bool>,
    key: Key<'w>,
    service: &'w Service,
    at: Timestamp,
    before: &'w [&'w Task],
    now: &'w [&'w Task],
}

// === impl Changed ===

impl Changed<'_> {
    fn is_wanted(&self, slot: Slot) -> bool {
        match self.service.deploy.mode {
            Mode::Replicated(count) => (1..=count).contains(&slot.0),
            Mode::Global => true,
        }
    }

    fn running(&self) -> impl Iterator<Item = &Task> {
        self.now.iter().copied().filter(|task| task.desired == Desired::Run)
    }

    /// How many tasks are to run beside another in their slot, but for those that nobody can stop.
    fn surplus(&self, tasks: &[&Task]) -> usize {
        let mut by_slot: BTreeMap<Slot, usize> = BTreeMap::new();
        for task in
            tasks.iter().filter(|task| task.desired == Desired::Run && is_there(self.world, &task.node))
        {
            *by_slot.entry(task.slot).or_default() += 1;
        }
        by_slot.values().map(|count| count - 1).sum()
    }

    /// No plan makes more than one slot have a task too many, so there are never more than wanted + 1. Where two would
    /// clash, a new task is never beside another record of its slot.
    fn never_too_many(&self, broken: &mut Vec<String>) {
        for task in self.running() {
            if !self.is_wanted(task.slot) {
                broken.push(format!("{} runs in a slot that is not wanted", task.id));
            }
        }
        let surplus = self.surplus(self.now);
        // An Engine that is back has what was replaced meanwhile.
        if surplus > 1 && surplus > self.surplus(self.before) {
            broken.push(format!("{}/{} runs {surplus} tasks too many", self.key.0, self.key.1));
        }
        if !self.service.is_stop_first() {
            return;
        }
        // What its node cannot stop, or has not begun and is not reached, is not waited for; the new one is on another node.
        let may_run =
            |old: &Task| is_there(self.world, &old.node) && !was_never_begun(self.world, old, self.at);
        let left = self.before.iter().filter(|old| self.after.tasks.contains_key(&old.id));
        let old: BTreeSet<Slot> = left.filter(|old| may_run(old)).map(|old| old.slot).collect();
        for new in self.now.iter().filter(|task| !self.world.tasks.contains_key(&task.id)) {
            if old.contains(&new.slot) {
                broken.push(format!("{} starts beside a task that it clashes with", new.id));
            }
        }
    }

    /// What serves leaves a wanted slot only for another that serves there; stop-first, one at a time, and only while
    /// every task of the newest template serves.
    fn nothing_served_is_lost(&self, broken: &mut Vec<String>) {
        if self.service.deploy.mode == Mode::Global {
            return;
        }
        let served: BTreeSet<Slot> =
            self.running().filter(|task| self.serving.contains_key(&task.id)).map(|task| task.slot).collect();
        let stays = |id| self.after.tasks.get(id).is_some_and(|task| task.desired == Desired::Run);
        let healthy = |id| self.serving.get(id).is_some_and(|healthy| *healthy);
        let lost = self.before.iter().filter(|old| {
            old.desired == Desired::Run
                && !stays(&old.id)
                && self.is_wanted(old.slot)
                && healthy(&old.id)
                && !served.contains(&old.slot)
                && !is_overdue(self.world, old, self.at)
        });
        let lost: Vec<String> = lost.map(|old| old.id.to_string()).collect();
        if lost.is_empty() {
            return;
        }
        let project = self.world.projects.get(self.key.0);
        let newest = project.map(|stored| Template::of(&stored.spec, self.service).hash());
        let unproved =
            self.running().any(|t| newest.as_ref() == Some(&t.template) && !self.serving.contains_key(&t.id));
        let allowed = usize::from(self.service.is_stop_first() && !unproved);
        if lost.len() > allowed {
            broken.push(format!("what served is lost: {}", lost.join(", ")));
        }
    }

    /// A slot that is wanted and has no task that is to run has a reason.
    fn every_gap_has_a_reason(&self, plan: &Plan, broken: &mut Vec<String>) {
        let Mode::Replicated(count) = self.service.deploy.mode else { return };
        let filled: BTreeSet<Slot> = self.running().map(|task| task.slot).collect();
        let (project, service) = self.key;
        let reasons = plan.obstacles.get(&ServiceRef { project: project.clone(), service: service.clone() });
        for slot in (1..=count).map(Slot).filter(|slot| !filled.contains(slot)) {
            let obstacle = reasons.and_then(|slots| slots.get(&slot));
            if obstacle.is_none_or(|obstacle| obstacle.reasons.is_empty()) {
                broken.push(format!("{project}.{service}.{slot} has neither a task nor a reason"));
            }
        }
    }
}
