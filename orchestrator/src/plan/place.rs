//! Where a task may run, and why not elsewhere.
//!
//! Every filter either lets a node pass or says why not; among the nodes that pass, the least [`Rank`] wins.

mod choice;
mod filter;
mod stand;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use tug_model::name::NodeId;
use tug_model::node::Node;
use tug_model::quantity::Slot;
use tug_model::spec::deploy::Reservations;
use tug_model::spec::service::{Port, Protocol, Service};
use tug_model::task::Template;

use self::choice::{Choice, is_uniform};
pub(super) use self::filter::suits;
use self::filter::{FILTERS, attribute};
use self::stand::Stand;
use super::fleet::{Fleet, Machine};
use super::homes::Homes;
use super::index::{Index, Key, Seen};
use super::wanted::Wanted;
use super::{NodeObserved, World};

/// What is taken on every node. Everything counts until its container has gone.
#[derive(Debug)]
pub(super) struct Room<'w> {
    /// In the order of the world.
    nodes: Vec<NodeRoom<'w>>,
    stands: BTreeMap<Key<'w>, Stand>,
    homes: Homes<'w>,
    /// The nodes as they are ranked for the service that is being placed.
    choice: Option<Choice<'w>>,
}

/// What is taken on one node.
#[derive(Debug)]
struct NodeRoom<'w> {
    node: &'w Node,
    /// Its place among the nodes.
    place: usize,
    observed: Option<&'w NodeObserved>,
    machine: Machine,
    tasks: u32,
    memory: u64,
    cpus: u64,
    host_ports: Vec<HostPort>,
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
    stand: &'a Stand,
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank<S> {
    /// Rely on what stays.
    flaps: bool,
    /// Spread each service as it wishes.
    spread: S,
    /// Then spread everything.
    tasks: u32,
    /// Then be predictable: the nodes are in the order of their ids.
    place: usize,
}

/// How many other replicas of the service there are where its preferences say that they count, the first preference
/// first, and then on the node itself.
type Spread = Vec<usize>;

// === impl Room ===

