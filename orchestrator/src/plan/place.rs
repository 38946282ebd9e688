//! Where a task may run, and why not elsewhere.
//!
//! Every filter either lets a node pass or says why not; among the nodes that pass, the least [`Rank`] wins.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use tug_model::name::NodeId;
use tug_model::node::{Node, NodeInfo};
use tug_model::quantity::{Bytes, NanoCpus, Slot};
use tug_model::report::Engine;
use tug_model::spec::deploy::{Constraint, Reservations};
use tug_model::spec::service::{Port, Protocol, Service};

use super::index::{Index, Key, Seen};
use super::wanted::Wanted;
use super::{NodeObserved, World};

/// What is taken on every node. Everything counts until its container has gone.
#[derive(Debug)]
pub(super) struct Room<'w> {
    nodes: BTreeMap<&'w NodeId, NodeRoom<'w>>,
}

/// What is taken on one node.
#[derive(Debug)]
struct NodeRoom<'w> {
    node: &'w Node,
    observed: Option<&'w NodeObserved>,
    tasks: u32,
    memory: u64,
    cpus: u64,
    host_ports: Vec<HostPort>,
    slots: BTreeMap<Key<'w>, Vec<Slot>>,
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
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank<'w> {
    /// Spread each service.
    of_service: usize,
    /// Then spread everything.
    tasks: u32,
    /// Then be predictable.
    node: &'w NodeId,
}

type Filter = fn(&Ask<'_, '_>) -> Result<(), String>;

/// In the order in which people want to hear of them.
const FILTERS: [Filter; 8] =
    [is_connected, engine_is_up, has_platform, meets_constraints, has_memory, has_cpus, has_ports, has_share];

/// Whether tasks of the service may run on the node at all, whatever else runs there.
pub(super) fn suits(node: &Node, service: &Service) -> bool {
    platform(&node.info, service).is_ok() && constraints(node, service).is_ok()
}

// === impl Room ===

impl<'w> Room<'w> {
    pub(super) fn new(world: &'w World, index: &Index<'w>) -> Self {
        let nodes = world.nodes.values().map(|node| {
            let observed = world.observed.nodes.get(&node.id).map(Arc::as_ref);
            (&node.id, NodeRoom::empty(node, observed))
        });
        let mut room = Self { nodes: nodes.collect() };
        for ((project, service), tasks) in index.services() {
            let reserved = reserved(world.service(project, service));
            for seen in tasks {
                if let Some(node) = room.nodes.get_mut(&seen.task.node) {
                    let host_ports = host_ports_of(world, seen);
                    node.take((project, service), seen.task.slot, reserved, &host_ports);
                }
            }
        }
        room
    }

