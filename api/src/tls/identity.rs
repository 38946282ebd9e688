//! A key, its certificate and the authority that signed it, as files in one folder.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::TlsError;

/// Everything that a part of the cluster needs to prove who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Its certificate and those up to the authority, in PEM, its own first.
    pub certificate_pem: String,
    /// Its key.
    pub key_pem: KeyPem,
    /// The certificate of the cluster's authority, in PEM.
    pub authority_pem: String,
}

/// A private key in PEM. It does not show itself.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyPem(String);

/// Why an identity could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{doing} {}", path.display())]
pub struct IdentityError {
    doing: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// The names of the files.
const CERTIFICATE: &str = "certificate.pem";
const KEY: &str = "key.pem";
const AUTHORITY: &str = "authority.pem";

// === impl Identity ===

impl Identity {
    /// The identity in `folder`; `None` when there is none, or not all of it.
    pub fn load(folder: &Path) -> Result<Option<Self>, IdentityError> {
        let (Some(key), Some(certificate_pem), Some(authority_pem)) =
            (KeyPem::load(folder)?, read(&folder.join(CERTIFICATE))?, read(&folder.join(AUTHORITY))?)
        else {
            return Ok(None);
        };
        Ok(Some(Self { certificate_pem, key_pem: key, authority_pem }))
    }

    /// Puts it into `folder`, readable by its owner only. A crash leaves the old one or the new one.
    pub fn save(&self, folder: &Path) -> Result<(), IdentityError> {
        self.key_pem.save(folder)?;
        write(&folder.join(AUTHORITY), &self.authority_pem)?;
        write(&folder.join(CERTIFICATE), &self.certificate_pem)
    }
}

// === impl KeyPem ===

impl KeyPem {
    /// A key that is already PEM.
    pub fn new(pem: String) -> Self {
        Self(pem)
    }

    /// The key in `folder`, if there is one: it is made before there is a certificate for it.
    pub fn load(folder: &Path) -> Result<Option<Self>, IdentityError> {
        Ok(read(&folder.join(KEY))?.map(Self))
    }

    /// Puts it into `folder`.
    pub fn save(&self, folder: &Path) -> Result<(), IdentityError> {
        let wrong = |source| IdentityError { doing: "make", path: folder.to_path_buf(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(wrong)?;
        write(&folder.join(KEY), &self.0)
    }

    /// The PEM itself: to be handed to a library, never to be shown.
    pub fn expose(&self) -> &str {
        &self.0
    }

    pub(super) fn der(&self) -> Result<PrivateKeyDer<'static>, TlsError> {
        PrivateKeyDer::from_pem_slice(self.0.as_bytes())
            .map_err(|source| TlsError::Pem { what: "the key", source })
    }
}

impl fmt::Debug for KeyPem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyPem(…)")
    }
}

/// The certificates in a PEM text; there is at least one.
pub(super) fn certificates(pem: &str, what: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let wrong = |source| TlsError::Pem { what, source };
    let all: Vec<_> =
        CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().map_err(wrong)?;
    if all.is_empty() { Err(wrong(rustls::pki_types::pem::Error::NoItemsFound)) } else { Ok(all) }
}

fn read(path: &Path) -> Result<Option<String>, IdentityError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(IdentityError { doing: "read", path: path.to_path_buf(), source }),
    }
}

fn write(path: &Path, text: &str) -> Result<(), IdentityError> {
    let written = || {
        let next = path.with_extension("next");
        // What a crash left behind may have other rights.
        match fs::remove_file(&next) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&next)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&next, path)?;
        path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    };
    written().map_err(|source| IdentityError { doing: "write", path: path.to_path_buf(), source })
}
