//! What is true of a service beside its container: its ports, its number, its probe, its placement.

use std::net::IpAddr;

use tug_model::spec::Project;
use tug_model::spec::deploy::{Constraint, Mode};
use tug_model::spec::service::{Port, PortMode, Probe, ProbeCheck, Protocol, Service};
use tug_model::{Millis, ServiceName};

use super::{Findings, labels, shown};

/// The shortest and the longest time between probes.
const PROBE_PACE: std::ops::RangeInclusive<u64> = 100..=86_400_000;
const MOST_RETRIES: u32 = 1_000;

pub(super) fn check(service: &Service, at: &str, findings: &mut Findings) {
    for (index, port) in service.ports.iter().enumerate() {
        check_port(port, &format!("{at}.ports[{index}]"), findings);
    }
    for (index, port) in service.expose.iter().enumerate() {
        findings.range(format!("{at}.expose[{index}]"), port, 1..=u16::MAX);
    }
    if let Mode::Replicated(replicas) = service.deploy.mode {
        findings.range(format!("{at}.deploy.mode.replicated"), &replicas, 0..=Mode::MOST_REPLICAS);
    }
    labels(&service.deploy.labels, &format!("{at}.deploy.labels"), findings);
    if service.deploy.placement.max_replicas_per_node == Some(0) {
        let field = format!("{at}.deploy.placement.max_replicas_per_node");
        findings.add(field, "0 would leave no place at all: leave it out, or use 1 or more");
    }
    for (index, constraint) in service.deploy.placement.constraints.iter().enumerate() {
        check_constraint(constraint, &format!("{at}.deploy.placement.constraints[{index}]"), findings);
    }
    let limit = service.container.limits.memory;
    if limit.is_some_and(|limit| service.deploy.reservations.memory > limit) {
        findings.add(format!("{at}.deploy.reservations.memory"), "more is reserved than the limit allows");
    }
    if let Some(probe) = &service.probe {
        check_probe(probe, &format!("{at}.probe"), findings);
    }
    let day = Millis::from_secs(86_400).0;
    findings.range(format!("{at}.restart.delay"), &service.restart.delay.0, 0..=day);
    if let Some(window) = service.restart.window {
        findings.range(format!("{at}.restart.window"), &window.0, 0..=day);
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
    findings.range(format!("{at}.target"), &port.target, 1..=u16::MAX);
    if let Some(published) = port.published {
        findings.range(format!("{at}.published"), &published, 1..=u16::MAX);
    }
    if port.protocol == Protocol::Udp && port.mode == PortMode::Ingress {
        findings.add(at, "UDP is not balanced yet: use `mode: host`");
    }
}

fn check_constraint(constraint: &Constraint, at: &str, findings: &mut Findings) {
    let attribute = constraint.attribute.as_str();
    let known = ["node.id", "node.hostname", "node.role", "node.platform.os", "node.platform.arch"];
    let is_label = attribute.strip_prefix("node.labels.").is_some_and(|key| !key.is_empty());
    if !known.contains(&attribute) && !is_label {
        let message = format!(
            "`{}` is nothing that a node has: use {} or node.labels.KEY",
            shown(attribute),
            known.join(", ")
        );
        findings.add(format!("{at}.attribute"), message);
    }
}

fn check_probe(probe: &Probe, at: &str, findings: &mut Findings) {
    findings.range(format!("{at}.port"), &probe.port, 1..=u16::MAX);
    findings.range(format!("{at}.interval"), &probe.interval.0, PROBE_PACE);
    findings.range(format!("{at}.timeout"), &probe.timeout.0, 1..=*PROBE_PACE.end());
    findings.range(format!("{at}.start_period"), &probe.start_period.0, 0..=*PROBE_PACE.end());
    findings.range(format!("{at}.retries"), &probe.retries, 1..=MOST_RETRIES);
    if let ProbeCheck::Http(path) = &probe.check
        && (!path.starts_with('/') || path.len() > 2048 || path.chars().any(|c| c.is_control() || c == ' '))
    {
        let message =
            format!("`{}` is no path: it starts with / and has neither spaces nor line ends", shown(path));
        findings.add(format!("{at}.check"), message);
    }
}