    /// The best node for a task, or why each of them cannot take it. `without` is a task that goes first.
    pub(super) fn place(
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
            let ask = Ask { service, slot, room, back };
            match FILTERS.iter().try_for_each(|filter| filter(&ask)) {
                Ok(()) => {
                    let rank = room.rank(service.key());
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
        }
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
    fn empty(node: &'w Node, observed: Option<&'w NodeObserved>) -> Self {
        let (host_ports, slots) = (Vec::new(), BTreeMap::new());
        Self { node, observed, tasks: 0, memory: 0, cpus: 0, host_ports, slots }
    }

    fn take(&mut self, service: Key<'w>, slot: Slot, reserved: Reservations, host_ports: &[HostPort]) {
        self.tasks += 1;
        self.memory = self.memory.saturating_add(reserved.memory.0);
        self.cpus = self.cpus.saturating_add(reserved.cpus.0);
        self.host_ports.extend_from_slice(host_ports);
        self.slots.entry(service).or_default().push(slot);
    }

    fn rank(&self, service: Key<'w>) -> Rank<'w> {
        Rank {
            of_service: self.slots.get(&service).map_or(0, Vec::len),
            tasks: self.tasks,
            node: &self.node.id,
        }
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

// === The filters ===

fn is_connected(ask: &Ask<'_, '_>) -> Result<(), String> {
    match ask.room.observed {
        Some(observed) if observed.connected && observed.report.is_some() => Ok(()),
        Some(observed) if observed.connected => Err("has not reported yet".to_owned()),
        Some(observed) if observed.report.is_some() => Err("not connected".to_owned()),
        Some(_) | None => Err("has not reported since the orchestrator started".to_owned()),
    }
}

fn engine_is_up(ask: &Ask<'_, '_>) -> Result<(), String> {
    let report = ask.room.observed.and_then(|observed| observed.report.as_ref());
    match report.map(|report| &report.engine) {
        Some(Engine::Down { reason, .. }) => Err(format!("its Docker Engine does not answer ({reason})")),
        Some(Engine::Up) | None => Ok(()),
    }
}

fn has_platform(ask: &Ask<'_, '_>) -> Result<(), String> {
    platform(&ask.room.node.info, ask.service.spec)
}

fn meets_constraints(ask: &Ask<'_, '_>) -> Result<(), String> {
    constraints(ask.room.node, ask.service.spec)
}

fn has_memory(ask: &Ask<'_, '_>) -> Result<(), String> {
    let asked = ask.service.spec.deploy.reservations.memory.0;
    let used = ask.room.memory.saturating_sub(ask.back.memory);
    let free = ask.room.node.info.capacity.memory.0.saturating_sub(used);
    match asked.checked_sub(free) {
        None | Some(0) => Ok(()),
        Some(short) => Err(format!("{} short of memory", Bytes(short))),
    }
}

fn has_cpus(ask: &Ask<'_, '_>) -> Result<(), String> {
    let asked = ask.service.spec.deploy.reservations.cpus.0;
    let used = ask.room.cpus.saturating_sub(ask.back.cpus);
    let free = ask.room.node.info.capacity.cpus.0.saturating_sub(used);
    match asked.checked_sub(free) {
        None | Some(0) => Ok(()),
        Some(short) => Err(format!("{} processors short", NanoCpus(short))),
    }
}

fn has_ports(ask: &Ask<'_, '_>) -> Result<(), String> {
    let mut given_back = ask.back.host_ports.clone();
    for port in ask.service.template.host_ports.iter().filter_map(HostPort::of) {
        for taken in ask.room.host_ports.iter().filter(|taken| taken.clashes(port)) {
            let Some(at) = given_back.iter().position(|back| back == taken) else {
                return Err(format!("port {} is taken by another task", port.port));
            };
            given_back.swap_remove(at);
        }
    }
    Ok(())
}

fn has_share(ask: &Ask<'_, '_>) -> Result<(), String> {
    let Some(most) = ask.service.spec.deploy.placement.max_replicas_per_node else { return Ok(()) };
    // A slot counts once, so a task may be replaced beside itself.
    let mut others = ask.room.slots.get(&ask.service.key()).cloned().unwrap_or_default();
    others.retain(|slot| *slot != ask.slot);
    others.sort_unstable();
    others.dedup();
    if u32::try_from(others.len()).is_ok_and(|count| count < most) {
        return Ok(());
    }
    Err(format!("has {} replicas already, and max_replicas_per_node is {most}", others.len()))
}

fn platform(info: &NodeInfo, service: &Service) -> Result<(), String> {
    let Some(wanted) = &service.container.platform else { return Ok(()) };
    let mut parts = wanted.split('/');
    let os = parts.next().is_none_or(|os| os.eq_ignore_ascii_case(&info.os));
    let arch = parts.next().is_none_or(|arch| arch_name(arch) == arch_name(&info.arch));
    if os && arch { Ok(()) } else { Err(format!("is {}/{}, not {wanted}", info.os, info.arch)) }
}

fn constraints(node: &Node, service: &Service) -> Result<(), String> {
    for constraint in &service.deploy.placement.constraints {
        if !holds(node, constraint) {
            return Err(format!("does not meet {constraint}"));
        }
    }
    Ok(())
}

/// Whether a constraint holds. An attribute that the node does not have equals nothing.
fn holds(node: &Node, constraint: &Constraint) -> bool {
    let info = &node.info;
    let value = match constraint.attribute.as_str() {
        "node.id" => Some(node.id.as_str()),
        "node.hostname" => Some(info.hostname.as_str()),
        "node.role" => Some(info.labels.get("node.role").map_or("manager", String::as_str)),
        "node.platform.os" => Some(info.os.as_str()),
        "node.platform.arch" => Some(arch_name(&info.arch)),
        attribute => {
            attribute.strip_prefix("node.labels.").and_then(|key| info.labels.get(key)).map(String::as_str)
        }
    };
    let wanted = match constraint.attribute.as_str() {
        "node.platform.arch" => arch_name(&constraint.value),
        _ => constraint.value.as_str(),
    };
    (value == Some(wanted)) == constraint.equal
}

/// Docker's name of an architecture, whichever name is used for it.
fn arch_name(name: &str) -> &str {
    match name {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
