//! What is true of a container: its image, its environment, its health check, its limits, its networks.

use tug_model::spec::Project;
use tug_model::spec::container::{Container, Healthcheck, Limits, NetworkMode};
use tug_model::spec::rule::{self, shown};
use tug_model::spec::service::Service;

use super::{Findings, labels};

pub(super) fn check(project: &Project, service: &Service, at: &str, findings: &mut Findings) {
    let container = &service.container;
    findings.rule(format!("{at}.image"), rule::image(&container.image));
    environment(container, at, findings);
    labels(&container.labels, &format!("{at}.labels"), findings);
    labels(&container.annotations, &format!("{at}.annotations"), findings);
    networks(project, container, at, findings);
    if let Some(check) = &container.healthcheck {
        healthcheck(check, &format!("{at}.healthcheck"), findings);
    }
    limits(&container.limits, &format!("{at}.limits"), findings);
    findings.range(format!("{at}.stop_grace_period"), &container.stop_grace_period.0, &rule::WAIT);
    for (index, host) in container.extra_hosts.iter().enumerate() {
        findings.rule(format!("{at}.extra_hosts[{index}]"), rule::extra_host(&host.host, &host.address));
    }
    for (field, text) in [("hostname", &container.hostname), ("domainname", &container.domainname)] {
        if let Some(text) = text {
            findings.rule(format!("{at}.{field}"), rule::host_name(text));
        }
    }
}

fn environment(container: &Container, at: &str, findings: &mut Findings) {
    findings.rule(format!("{at}.environment"), rule::variables(container.environment.len()));
    for (key, value) in &container.environment {
        findings.rule(format!("{at}.environment.{}", shown(key)), rule::variable(key, value));
    }
}

fn networks(project: &Project, container: &Container, at: &str, findings: &mut Findings) {
    for name in container.networks.keys() {
        if !project.networks.contains_key(name) {
            let message = format!("`{name}` is no network of the project");
            findings.add(format!("{at}.networks.{name}"), message);
        }
    }
    if container.network_mode != NetworkMode::Bridge && !container.networks.is_empty() {
        let message = "a container with the host's network, or without any, joins no others";
        findings.add(format!("{at}.network_mode"), message);
    }
}

fn healthcheck(check: &Healthcheck, at: &str, findings: &mut Findings) {
    findings.rule(format!("{at}.test"), rule::health_test(&check.test));
    let Healthcheck { interval, timeout, start_interval, start_period, retries, .. } = check;
    for (field, time) in [("interval", interval), ("timeout", timeout), ("start_interval", start_interval)] {
        if let Some(time) = time {
            findings.range(format!("{at}.{field}"), time, &rule::PERIOD);
        }
    }
    if let Some(time) = start_period {
        findings.range(format!("{at}.start_period"), time, &rule::WAIT);
    }
    if let Some(retries) = retries {
        findings.range(format!("{at}.retries"), retries, &rule::HEALTH_RETRIES);
    }
}

fn limits(limits: &Limits, at: &str, findings: &mut Findings) {
    if let Some(cpus) = limits.cpus {
        findings.rule(format!("{at}.cpus"), rule::cpus(cpus));
    }
    for (field, memory) in [("memory", limits.memory), ("memory_reservation", limits.memory_reservation)] {
        if let Some(memory) = memory {
            findings.rule(format!("{at}.{field}"), rule::memory(memory));
        }
    }
    if let Some(kept) = limits.memory_reservation {
        findings.rule(format!("{at}.memory_reservation"), rule::reservation(kept, limits.memory));
    }
    if let Some(swappiness) = limits.memory_swappiness {
        findings.range(format!("{at}.memory_swappiness"), &swappiness, &rule::SWAPPINESS);
    }
    if let Some(score) = limits.oom_score_adj {
        findings.range(format!("{at}.oom_score_adj"), &score, &rule::OOM_SCORE);
    }
    for (index, limit) in limits.ulimits.iter().enumerate() {
        findings.rule(format!("{at}.ulimits[{index}]"), rule::ulimit(limit.soft, limit.hard));
    }
}
