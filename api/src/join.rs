//! How a machine becomes a node, and how people who are elsewhere prove who they are: the bodies of
//! `POST /v1/join`, `POST /v1/renew`, `POST /v1/nodes/{node}/certificate`, `/v1/tokens` and `GET /v1/whoami`.

use serde::{Deserialize, Serialize};
use tug_model::token::{AccessRole, Grant};
use tug_model::{Millis, NodeId, ProjectName};

use crate::user::NodeStatus;

/// The body of `POST /v1/join`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JoinRequest {
    /// The token's text.
    pub token: String,
    /// A request for a certificate (PKCS #10, PEM). Only its key is used.
    pub csr: String,
    /// The id that the node wants; `None`: one like its host's name.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub node: Option<NodeId>,
    /// The machine's host name.
    pub hostname: String,
}

/// The answer: what the node is from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Joined {
    /// Its id.
    #[schema(value_type = String)]
    pub node: NodeId,
    /// The cluster's id.
    pub cluster: String,
    /// Its certificate and those up to the authority, in PEM.
    pub certificate: String,
    /// The authority's certificate, in PEM.
    pub authority: String,
    /// Where the control plane is reached, as `host:port`.
    pub servers: Vec<String>,
}

/// The body of `POST /v1/renew` and `POST /v1/nodes/{node}/certificate`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CertificateRequest {
    /// A request for a certificate (PKCS #10, PEM), signed with the key that the certificate shall be for.
    pub csr: String,
}

/// The body of `POST /v1/tokens`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// What people call it.
    #[serde(default)]
    pub name: String,
    /// What it shall be good for.
    pub grant: Grant,
    /// For how long; `None`: an hour for joining, 90 days for access.
    #[serde(default)]
    #[schema(value_type = Option<u64>)]
    pub life: Option<Millis>,
}

/// The answer: the only time that the token itself is told.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TokenMade {
    /// Its id.
    pub id: String,
    /// Its text.
    pub token: String,
    /// Where the control plane is reached, as `host:port`.
    pub servers: Vec<String>,
}

/// The answer of `GET /v1/whoami`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Whoami {
    /// Whoever may open the control plane's socket.
    Local,
    /// A node.
    Node {
        /// Which.
        #[schema(value_type = String)]
        node: NodeId,
        /// How it stands.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schema(no_recursion)]
        status: Option<Box<NodeStatus>>,
    },
    /// The holder of a token.
    Token {
        /// Its id.
        id: String,
        /// What it is called.
        name: String,
        /// What it may do.
        role: AccessRole,
        /// With which projects; empty: with all.
        #[schema(value_type = Vec<String>)]
        projects: Vec<ProjectName>,
    },
}

impl std::fmt::Debug for JoinRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { token: _, csr: _, node, hostname } = self;
        f.debug_struct("JoinRequest").field("node", node).field("hostname", hostname).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for TokenMade {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenMade").field("id", &self.id).finish_non_exhaustive()
    }
}
