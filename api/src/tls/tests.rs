//! Two sides over loopback: who believes whom, and what is said to who speaks something else.

use axum::Router;
use axum::body::Body;
use axum::extract::Extension;
use axum::routing::get;
use http::Request;
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    PKCS_ECDSA_P256_SHA256,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tug_model::NodeId;

use super::*;
use crate::client::{CallError, call};
use crate::error::chain;
use crate::transport::{Channel, TlsServer};

/// An authority of the test's own.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    key: String,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        let key_id = key_of_certificate(certificate.der()).unwrap();
        Self { pem: certificate.pem(), key: key_id.0, issuer: Issuer::new(params, key) }
    }

    fn identity(&self, name: &str) -> Identity {
        self.identity_until(name, 4000)
    }

    fn identity_until(&self, name: &str, last_year: i32) -> Identity {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(last_year, 1, 1);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Identity {
            certificate_pem: certificate.pem() + &self.pem,
            key_pem: KeyPem::new(key.serialize_pem()),
            authority_pem: self.pem.clone(),
        }
    }
}

/// A server that says who it takes its clients for.
async fn server(authority: &Authority, clients: ClientCertificates, stop: &CancellationToken) -> String {
    let router = Router::new()
        .route("/", get(async |Extension(caller): Extension<Caller>| format!("{:?}", caller.peer)));
    let identity = authority.identity(SERVER_NAME);
    let credentials = Credentials::new(&identity).unwrap();
    let config = server_config(&credentials, &authority.pem, clients).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(crate::serve::tls(listener, router, config, |_| {}, stop.clone()));
    address
}

async fn ask(address: &str, config: Arc<ClientConfig>) -> Result<String, CallError> {
    let server = TlsServer { addresses: vec![address.to_owned()], name: server_name(), config };
    let request = Request::get("/").body(Body::empty()).unwrap();
    let response = call(&Channel::tls(server), request).await?;
    let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
    Ok(String::from_utf8(bytes.to_vec()).unwrap())
}

#[tokio::test]
async fn a_certificate_says_who_is_asking() {
    let (authority, stop) = (Authority::new(), CancellationToken::new());
    let address = server(&authority, ClientCertificates::Optional, &stop).await;
    let node = authority.identity("attic.node.tug.internal");
    let key = {
        let pem = identity::certificates(&node.certificate_pem, "it").unwrap();
        key_of_certificate(&pem[0]).unwrap()
    };
    let shown = Credentials::new(&node).unwrap();
    let known = ask(&address, client_config(&authority.pem, Some(&shown)).unwrap()).await.unwrap();
    assert_eq!(known, format!("{:?}", Peer::Node { node: NodeId::parse("attic").unwrap(), key }));
    let anonymous = ask(&address, client_config(&authority.pem, None).unwrap()).await.unwrap();
    assert_eq!(anonymous, "Nobody");
    shown.replace(&authority.identity("cellar.node.tug.internal")).unwrap();
    let renewed = ask(&address, client_config(&authority.pem, Some(&shown)).unwrap()).await.unwrap();
    assert!(renewed.contains("cellar"), "{renewed}");
    let strange = Credentials::new(&authority.identity("attic.example.org")).unwrap();
    let stranger = ask(&address, client_config(&authority.pem, Some(&strange)).unwrap()).await.unwrap();
    assert_eq!(stranger, "Nobody");
    stop.cancel();
}

#[tokio::test]
async fn a_certificate_is_looked_at_in_every_handshake() {
    let (authority, stop) = (Authority::new(), CancellationToken::new());
    let address = server(&authority, ClientCertificates::Optional, &stop).await;
    let shown = Credentials::new(&authority.identity("attic.node.tug.internal")).unwrap();
    let config = client_config(&authority.pem, Some(&shown)).unwrap();
    ask(&address, Arc::clone(&config)).await.unwrap();
    let server = TlsServer { addresses: vec![address], name: server_name(), config };
    let again = server.dial(&[b"h2"]).await.unwrap();
    assert_eq!(again.get_ref().1.handshake_kind(), Some(rustls::HandshakeKind::Full));
    stop.cancel();
}

#[tokio::test]
async fn another_authority_convinces_neither_side() {
    let (ours, theirs, stop) = (Authority::new(), Authority::new(), CancellationToken::new());
    let address = server(&ours, ClientCertificates::Optional, &stop).await;
    let foreign = Credentials::new(&theirs.identity("attic.node.tug.internal")).unwrap();
    ask(&address, client_config(&ours.pem, Some(&foreign)).unwrap()).await.unwrap_err();
    let error = ask(&address, client_config(&theirs.pem, None).unwrap()).await.unwrap_err();
    assert!(chain(&error).contains("invalid peer certificate"), "{}", chain(&error));
    // One who is of the cluster, but not the one that is expected.
    let pretender = server_as(&ours, "attic.node.tug.internal", &stop).await;
    ask(&pretender, client_config(&ours.pem, None).unwrap()).await.unwrap_err();
    stop.cancel();
}

