//! Which ports of the nodes are published for whom. Used where a project is accepted: what is stored has every number
//! written out, and no two owners of one port.

use std::collections::BTreeSet;

use tug_model::name::{ProjectName, ServiceName};
use tug_model::spec;
use tug_model::spec::service::{Port, PortMode};

use super::World;
use super::place::ports_clash;

/// Where a port that nobody chose is taken from.
pub const AUTOMATIC: std::ops::RangeInclusive<u16> = 30_000..=32_767;

/// Why a project's ports cannot be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The part of the project that is wrong: `services.web.ports[0]`.
    pub field: String,
    /// What is wrong, with the owner of the port.
    pub message: String,
    /// The other project whose port it is.
    pub owner: Option<ProjectName>,
}

/// Gives every balanced port without a published number one: the earlier number of the same port if it had one, else
/// the lowest one that nobody has.
pub fn resolve(world: &World, spec: &mut spec::Project) -> Result<(), Conflict> {
    let mut taken: BTreeSet<u16> = owners(world, &spec.name)
        .map(|(_, _, port)| port)
        .chain(spec.services.values().flat_map(|service| &service.ports))
        .filter_map(|port| port.published)
        .collect();
    let earlier = world.projects.get(&spec.name).cloned();
    for (name, service) in &mut spec.services {
        let known = earlier.as_ref().and_then(|stored| stored.spec.services.get(name));
        let known = known.map_or(&[][..], |service| service.ports.as_slice());
        for (index, port) in service.ports.iter_mut().enumerate() {
            if port.mode != PortMode::Ingress || port.published.is_some() {
                continue;
            }
            let same = known.iter().filter(|old| is_same(old, port)).filter_map(|old| old.published);
            let number = same.chain(AUTOMATIC).find(|number| !taken.contains(number));
            let Some(number) = number else {
                let message =
                    format!("every port from {} to {} is taken", AUTOMATIC.start(), AUTOMATIC.end());
                return Err(Conflict { field: field(name, index), message, owner: None });
            };
            taken.insert(number);
            port.published = Some(number);
        }
    }
    Ok(())
}

/// The published ports of `spec` that somebody has already: another project, or another service of its own.
///
/// Two services that both want the Engine to bind a port on their node are not in conflict here: they are kept on
/// different nodes.
pub fn conflicts(world: &World, spec: &spec::Project) -> Vec<Conflict> {
    let mut found = Vec::new();
    let mut seen: Vec<(&ServiceName, &Port)> = Vec::new();
    for (name, service) in &spec.services {
        for (index, port) in service.ports.iter().enumerate() {
            let clash = |other: &Port| meets(port, other) && ports_clash(port, other);
            let other = owners(world, &spec.name).find(|(_, _, other)| clash(other));
            let owner = other.map(|(project, _, _)| project.clone());
            let other = other.map(|(project, service, _)| format!("{project}/{service}"));
            let sibling = || seen.iter().find(|(_, other)| clash(other)).map(|(name, _)| name.to_string());
            if let (Some(other), Some(number)) = (other.or_else(sibling), port.published) {
                let message = format!("port {number} is published by {other} already");
                found.push(Conflict { field: field(name, index), message, owner });
            }
            seen.push((name, port));
        }
    }
    found
}

/// The ports of every other project.
fn owners<'w>(
    world: &'w World,
    except: &ProjectName,
) -> impl Iterator<Item = (&'w ProjectName, &'w ServiceName, &'w Port)> {
    let others = world.projects.iter().filter(move |(name, _)| *name != except);
    others.flat_map(|(project, stored)| {
        let services = stored.spec.services.iter();
        services.flat_map(move |(name, service)| service.ports.iter().map(move |port| (project, name, port)))
    })
}

/// Whether two ports of a service are the same one, whatever number it is published under.
fn is_same(old: &Port, new: &Port) -> bool {
    old.mode == new.mode && (old.target, old.protocol, old.host_ip) == (new.target, new.protocol, new.host_ip)
}

/// Whether two ports may meet on a node whatever is placed where: a balanced port is open on every node.
fn meets(one: &Port, other: &Port) -> bool {
    one.mode == PortMode::Ingress || other.mode == PortMode::Ingress
}

fn field(service: &ServiceName, index: usize) -> String {
    format!("services.{service}.ports[{index}]")
}
