//! How a machine stands, for people: in a word, and why.

use std::collections::{BTreeMap, BTreeSet};

use tug_api::user::{Leaving, NodeState};
use tug_model::name::{NodeId, ProjectName, ServiceName};
use tug_model::node::{Capacity, Node};
use tug_model::quantity::{Slot, Timestamp};
use tug_model::report::{Engine, Phase};
use tug_model::task::{Desired, Task};

use super::fleet::{Fleet, Presence, flaps_until};
use super::{ObstacleKind, View, World};

/// The machines of one view, so that how all of them stand costs one look at the tasks.
#[derive(Debug)]
pub struct Machines<'v> {
    view: &'v View,
    now: Timestamp,
    fleet: Fleet<'v>,
    tasks: BTreeMap<&'v NodeId, Vec<&'v Task>>,
    /// What is to run in a slot, for slots of which something is to leave a node that is being emptied.
    successors: BTreeMap<(&'v ProjectName, &'v ServiceName, Slot), Vec<&'v Task>>,
    /// Whom others reach at each address.
    addresses: BTreeMap<&'v str, Vec<&'v NodeId>>,
}

/// How a machine stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Stand {
    /// In a word.
    pub state: NodeState,
    /// What there is to say about that, one sentence each.
    pub reasons: Vec<String>,
    /// How many tasks are there.
    pub tasks: usize,
    /// What is kept free there for those tasks.
    pub reserved: Capacity,
    /// What is still to leave it while it is being emptied, and whose that is.
    pub leaving: Vec<(ProjectName, Leaving)>,
}

// === impl Machines ===

impl<'v> Machines<'v> {
    /// The machines as they stand at `now`.
    pub fn new(view: &'v View, now: Timestamp) -> Self {
        let world = &view.world;
        let mut tasks: BTreeMap<&NodeId, Vec<&Task>> = BTreeMap::new();
        for task in world.tasks.values() {
            tasks.entry(&task.node).or_default().push(task);
        }
        let emptied = world.nodes.values().filter(|node| !node.is_active());
        let mut successors: BTreeMap<_, Vec<&Task>> = emptied
            .filter_map(|node| tasks.get(&node.id))
            .flatten()
            .map(|task| ((&task.project, &task.service, task.slot), Vec::new()))
            .collect();
        if !successors.is_empty() {
            for task in world.tasks.values().filter(|task| task.desired == Desired::Run) {
                if let Some(of_slot) = successors.get_mut(&(&task.project, &task.service, task.slot)) {
                    of_slot.push(task);
                }
            }
        }
        let mut addresses: BTreeMap<&str, Vec<&NodeId>> = BTreeMap::new();
        for node in world.nodes.values() {
            if let Some(address) = &node.info.address {
                addresses.entry(address).or_default().push(&node.id);
            }
        }
        Self { view, now, fleet: Fleet::new(world, now), tasks, successors, addresses }
    }

    /// How one of them stands; `None` when there is no such node.
    pub fn stand(&self, id: &NodeId) -> Option<Stand> {
        let world = &self.view.world;
        let node = world.nodes.get(id)?;
        let tasks = self.tasks.get(id).map_or(&[][..], Vec::as_slice);
        let left: Vec<&Task> = if node.is_active() { Vec::new() } else { left(world, id, tasks) };
        let mut reasons = Vec::new();
        let state = self.state(node, left.is_empty(), &mut reasons);
        if let Some(until) = world.observed.nodes.get(id).and_then(|it| flaps_until(it, self.now)) {
            let wait = until.since(self.now);
            reasons.push(format!(
                "its connection was lost again and again: for another {wait} it gets nothing that another node can take"
            ));
        }
        reasons.extend(self.namesake(node));
        let mut reserved = Capacity::default();
        for task in tasks {
            let kept = world.service(&task.project, &task.service).map(|service| service.deploy.reservations);
            let kept = kept.unwrap_or_default();
            reserved.cpus.0 = reserved.cpus.0.saturating_add(kept.cpus.0);
            reserved.memory.0 = reserved.memory.0.saturating_add(kept.memory.0);
        }
        let leaving = left.into_iter().map(|task| (task.project.clone(), self.leaving(task))).collect();
        Some(Stand { state, reasons, tasks: tasks.len(), reserved, leaving })
    }

    /// That another node is said to be where this one is.
    fn namesake(&self, node: &Node) -> Option<String> {
        let address = node.info.address.as_deref()?;
        let other = self.addresses.get(address)?.iter().find(|other| ***other != node.id)?;
        Some(format!(
            "node {other} has the same address, {address}: what is sent there reaches one of the two at most; give one of \
             them another, or remove the one that is gone"
        ))
    }

