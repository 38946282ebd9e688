//! What can only be judged with all services at hand: references, cycles, ports that two of them want.

use std::collections::{BTreeMap, BTreeSet};

use tug_model::ServiceName;
use tug_model::spec::container::NetworkMode;
use tug_model::spec::service::{Condition, Port, PortMode, RestartOn};

use crate::project::undeclared;
use crate::reader::Fields;
use crate::resource::Resources;
use crate::service::Draft;

/// Everything that a service names must be declared.
pub(crate) fn references(resources: &Resources, names: &BTreeSet<ServiceName>, draft: &Draft<'_>) {
    for (name, cursor) in &draft.networks {
        if name.as_str() != "default" && !resources.networks.contains_key(name) {
            let declared = resources.networks.keys().map(AsRef::as_ref);
            undeclared(cursor, ("network", name.as_str()), declared);
        }
    }
    for (name, cursor) in &draft.volumes {
        if !resources.volumes.contains_key(name) {
            let declared = resources.volumes.keys().map(AsRef::as_ref);
            undeclared(cursor, ("volume", name.as_str()), declared);
        }
    }
    for (name, cursor) in &draft.configs {
        if !resources.configs.contains_key(name) {
            let declared = resources.configs.keys().map(String::as_str);
            undeclared(cursor, ("config", name), declared);
        }
    }
    for (name, cursor) in &draft.depends_on {
        let required = draft.service.depends_on.get(name).is_some_and(|dependency| dependency.required);
        if *name == draft.name {
            cursor.key_error("a service cannot depend on itself");
        } else if required && !names.contains(name) {
            let declared = names.iter().map(AsRef::as_ref);
            undeclared(cursor, ("service", name.as_str()), declared);
        }
    }
}

