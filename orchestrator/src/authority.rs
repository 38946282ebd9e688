//! The cluster's certificate authority: it says who the control plane is, and who the nodes are.
//!
//! Its key is made at the first start and never leaves the state folder. Of what a node asks for it takes nothing but the
//! key: names, uses and times are its own. Certificates are valid from an hour before they are made, so that clocks may
//! differ.

use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PublicKeyData,
};
use time::OffsetDateTime;
use tug_api::digest::sha256;
use tug_api::tls::{Identity, IdentityError, KeyPem, NODE_SUFFIX, SERVER_NAME};
use tug_model::node::KeyId;
use tug_model::{Millis, NodeId, Timestamp};

/// How long the authority itself is valid.
const OWN_LIFE: Millis = Millis::from_secs(10 * 365 * 24 * 60 * 60);
/// Certificates are valid from so long before they are made.
const BACKDATED: Millis = Millis::from_secs(60 * 60);
/// The longest request for a certificate that is read, in bytes.
const LONGEST_REQUEST: usize = 16 << 10;

/// Signs certificates.
#[derive(Debug)]
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    key: KeyId,
    /// How long the certificates are valid that it signs.
    life: Millis,
}

/// A certificate that was signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Signed {
    /// It, and the authority's own, in PEM.
    pub(crate) chain: String,
    /// Whose key it is for.
    pub(crate) key: KeyId,
}

/// Why there is no authority.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// Its files cannot be read or written.
    #[error("keep the cluster's authority")]
    Keep(#[from] IdentityError),
    /// A key or certificate could not be made or read.
    #[error("make or read a certificate")]
    Certificate(#[from] rcgen::Error),
}

/// Why no certificate is signed for a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RequestError {
    /// It is no request, or not signed by the key that it names.
    #[error("this is no request for a certificate (PKCS #10 in PEM), or it is not signed with its own key")]
    Unreadable,
    /// Its key could be guessed.
    #[error("the key of the request is too weak: use ECDSA with P-256 or P-384, or Ed25519")]
    WeakKey,
    /// It could not be signed.
    #[error("the certificate could not be signed")]
    Unsigned,
}

// === impl Authority ===

impl Authority {
    /// The authority in `folder`, made now if there is none. It signs for `life`.
    pub(crate) fn open(
        folder: &Path,
        cluster: &str,
        life: Millis,
        now: Timestamp,
    ) -> Result<Self, AuthorityError> {
        let identity = if let Some(identity) = Identity::load(folder)? {
            identity
        } else {
            let identity = Self::make(cluster, KeyPem::load(folder)?, now)?;
            identity.save(folder)?;
            identity
        };
        Self::of(&identity, life)
    }

    /// One that is kept nowhere.
    #[cfg(test)]
    pub(crate) fn for_test(cluster: &str, life: Millis, now: Timestamp) -> Self {
        let identity = Self::make(cluster, None, now).expect("a new authority can be made");
        Self::of(&identity, life).expect("a new authority can be used")
    }

