//! Agents that follow their assignments, as obediently as they are told to: the other half of every property.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tug_model::name::{NodeId, TaskId};
use tug_model::node::{Availability, Node};
use tug_model::quantity::{Millis, Revision, Timestamp};
use tug_model::report::{Engine, Following, Phase, Report, TaskReport};
use tug_model::spec::service::RestartOn;
use tug_model::task::Desired;

use super::draw::{NOW, info, phase, tasks_on};
use crate::plan::{Deaf, NodeObserved, Observed, Plan, World, assignment, plan};

/// A world, the machines below it, and the time.
#[derive(Debug, Clone)]
pub(super) struct Fleet {
    pub(super) world: World,
    pub(super) now: Timestamp,
    machines: BTreeMap<NodeId, Machine>,
}

#[derive(Debug, Clone, Default)]
struct Machine {
    cut: bool,
    deaf: Option<Deaf>,
    follows: Revision,
    containers: BTreeMap<TaskId, Container>,
}

#[derive(Debug, Clone)]
struct Container {
    phase: Phase,
    connections: u32,
    restarts: u32,
}

impl Fleet {
    pub(super) fn new(world: World) -> Self {
        let machines = world.nodes.keys().map(|id| (id.clone(), Machine::default())).collect();
        Self { world, now: NOW, machines }
    }

    pub(super) fn nodes(&self) -> Vec<NodeId> {
        self.machines.keys().cloned().collect()
    }

    /// Plans, and carries it out if there is anything.
    pub(super) fn step(&mut self) -> Plan {
        let plan = plan(&self.world, self.now);
        assert_eq!(plan, crate::plan::plan(&self.world.clone(), self.now), "the same world, the same plan");
        self.world = self.world.after(&plan, self.now);
        plan
    }

    /// The node's agent takes its assignment: containers are made and removed.
    pub(super) fn follow(&mut self, node: &NodeId) {
        let wanted = assignment(&self.world, "c", 1, node, tasks_on(&self.world, node));
        let machine = self.machines.get_mut(node).unwrap();
        if machine.cut || machine.deaf.is_some() {
            return;
        }
        machine.follows = wanted.generation;
        let stays = |id: &TaskId| {
            wanted.tasks.iter().any(|task| task.id == *id && !matches!(task.desired, Desired::Stop { .. }))
        };
        machine.containers.retain(|id, _| stays(id));
        for task in wanted.tasks.iter().filter(|task| stays(&task.id)) {
            assert!(wanted.templates.contains_key(&task.template), "an assignment is whole");
            let fresh = Container { phase: phase("creating").unwrap(), connections: 0, restarts: 0 };
            machine.containers.entry(task.id.clone()).or_insert(fresh);
        }
    }

    /// The node's agent says what it sees.
    pub(super) fn report(&mut self, node: &NodeId) {
        let machine = &self.machines[node];
        if !machine.cut && !self.world.nodes.contains_key(node) {
            self.world.revision = self.world.revision.next();
            let known = Node::new(node.clone(), info("any"), self.now);
            self.world.nodes.insert(node.clone(), Arc::new(known));
        }
        let mut observed = Observed::clone(&self.world.observed);
        if machine.cut {
            let mut last =
                observed.nodes.get(node).map_or_else(NodeObserved::default, |seen| (**seen).clone());
            if last.connected {
                last.lose(self.now);
            }
            observed.nodes.insert(node.clone(), Arc::new(last));
        } else {
            let tasks = machine.containers.iter().map(|(id, container)| TaskReport {
                id: id.clone(),
                phase: container.phase.clone(),
                age: Millis(0),
                restarts: container.restarts,
                connections: container.connections,
            });
            let report = Report {
                info: info("any"),
                following: Following {
                    cluster: "c".into(),
                    epoch: 1,
                    generation: machine.follows,
                    endpoints: machine.follows,
                },
                engine: Engine::Up,
                tasks: tasks.collect(),
                uncounted: false,
                lacks: BTreeSet::new(),
                closed_ports: vec![],
                uptime: Some(tug_model::Millis(self.now.0)),
            };
            let (report, acked) = (Some(Arc::new(report)), machine.follows);
            let known = observed.nodes.get(node).map(|seen| (seen.lost_at, seen.losses.clone()));
            let (lost_at, losses) = known.unwrap_or_default();
            let seen = NodeObserved {
                connected: true,
                session: 1,
                report,
                received_at: self.now,
                confirmed_at: self.now,
                lost_at,
                losses,
                silent_since: None,
                back_at: None,
                acked,
                is_level: false,
                deaf: machine.deaf.clone(),
            };
            observed.nodes.insert(node.clone(), Arc::new(seen));
            observed.leased.insert(node.clone(), self.now);
        }
        self.world.observed = Arc::new(observed);
    }

