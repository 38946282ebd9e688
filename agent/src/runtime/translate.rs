//! From the manifest's words to the Engine's: pure functions, so that every field can be checked without an engine.
//!
//! A container is made with its first network only and joined to the others before its start, because engines before
//! API 1.44 take one endpoint at creation. Ports of [`PortMode::Ingress`](tug_model::spec::service::PortMode) are
//! exposed but not bound: the agent's balancer connects to the container's own address.

mod host;
mod mounts;
mod resource;

use std::collections::{BTreeMap, HashMap};

use bollard::models::{
    ContainerCreateBody, EndpointIpamConfig, EndpointSettings, HealthConfig, NetworkingConfig,
};
use tug_model::lease::FencingNumber;
use tug_model::quantity::Millis;
use tug_model::spec::container::{Attachment, Container, Healthcheck, NetworkMode, StopGrace};
use tug_model::spec::service::{Port, Protocol};
use tug_model::{NetworkName, NodeId, ProjectName, VolumeName};

use super::{ContainerRequest, Identity, label};

pub(crate) use resource::{differences, network, network_settings, volume, volume_settings};

/// What the Engine is asked for to make one container.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Creation {
    /// The container's name.
    pub(crate) name: String,
    /// `os/arch[/variant]`.
    pub(crate) platform: Option<String>,
    /// The container, on its first network.
    pub(crate) body: ContainerCreateBody,
    /// The networks that it joins before it is started, by their names in the Engine.
    pub(crate) connections: Vec<(String, EndpointSettings)>,
}

/// Why a container cannot be put into the Engine's words. None of these happens with an assignment that is whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Untranslatable {
    /// A network that the project does not have.
    #[error("the project has no network `{0}`")]
    Network(NetworkName),
    /// A volume that the project does not have.
    #[error("the project has no volume `{0}`")]
    Volume(VolumeName),
    /// A config without a file.
    #[error("there is no file for config `{0}`")]
    Config(String),
    /// A word that the Engine does not know.
    #[error("`{0}` is not a mount propagation")]
    Propagation(String),
}

/// Whose a network or volume is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Owner<'a> {
    pub(crate) node: &'a NodeId,
    pub(crate) project: &'a ProjectName,
    pub(crate) key: &'a str,
}

/// What the Engine is asked for to make the container of `request`.
pub(crate) fn container(request: &ContainerRequest) -> Result<Creation, Untranslatable> {
    let container = &request.template.container;
    let mut endpoints = endpoints(request)?.into_iter();
    let first = endpoints.next();
    let network_mode = match (container.network_mode, &first) {
        (NetworkMode::Host, _) => "host".to_owned(),
        (NetworkMode::None, _) => "none".to_owned(),
        (NetworkMode::Bridge, Some((name, _))) => name.clone(),
        (NetworkMode::Bridge, None) => "bridge".to_owned(),
    };
    let host_config = host::config(request, network_mode)?;
    let networking_config =
        first.map(|endpoint| NetworkingConfig { endpoints_config: Some(HashMap::from([endpoint])) });
    Ok(Creation {
        name: request.identity.task.to_string(),
        platform: container.platform.clone(),
        body: ContainerCreateBody {
            image: Some(request.image.clone()),
            exposed_ports: Some(exposed_ports(&request.template.exposed, &request.template.host_ports)),
            labels: Some(labels(&container.labels, &request.identity)),
            host_config: Some(host_config),
            networking_config,
            ..process(container, request.identity.fencing)
        },
        connections: endpoints.collect(),
    })
}

/// The labels by which a container is known again, over those that the manifest gives it.
fn labels(given: &BTreeMap<String, String>, identity: &Identity) -> HashMap<String, String> {
    let ours = [
        (label::CLUSTER, identity.cluster.clone()),
        (label::NODE, identity.node.to_string()),
        (label::TASK, identity.task.to_string()),
        (label::PROJECT, identity.project.to_string()),
        (label::SERVICE, identity.service.to_string()),
        (label::SLOT, identity.slot.to_string()),
        (label::TEMPLATE, identity.template.to_string()),
    ];
    let mut labels: HashMap<_, _> = given.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
    labels.extend(ours.map(|(key, value)| (key.to_owned(), value)));
    labels.extend(identity.fencing.map(|number| (label::FENCING.to_owned(), number.to_string())));
    labels
}