    /// An authority with `key`, or with a new one. Whoever trusts an authority with the same key trusts this one too.
    fn make(cluster: &str, key: Option<KeyPem>, now: Timestamp) -> Result<Identity, AuthorityError> {
        let key = match key {
            Some(pem) => KeyPair::from_pem(pem.expose())?,
            None => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?,
        };
        let mut params = valid(CertificateParams::new(Vec::new())?, now, OWN_LIFE);
        params.distinguished_name = name(&format!("Tug cluster {cluster}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let pem = params.self_signed(&key)?.pem();
        Ok(Identity {
            certificate_pem: pem.clone(),
            key_pem: KeyPem::new(key.serialize_pem()),
            authority_pem: pem,
        })
    }

    fn of(identity: &Identity, life: Millis) -> Result<Self, AuthorityError> {
        let key = KeyPair::from_pem(identity.key_pem.expose())?;
        let pem = identity.authority_pem.clone();
        let id = KeyId(sha256(&key.subject_public_key_info()));
        let issuer = Issuer::from_ca_cert_pem(&pem, key)?;
        Ok(Self { issuer, pem, key: id, life })
    }

    /// Its certificate.
    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    /// Its key's name: what a token pins.
    pub(crate) fn key(&self) -> &KeyId {
        &self.key
    }

    /// How long the certificates are valid that it signs.
    pub(crate) fn life(&self) -> Millis {
        self.life
    }

    /// A new identity for the control plane, with a new key.
    pub(crate) fn server(&self, now: Timestamp) -> Result<Identity, AuthorityError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate = self.sign(SERVER_NAME, &key, now)?;
        Ok(Identity {
            certificate_pem: certificate,
            key_pem: KeyPem::new(key.serialize_pem()),
            authority_pem: self.pem.clone(),
        })
    }

    /// The key that a request is for, proven by its signature.
    pub(crate) fn key_of_request(csr_pem: &str) -> Result<KeyId, RequestError> {
        let request = read_request(csr_pem)?;
        Ok(KeyId(sha256(&request.public_key.subject_public_key_info())))
    }

    /// A certificate for `node`, with the key of a request for one.
    pub(crate) fn node(&self, node: &NodeId, csr_pem: &str, now: Timestamp) -> Result<Signed, RequestError> {
        let request = read_request(csr_pem)?;
        let name = format!("{node}{NODE_SUFFIX}");
        let chain = self.sign(&name, &request.public_key, now).map_err(|_| RequestError::Unsigned)?;
        Ok(Signed { chain, key: KeyId(sha256(&request.public_key.subject_public_key_info())) })
    }

    /// A certificate for `key` as `dns`, with the authority's own behind it.
    fn sign(&self, dns: &str, key: &impl PublicKeyData, now: Timestamp) -> Result<String, rcgen::Error> {
        let mut params = valid(CertificateParams::new(vec![dns.to_owned()])?, now, self.life);
        params.distinguished_name = name(dns);
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        Ok(params.signed_by(key, &self.issuer)?.pem() + &self.pem)
    }
}

fn read_request(csr_pem: &str) -> Result<CertificateSigningRequestParams, RequestError> {
    if csr_pem.len() > LONGEST_REQUEST {
        return Err(RequestError::Unreadable);
    }
    let request = CertificateSigningRequestParams::from_pem(csr_pem).map_err(|_| RequestError::Unreadable)?;
    let algorithm = request.public_key.algorithm();
    let strong = [&PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384, &PKCS_ED25519];
    if strong.contains(&algorithm) { Ok(request) } else { Err(RequestError::WeakKey) }
}

fn name(common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common);
    name
}

fn valid(mut params: CertificateParams, now: Timestamp, life: Millis) -> CertificateParams {
    params.not_before = date(Timestamp(now.0.saturating_sub(BACKDATED.0)));
    params.not_after = date(now.plus(life));
    params
}

