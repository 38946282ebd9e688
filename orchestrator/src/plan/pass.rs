//! One pass over a world: what is known, and the plan as far as it has been made. The abilities of the planner take
//! their turn on it.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;

use tug_model::name::{NodeId, TaskId};
use tug_model::project::ServiceRef;
use tug_model::quantity::{Slot, Timestamp};

use super::World;
use super::decision::{Change, Create, Decision, Obstacle, ObstacleKind, Plan};
use super::fleet::Fleet;
use super::index::Index;
use super::place::Room;
use super::wanted::{Services, Wanted};

/// A plan in the making.
#[derive(Debug)]
pub(super) struct Pass<'w> {
    pub(super) world: &'w World,
    pub(super) now: Timestamp,
    pub(super) fleet: Fleet<'w>,
    pub(super) index: Index<'w>,
    pub(super) services: Rc<Services<'w>>,
    pub(super) room: Room<'w>,
    pub(super) plan: Plan,
    /// The tasks that this pass takes out of service.
    pub(super) left: BTreeSet<&'w TaskId>,
}

// === impl Pass ===

impl<'w> Pass<'w> {
    pub(super) fn new(world: &'w World, now: Timestamp) -> Self {
        let fleet = Fleet::new(world, now);
        let index = Index::new(world, &fleet);
        let services = Rc::new(Services::new(world, &index, &fleet));
        let room = Room::new(world, &index, &fleet);
        let plan = Plan { brake: fleet.braked(), ..Plan::default() };
        Self { world, now, fleet, index, services, room, plan, left: BTreeSet::new() }
    }

    pub(super) fn decide(&mut self, change: Change, why: impl Into<String>) {
        self.plan.decisions.push(Decision { change, why: why.into() });
    }

    /// A new task for a slot, on a node that has room for it.
    pub(super) fn create(&mut self, service: &Wanted<'w>, slot: Slot, node: &'w NodeId, why: String) {
        self.room.take(service, slot, node);
        let create = Create {
            project: service.project.clone(),
            service: service.name.clone(),
            slot,
            node: node.clone(),
            hash: service.hash.clone(),
            template: Arc::clone(&service.template),
        };
        self.decide(Change::Create(create), why);
    }

    /// Notes why a slot is not as wanted. The first reason stays.
    pub(super) fn hinder(&mut self, service: &Wanted<'w>, slot: Slot, obstacle: Obstacle) {
        let key = ServiceRef { project: service.project.clone(), service: service.name.clone() };
        self.plan.obstacles.entry(key).or_default().entry(slot).or_insert(obstacle);
    }

    /// Notes that no node takes a task for a slot.
    pub(super) fn no_place(&mut self, service: &Wanted<'w>, slot: Slot, reasons: Arc<[String]>) {
        self.hinder(service, slot, Obstacle { kind: ObstacleKind::NoPlace, reasons });
    }

    /// The plan shall be made again at `at`, if not sooner.
    pub(super) fn wake_at(&mut self, at: Timestamp) {
        self.plan.wake_at = Some(self.plan.wake_at.map_or(at, |earlier| earlier.min(at)));
    }
}
