//! One service: its container, how many, where it is published and when it may start.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::container::Container;
use super::deploy::Deploy;
use crate::name::ServiceName;
use crate::quantity::Millis;

/// An image and how to run it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// What each replica is made of.
    pub container: Container,
    /// How many, where, and how they change.
    #[serde(default)]
    pub deploy: Deploy,
    /// What the world may reach.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<Port>,
    /// Container ports named under `expose`, and those of the image are not among them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expose: Vec<u16>,
    /// What must be true of other services before a task of this one is started.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = BTreeMap<String, Dependency>)]
    pub depends_on: BTreeMap<ServiceName, Dependency>,
    /// When the agent starts a task again after it ended.
    #[serde(default)]
    pub restart: Restart,
    /// A probe that the agent itself makes (`x-probe`), beside the Engine's own health check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<Probe>,
    /// Never two of it at once, whatever breaks (`x-exclusive`): each start is made under a lease of its node.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub exclusive: bool,
    /// Raised by `tug restart`: a new number is a new container.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub restarts_asked: u64,
}

/// A published port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// The port inside the container.
    pub target: u16,
    /// The port on the node; `None` lets the node choose a free one when the route is first opened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published: Option<u16>,
    /// The address on the node; `None` is every address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub host_ip: Option<IpAddr>,
    /// TCP or UDP.
    #[serde(default)]
    pub protocol: Protocol,
    /// Who opens it.
    #[serde(default)]
    pub mode: PortMode,
    /// What is spoken inside, as a hint for probes and ingress: `http`, `https`, `h2c` …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_protocol: Option<String>,
}

/// The transport of a port.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// Balanced by the agent, connection by connection.
    #[default]
    Tcp,
    /// Only with [`PortMode::Host`] so far.
    Udp,
}

/// Who opens a published port.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum PortMode {
    /// The agent listens and balances over the healthy replicas.
    #[default]
    Ingress,
    /// The Engine binds the port for the one container; two tasks of it cannot share a node.
    Host,
}

/// A condition on another service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Dependency {
    /// What must be true of it.
    pub condition: Condition,
    /// `false`: a dependency that is not part of the project, or cannot be met, is only warned about.
    pub required: bool,
}

/// What must be true of a service that another one depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// At least one of its tasks has started.
    Started,
    /// Every slot of it has a healthy task.
    Healthy,
    /// Every slot of it has run and ended with exit code 0.
    CompletedSuccessfully,
}

/// When the agent starts a task again after its process ended.
///
/// The wait doubles from `delay` with every start that did not last, up to [`Restart::LONGEST_WAIT`], and begins anew
/// after a run of [`Restart::GOOD_RUN`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Restart {
    /// Which ends are followed by a start.
    pub condition: RestartOn,
    /// The wait before the first start again.
    pub delay: Millis,
    /// How many starts in a row, `None` without end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u32>,
    /// How long a run must last to count as a success; `None` is [`Restart::GOOD_RUN`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<Millis>,
}

/// Which ends of a process are followed by a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RestartOn {
    /// None: the task runs once and is then complete or failed.
    Never,
    /// An exit code other than 0, or a signal.
    Failure,
    /// Every end.
    #[default]
    Any,
}

/// A probe made by the agent against the container's own address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    /// What is asked.
    pub check: ProbeCheck,
    /// The container port that is asked.
    pub port: u16,
    /// From the end of one probe to the start of the next.
    pub interval: Millis,
    /// How long one probe may take.
    pub timeout: Millis,
    /// How many failures in a row make a healthy task unhealthy.
    pub retries: u32,
    /// Failures do not count for this long after the start.
    pub start_period: Millis,
}

/// What a probe asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProbeCheck {
    /// A TCP connection is accepted.
    Tcp,
    /// `GET` of this path answers with a status below 400.
    Http(String),
}

// === impl Restart ===

impl Restart {
    /// The wait never grows beyond this.
    pub const LONGEST_WAIT: Millis = Millis::from_secs(300);
    /// A run of this length ends a series of failed starts.
    pub const GOOD_RUN: Millis = Millis::from_secs(10);
    /// The wait before the first start again, where the manifest does not say.
    pub const FIRST_WAIT: Millis = Millis(100);
}

impl Default for Restart {
    fn default() -> Self {
        Self { condition: RestartOn::Any, delay: Self::FIRST_WAIT, max_attempts: None, window: None }
    }
}

// === impl Service ===

impl Service {
    /// How the agent learns whether a task serves: an explicit probe, or, where the container has no health check
    /// either, a TCP connection to its first published port. `None` trusts the Engine's health check or, without
    /// one, takes a running process for healthy.
    pub fn effective_probe(&self) -> Option<Probe> {
        if let Some(probe) = &self.probe {
            return Some(probe.clone());
        }
        if self.container.healthcheck.is_some() {
            return None;
        }
        let port = self.ports.iter().find(|p| p.protocol == Protocol::Tcp && p.mode == PortMode::Ingress)?;
        Some(Probe::tcp(port.target))
    }

    /// Whether an old task must have gone before its successor starts: two of them would clash over a host port, an
    /// address or a volume that both write to, or are not to be.
    pub fn is_stop_first(&self) -> bool {
        self.exclusive
            || self.ports.iter().any(|port| port.mode == PortMode::Host)
            || self.container.network_mode == super::container::NetworkMode::Host
            || self.container.networks.values().any(super::container::Attachment::is_fixed)
            || self.container.mounts.iter().any(super::container::Mount::is_written)
    }
}

impl Probe {
    /// A TCP probe of `port` at the usual pace.
    pub fn tcp(port: u16) -> Self {
        Self {
            check: ProbeCheck::Tcp,
            port,
            interval: Millis(1000),
            timeout: Millis(2000),
            retries: 3,
            start_period: Millis(0),
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}
