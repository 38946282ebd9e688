//! What proves who somebody is who has no certificate: a token. Only its hash is kept.

use serde::{Deserialize, Serialize};

use crate::name::{NodeId, ProjectName};
use crate::quantity::Timestamp;

/// A token as the control plane keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Token {
    /// Its id, which is no secret: it is part of the token, of lists and of events.
    pub id: String,
    /// What people call it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The SHA-256 of its secret, in hexadecimal digits.
    pub hash: String,
    /// What it is good for.
    pub grant: Grant,
    /// When it was made.
    pub created_at: Timestamp,
    /// After this it is good for nothing; `None`: it is good until it is removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// When it was last used, to the minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_at: Option<Timestamp>,
}

/// What a token is good for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Grant {
    /// To join as a node, and for nothing else.
    Join {
        /// The only id that the node may have; `None`: any that is free.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        node: Option<NodeId>,
        /// How many nodes may still join with it.
        uses: u32,
    },
    /// To use the API.
    Access {
        /// To do what.
        role: AccessRole,
        /// With which projects; empty: with all of them.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        projects: Vec<ProjectName>,
    },
}

/// What the holder of a token may do. A greater role may do all that a lesser one may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AccessRole {
    /// Look.
    Viewer,
    /// Deploy, scale, restart, remove and exec.
    Deployer,
    /// Everything: nodes and tokens too.
    Admin,
}

impl std::fmt::Display for AccessRole {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Viewer => "viewer",
            Self::Deployer => "deployer",
            Self::Admin => "admin",
        })
    }
}
