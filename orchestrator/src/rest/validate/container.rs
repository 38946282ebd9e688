//! What is true of a container: its image, its environment, its health check, its limits, its networks.

use tug_model::spec::Project;
use tug_model::spec::container::{Container, Healthcheck, Limits, NetworkMode};
use tug_model::spec::service::Service;
use tug_model::{Bytes, NanoCpus};

use super::{Findings, image, labels, shown};

/// What the Engine takes at least.
const LEAST_MEMORY: Bytes = Bytes(6 << 20);
const LEAST_CPUS: NanoCpus = NanoCpus(1_000_000);
/// The kernel takes no longer variable.
const LONGEST_VARIABLE: usize = 128 << 10;
const MOST_VARIABLES: usize = 4_096;
const MOST_RETRIES: u32 = 1_000;
/// A health check that runs less often than once a day checks nothing.
const LONGEST: u64 = 86_400_000;

pub(super) fn check(project: &Project, service: &Service, at: &str, findings: &mut Findings) {
    let container = &service.container;
    if let Some(mistake) = image::mistake(&container.image) {
        let message = format!("`{}` names no image: {mistake}", shown(&container.image));
        findings.add(format!("{at}.image"), message);
    }
    environment(container, at, findings);
    labels(&container.labels, &format!("{at}.labels"), findings);
    labels(&container.annotations, &format!("{at}.annotations"), findings);
    networks(project, container, at, findings);
    if let Some(check) = &container.healthcheck {
        healthcheck(check, &format!("{at}.healthcheck"), findings);
    }
    limits(&container.limits, &format!("{at}.limits"), findings);
    findings.range(format!("{at}.stop_grace_period"), &container.stop_grace_period.0.0, 0..=LONGEST);
    for (index, host) in container.extra_hosts.iter().enumerate() {
        let is_address = host.address == "host-gateway" || host.address.parse::<std::net::IpAddr>().is_ok();
        if !is_address {
            let message = format!("`{}` is neither an address nor `host-gateway`", shown(&host.address));
            findings.add(format!("{at}.extra_hosts[{index}].address"), message);
        }
        if host.host.is_empty() || host.host.chars().any(|c| c.is_whitespace() || c.is_control()) {
            findings.add(format!("{at}.extra_hosts[{index}].host"), "a host name has no spaces");
        }
    }
    for (field, text) in [("hostname", &container.hostname), ("domainname", &container.domainname)] {
        if let Some(text) = text
            && (text.is_empty()
                || text.len() > 253
                || text.chars().any(|c| c.is_whitespace() || c.is_control()))
        {
            findings.add(format!("{at}.{field}"), format!("`{}` is no host name", shown(text)));
        }
    }
}

fn environment(container: &Container, at: &str, findings: &mut Findings) {
    if container.environment.len() > MOST_VARIABLES {
        findings.add(format!("{at}.environment"), format!("more than {MOST_VARIABLES} variables"));
    }
    for (key, value) in &container.environment {
        let field = format!("{at}.environment.{}", shown(key));
        // The value may be a secret, so it is never shown.
        if key.is_empty() || key.contains('=') {
            findings.add(&field, "the name of a variable is not empty and holds no `=`");
        }
        if key.len() + value.len() + 2 > LONGEST_VARIABLE {
            findings.add(&field, format!("a variable is at most {} KiB", LONGEST_VARIABLE >> 10));
        }
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
    match check.test.first().map(String::as_str) {
        None => {}
        Some("NONE") if check.test.len() == 1 => {}
        Some("CMD-SHELL") if check.test.len() == 2 => {}
        Some("CMD") if check.test.len() >= 2 => {}
        Some(_) => {
            let message = "use [\"CMD\", PROGRAM, …], [\"CMD-SHELL\", LINE] or [\"NONE\"]";
            findings.add(format!("{at}.test"), message);
        }
    }
    let Healthcheck { interval, timeout, start_interval, start_period, retries, .. } = check;
    for (field, time) in [("interval", interval), ("timeout", timeout), ("start_interval", start_interval)] {
        if let Some(time) = time {
            findings.range(format!("{at}.{field}"), &time.0, 1..=LONGEST);
        }
    }
    if let Some(time) = start_period {
        findings.range(format!("{at}.start_period"), &time.0, 0..=LONGEST);
    }
    if let Some(retries) = retries {
        findings.range(format!("{at}.retries"), retries, 0..=MOST_RETRIES);
    }
}

fn limits(limits: &Limits, at: &str, findings: &mut Findings) {
    if limits.cpus.is_some_and(|cpus| cpus < LEAST_CPUS) {
        findings.add(format!("{at}.cpus"), format!("at least {LEAST_CPUS} of a processor, e.g. 0.5"));
    }
    for (field, memory) in [("memory", limits.memory), ("memory_reservation", limits.memory_reservation)] {
        if let Some(memory) = memory.filter(|memory| *memory < LEAST_MEMORY) {
            let message =
                format!("{memory} is less than the {LEAST_MEMORY} that the Engine asks for; write e.g. 512m");
            findings.add(format!("{at}.{field}"), message);
        }
        if memory.is_some_and(|memory| i64::try_from(memory.0).is_err()) {
            findings.add(format!("{at}.{field}"), "that is more than any machine has");
        }
    }
    if let (Some(memory), Some(kept)) = (limits.memory, limits.memory_reservation)
        && kept > memory
    {
        findings.add(format!("{at}.memory_reservation"), "more is reserved than the limit allows");
    }
    if let Some(swappiness) = limits.memory_swappiness {
        findings.range(format!("{at}.memory_swappiness"), &swappiness, 0..=100);
    }
    if let Some(score) = limits.oom_score_adj {
        findings.range(format!("{at}.oom_score_adj"), &score, -1000..=1000);
    }
    for (index, limit) in limits.ulimits.iter().enumerate() {
        let (soft, hard) = (limit.soft, limit.hard);
        if soft < -1 || hard < -1 || (hard != -1 && (soft > hard || soft == -1)) {
            let message =
                format!("`{}`: the soft limit is at most the hard one; -1 is none", shown(&limit.name));
            findings.add(format!("{at}.ulimits[{index}]"), message);
        }
    }
}