    fn state(&self, node: &Node, is_empty: bool, reasons: &mut Vec<String>) -> NodeState {
        let observed = self.view.world.observed.nodes.get(&node.id);
        let engine = observed.and_then(|it| it.report.as_ref()).map(|report| &report.engine);
        let deaf = observed.and_then(|it| it.deaf.as_ref());
        match (self.fleet.machine(&node.id).presence, deaf, engine) {
            (Presence::Dead { silent }, ..) => {
                reasons.push(format!("silent for {silent}: its tasks are replaced elsewhere"));
                NodeState::Dead
            }
            (Presence::Lost | Presence::Awaited, ..) => {
                reasons.extend(self.fleet.brake(&node.id));
                NodeState::Away
            }
            (Presence::Connected, ..) if !node.is_active() && is_empty => NodeState::Drained,
            (Presence::Connected, Some(deaf), _) => {
                reasons.push(format!("it does not take its assignment: {}", deaf.reason));
                NodeState::Disobedient
            }
            (Presence::Connected, None, Some(Engine::Down { .. })) => NodeState::EngineDown,
            (Presence::Connected, None, Some(Engine::Up) | None) if !node.is_active() => NodeState::Draining,
            (Presence::Connected, None, Some(Engine::Up) | None) => NodeState::Ready,
        }
    }

    /// What a task that is to leave waits for.
    fn leaving(&self, task: &Task) -> Leaving {
        let obstacles = self.view.plan.obstacles.get(&task.service_ref());
        let obstacle = obstacles.and_then(|slots| slots.get(&task.slot));
        let has_no_place = obstacle.is_some_and(|obstacle| obstacle.kind == ObstacleKind::NoPlace);
        let is_cut_off = self.is_cut_off(&task.node);
        let is_stuck = if task.desired == Desired::Run { has_no_place } else { is_cut_off };
        let waits_for = match task.desired {
            Desired::Run => match (self.successor(task), obstacle) {
                (Some(successor), _) => successor,
                (None, Some(obstacle)) => obstacle.reasons.join("; "),
                (None, None) => "still there".to_owned(),
            },
            Desired::Drain { .. } | Desired::Stop { .. } if is_cut_off => {
                "nobody can stop it: its node's agent, or its Engine, does not answer".to_owned()
            }
            Desired::Drain { .. } => "out of the routes; its connections end".to_owned(),
            Desired::Stop { .. } => "stopping".to_owned(),
        };
        Leaving { task: task.id.clone(), waits_for, is_stuck }
    }

    /// Whether nothing on a node can be stopped now.
    fn is_cut_off(&self, node: &NodeId) -> bool {
        let report = self.view.world.observed.nodes.get(node).and_then(|it| it.report.as_ref());
        let is_down = report.is_some_and(|report| matches!(report.engine, Engine::Down { .. }));
        is_down || self.fleet.machine(node).is_out_of_reach()
    }

    /// How what is to take the place of `task` stands.
    fn successor(&self, task: &Task) -> Option<String> {
        let of_slot = self.successors.get(&(&task.project, &task.service, task.slot))?;
        let next = of_slot.iter().find(|next| next.node != task.node)?;
        let report = self.view.world.observed.nodes.get(&next.node).and_then(|it| it.report.as_ref());
        let reported = report.and_then(|report| report.tasks.iter().find(|it| it.id == next.id));
        let phase = reported.map_or_else(|| "assigned".to_owned(), |task| coarse(&task.phase));
        Some(format!("its successor on {} is {phase}", next.node))
    }
}

/// A phase without what changes all the time.
fn coarse(phase: &Phase) -> String {
    match phase {
        Phase::Pulling { .. } => "pulling".to_owned(),
        Phase::Waiting { failure, .. } => format!("waiting: {failure}"),
        Phase::Pending | Phase::Creating | Phase::Running { .. } | Phase::Stopping | Phase::Exited { .. } => {
            phase.to_string()
        }
    }
}

/// Which of the tasks of a node are still to leave it: everything that runs there, or may.
fn left<'v>(world: &World, id: &NodeId, tasks: &[&'v Task]) -> Vec<&'v Task> {
    let report = world.observed.nodes.get(id).and_then(|observed| observed.report.as_ref());
    let ended: BTreeSet<_> = report
        .iter()
        .flat_map(|report| &report.tasks)
        .filter(|task| matches!(task.phase, Phase::Exited { .. }))
        .map(|task| &task.id)
        .collect();
    let is_left = |task: &&Task| !(task.desired == Desired::Run && ended.contains(&task.id));
    tasks.iter().copied().filter(is_left).collect()
}