impl<'w> Room<'w> {
    pub(super) fn new(world: &'w World, index: &Index<'w>, fleet: &Fleet<'w>) -> Self {
        let nodes = world.nodes.values().enumerate().map(|(place, node)| {
            let observed = world.observed.nodes.get(&node.id).map(Arc::as_ref);
            NodeRoom::empty(place, node, observed, fleet.machine(&node.id))
        });
        let (mut nodes, mut stands): (Vec<NodeRoom<'w>>, BTreeMap<_, _>) = (nodes.collect(), BTreeMap::new());
        for (key @ (project, service), tasks) in index.services() {
            let reserved = reserved(world.service(project, service));
            let stand: &mut Stand = stands.entry(key).or_default();
            for seen in tasks {
                if let Some(node) = seen.at.and_then(|at| nodes.get_mut(at)) {
                    node.take(reserved, host_ports_of(seen));
                    stand.take(node.place, seen.task.slot, seen.runs());
                }
            }
        }
        Self { nodes, stands, homes: Homes::new(world, index), choice: None }
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

    /// Where the tasks of a service stand.
    fn stand(&self, service: Key<'w>) -> &Stand {
        self.stands.get(&service).unwrap_or(&stand::EMPTY)
    }

    /// The place of a node.
    fn at(&self, node: &NodeId) -> Option<usize> {
        self.nodes.binary_search_by(|room| room.node.id.cmp(node)).ok()
    }

    /// The best node for one of several replicas that are alike.
    fn choose(&mut self, service: &Wanted<'w>, slot: Slot) -> Option<&'w NodeId> {
        let choice = match self.choice.take() {
            Some(choice) if choice.is_of(service.key()) => choice,
            Some(_) | None => Choice::new(service, self.stand(service.key()), &self.nodes, &self.homes),
        };
        let best = choice.best(service, (slot, self.stand(service.key())), &self.nodes, &self.homes);
        self.choice = Some(choice);
        Some(&self.nodes.get(best?)?.node.id)
    }

    fn look_everywhere(
        &self,
        world: &World,
        service: &Wanted<'w>,
        slot: Slot,
        without: Option<Seen<'w>>,
    ) -> Result<&'w NodeId, Arc<[String]>> {
        let mut best: Option<Rank<Spread>> = None;
        let stand = self.stand(service.key());
        let mut refusals = Vec::new();
        let pinned = service.slots.get(&slot).copied().flatten();
        for room in self.nodes.iter().filter(|room| pinned.is_none_or(|node| *node == room.node.id)) {
            let back = without.filter(|seen| seen.at == Some(room.place));
            let back = back.map_or_else(Back::default, |seen| Back::of(world, &seen));
            let ask = Ask { service, slot, room, stand, homes: &self.homes, back };
            match FILTERS.iter().try_for_each(|filter| filter(&ask)) {
                Ok(()) => {
                    let rank = Rank {
                        flaps: room.machine.flaps_until.is_some(),
                        spread: self.spread(service, slot, room),
                        tasks: room.tasks,
                        place: room.place,
                    };
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
        best.and_then(|rank| self.nodes.get(rank.place))
            .map(|room| &room.node.id)
            .ok_or_else(|| refusals.into())
    }

    /// Counts a task that is going to be created.
    pub(super) fn take(&mut self, service: &Wanted<'w>, slot: Slot, node: &NodeId) {
        let Some(room) = self.at(node).and_then(|at| self.nodes.get_mut(at)) else { return };
        room.take(service.spec.deploy.reservations, host_ports(&service.template));
        let stand = self.stands.entry(service.key()).or_default();
        stand.take(room.place, slot, true);
        self.homes.take(&service.template, &room.node.id);
        self.choice.take_if(|choice| !choice.is_of(service.key()));
        if let Some(choice) = &mut self.choice {
            choice.take(service, (slot, stand), room, &self.homes);
        }
    }

    /// Counts a task out that is going to leave: it keeps its room, and does not count for the spread any more.
    pub(super) fn leave(&mut self, seen: Seen<'w>) {
        let key = (&seen.task.project, &seen.task.service);
        let Some((at, stand)) = seen.at.zip(self.stands.get_mut(&key)) else { return };
        stand.leave(at, seen.task.slot);
        if let Some(choice) = self.choice.as_mut().filter(|choice| choice.is_of(key)) {
            choice.leave(at, stand);
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
        let spread = |room: &Self, node| Some(room.spread(service, slot, room.nodes.get(room.at(node)?)?));
        let here = spread(self, node)?;
        if here.iter().all(|others| *others == 0) {
            return None;
        }
        let best = if is_uniform(service) {
            self.choose(service, slot)?
        } else {
            self.look_everywhere(world, service, slot, None).ok()?
        };
        (spread(self, best)? < here).then_some(best)
    }

    fn spread(&self, service: &Wanted<'w>, slot: Slot, room: &NodeRoom<'w>) -> Spread {
        let preferences = &service.spec.deploy.placement.preferences;
        let stand = self.stand(service.key());
        let mut alike: Vec<&NodeRoom<'w>> = Vec::new();
        if !preferences.is_empty() {
            alike.extend(&self.nodes);
        }
        let mut spread: Spread = Vec::with_capacity(preferences.len() + 1);
        for preference in preferences {
            let value = attribute(room.node, &preference.spread);
            alike.retain(|other| attribute(other.node, &preference.spread) == value);
            spread.push(alike.iter().map(|other| stand.others(other.place, slot)).sum());
        }
        spread.push(stand.others(room.place, slot));
        spread
    }
}

/// What the Engine binds for a task.
fn host_ports_of<'w>(seen: &Seen<'w>) -> impl Iterator<Item = HostPort> + use<'w> {
    seen.template.into_iter().flat_map(host_ports)
}

fn host_ports(template: &Template) -> impl Iterator<Item = HostPort> {
    template.host_ports.iter().filter_map(HostPort::of)
}

fn reserved(service: Option<&Service>) -> Reservations {
    service.map_or_else(Reservations::default, |service| service.deploy.reservations)
}

// === impl NodeRoom ===

impl<'w> NodeRoom<'w> {
    fn empty(place: usize, node: &'w Node, observed: Option<&'w NodeObserved>, machine: Machine) -> Self {
        Self { node, place, observed, machine, tasks: 0, memory: 0, cpus: 0, host_ports: Vec::new() }
    }

    fn take(&mut self, reserved: Reservations, host_ports: impl Iterator<Item = HostPort>) {
        self.tasks += 1;
        self.memory = self.memory.saturating_add(reserved.memory.0);
        self.cpus = self.cpus.saturating_add(reserved.cpus.0);
        self.host_ports.extend(host_ports);
    }
}

// === impl Back ===

impl Back {
    fn of(world: &World, seen: &Seen<'_>) -> Self {
        let reserved = reserved(world.service(&seen.task.project, &seen.task.service));
        Self { memory: reserved.memory.0, cpus: reserved.cpus.0, host_ports: host_ports_of(seen).collect() }
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
