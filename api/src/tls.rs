//! Who is on the other side: mutual TLS between the parts of one cluster, and nothing else.
//!
//! Every part has an [`Identity`]: its key, a certificate that the cluster's own authority signed, and that authority.
//! Names in certificates say what somebody *is*, never where it is reached: the control plane is [`SERVER_NAME`], a node
//! is its id below [`NODE_SUFFIX`]. So an address may change without a new certificate.
//!
//! TLS 1.3 only, by rustls with ring. What is presented can be renewed at run time: [`Credentials`].

mod credentials;
mod identity;
mod peer;
mod pin;
mod refusal;

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::ServerName;
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

pub use self::credentials::Credentials;
pub use self::identity::{Identity, IdentityError, KeyPem};
pub use self::peer::{Caller, Peer, end_of_certificate, key_of_certificate, key_of_pem};
use self::pin::Pinned;
pub use self::refusal::{Refusal, refusal};

/// What the control plane's certificate names.
pub const SERVER_NAME: &str = "server.tug.internal";
/// What follows a node's id in its certificate.
pub const NODE_SUFFIX: &str = ".node.tug.internal";

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A certificate or key is not PEM, or not of a kind that is used here.
    #[error("read {what}")]
    Pem {
        /// What.
        what: &'static str,
        /// Why.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// A certificate and a key that TLS does not take.
    #[error("use {what}")]
    Use {
        /// What.
        what: &'static str,
        /// Why.
        #[source]
        source: rustls::Error,
    },
    /// Nobody's certificates would be accepted.
    #[error("check certificates against the authority")]
    Verifier(#[source] rustls::client::VerifierBuilderError),
}

/// Whether a client must show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientCertificates {
    /// It may: users have none.
    Optional,
    /// It must: only nodes are talked to.
    Required,
}

/// What a server of the cluster needs.
pub fn server_config(
    credentials: &Credentials,
    authority_pem: &str,
    clients: ClientCertificates,
) -> Result<Arc<ServerConfig>, TlsError> {
    let verifier = WebPkiClientVerifier::builder_with_provider(roots(authority_pem)?, provider());
    let verifier = match clients {
        ClientCertificates::Optional => verifier.allow_unauthenticated(),
        ClientCertificates::Required => verifier,
    };
    let verifier = verifier.build().map_err(TlsError::Verifier)?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|source| TlsError::Use { what: "TLS 1.3", source })?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(credentials.clone()));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // A session that is resumed would go on with a certificate that has ended: it is looked at in every handshake.
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// What a client needs that knows the cluster's authority; with `credentials` it shows a certificate.
pub fn client_config(
    authority_pem: &str,
    credentials: Option<&Credentials>,
) -> Result<Arc<ClientConfig>, TlsError> {
    let verifier = WebPkiServerVerifier::builder_with_provider(roots(authority_pem)?, provider());
    let verifier = verifier.build().map_err(TlsError::Verifier)?;
    let builder = client_builder()?.with_webpki_verifier(verifier);
    Ok(Arc::new(match credentials {
        None => builder.with_no_client_auth(),
        Some(credentials) => builder.with_client_cert_resolver(Arc::new(credentials.clone())),
    }))
}

/// What a client needs that knows only the SHA-256 of the authority's public key, in hexadecimal digits: whoever does not
/// show a chain to that authority is not talked to.
pub fn pinned_client_config(authority_key: &str) -> Result<Arc<ClientConfig>, TlsError> {
    let verifier = Arc::new(Pinned::new(authority_key, provider()));
    let builder = client_builder()?.dangerous().with_custom_certificate_verifier(verifier);
    Ok(Arc::new(builder.with_no_client_auth()))
}

/// The name that a client expects of the control plane.
pub fn server_name() -> ServerName<'static> {
    ServerName::try_from(SERVER_NAME).expect("a constant DNS name is valid")
}

/// The name that a client expects of the agent of `node`.
pub fn node_name(node: &tug_model::NodeId) -> Option<ServerName<'static>> {
    ServerName::try_from(format!("{node}{NODE_SUFFIX}")).ok()
}

fn client_builder() -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, TlsError> {
    ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|source| TlsError::Use { what: "TLS 1.3", source })
}

fn roots(authority_pem: &str) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in identity::certificates(authority_pem, "the authority's certificate")? {
        roots
            .add(certificate)
            .map_err(|source| TlsError::Use { what: "the authority's certificate", source })?;
    }
    Ok(Arc::new(roots))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

#[cfg(test)]
mod tests;
