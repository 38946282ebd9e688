//! How many replicas of a service there are, where they may run and how they change.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::quantity::{Bytes, NanoCpus};

/// Compose's `deploy:`, as far as it is not part of the container.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Deploy {
    /// How many.
    pub mode: Mode,
    /// What is kept free for each replica.
    pub reservations: Reservations,
    /// Where they may run.
    pub placement: Placement,
    /// Labels of the service, for people and tools.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// How many replicas, decided how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// This many, in the slots 1 to n.
    Replicated(u32),
    /// One on every node that fits.
    Global,
}

/// What is kept free on a node for each replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Reservations {
    /// Processor time.
    pub cpus: NanoCpus,
    /// Memory.
    pub memory: Bytes,
}

/// Where replicas may run.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Placement {
    /// All of these hold for the node.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub constraints: Vec<Constraint>,
    /// Among those nodes, replicas are spread evenly over these, the first before the second.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub preferences: Vec<Preference>,
    /// At most this many on one node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_replicas_per_node: Option<u32>,
}

/// A condition on a node, as in `node.role == manager`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Constraint {
    /// What is compared: `node.id`, `node.hostname`, `node.role`, `node.labels.KEY`, `node.platform.os` or `.arch`.
    pub attribute: String,
    /// `true` for `==`, `false` for `!=`.
    pub equal: bool,
    /// The value.
    pub value: String,
}

/// A wish for the placement of replicas.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Preference {
    /// Replicas are spread evenly over the values of this attribute of nodes, as in `node.labels.zone`. The nodes without
    /// it are one more such group.
    pub spread: String,
}

impl Mode {
    /// The largest number of replicas a service may ask for.
    pub const MOST_REPLICAS: u32 = 10_000;
}

impl Default for Mode {
    fn default() -> Self {
        Self::Replicated(1)
    }
}

impl std::fmt::Display for Constraint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { attribute, equal, value } = self;
        write!(f, "{attribute} {} {value}", if *equal { "==" } else { "!=" })
    }
}