/// A time that no calendar has is the beginning of them all.
fn date(at: Timestamp) -> OffsetDateTime {
    let seconds = i64::try_from(at.0 / 1000).unwrap_or(0);
    OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use tug_api::tls::{self, ClientCertificates, Credentials, Peer, key_of_certificate};
    use tug_api::transport::TlsServer;
    use x509_parser::prelude::{FromDer, X509Certificate};

    use super::*;

    const NOW: Timestamp = Timestamp(1_790_000_000_000);
    /// Requests that OpenSSL made (`openssl req -new`), with keys of kinds that are not taken.
    const RSA_512: &str = "MIHJMHUCAQAwEDEOMAwGA1UEAwwFYXR0aWMwXDANBgkqhkiG9w0BAQEFAANLADBIAkEAyKoy0pOeKXUGu5dKDdWW8BXt5UImRWdj\
        rxZ4a+tq/qaugOJZpG75vxsnYgd0Ow/RfcZsV8V0MERFDEFMJCeR7wIDAQABoAAwDQYJKoZIhvcNAQELBQADQQCXoT3F32lSBkDN\
        v4akV2X6Kj7hTKI9thHJeq7soOgeGs2BqVfBDedIB8B59Qx1PdQ02wcuECwwGA401tziUiK4";
    const RSA_2048: &str = "MIICVTCCAT0CAQAwEDEOMAwGA1UEAwwFYXR0aWMwggEiMA0GCSqGSIb3DQEBAQUAA4IBDwAwggEKAoIBAQDIGVs/kT8VYjxF0906\
        uF40SFMCjZN9GEYyU+rw9nnZ7CfWEfkcklx4ADReFdJ028aorWdAi2tP+SMl51qvwuNnioiT+0nsyqH7yzvK0Z0SrHRhjF8SqFKv\
        Ald82X9YZlwk7k6ZwIADAqCazIDQRqjcea/wMt8gs6MsfbAZ+dFvyBfS5mIYbORbRT44LWQlu57r5fDkb9rAYOWI48bu9LKacwz7\
        v/dd/TBIuEukQl9BJCii8C9coVxngDeTd2HKPtvbLeYp1C82LFr5PXeMFX09LW6wwuwOMG9GPQT1AKvfR28is2OigSFXaamVSz5y\
        QH6i3X9avHSZsOlaGYCRa7QdAgMBAAGgADANBgkqhkiG9w0BAQsFAAOCAQEAiq9a7jleZc8EoMDL+UYqeYP3d+xWO3YVjPATpxx3\
        WCuLOsbGau+j97vsAvL6k70EtdrW9vwJriC56YDHiBjfQ+k1EH8nKHoA4tR6u0ET3qfmW4dd4ZeES+yvbgL9Euh83w+MZEwwRoM6\
        Pd3JFMKFXM8HT8vYgWUqdNCOI65kblErdsnL/xAEtn6Av0TUa9A7MBdukdr7AqatDo+WHaxcKfp2mORhmTxf5SBUDuI4k4y6lCd0\
        cH2JOW6BjcYNPeF9Xj3HZaSAgkbbfzmLcNF26yHViVG170Jel8si9NY7uyAsJAtrLHjMDAdQvXNlByaOLh/ZApCbQDDwsTbA3NgZ\
        SA==";
    const P_521: &str = "MIIBUzCBtQIBADAQMQ4wDAYDVQQDDAVhdHRpYzCBmzAQBgcqhkjOPQIBBgUrgQQAIwOBhgAEAB6V53sWaWOMc5WM2ht/2fRdIm1+\
        B5cR5rW8soR3J2F6oQzqny8C/cDvSSuQ1esvsvYyslg7O9MElon/8g4s9yYPADqa+45+0sq/x/tUP5I+Oi0aktfkP94W49EEwWF+\
        K9bE91vTtbMgDcyhfs5PBoOqdubyzntORclIKt8wkFEGcwQRoAAwCgYIKoZIzj0EAwIDgYwAMIGIAkIBii4Zz1mBJUTkPCCE1g+Q\
        SaVmluWPZ7fQ9D9ezhvdon1uOe9edwzrZYyTcpniBwk99AEVlc30WZqswpU9XIRqDL8CQgC12cEmX8GMR1mxu03daT18+hD3vMLH\
        Cqm1ihOmbRdfNVBFZ909we3bQm789q4dXqyMjTUYXZnn2yozv7YQWUqCeA==";

    fn authority() -> Authority {
        Authority::for_test("c1", Millis::from_secs(3600), NOW)
    }

    fn request(key: &KeyPair, name: &str) -> String {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.distinguished_name = super::name("root");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.not_after = date(NOW.plus(OWN_LIFE));
        params.serialize_request(key).unwrap().pem().unwrap()
    }

    /// The first certificate of a chain.
    fn first_der(chain: &str) -> Vec<u8> {
        let body: String = chain.lines().skip(1).take_while(|line| !line.starts_with('-')).collect();
        decoded(&body)
    }

    fn decoded(text: &str) -> Vec<u8> {
        STANDARD.decode(text).unwrap()
    }

    fn pem(csr: &[u8]) -> String {
        let body = STANDARD.encode(csr);
        format!("-----BEGIN CERTIFICATE REQUEST-----\n{body}\n-----END CERTIFICATE REQUEST-----\n")
    }

    #[test]
    fn of_a_request_only_the_key_is_taken() {
        let authority = authority();
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let node = NodeId::parse("attic").unwrap();
        let signed = authority.node(&node, &request(&key, SERVER_NAME), NOW).unwrap();
        let certificate = first_der(&signed.chain);
        assert_eq!(Peer::of_certificate(&certificate), Peer::Node { node, key: signed.key.clone() });
        assert_eq!(key_of_certificate(&certificate), Some(signed.key));

        let (_, made) = X509Certificate::from_der(&certificate).unwrap();
        assert_eq!(made.subject().to_string(), "CN=attic.node.tug.internal");
        assert!(!made.is_ca() && !made.key_usage().unwrap().unwrap().value.key_cert_sign());
        let validity = [made.validity().not_before, made.validity().not_after];
        let [from, until] = validity.map(|at| u64::try_from(at.timestamp()).unwrap() * 1000);
        assert_eq!((from, until), (NOW.0 - BACKDATED.0, NOW.0 + authority.life.0));
    }

    #[tokio::test]
    async fn an_authority_is_made_once_and_a_lost_certificate_makes_no_other_one() {
        let folder = tempfile::tempdir().unwrap();
        let now = tug_api::Clock::system().now();
        let open = || Authority::open(folder.path(), "c1", Millis::from_secs(3600), now).unwrap();
        let first = open();
        assert_eq!(open().pem(), first.pem());
        std::fs::remove_file(folder.path().join("certificate.pem")).unwrap();
        let repaired = open();
        assert_eq!(repaired.key(), first.key(), "tokens pin the key");

        // Whoever has only ever seen the lost certificate trusts what is signed now.
        let credentials = Credentials::new(&repaired.server(now).unwrap()).unwrap();
        let config = tls::server_config(&credentials, repaired.pem(), ClientCertificates::Optional).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addresses = vec![listener.local_addr().unwrap().to_string()];
        let stop = tokio_util::sync::CancellationToken::new();
        let serving =
            tokio::spawn(tug_api::serve::tls(listener, axum::Router::new(), config, |_| {}, stop.clone()));
        let config = tls::client_config(first.pem(), None).unwrap();
        let server = TlsServer { addresses, name: tls::server_name(), config };
        server.dial(&[b"h2"]).await.unwrap();
        stop.cancel();
        serving.await.unwrap().unwrap();
    }

    #[test]
    fn the_key_does_not_show_itself() {
        let authority = authority();
        let secret = authority.issuer.key().serialize_der();
        let shown = format!("{authority:?} {authority:#?}");
        assert!(
            !shown.contains(&format!("{:?}", &secret[secret.len() - 8..]).replace(['[', ']'], "")),
            "{shown}"
        );
        assert!(shown.contains("elided"), "{shown}");
    }

    #[test]
    fn weak_keys_and_nonsense_are_refused() {
        let authority = authority();
        let node = NodeId::parse("attic").unwrap();
        assert_eq!(authority.node(&node, "x", NOW), Err(RequestError::Unreadable));
        let huge = "x".repeat(1 << 20);
        assert_eq!(authority.node(&node, &huge, NOW), Err(RequestError::Unreadable));
        for weak in [RSA_512, RSA_2048, P_521] {
            let csr = pem(&decoded(weak));
            let error = authority.node(&node, &csr, NOW).unwrap_err();
            assert!(matches!(error, RequestError::WeakKey | RequestError::Unreadable), "{error:?}: {csr}");
            assert_eq!(Authority::key_of_request(&csr), Err(error));
        }
        assert_eq!(authority.node(&node, &pem(&decoded(RSA_2048)), NOW), Err(RequestError::WeakKey));
    }

    #[test]
    fn a_request_for_somebody_elses_key_is_refused() {
        let authority = authority();
        let node = NodeId::parse("attic").unwrap();
        let [ours, theirs] = [(), ()].map(|()| KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap());
        let csr = first_der(&request(&ours, "x"));
        assert!(authority.node(&node, &pem(&csr), NOW).is_ok());
        let at = csr.windows(65).position(|part| part == ours.public_key_raw()).unwrap();
        let forged = [&csr[..at], theirs.public_key_raw(), &csr[at + 65..]].concat();
        assert_eq!(authority.node(&node, &pem(&forged), NOW), Err(RequestError::Unreadable));
    }
}
