//! What is shown in a handshake: a certificate and its key, which may be renewed while connections are open.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::identity::{Identity, certificates};
use super::{TlsError, provider};

/// The certificate that is shown from now on. Cheap to clone; all clones show the same.
#[derive(Clone)]
pub struct Credentials(Arc<RwLock<Arc<CertifiedKey>>>);

// === impl Credentials ===

impl Credentials {
    /// Shows the certificate of `identity`.
    pub fn new(identity: &Identity) -> Result<Self, TlsError> {
        Ok(Self(Arc::new(RwLock::new(certified(identity)?))))
    }

    /// Shows the certificate of `identity` in every handshake from now on.
    pub fn replace(&self, identity: &Identity) -> Result<(), TlsError> {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = certified(identity)?;
        Ok(())
    }

    fn current(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials")
    }
}

impl ResolvesServerCert for Credentials {
    fn resolve(&self, _client: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }
}

impl ResolvesClientCert for Credentials {
    fn resolve(&self, _authorities: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

fn certified(identity: &Identity) -> Result<Arc<CertifiedKey>, TlsError> {
    let chain = certificates(&identity.certificate_pem, "the certificate")?;
    let provider: Arc<CryptoProvider> = provider();
    let certified = CertifiedKey::from_der(chain, identity.key_pem.der()?, &provider)
        .map_err(|source| TlsError::Use { what: "the certificate with its key", source })?;
    Ok(Arc::new(certified))
}