/// What runs in it.
fn process(container: &Container, fencing: Option<FencingNumber>) -> ContainerCreateBody {
    let StopGrace(grace) = container.stop_grace_period;
    let environment = container.environment.iter().map(|(name, value)| format!("{name}={value}"));
    let fencing = fencing.map(|number| format!("{}={number}", FencingNumber::VARIABLE));
    ContainerCreateBody {
        hostname: container.hostname.clone(),
        domainname: container.domainname.clone(),
        user: container.user.clone(),
        tty: Some(container.tty),
        open_stdin: Some(container.stdin_open),
        env: list(environment.chain(fencing)),
        entrypoint: container.entrypoint.clone(),
        cmd: container.command.clone(),
        working_dir: container.working_dir.clone(),
        healthcheck: container.healthcheck.as_ref().map(healthcheck),
        stop_signal: container.stop_signal.clone(),
        stop_timeout: Some(signed(grace.0.div_ceil(1000))),
        ..ContainerCreateBody::default()
    }
}

fn healthcheck(check: &Healthcheck) -> HealthConfig {
    let nanoseconds = |time: Option<Millis>| time.map(|Millis(time)| signed(time.saturating_mul(1_000_000)));
    HealthConfig {
        test: list(check.test.iter().cloned()),
        interval: nanoseconds(check.interval),
        timeout: nanoseconds(check.timeout),
        retries: check.retries.map(i64::from),
        start_period: nanoseconds(check.start_period),
        start_interval: nanoseconds(check.start_interval),
    }
}

fn exposed_ports(exposed: &[u16], bound: &[Port]) -> Vec<String> {
    let mut ports: Vec<String> = exposed.iter().map(|port| format!("{port}/tcp")).collect();
    ports.extend(bound.iter().map(port_key));
    ports.sort_unstable();
    ports.dedup();
    ports
}

/// A container port as the Engine writes it.
fn port_key(port: &Port) -> String {
    let protocol = match port.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    };
    format!("{}/{protocol}", port.target)
}

/// The networks in the order in which they are joined, by their names in the Engine.
fn endpoints(request: &ContainerRequest) -> Result<Vec<(String, EndpointSettings)>, Untranslatable> {
    let container = &request.template.container;
    if container.network_mode != NetworkMode::Bridge {
        return Ok(Vec::new());
    }
    let mut attachments: Vec<_> = container.networks.iter().collect();
    attachments.sort_by_key(|(_, attachment)| std::cmp::Reverse(attachment.priority.unwrap_or(0)));
    attachments
        .into_iter()
        .map(|(key, attachment)| {
            let network = request.resources.networks.get(key);
            let network = network.ok_or_else(|| Untranslatable::Network(key.clone()))?;
            Ok((network.engine_name.clone(), endpoint(request, attachment)))
        })
        .collect()
}

fn endpoint(request: &ContainerRequest, attachment: &Attachment) -> EndpointSettings {
    let Attachment { aliases: given, ipv4_address, ipv6_address, mac_address, priority: _, driver_opts } =
        attachment;
    let mut aliases = vec![request.identity.service.to_string()];
    for alias in request.template.container.container_name.iter().chain(given) {
        if !aliases.contains(alias) {
            aliases.push(alias.clone());
        }
    }
    let fixed = ipv4_address.is_some() || ipv6_address.is_some();
    EndpointSettings {
        aliases: Some(aliases),
        ipam_config: fixed.then(|| EndpointIpamConfig {
            ipv4_address: ipv4_address.map(|address| address.to_string()),
            ipv6_address: ipv6_address.map(|address| address.to_string()),
            link_local_ips: None,
        }),
        mac_address: mac_address.clone(),
        driver_opts: map(driver_opts),
        ..EndpointSettings::default()
    }
}

/// A map in the Engine's type; an empty one is left out.
fn map(source: &BTreeMap<String, String>) -> Option<HashMap<String, String>> {
    (!source.is_empty()).then(|| source.iter().map(|(key, value)| (key.clone(), value.clone())).collect())
}

/// A list; an empty one is left out.
fn list<T>(items: impl IntoIterator<Item = T>) -> Option<Vec<T>> {
    let items: Vec<T> = items.into_iter().collect();
    (!items.is_empty()).then_some(items)
}

/// A number in the Engine's type.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
