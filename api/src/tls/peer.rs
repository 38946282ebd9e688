//! Who the other side of a connection is, as far as the connection itself proves it.

use std::net::SocketAddr;

use tug_model::NodeId;
use tug_model::node::KeyId;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{NODE_SUFFIX, SERVER_NAME};
use crate::digest::sha256;

/// The other side of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// Somebody on this machine who may open the control plane's socket.
    Local,
    /// The agent of a node, by its certificate.
    Node {
        /// Which node.
        node: NodeId,
        /// Its key.
        key: KeyId,
    },
    /// The control plane, by its certificate.
    Server,
    /// Somebody without a certificate.
    Nobody,
}

/// What a server knows of a connection: an extension of each of its requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Who it is.
    pub peer: Peer,
    /// Where it comes from; `None`: this machine.
    pub address: Option<SocketAddr>,
}

// === impl Peer ===

impl Peer {
    /// Who showed `certificate` (DER), which has been verified. One that names nothing of ours is nobody.
    pub fn of_certificate(certificate: &[u8]) -> Self {
        let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return Self::Nobody };
        let Ok(Some(names)) = parsed.subject_alternative_name() else { return Self::Nobody };
        let [GeneralName::DNSName(name)] = names.value.general_names[..] else { return Self::Nobody };
        if name == SERVER_NAME {
            return Self::Server;
        }
        match name.strip_suffix(NODE_SUFFIX).map(NodeId::parse) {
            Some(Ok(node)) => Self::Node { node, key: KeyId(sha256(parsed.public_key().raw)) },
            Some(Err(_)) | None => Self::Nobody,
        }
    }
}

/// The name of the key in `certificate` (DER); `None`: it is no certificate.
pub fn key_of_certificate(certificate: &[u8]) -> Option<KeyId> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    Some(KeyId(sha256(parsed.public_key().raw)))
}
