//! Who the node is to its cluster, and how it proves it: a key that is made here and never leaves this machine, and a
//! certificate for it that the control plane signs, and signs anew before it ends.
//!
//! A node *is* its key: neither its host's name nor its address says who it is.

mod renewal;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use serde::{Deserialize, Serialize};
use tug_api::folder::{self, FolderError};
use tug_api::join::Joined;
use tug_api::tls::{self, Credentials, Identity, KeyPem, TlsError};
use tug_api::transport::TlsServer;
use tug_model::{NodeId, Timestamp};

pub(crate) use self::renewal::{Keeper, Way};
use crate::ledger;

/// What a node is in its cluster, as long as it is one. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Member {
    /// Its id.
    pub node: NodeId,
    /// The cluster's id.
    pub cluster: Arc<str>,
    /// The certificate of the cluster's authority, in PEM: whom to trust.
    pub authority_pem: Arc<str>,
    /// What it shows. A renewed certificate is shown by all clones.
    pub credentials: Credentials,
}

/// What is kept of a membership.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// What is known beside the certificate.
    pub facts: Facts,
    /// The key, its certificate, and the authority.
    pub identity: Identity,
}

/// What is known of a membership beside its certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// The node's id.
    pub node: NodeId,
    /// The cluster's id.
    pub cluster: String,
    /// How it became a node.
    pub origin: Origin,
    /// Where the control plane is reached, as `host:port`.
    pub servers: Vec<String>,
    /// When the certificate came.
    pub since: Timestamp,
}

/// How a machine became a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Origin {
    /// It is the control plane's own.
    Local,
    /// It joined with a token, from elsewhere.
    Joined {
        /// Where it was let in, as `host:port`: tried after the addresses that the control plane tells.
        at: String,
    },
}

/// Why an identity cannot be read, written or used.
#[derive(Debug, thiserror::Error)]
#[expect(clippy::error_impl_error, reason = "it is read as `identity::Error` where it is used")]
pub enum Error {
    /// The folder cannot be made, or is not ours alone.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The key or the certificate could not be read or written.
    #[error(transparent)]
    Files(#[from] tls::IdentityError),
    /// The rest could not be read or written.
    #[error("{doing} {}", path.display())]
    Facts {
        /// Reading or writing.
        doing: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What is there does not fit together.
    #[error("the identity in {} is damaged: remove that folder and join again", .0.display())]
    Damaged(PathBuf),
    /// The key is of no use.
    #[error("make or read the node's key")]
    Key(#[from] rcgen::Error),
    /// The certificate is of no use.
    #[error("use the node's certificate")]
    Tls(#[from] TlsError),
    /// The machine is no node yet.
    #[error("this machine is no node of a cluster: nothing is in {}", .0.display())]
    NotJoined(PathBuf),
}

/// The files of a node's identity.
#[derive(Debug, Clone)]
pub struct Folder {
    path: PathBuf,
}

const FACTS: &str = "membership.json";

// === impl Folder ===

impl Folder {
    /// The identity of the agent that keeps its state in `state_dir`. Nothing is made by looking.
    pub fn of(state_dir: &Path) -> Self {
        Self { path: state_dir.join("identity") }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether a key has been made; it is, before anybody is asked for a certificate.
    pub fn has_key(&self) -> Result<bool, Error> {
        Ok(KeyPem::load(&self.path)?.is_some())
    }

    /// A request for a certificate for the node's key, which is made now if there is none.
    pub fn request(&self) -> Result<String, Error> {
        folder::prepare(&self.path)?;
        let key = if let Some(key) = KeyPem::load(&self.path)? {
            KeyPair::from_pem(key.expose())?
        } else {
            let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
            KeyPem::new(key.serialize_pem()).save(&self.path)?;
            key
        };
        Ok(CertificateParams::default().serialize_request(&key)?.pem()?)
    }

    /// What is kept; `None`: the machine is no node yet.
    pub fn load(&self) -> Result<Option<Membership>, Error> {
        let path = self.path.join(FACTS);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(Error::Facts { doing: "read", path, source }),
        };
        let damaged = || Error::Damaged(self.path.clone());
        let facts = ledger::parse(&bytes).ok_or_else(damaged)?;
        let identity = Identity::load(&self.path)?.ok_or_else(damaged)?;
        Ok(Some(Membership { facts, identity }))
    }

    /// Keeps what the control plane answered at `now`. A crash leaves what was there before, or this.
    pub fn keep(&self, joined: Joined, origin: Origin, now: Timestamp) -> Result<Membership, Error> {
        let Joined { node, cluster, certificate, authority, servers } = joined;
        let key_pem = KeyPem::load(&self.path)?.ok_or_else(|| Error::NotJoined(self.path.clone()))?;
        let identity = Identity { certificate_pem: certificate, key_pem, authority_pem: authority };
        // One that cannot be shown shall not take the place of one that can.
        Credentials::new(&identity)?;
        let facts = Facts { node, cluster, origin, servers, since: now };
        identity.save(&self.path)?;
        let path = self.path.join(FACTS);
        let written =
            ledger::serialize(&facts).and_then(|bytes| ledger::replace(&path, &bytes, 0o600, (None, None)));
        written.map_err(|source| Error::Facts { doing: "write", path, source })?;
        Ok(Membership { facts, identity })
    }
}

// === impl Membership ===

impl Membership {
    /// Until when the certificate is valid; one that cannot be read is not.
    pub fn ends(&self) -> Timestamp {
        tls::end_of_certificate(&self.identity.certificate_pem).unwrap_or(Timestamp(0))
    }

    /// Where the control plane is reached, as `host:port`.
    pub fn addresses(&self) -> Vec<String> {
        let mut addresses = self.facts.servers.clone();
        match &self.facts.origin {
            Origin::Joined { at } if !addresses.contains(at) => addresses.push(at.clone()),
            Origin::Joined { .. } | Origin::Local => {}
        }
        addresses
    }

    /// How the control plane is reached. With `credentials` they are shown.
    pub fn server(&self, credentials: Option<&Credentials>) -> Result<TlsServer, TlsError> {
        Ok(TlsServer {
            addresses: self.addresses(),
            name: tls::server_name(),
            config: tls::client_config(&self.identity.authority_pem, credentials)?,
        })
    }

    fn member(&self) -> Result<Member, TlsError> {
        Ok(Member {
            node: self.facts.node.clone(),
            cluster: self.facts.cluster.as_str().into(),
            authority_pem: self.identity.authority_pem.as_str().into(),
            credentials: Credentials::new(&self.identity)?,
        })
    }
}
