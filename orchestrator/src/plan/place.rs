//! Where a task may run, and why not elsewhere.
//!
//! Every filter either lets a node pass or says why not; among the nodes that pass, the least [`Rank`] wins.

mod choice;
mod filter;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use tug_model::name::NodeId;
use tug_model::node::Node;
use tug_model::quantity::Slot;
use tug_model::spec::deploy::Reservations;
use tug_model::spec::service::{Port, Protocol, Service};

use self::choice::{Choice, is_uniform};
pub(super) use self::filter::suits;
use self::filter::{FILTERS, attribute};
use super::fleet::{Fleet, Machine};
use super::homes::Homes;
use super::index::{Index, Key, Seen};
use super::wanted::Wanted;
use super::{NodeObserved, World};

/// What is taken on every node. Everything counts until its container has gone.
#[derive(Debug)]
pub(super) struct Room<'w> {
    nodes: BTreeMap<&'w NodeId, NodeRoom<'w>>,
    homes: Homes<'w>,
    /// The nodes as they are ranked for the service that is being placed.
    choice: Option<Choice<'w>>,
}

/// What is taken on one node.
#[derive(Debug)]
struct NodeRoom<'w> {
    node: &'w Node,
    observed: Option<&'w NodeObserved>,
    machine: Machine,
    tasks: u32,
    memory: u64,
    cpus: u64,
    host_ports: Vec<HostPort>,
    slots: BTreeMap<Key<'w>, Vec<Slot>>,
    /// How many tasks of each service are to run here, by slot.
    running: BTreeMap<Key<'w>, Running>,
}

/// How many tasks of a service are to run on a node.
#[derive(Debug, Default)]
struct Running {
    all: usize,
    by_slot: BTreeMap<Slot, usize>,
}

/// A port that the Engine binds on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct HostPort {
    port: u16,
    protocol: Protocol,
    address: Option<IpAddr>,
}

/// A question: may this node take a task of this service, for this slot?
struct Ask<'a, 'w> {
    service: &'a Wanted<'w>,
    slot: Slot,
    room: &'a NodeRoom<'w>,
    homes: &'a Homes<'w>,
    /// What a task that goes first gives back on this node.
    back: Back,
}

/// What a task gives back when it goes.
#[derive(Default)]
struct Back {
    memory: u64,
    cpus: u64,
    host_ports: Vec<HostPort>,
}

/// How good a node is, the less the better: the order of the fields is the policy.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Rank<'w> {
    /// Rely on what stays.
    flaps: bool,
    /// Spread each service as it wishes.
    spread: Spread,
    /// Then spread everything.
    tasks: u32,
    /// Then be predictable.
    node: &'w NodeId,
}

/// How many other replicas of the service there are where its preferences say that they count, the first preference
/// first, and then on the node itself.
type Spread = Vec<usize>;

// === impl Room ===

impl<'w> Room<'w> {
    pub(super) fn new(world: &'w World, index: &Index<'w>, fleet: &Fleet<'w>) -> Self {
        let nodes = world.nodes.values().map(|node| {
            let observed = world.observed.nodes.get(&node.id).map(Arc::as_ref);
            (&node.id, NodeRoom::empty(node, observed, fleet.machine(&node.id)))
        });
        let mut room = Self { nodes: nodes.collect(), homes: Homes::new(world), choice: None };
        for ((project, service), tasks) in index.services() {
            let reserved = reserved(world.service(project, service));
            for seen in tasks {
                if let Some(node) = room.nodes.get_mut(&seen.task.node) {
                    let host_ports = host_ports_of(world, seen);
                    node.take((project, service), seen.task.slot, reserved, &host_ports);
                    if seen.runs() {
                        node.run((project, service), seen.task.slot);
                    }
                }
            }
        }
        room
    }

