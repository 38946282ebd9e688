//! A machine with Docker and an agent.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::name::NodeId;
use crate::quantity::{Bytes, Millis, NanoCpus, Timestamp};

/// A node as the control plane keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Node {
    /// Its id.
    pub id: NodeId,
    /// What its agent says about it.
    pub info: NodeInfo,
    /// When it was first seen.
    pub joined_at: Timestamp,
    /// The key that its agent proves to have; `None`: it has only ever linked over the control plane's own socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<KeyId>,
    /// Whether the control plane is on it.
    #[serde(default)]
    pub role: Role,
    /// Labels that people gave it, beside those that its agent was started with. They win over those.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Whether it is to be given tasks.
    #[serde(default)]
    pub availability: Availability,
}

/// The name of a key: the SHA-256 of its public half (`SubjectPublicKeyInfo`), in hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(transparent)]
pub struct KeyId(pub String);

/// What a node is to the cluster.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The control plane runs there.
    #[default]
    Manager,
    /// It joined from elsewhere.
    Worker,
}

/// Whether a node is to be given tasks. Written only on a user's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum Availability {
    /// It is.
    #[default]
    Active,
    /// It is to be emptied: replacements start first, elsewhere.
    Drain {
        /// Since when.
        at: Timestamp,
        /// After this time what is left is stopped, replaced or not; `None`: it is waited for.
        #[serde(default)]
        deadline: Option<Millis>,
    },
}

/// What an agent says about its machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct NodeInfo {
    /// The machine's host name.
    pub hostname: String,
    /// `linux`.
    pub os: String,
    /// In Docker's words: `amd64`, `arm64` …
    pub arch: String,
    /// What replicas may use.
    pub capacity: Capacity,
    /// Labels that placement may ask for.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// The Engine's version, such as `28.2.2`.
    pub engine_version: String,
    /// The version of the agent.
    pub agent_version: String,
    /// Where the agents of other nodes reach this one, as `host:port`; `None`: they cannot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

/// What a machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Capacity {
    /// All its processors together.
    pub cpus: NanoCpus,
    /// Its memory.
    pub memory: Bytes,
}

// === impl Node ===

impl Node {
    /// A node whose agent has just been heard of for the first time.
    pub fn new(id: NodeId, info: NodeInfo, joined_at: Timestamp) -> Self {
        let (key, role, labels, availability) = Default::default();
        Self { id, info, joined_at, key, role, labels, availability }
    }

    /// The value of a label: what people gave it, else what its agent was started with.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.get(key).or_else(|| self.info.labels.get(key)).map(String::as_str)
    }

    /// Whether it is to be given tasks.
    pub fn is_active(&self) -> bool {
        self.availability == Availability::Active
    }
}

impl Role {
    /// The role as it is written in JSON, in constraints, and shown to people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Manager => "manager",
            Self::Worker => "worker",
        }
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}