async fn server_as(authority: &Authority, name: &str, stop: &CancellationToken) -> String {
    let credentials = Credentials::new(&authority.identity(name)).unwrap();
    let config = server_config(&credentials, &authority.pem, ClientCertificates::Optional).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(crate::serve::tls(listener, Router::new(), config, |_| {}, stop.clone()));
    address
}

#[tokio::test]
async fn a_hash_of_the_authoritys_key_is_enough_to_know_the_server() {
    let (authority, stop) = (Authority::new(), CancellationToken::new());
    let address = server(&authority, ClientCertificates::Optional, &stop).await;
    assert_eq!(ask(&address, pinned_client_config(&authority.key).unwrap()).await.unwrap(), "Nobody");
    let other = pinned_client_config(&Authority::new().key).unwrap();
    let error = ask(&address, other).await.unwrap_err();
    assert!(chain(&error).contains("UnknownIssuer"), "{}", chain(&error));
    stop.cancel();
}

#[tokio::test]
async fn who_must_show_a_certificate_and_has_none_is_not_served() {
    let (authority, stop) = (Authority::new(), CancellationToken::new());
    let address = server(&authority, ClientCertificates::Required, &stop).await;
    ask(&address, client_config(&authority.pem, None).unwrap()).await.unwrap_err();
    stop.cancel();
}

#[tokio::test]
async fn plain_http_is_told_that_the_port_speaks_https() {
    let (authority, stop) = (Authority::new(), CancellationToken::new());
    let address = server(&authority, ClientCertificates::Optional, &stop).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    let half = stream.read_to_string(&mut answer);
    tokio::time::timeout(std::time::Duration::from_secs(5), half).await.unwrap().unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 400 ") && answer.ends_with("\r\n\r\nthis port speaks HTTPS\n"),
        "{answer}"
    );
    stop.cancel();
}

#[tokio::test]
async fn older_versions_and_expired_certificates_are_no_handshake() {
    let (authority, stop) = (Authority::new(), CancellationToken::new());
    let address = server(&authority, ClientCertificates::Optional, &stop).await;
    let attic = authority.identity_until("attic.node.tug.internal", 2020);
    let expired = Credentials::new(&attic).unwrap();
    let error = ask(&address, client_config(&authority.pem, Some(&expired)).unwrap()).await.unwrap_err();
    assert!(chain(&error).contains("CertificateExpired"), "{}", chain(&error));
    // The head of a ClientHello that offers TLS 1.2 at most: the server answers with an alert (21), fatal (2),
    // protocol_version (70).
    let mut stream = TcpStream::connect(&address).await.unwrap();
    stream.write_all(&tls12_hello()).await.unwrap();
    let mut alert = [0; 7];
    stream.read_exact(&mut alert).await.unwrap();
    assert_eq!((alert[0], &alert[5..]), (21, &[2, 70][..]));
    stop.cancel();
}

/// RFC 5246, section 7.4.1.2: one suite, no compression, and the extensions without which nobody goes on reading.
fn tls12_hello() -> Vec<u8> {
    const EXTENSIONS: [u8; 16] = [
        0x00, 0x0a, 0, 4, 0, 2, 0x00, 0x17, // supported_groups: secp256r1
        0x00, 0x0d, 0, 4, 0, 2, 0x04, 0x03, // signature_algorithms: ecdsa_secp256r1_sha256
    ];
    const BODY: u8 = 2 + 32 + 1 + 4 + 2 + 2 + 16;
    let mut hello = vec![0x16, 3, 1, 0, BODY + 4, 1, 0, 0, BODY, 3, 3];
    hello.extend([7; 32]);
    hello.extend([0, 0, 2, 0xc0, 0x2b, 1, 0, 0, 16]);
    hello.extend(EXTENSIONS);
    hello
}

#[test]
fn an_identity_is_kept_for_its_owner_only_and_its_key_does_not_show_itself() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("identity");
    assert_eq!(Identity::load(&place).unwrap(), None);
    let identity = Authority::new().identity("attic.node.tug.internal");
    identity.save(&place).unwrap();
    assert_eq!(Identity::load(&place).unwrap().as_ref(), Some(&identity));
    let mode = |name: &str| std::fs::metadata(place.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("key.pem"), mode("certificate.pem")), (0o600, 0o600));
    assert!(!format!("{identity:?}").contains("PRIVATE"), "{identity:?}");
    std::fs::remove_file(place.join("certificate.pem")).unwrap();
    assert_eq!(Identity::load(&place).unwrap(), None, "a key alone is no identity yet");
    assert!(KeyPem::load(&place).unwrap().is_some());
}