    /// The best node for a task, or why each of them cannot take it. `without` is a task that goes first.
    pub(super) fn place(
        &mut self,
        world: &World,
        service: &Wanted<'w>,
        slot: Slot,
        without: Option<Seen<'w>>,
    ) -> Result<&'w NodeId, Arc<[String]>> {
        if without.is_some() || !is_uniform(service) {
            return self.look_everywhere(world, service, slot, without);
        }
        let best = self.choose(service, slot);
        debug_assert_eq!(best, self.look_everywhere(world, service, slot, None).ok(), "{slot}");
        best.map_or_else(|| self.look_everywhere(world, service, slot, None), Ok)
    }

    /// The best node for one of several replicas that are alike.
    fn choose(&mut self, service: &Wanted<'w>, slot: Slot) -> Option<&'w NodeId> {
        let Self { nodes, homes, choice } = self;
        if choice.as_ref().is_none_or(|choice| !choice.is_of(service.key())) {
            *choice = Some(Choice::new(service, nodes, homes));
        }
        choice.as_ref()?.best(service, slot, nodes, homes)
    }

    fn look_everywhere(
        &self,
        world: &World,
        service: &Wanted<'w>,
        slot: Slot,
        without: Option<Seen<'w>>,
    ) -> Result<&'w NodeId, Arc<[String]>> {
        let mut best: Option<Rank<'w>> = None;
        let mut refusals = Vec::new();
        let pinned = service.slots.get(&slot).copied().flatten();
        for room in self.nodes.values().filter(|room| pinned.is_none_or(|node| *node == room.node.id)) {
            let back = without.filter(|seen| seen.task.node == room.node.id);
            let back = back.map_or_else(Back::default, |seen| Back::of(world, &seen));
            let ask = Ask { service, slot, room, homes: &self.homes, back };
            match FILTERS.iter().try_for_each(|filter| filter(&ask)) {
                Ok(()) => {
                    let rank = self.rank(service, slot, room);
                    if best.as_ref().is_none_or(|best| rank < *best) {
                        best = Some(rank);
                    }
                }
                Err(reason) => refusals.push(format!("node {}: {reason}", room.node.id)),
            }
        }
        if self.nodes.is_empty() {
            refusals.push("there is no node yet".to_owned());
        }
        best.map(|rank| rank.node).ok_or_else(|| refusals.into())
    }

    /// Counts a task that is going to be created.
    pub(super) fn take(&mut self, service: &Wanted<'w>, slot: Slot, node: &NodeId) {
        if let Some(room) = self.nodes.get_mut(node) {
            let host_ports: Vec<HostPort> =
                service.template.host_ports.iter().filter_map(HostPort::of).collect();
            room.take(service.key(), slot, service.spec.deploy.reservations, &host_ports);
            room.run(service.key(), slot);
            self.homes.take(&service.template, room.node);
            let choice = self.choice.take().filter(|choice| choice.is_of(service.key()));
            self.choice = choice.map(|mut choice| {
                choice.take(service, slot, room, &self.homes);
                choice
            });
        }
    }

    /// Counts a task out that is going to leave: it keeps its room, and does not count for the spread any more.
    pub(super) fn leave(&mut self, seen: Seen<'w>) {
        let key = (&seen.task.project, &seen.task.service);
        let Some(room) = self.nodes.get_mut(&seen.task.node) else { return };
        let Some(running) = room.running.get_mut(&key) else { return };
        running.all = running.all.saturating_sub(1);
        let here = running.by_slot.entry(seen.task.slot).or_default();
        *here = here.saturating_sub(1);
        if let Some(choice) = self.choice.as_mut().filter(|choice| choice.is_of(key)) {
            choice.leave(&seen, room);
        }
    }

    /// Where a replica would stand so much better than on `node` that it is worth moving it there.
    pub(super) fn better(
        &mut self,
        world: &World,
        service: &Wanted<'w>,
        slot: Slot,
        node: &NodeId,
    ) -> Option<&'w NodeId> {
        let best = if is_uniform(service) {
            self.choose(service, slot)?
        } else {
            self.look_everywhere(world, service, slot, None).ok()?
        };
        let spread = |node| Some(self.spread(service, slot, self.nodes.get(node)?));
        (spread(best)? < spread(node)?).then_some(best)
    }

    fn rank(&self, service: &Wanted<'w>, slot: Slot, room: &NodeRoom<'w>) -> Rank<'w> {
        Rank {
            flaps: room.machine.flaps_until.is_some(),
            spread: self.spread(service, slot, room),
            tasks: room.tasks,
            node: &room.node.id,
        }
    }

    fn spread(&self, service: &Wanted<'w>, slot: Slot, room: &NodeRoom<'w>) -> Spread {
        let preferences = &service.spec.deploy.placement.preferences;
        let mut alike: Vec<&NodeRoom<'w>> = Vec::new();
        if !preferences.is_empty() {
            alike.extend(self.nodes.values());
        }
        let mut spread: Spread = Vec::with_capacity(preferences.len() + 1);
        for preference in preferences {
            let value = attribute(room.node, &preference.spread);
            alike.retain(|other| attribute(other.node, &preference.spread) == value);
            spread.push(alike.iter().map(|other| other.others(service.key(), slot)).sum());
        }
        spread.push(room.others(service.key(), slot));
        spread
    }
}

