//! What is true of a service beside its container: its ports, its number, its probe, its placement.

use std::net::IpAddr;

use tug_model::ServiceName;
use tug_model::lease::FencingNumber;
use tug_model::spec::Project;
use tug_model::spec::deploy::{Mode, Reservations};
use tug_model::spec::rule;
use tug_model::spec::service::{Port, PortMode, Probe, ProbeCheck, Protocol, Service};

use super::{Findings, labels};

pub(super) fn check(service: &Service, at: &str, findings: &mut Findings) {
    for (index, port) in service.ports.iter().enumerate() {
        check_port(port, &format!("{at}.ports[{index}]"), findings);
    }
    for (index, port) in service.expose.iter().enumerate() {
        findings.range(format!("{at}.expose[{index}]"), port, &rule::PORT);
    }
    if let Mode::Replicated(replicas) = service.deploy.mode {
        findings.range(format!("{at}.deploy.mode.replicated"), &replicas, &rule::REPLICAS);
    }
    if service.exclusive {
        findings.rule(format!("{at}.exclusive"), rule::exclusive(service.deploy.mode));
        if service.container.environment.contains_key(FencingNumber::VARIABLE) {
            let field = format!("{at}.container.environment.{}", FencingNumber::VARIABLE);
            findings.add(field, "an exclusive service is given this variable at each start");
        }
    }
    labels(&service.deploy.labels, &format!("{at}.deploy.labels"), findings);
    if service.deploy.placement.max_replicas_per_node == Some(0) {
        let field = format!("{at}.deploy.placement.max_replicas_per_node");
        findings.add(field, "0 would leave no place at all: leave it out, or use 1 or more");
    }
    for (index, constraint) in service.deploy.placement.constraints.iter().enumerate() {
        let field = format!("{at}.deploy.placement.constraints[{index}].attribute");
        findings.rule(field, rule::attribute(&constraint.attribute));
    }
    for (index, preference) in service.deploy.placement.preferences.iter().enumerate() {
        let field = format!("{at}.deploy.placement.preferences[{index}].spread");
        findings.rule(field, rule::attribute(&preference.spread));
    }
    let Reservations { memory, .. } = service.deploy.reservations;
    let limit = service.container.limits.memory;
    findings.rule(format!("{at}.deploy.reservations.memory"), rule::reservation(memory, limit));
    if let Some(probe) = &service.probe {
        check_probe(probe, &format!("{at}.probe"), findings);
    }
    findings.range(format!("{at}.restart.delay"), &service.restart.delay, &rule::WAIT);
    if let Some(window) = service.restart.window {
        findings.range(format!("{at}.restart.window"), &window, &rule::WAIT);
    }
}

/// No two services of a project publish the same port.
pub(super) fn check_ports_between(project: &Project, findings: &mut Findings) {
    let mut seen: Vec<(&ServiceName, usize, &Port)> = Vec::new();
    for (name, service) in &project.services {
        for (index, port) in service.ports.iter().enumerate() {
            let Some(published) = port.published else { continue };
            // Two services that let the Engine bind one port are kept on different nodes.
            let can_part = |owner: &ServiceName, earlier: &Port| {
                owner != name && earlier.mode == PortMode::Host && port.mode == PortMode::Host
            };
            let earlier =
                seen.iter().find(|(owner, _, earlier)| clashes(earlier, port) && !can_part(owner, earlier));
            if let Some((owner, at, _)) = earlier {
                let message = format!(
                    "port {published} is published by `{owner}` already (services.{owner}.ports[{at}])"
                );
                findings.add(format!("spec.services.{name}.ports[{index}]"), message);
            }
            seen.push((name, index, port));
        }
    }
}

fn clashes(one: &Port, other: &Port) -> bool {
    let everywhere = |ip: Option<IpAddr>| ip.is_none_or(|ip| ip.is_unspecified());
    let same_place = everywhere(one.host_ip) || everywhere(other.host_ip) || one.host_ip == other.host_ip;
    one.published == other.published && one.protocol == other.protocol && same_place
}

fn check_port(port: &Port, at: &str, findings: &mut Findings) {
    findings.range(format!("{at}.target"), &port.target, &rule::PORT);
    if let Some(published) = port.published {
        findings.range(format!("{at}.published"), &published, &rule::PORT);
    }
    if port.protocol == Protocol::Udp && port.mode == PortMode::Ingress {
        findings.add(at, "UDP is not balanced yet: use `mode: host`");
    }
}

fn check_probe(probe: &Probe, at: &str, findings: &mut Findings) {
    findings.range(format!("{at}.port"), &probe.port, &rule::PORT);
    findings.range(format!("{at}.interval"), &probe.interval, &rule::PROBE_PACE);
    findings.range(format!("{at}.timeout"), &probe.timeout, &rule::PERIOD);
    findings.range(format!("{at}.start_period"), &probe.start_period, &rule::WAIT);
    findings.range(format!("{at}.retries"), &probe.retries, &rule::PROBE_RETRIES);
    if let ProbeCheck::Http(path) = &probe.check {
        findings.rule(format!("{at}.check"), rule::probe_path(path));
    }
}