/// Dependencies that need not be there and are not are forgotten.
pub(crate) fn drop_optional(drafts: &mut [Draft<'_>]) {
    let names: BTreeSet<ServiceName> = drafts.iter().map(|draft| draft.name.clone()).collect();
    for draft in drafts {
        for (name, cursor) in &draft.depends_on {
            let optional = draft.service.depends_on.get(name).is_some_and(|dependency| !dependency.required);
            if optional && !names.contains(name) {
                cursor.note(format!("`{name}` is not part of the project; it is not waited for"));
                draft.service.depends_on.remove(name);
            }
        }
    }
}

/// A service that runs cannot wait for one whose profile is not active.
pub(crate) fn profiles(active: &[Draft<'_>], inactive: &[Draft<'_>]) {
    let off: BTreeMap<&ServiceName, &Draft<'_>> = inactive.iter().map(|draft| (&draft.name, draft)).collect();
    for draft in active {
        for (name, cursor) in &draft.depends_on {
            let Some(other) = off.get(name) else { continue };
            let required = draft.service.depends_on.get(name).is_some_and(|dependency| dependency.required);
            if required {
                cursor.error_with_hint(
                    format!("`{name}` is not part of the project without its profile"),
                    format!("add --profile {}", other.profiles.join(" or ")),
                );
            }
        }
    }
}

/// A project of nothing but services whose profiles are not active has nothing to run.
pub(crate) fn something_runs(active: &[Draft<'_>], inactive: &[Draft<'_>], project: &Fields<'_>) {
    let (Some(first), Some(cursor)) = (inactive.first(), project.get("services")) else { return };
    if active.is_empty() {
        let hint = format!("add --profile {}", first.profiles.join(" or "));
        cursor.report.error_with_hint(
            cursor.key_place,
            &cursor.path,
            "no service is left without its profile",
            hint,
        );
    }
}

/// Reports each cycle once, at its first service.
pub(crate) fn cycles(drafts: &[Draft<'_>]) {
    let by_name: BTreeMap<&ServiceName, &Draft<'_>> =
        drafts.iter().map(|draft| (&draft.name, draft)).collect();
    let mut done: BTreeSet<&ServiceName> = BTreeSet::new();
    for start in by_name.keys() {
        // A walk in depth with its own stack: the way so far, and how many dependencies of each were followed.
        let mut way: Vec<(&ServiceName, usize)> = vec![(*start, 0)];
        while let Some((name, next)) = way.last_mut() {
            let name: &ServiceName = name;
            let draft = by_name.get(name).filter(|_| !done.contains(name));
            let dependency = draft.and_then(|draft| draft.depends_on.get(*next));
            *next += 1;
            let Some((other, cursor)) = dependency else {
                done.insert(name);
                way.pop();
                continue;
            };
            if other == name {
                continue;
            }
            if let Some(at) = way.iter().position(|(on_way, _)| *on_way == other) {
                let round: Vec<&str> = way.iter().skip(at).map(|(name, _)| name.as_str()).collect();
                let message = format!("the services wait for each other: {} -> {other}", round.join(" -> "));
                cursor.key_error(message);
            } else if by_name.contains_key(other) && !done.contains(other) {
                let other = by_name.get_key_value(other).map(|(key, _)| *key);
                way.extend(other.map(|other| (other, 0)));
            }
        }
    }
}

/// Two services, or two lines of one, cannot publish the same port.
pub(crate) fn ports(drafts: &[Draft<'_>]) {
    let mut taken: BTreeMap<u16, Vec<(&ServiceName, &Port)>> = BTreeMap::new();
    for draft in drafts {
        for (port, cursor) in &draft.ports {
            let Some(published) = port.published else { continue };
            let others = taken.entry(published).or_default();
            if let Some((owner, _)) = others.iter().find(|(_, other)| clash(other, port)) {
                let whose = if *owner == &draft.name {
                    "this service".to_owned()
                } else {
                    format!("`{owner}` and `{}`", draft.name)
                };
                cursor.error(format!("the port {published} is published twice, by {whose}"));
                continue;
            }
            others.push((&draft.name, port));
        }
    }
}

/// On the host's own network every port is open as it is: there is nothing to publish.
pub(crate) fn host_network(drafts: &mut [Draft<'_>]) {
    for draft in drafts.iter_mut().filter(|draft| draft.service.container.network_mode == NetworkMode::Host) {
        if let Some((_, cursor)) = draft.ports.first() {
            cursor.warning("with `network_mode: host` every port is open already; this is ignored");
        }
        draft.ports.clear();
        draft.service.ports.clear();
    }
}

fn clash(a: &Port, b: &Port) -> bool {
    let same_address = match (a.host_ip, b.host_ip) {
        (Some(a), Some(b)) => a == b || a.is_unspecified() || b.is_unspecified(),
        _ => true,
    };
    a.protocol == b.protocol && same_address
}

/// What others wait for until it has completed must be able to end. Without a word on restarts, it is started again
/// only after a failure.
pub(crate) fn completion(drafts: &mut [Draft<'_>]) {
    let awaited: BTreeSet<ServiceName> = drafts
        .iter()
        .flat_map(|draft| &draft.service.depends_on)
        .filter(|(_, dependency)| dependency.condition == Condition::CompletedSuccessfully)
        .map(|(name, _)| name.clone())
        .collect();
    for draft in drafts {
        if !awaited.contains(&draft.name) || draft.service.restart.condition != RestartOn::Any {
            continue;
        }
        if draft.says_restart {
            let place =
                draft.cursor.node.get("restart").map_or_else(|| draft.cursor.place(), |node| node.place);
            let path = crate::tree::join(&draft.cursor.path, "restart");
            let message =
                "others wait for this service to complete, and it is started again whenever it ends";
            draft.cursor.report.warning(place, &path, message);
        } else {
            draft.service.restart.condition = RestartOn::Failure;
        }
    }
}

/// What others wait for until it is healthy should have a way to be.
pub(crate) fn health(drafts: &[Draft<'_>]) {
    let by_name: BTreeMap<&ServiceName, &Draft<'_>> =
        drafts.iter().map(|draft| (&draft.name, draft)).collect();
    for draft in drafts {
        for (name, cursor) in &draft.depends_on {
            let waits = draft.service.depends_on.get(name).is_some_and(|d| d.condition == Condition::Healthy);
            let Some(other) = by_name.get(name).filter(|_| waits) else { continue };
            let container = &other.service.container;
            let disabled = container
                .healthcheck
                .as_ref()
                .is_some_and(|check| check.test.first().is_some_and(|word| word == "NONE"));
            let has_port = other.service.ports.iter().any(|port| port.mode == PortMode::Ingress);
            if disabled && other.service.probe.is_none() {
                cursor.error(format!("`{name}` can never be healthy: its health check is switched off"));
            } else if container.healthcheck.is_none() && other.service.probe.is_none() && !has_port {
                cursor
                    .note(format!("`{name}` has no health check here; the image's own, or running, counts"));
            }
        }
    }
}