/// What the Engine binds for a task.
fn host_ports_of(world: &World, seen: &Seen<'_>) -> Vec<HostPort> {
    let template = world.templates.get(&seen.task.template);
    template.map_or_else(Vec::new, |template| template.host_ports.iter().filter_map(HostPort::of).collect())
}

fn reserved(service: Option<&Service>) -> Reservations {
    service.map_or_else(Reservations::default, |service| service.deploy.reservations)
}

// === impl NodeRoom ===

impl<'w> NodeRoom<'w> {
    fn empty(node: &'w Node, observed: Option<&'w NodeObserved>, machine: Machine) -> Self {
        let (host_ports, slots, running) = Default::default();
        Self { node, observed, machine, tasks: 0, memory: 0, cpus: 0, host_ports, slots, running }
    }

    fn take(&mut self, service: Key<'w>, slot: Slot, reserved: Reservations, host_ports: &[HostPort]) {
        self.tasks += 1;
        self.memory = self.memory.saturating_add(reserved.memory.0);
        self.cpus = self.cpus.saturating_add(reserved.cpus.0);
        self.host_ports.extend_from_slice(host_ports);
        self.slots.entry(service).or_default().push(slot);
    }

    fn run(&mut self, service: Key<'w>, slot: Slot) {
        let running = self.running.entry(service).or_default();
        running.all += 1;
        *running.by_slot.entry(slot).or_default() += 1;
    }

    /// How many other replicas of the service are to run here.
    fn others(&self, service: Key<'w>, slot: Slot) -> usize {
        let Some(running) = self.running.get(&service) else { return 0 };
        running.all.saturating_sub(running.by_slot.get(&slot).copied().unwrap_or(0))
    }
}

// === impl Back ===

impl Back {
    fn of(world: &World, seen: &Seen<'_>) -> Self {
        let reserved = reserved(world.service(&seen.task.project, &seen.task.service));
        Self { memory: reserved.memory.0, cpus: reserved.cpus.0, host_ports: host_ports_of(world, seen) }
    }
}

// === impl HostPort ===

impl HostPort {
    /// `None`: the Engine picks a free one.
    fn of(port: &Port) -> Option<Self> {
        let address = port.host_ip.filter(|address| !address.is_unspecified());
        Some(Self { port: port.published?, protocol: port.protocol, address })
    }

    fn clashes(self, other: Self) -> bool {
        let same_address = self.address.is_none() || other.address.is_none() || self.address == other.address;
        self.port == other.port && self.protocol == other.protocol && same_address
    }
}

/// Whether two published ports cannot both be open on one node.
pub(super) fn ports_clash(one: &Port, other: &Port) -> bool {
    match (HostPort::of(one), HostPort::of(other)) {
        (Some(one), Some(other)) => one.clashes(other),
        (None, _) | (_, None) => false,
    }
}
