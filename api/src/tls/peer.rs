//! Who the other side of a connection is, as far as the connection itself proves it.

use std::net::SocketAddr;

use tug_model::node::KeyId;
use tug_model::{NodeId, Timestamp};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::identity::certificates;
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

/// Until when the first certificate of a chain in PEM is valid; `None`: it is no certificate.
pub fn end_of_certificate(chain_pem: &str) -> Option<Timestamp> {
    let chain = certificates(chain_pem, "the certificate").ok()?;
    let (_, parsed) = X509Certificate::from_der(chain.first()?).ok()?;
    Some(Timestamp(u64::try_from(parsed.validity().not_after.timestamp()).ok()? * 1000))
}

/// The name of the key of the first certificate in PEM; `None`: it is no certificate.
pub fn key_of_pem(pem: &str) -> Option<KeyId> {
    key_of_certificate(certificates(pem, "the certificate").ok()?.first()?)
}

/// The name of the key in `certificate` (DER); `None`: it is no certificate.
pub fn key_of_certificate(certificate: &[u8]) -> Option<KeyId> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    Some(KeyId(sha256(parsed.public_key().raw)))
}
