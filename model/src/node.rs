//! A machine with Docker and an agent.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::name::NodeId;
use crate::quantity::{Bytes, NanoCpus, Timestamp};

/// A node as the control plane keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Node {
    /// Its id.
    pub id: NodeId,
    /// What its agent says about it.
    pub info: NodeInfo,
    /// When it was first seen.
    pub joined_at: Timestamp,
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
}

/// What a machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Capacity {
    /// All its processors together.
    pub cpus: NanoCpus,
    /// Its memory.
    pub memory: Bytes,
}
