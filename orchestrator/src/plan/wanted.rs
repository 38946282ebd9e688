//! What is wanted of each service: its newest template and its slots; dependencies come before their dependents.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tug_model::name::{NodeId, ProjectName, ServiceName};
use tug_model::node::Node;
use tug_model::quantity::Slot;
use tug_model::spec;
use tug_model::spec::deploy::Mode;
use tug_model::spec::service::Service;
use tug_model::task::{Task, Template, TemplateHash};

use super::World;
use super::fleet::{Emptied, Fleet, Presence};
use super::index::{Index, Key, Seen, Standing};
use super::place;

/// Every service that is wanted.
#[derive(Debug)]
pub(super) struct Services<'w> {
    by_name: BTreeMap<Key<'w>, Wanted<'w>>,
    /// Dependencies first; by name where there are none.
    order: Vec<Key<'w>>,
}

/// One wanted service.
#[derive(Debug)]
pub(super) struct Wanted<'w> {
    pub(super) project: &'w ProjectName,
    pub(super) name: &'w ServiceName,
    pub(super) spec: &'w Service,
    pub(super) template: Arc<Template>,
    pub(super) hash: TemplateHash,
    /// An old task must have gone before its successor starts.
    pub(super) stop_first: bool,
    /// The nodes that its tasks may not run on, whatever else runs there.
    unsuitable: BTreeSet<&'w NodeId>,
    /// Its slots; with a global service each belongs to one node.
    pub(super) slots: BTreeMap<Slot, Option<&'w NodeId>>,
}

// === impl Services ===

impl<'w> Services<'w> {
    pub(super) fn new(world: &'w World, index: &Index<'w>, fleet: &Fleet<'w>) -> Self {
        let mut all = Self { by_name: BTreeMap::new(), order: Vec::new() };
        for (project, stored) in &world.projects {
            for (name, service) in &stored.spec.services {
                all.by_name.insert(
                    (project, name),
                    Wanted::new(world, (index, fleet), (project, name), (&stored.spec, service)),
                );
            }
            let mut visited = BTreeSet::new();
            for name in stored.spec.services.keys() {
                all.visit(project, &stored.spec, name, &mut visited);
            }
        }
        all
    }

    pub(super) fn get<'a>(&'a self, key: Key<'a>) -> Option<&'a Wanted<'w>> {
        self.by_name.get(&key)
    }

    pub(super) fn contains(&self, key: Key<'_>) -> bool {
        self.by_name.contains_key(&key)
    }

    /// All of them, dependencies first.
    pub(super) fn in_order(&self) -> impl Iterator<Item = &Wanted<'w>> {
        self.order.iter().filter_map(|key| self.by_name.get(key))
    }

    /// Appends `name` after everything that it depends on. A circle, which no checked project has, is cut where it
    /// closes.
    fn visit(
        &mut self,
        project: &'w ProjectName,
        spec: &'w spec::Project,
        name: &'w ServiceName,
        visited: &mut BTreeSet<&'w ServiceName>,
    ) {
        let mut stack = vec![(name, false)];
        while let Some((name, dependencies_done)) = stack.pop() {
            if dependencies_done {
                self.order.push((project, name));
                continue;
            }
            let Some(service) = spec.services.get(name) else { continue };
            if !visited.insert(name) {
                continue;
            }
            stack.push((name, true));
            stack.extend(service.depends_on.keys().rev().map(|dependency| (dependency, false)));
        }
    }
}

// === impl Wanted ===

impl<'w> Wanted<'w> {
    fn new(
        world: &'w World,
        (index, fleet): (&Index<'w>, &Fleet<'w>),
        key: Key<'w>,
        (project, service): (&spec::Project, &'w Service),
    ) -> Self {
        let template = Template::of(project, service);
        // Most services go anywhere: they need no look at every node.
        let is_choosy =
            service.container.platform.is_some() || !service.deploy.placement.constraints.is_empty();
        let judged = is_choosy.then(|| world.nodes.values()).into_iter().flatten();
        let unsuitable = judged.filter(|node| !place::suits(node, service));
        let slots = match service.deploy.mode {
            Mode::Replicated(count) => (1..=count).map(|number| (Slot(number), None)).collect(),
            Mode::Global => global_slots(world, (index, fleet), key, service),
        };
        Self {
            project: key.0,
            name: key.1,
            spec: service,
            hash: template.hash(),
            template: Arc::new(template),
            stop_first: service.is_stop_first(),
            unsuitable: unsuitable.map(|node| &node.id).collect(),
            slots,
        }
    }

    pub(super) fn key(&self) -> Key<'w> {
        (self.project, self.name)
    }

    /// Whether a task may stay where it is. What cannot be stopped before its successor starts has to stay on a machine
    /// whose Engine is down, as long as it serves; what has ended needs no other place.
    pub(super) fn may_stay(&self, seen: &Seen<'_>) -> bool {
        let is_welcome = match seen.node.emptied {
            Some(Emptied::Drain { .. }) => false,
            Some(Emptied::NoEngine { .. }) => self.stop_first && seen.standing() == Standing::Serving,
            None => !self.unsuitable.contains(&seen.task.node),
        };
        is_welcome || seen.has_ended() || self.spec.deploy.mode == Mode::Global
    }

    /// Whether the task stands in one of the slots, and on the slot's node.
    pub(super) fn has_place_for(&self, task: &Task) -> bool {
        self.slots.get(&task.slot).is_some_and(|node| node.is_none_or(|node| *node == task.node))
    }
}

/// One slot for every node that the service may run on: the number that it has there already, else the lowest free one.
fn global_slots<'w>(
    world: &'w World,
    (index, fleet): (&Index<'w>, &Fleet<'w>),
    key: Key<'w>,
    service: &'w Service,
) -> BTreeMap<Slot, Option<&'w NodeId>> {
    // A dead node is asked for nothing new, and one that is drained for nothing at all.
    let is_asked = |node: &&Node| {
        let machine = fleet.machine(&node.id);
        let is_dead = matches!(machine.presence, Presence::Dead { .. });
        let is_used = index.of(key).iter().any(|seen| seen.runs() && seen.task.node == node.id);
        place::suits(node, service) && node.is_active() && (!is_dead || is_used)
    };
    let nodes: Vec<&NodeId> =
        world.nodes.values().map(AsRef::as_ref).filter(is_asked).map(|node| &node.id).collect();
    let mut slots: BTreeMap<Slot, Option<&NodeId>> = BTreeMap::new();
    let mut placed = BTreeSet::new();
    let taken: BTreeSet<Slot> = index.of(key).iter().map(|seen| seen.task.slot).collect();
    let running_first = index.of(key).iter().filter(|seen| seen.runs());
    for seen in running_first.chain(index.of(key)) {
        let node = &seen.task.node;
        let free = !slots.contains_key(&seen.task.slot);
        if free && nodes.contains(&node) && placed.insert(node) {
            slots.insert(seen.task.slot, Some(node));
        }
    }
    let mut numbers = (1..).map(Slot).filter(|slot| !taken.contains(slot));
    for node in nodes {
        if placed.insert(node)
            && let Some(slot) = numbers.next()
        {
            slots.insert(slot, Some(node));
        }
    }
    slots
}