    /// The node is cut off, or comes back.
    pub(super) fn cut(&mut self, node: &NodeId, cut: bool) {
        self.machines.get_mut(node).unwrap().cut = cut;
    }

    /// The node's agent takes no assignment any more, though it reports; or it does again.
    pub(super) fn deafen(&mut self, node: &NodeId, deaf: bool) {
        let machine = self.machines.get_mut(node).unwrap();
        let since = machine.deaf.as_ref().map_or(self.now, |deaf| deaf.since);
        machine.deaf = deaf.then(|| Deaf { since, reason: "timed out".into() });
    }

    /// Somebody changes what is known of a node.
    pub(super) fn change(&mut self, node: &NodeId, change: impl FnOnce(&mut Node)) {
        if let Some(node) = self.world.nodes.get_mut(node) {
            self.world.revision = self.world.revision.next();
            change(Arc::make_mut(node));
        }
    }

    /// A node is removed, with what is known of it; its containers stay until its agent is told.
    pub(super) fn forget(&mut self, node: &NodeId) {
        if self.world.nodes.remove(node).is_some() {
            self.world.revision = self.world.revision.next();
        }
        let homes = self.world.homes.iter().map(|(volume, nodes)| (volume.clone(), nodes.without(node)));
        self.world.homes = homes.filter(|(_, nodes)| !nodes.is_empty()).collect();
        let mut observed = Observed::clone(&self.world.observed);
        observed.nodes.remove(node);
        self.world.observed = Arc::new(observed);
    }

    /// The orchestrator starts anew: it has heard nothing yet.
    pub(super) fn restart(&mut self) {
        self.world.observed = Arc::default();
        self.world.since = self.now;
    }

    /// One of the node's containers, picked by a number, is in another phase and has so many connections.
    pub(super) fn happens(&mut self, node: &NodeId, which: usize, word: &str, connections: u32) {
        let machine = self.machines.get_mut(node).unwrap();
        if machine.containers.is_empty() {
            return;
        }
        let which = which % machine.containers.len();
        let container = machine.containers.values_mut().nth(which).unwrap();
        container.phase = phase(word).unwrap();
        container.connections = connections;
        container.restarts += u32::from(word == "waiting");
    }

    /// Every container does what it should: it serves, or it is done. Nobody is connected to it.
    pub(super) fn thrive(&mut self, node: &NodeId) {
        let machine = self.machines.get_mut(node).unwrap();
        for (id, container) in &mut machine.containers {
            let task = self.world.tasks.get(id);
            let template = task.and_then(|task| self.world.templates.get(&task.template));
            let ends = template.is_some_and(|template| template.restart.condition == RestartOn::Never);
            container.phase = phase(if ends { "exit0" } else { "healthy" }).unwrap();
            container.connections = 0;
        }
    }

    /// Everybody behaves, until nothing is decided any more. Returns after how many rounds.
    pub(super) fn heal(&mut self, most: usize) -> usize {
        for node in self.nodes() {
            self.cut(&node, false);
            self.deafen(&node, false);
            self.change(&node, |node| node.availability = Availability::Active);
        }
        for round in 0..most {
            for node in self.nodes() {
                self.follow(&node);
                self.thrive(&node);
                self.report(&node);
            }
            self.now = self.now.plus(Millis(100));
            let plan = self.step();
            let settled = plan.decisions.is_empty() && plan.wake_at.is_none();
            let fresh = self.machines.values().all(|machine| machine.follows == self.world.revision);
            if settled && fresh {
                return round;
            }
        }
        panic!("still busy after {most} rounds: {}", plan(&self.world, self.now));
    }
}
