//! The reasons why a node cannot take a task: each filter checks one thing, and explains it.

use tug_model::node::{Node, NodeInfo};
use tug_model::quantity::{Bytes, NanoCpus};
use tug_model::report::Engine;
use tug_model::spec::deploy::{Constraint, Mode};
use tug_model::spec::service::Service;

use super::{Ask, HostPort};
use crate::plan::fleet::Emptied;

type Filter = fn(&Ask<'_, '_>) -> Result<(), String>;

/// In the order in which people want to hear of them.
pub(super) const FILTERS: [Filter; 12] = [
    is_connected,
    is_active,
    obeys,
    keeps_leases,
    engine_is_up,
    has_platform,
    meets_constraints,
    has_data,
    has_memory,
    has_cpus,
    has_ports,
    has_share,
];

/// Whether tasks of the service may run on the node at all, whatever else runs there.
pub(in crate::plan) fn suits(node: &Node, service: &Service) -> bool {
    platform(&node.info, service).is_ok() && constraints(node, service).is_ok()
}

fn is_connected(ask: &Ask<'_, '_>) -> Result<(), String> {
    match ask.room.observed {
        Some(observed) if observed.connected && observed.report.is_some() => Ok(()),
        Some(observed) if observed.connected => Err("has not reported yet".to_owned()),
        Some(observed) if observed.report.is_some() => Err("not connected".to_owned()),
        Some(_) | None => Err("has not reported since the orchestrator started".to_owned()),
    }
}

fn is_active(ask: &Ask<'_, '_>) -> Result<(), String> {
    match ask.room.machine.emptied {
        Some(Emptied::Drain { .. }) => Err("is being drained".to_owned()),
        Some(Emptied::NoEngine { .. }) | None => Ok(()),
    }
}

fn obeys(ask: &Ask<'_, '_>) -> Result<(), String> {
    match ask.room.observed.and_then(|observed| observed.deaf.as_ref()) {
        Some(deaf) => Err(format!("does not take its assignment ({})", deaf.reason)),
        None => Ok(()),
    }
}

/// An agent that knows no leases would run an exclusive task without one.
fn keeps_leases(ask: &Ask<'_, '_>) -> Result<(), String> {
    let report = ask.room.observed.and_then(|observed| observed.report.as_ref());
    if ask.service.spec.exclusive && report.is_some_and(|report| report.uptime.is_none()) {
        return Err("its agent is of a version that knows no `x-exclusive`".to_owned());
    }
    Ok(())
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

/// A local volume is on one machine. A global service has one on each.
fn has_data(ask: &Ask<'_, '_>) -> Result<(), String> {
    if ask.service.spec.deploy.mode == Mode::Global {
        return Ok(());
    }
    match ask.homes.elsewhere(&ask.service.template, &ask.room.node.id) {
        Some((volume, home)) => Err(format!("the data of volume {volume} is on node {home}")),
        None => Ok(()),
    }
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
    let others = ask.stand.other_slots(ask.room.place, ask.slot);
    if u32::try_from(others).is_ok_and(|count| count < most) {
        return Ok(());
    }
    let replicas = if others == 1 { "replica" } else { "replicas" };
    Err(format!("has {others} {replicas} already, and max_replicas_per_node is {most}"))
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
    let value = attribute(node, &constraint.attribute);
    let wanted = match constraint.attribute.as_str() {
        "node.platform.arch" => arch_name(&constraint.value),
        _ => constraint.value.as_str(),
    };
    (value == Some(wanted)) == constraint.equal
}

/// What a node has for an attribute.
pub(super) fn attribute<'a>(node: &'a Node, name: &str) -> Option<&'a str> {
    match name {
        "node.id" => Some(node.id.as_str()),
        "node.hostname" => Some(node.info.hostname.as_str()),
        "node.role" => Some(node.role.as_str()),
        "node.platform.os" => Some(node.info.os.as_str()),
        "node.platform.arch" => Some(arch_name(&node.info.arch)),
        name => node.label(name.strip_prefix("node.labels.")?),
    }
}

/// Docker's name of an architecture, whichever name is used for it.
fn arch_name(name: &str) -> &str {
    match name {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
