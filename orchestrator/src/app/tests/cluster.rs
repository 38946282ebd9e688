//! Other machines, over TLS: they join, link and are removed; and what proves who they are is told to nobody.

use std::collections::BTreeSet;
use std::sync::Mutex;

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tracing::Level;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tug_api::error::chain;
use tug_api::join::{CertificateRequest, JoinRequest, Joined, TokenRequest};
use tug_api::tls::{self, Credentials, Identity, KeyPem};
use tug_api::token::TokenText;
use tug_api::transport::TlsServer;
use tug_api::user::NodeRemoval;
use tug_model::token::{AccessRole, Grant};

use super::*;

/// A control plane with a socket and an entrance for other machines.
struct Cluster {
    handle: Handle,
    /// What asks over the socket.
    local: Client,
    servers: Vec<String>,
    folder: tempfile::TempDir,
    stop: CancellationToken,
    running: Vec<JoinHandle<()>>,
}

/// A machine that is not the control plane's.
struct Machine {
    key: KeyPair,
    servers: Vec<String>,
}

impl Cluster {
    async fn start(certificate_life: Millis) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::daemon(folder.path().join("state"), folder.path().join("tug.sock")).unwrap();
        let listen =
            Listen { address: "127.0.0.1:0".parse().unwrap(), servers: Vec::new(), certificate_life };
        let entrance = Entrance::open(&listen).await.unwrap();
        let servers = vec![entrance.address.to_string()];
        config.listen = Some(Listen { address: entrance.address, ..listen });
        let (orchestrator, handle) = Orchestrator::open(config).await.unwrap();
        let stop = CancellationToken::new();
        let (deciding, serving) = (stop.clone(), stop.clone());
        let api = (handle.router.clone(), handle.metrics.clone());
        let authority = Arc::clone(handle.authority.as_ref().unwrap());
        let running = vec![
            tokio::spawn(async move { orchestrator.run(deciding).await.unwrap() }),
            tokio::spawn(async move {
                entrance.serve(api, authority, Clock::system(), serving).await.unwrap().unwrap();
            }),
        ];
        let local = Client::new(Channel::service(handle.router.clone()));
        Self { handle, local, servers, folder, stop, running }
    }

    async fn token(&self, grant: Grant) -> TokenText {
        let request = TokenRequest { name: String::new(), grant, life: None };
        self.local.make_token(&request).await.unwrap().token.parse().unwrap()
    }

    async fn end(self) -> tempfile::TempDir {
        self.stop.cancel();
        for running in self.running {
            running.await.unwrap();
        }
        self.folder
    }
}

impl Machine {
    fn new(cluster: &Cluster) -> Self {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        Self { key, servers: cluster.servers.clone() }
    }

    fn csr(&self) -> String {
        let params = CertificateParams::new(Vec::new()).unwrap();
        params.serialize_request(&self.key).unwrap().pem().unwrap()
    }

    /// Asks with no more than a token's word of who the control plane is.
    fn stranger(&self, token: &TokenText) -> Client {
        let config = tls::pinned_client_config(&token.authority()).unwrap();
        let addresses = self.servers.clone();
        Client::new(Channel::tls(TlsServer { addresses, name: tls::server_name(), config }))
    }

    async fn join(&self, token: &TokenText) -> Result<Joined, CallError> {
        let (token_text, hostname) = (token.expose(), "attic".to_owned());
        let request = JoinRequest { token: token_text, csr: self.csr(), node: None, hostname };
        self.stranger(token).join(&request).await
    }

    fn identity(&self, joined: &Joined) -> Identity {
        Identity {
            certificate_pem: joined.certificate.clone(),
            key_pem: KeyPem::new(self.key.serialize_pem()),
            authority_pem: joined.authority.clone(),
        }
    }

    /// Dials as an agent does, saying that it is another node. Gives the status, and what ends with the link.
    async fn link(&self, identity: &Identity, agent: &FakeAgent) -> (String, JoinHandle<()>) {
        self.link_saying("", identity, agent).await
    }

    /// The same, with `more` in the query.
    async fn link_saying(
        &self,
        more: &str,
        identity: &Identity,
        agent: &FakeAgent,
    ) -> (String, JoinHandle<()>) {
        let shown = Credentials::new(identity).unwrap();
        let config = tls::client_config(&identity.authority_pem, Some(&shown)).unwrap();
        let server = TlsServer { addresses: self.servers.clone(), name: tls::server_name(), config };
        let mut stream = server.dial(&[b"http/1.1"]).await.unwrap();
        let head = format!(
            "GET /v1/link?node=cellar{more} HTTP/1.1\r\nhost: tug\r\nconnection: upgrade\r\nupgrade: tug-link\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(stream.read_u8().await.unwrap());
        }
        let status = String::from_utf8(answer).unwrap().split(' ').nth(1).unwrap().to_owned();
        let router = agent.router();
        let linked = tokio::spawn(async move {
            // However it ends, it has ended.
            drop(tug_api::serve::connection(stream, router, CancellationToken::new()).await);
        });
        (status, linked)
    }
}

fn to_join() -> Grant {
    Grant::Join { node: None, uses: 1 }
}

fn admin() -> Grant {
    Grant::Access { role: AccessRole::Admin, projects: Vec::new() }
}

async fn connected(cluster: &Cluster) -> Vec<String> {
    let nodes = cluster.local.nodes().await.unwrap();
    nodes.into_iter().filter(|it| it.connected).map(|it| it.node.id.to_string()).collect()
}

fn code<T: std::fmt::Debug>(answer: Result<T, CallError>) -> Code {
    match answer {
        Err(CallError::Api(error)) => error.code,
        other => panic!("no refusal: {other:?}"),
    }
}

#[tokio::test]
async fn a_machine_joins_links_as_who_it_is_and_is_shut_out_when_it_is_removed() {
    let cluster = Cluster::start(Millis::from_secs(60)).await;
    let token = cluster.token(to_join()).await;
    let machine = Machine::new(&cluster);
    let joined = machine.join(&token).await.unwrap();
    assert_eq!((joined.node.as_str(), &joined.servers), ("attic", &cluster.servers));
    assert_eq!(code(machine.join(&token).await), Code::Unauthenticated, "a token is good for one");

    let identity = machine.identity(&joined);
    let (status, linked) = machine.link(&identity, &FakeAgent::new("attic")).await;
    assert_eq!(status, "101");
    let ready = async {
        while connected(&cluster).await.is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, ready).await.expect("it does not report");
    assert_eq!(connected(&cluster).await, ["attic"], "not what it claims, but what its certificate says");

    let renewal = CertificateRequest { csr: machine.csr() };
    let renewed = machine.stranger(&token).renew(&renewal).await.unwrap();
    assert_ne!(renewed.certificate, joined.certificate);

    let removed = tokio::time::Instant::now();
    let removal = NodeRemoval { force: false };
    cluster.local.remove_node(&joined.node, &removal).await.unwrap();
    timeout(PATIENCE, linked).await.expect("the link goes on").unwrap();
    let cut = removed.elapsed();
    assert!(cut < Duration::from_secs(5), "{cut:?}");
    for certificate in [&joined, &renewed] {
        let (status, _) = machine.link(&machine.identity(certificate), &FakeAgent::new("attic")).await;
        assert_eq!(status, "403", "its certificates are worth nothing");
    }
    assert_eq!(code(machine.stranger(&token).renew(&renewal).await), Code::Forbidden);
    assert!(cluster.local.nodes().await.unwrap().is_empty(), "it has not come back by what it said last");

    let again = cluster.token(to_join()).await;
    machine.join(&again).await.unwrap();
    let (status, _) = machine.link(&identity, &FakeAgent::new("attic")).await;
    assert_eq!(status, "101", "with a new token it is welcome again");
    cluster.end().await;
}

#[tokio::test]
async fn of_a_disk_and_its_copy_one_is_let_in_and_the_other_one_is_told_of() {
    let cluster = Cluster::start(Millis::from_secs(60)).await;
    let token = cluster.token(to_join()).await;
    let machine = Machine::new(&cluster);
    let identity = machine.identity(&machine.join(&token).await.unwrap());
    let agent = FakeAgent::new("attic");
    let (status, first) = machine.link_saying("&boot=a", &identity, &agent).await;
    assert_eq!(status, "101");
    let until = async |is_there: bool| {
        let changed = async {
            while connected(&cluster).await.is_empty() == is_there {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, changed).await.expect("it does not come or go");
    };
    until(true).await;
    for _ in 0..2 {
        let (status, _) = machine.link_saying("&boot=b", &identity, &agent).await;
        assert_eq!(status, "409", "another machine");
    }
    let events = cluster.local.events(&EventQuery::default()).await.unwrap();
    let told =
        events.iter().filter(|event| event.message.contains("a second machine, 127.0.0.1, has its key"));
    assert_eq!(told.count(), 1, "{events:?}");

    let (status, second) = machine.link_saying("&boot=a", &identity, &agent).await;
    assert_eq!(status, "101", "the same machine may dial again");
    timeout(PATIENCE, first).await.expect("the older link goes on").unwrap();
    second.abort();
    until(false).await;
    let (status, _) = machine.link_saying("&boot=b", &identity, &agent).await;
    assert_eq!(status, "101", "a machine that was started anew");
    cluster.end().await;
}

#[tokio::test]
async fn connections_that_come_to_nothing_are_counted() {
    let cluster = Cluster::start(Millis::from_secs(60)).await;
    let address = cluster.servers[0].as_str();
    drop(TcpStream::connect(address).await.unwrap());
    let mut plain = TcpStream::connect(address).await.unwrap();
    plain.write_all(b"GET /healthz HTTP/1.1\r\nhost: tug\r\n\r\n").await.unwrap();
    plain.shutdown().await.unwrap();
    let now = Clock::system().now();
    let (ours, theirs) = (
        cluster.handle.authority.as_ref().unwrap(),
        Authority::for_test("other", Millis::from_secs(60), now),
    );
    let machine = Machine::new(&cluster);
    let foreign = Identity {
        certificate_pem: theirs.node(&NodeId::parse("attic").unwrap(), &machine.csr(), now).unwrap().chain,
        key_pem: KeyPem::new(machine.key.serialize_pem()),
        authority_pem: ours.pem().to_owned(),
    };
    let shown = Credentials::new(&foreign).unwrap();
    for (trusted, shown) in [(ours.pem(), Some(&shown)), (theirs.pem(), None), (ours.pem(), None)] {
        let config = tls::client_config(trusted, shown).unwrap();
        let server = TlsServer { addresses: cluster.servers.clone(), name: tls::server_name(), config };
        let asked = Client::new(Channel::tls(server)).whoami().await;
        assert!(asked.is_err(), "nobody who is known asks: {asked:?}");
    }
    let channel = Channel::service(cluster.handle.router.clone());
    let counted = async {
        loop {
            let asked = Request::get("/metrics").body(Body::empty()).unwrap();
            let body = tug_api::client::call(&channel, asked).await.unwrap().into_body();
            let text = axum::body::to_bytes(body, 1 << 20).await.unwrap();
            let text = String::from_utf8(text.to_vec()).unwrap();
            let failed = |line: &&str| line.starts_with("tug_failed_handshakes_total");
            let lines: BTreeSet<String> = text.lines().filter(failed).map(str::to_owned).collect();
            let expected = [("certificate", 1), ("lost", 1), ("protocol", 2)];
            let expected = expected.map(|(reason, count)| {
                format!(r#"tug_failed_handshakes_total{{reason="{reason}"}} {count}"#)
            });
            if lines == expected.into() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, counted).await.expect("they are not counted");
    cluster.end().await;
}

#[tokio::test]
async fn an_expired_certificate_opens_nothing_but_its_key_gets_a_new_one() {
    let cluster = Cluster::start(Millis::from_secs(1)).await;
    let token = cluster.token(to_join()).await;
    let machine = Machine::new(&cluster);
    let joined = machine.join(&token).await.unwrap();
    let identity = machine.identity(&joined);
    let shown = Credentials::new(&identity).unwrap();
    let expired = async {
        loop {
            let config = tls::client_config(&identity.authority_pem, Some(&shown)).unwrap();
            let addresses = machine.servers.clone();
            let server = TlsServer { addresses, name: tls::server_name(), config };
            match Client::new(Channel::tls(server)).whoami().await {
                Ok(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                Err(error) => return chain(&error),
            }
        }
    };
    let refused = timeout(PATIENCE, expired).await.expect("it is good for ever");
    assert!(refused.contains("CertificateExpired"), "{refused}");
    let renewal = CertificateRequest { csr: machine.csr() };
    let renewed = machine.stranger(&token).renew(&renewal).await.unwrap();
    let (status, linked) = machine.link(&machine.identity(&renewed), &FakeAgent::new("attic")).await;
    assert_eq!(status, "101");
    cluster.end().await;
    timeout(PATIENCE, linked).await.expect("the link outlives the control plane").unwrap();
}

/// Everything that is logged by this thread, as a daemon with `--log trace` logs it.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Every file below `folder`, but for keys.
fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.file_name().is_some_and(|name| name != "key.pem") {
            found.push((path.clone(), std::fs::read(path).unwrap()));
        }
    }
    found
}

#[tokio::test]
async fn secrets_are_in_no_log_no_error_no_debug_output_and_no_file() {
    let log = Log::default();
    let writer = log.clone();
    let lines = tracing_subscriber::fmt::layer().with_writer(move || writer.clone()).with_ansi(false);
    let quiet = filter_fn(|what| {
        *what.level() <= Level::INFO || !["hyper", "h2"].iter().any(|it| what.target().starts_with(it))
    });
    let logging = tracing::subscriber::set_default(tracing_subscriber::registry().with(quiet).with(lines));

    let cluster = Cluster::start(Millis::from_secs(60)).await;
    let (joining, unused) = (cluster.token(to_join()).await, cluster.token(to_join()).await);
    let access = cluster.token(admin()).await;
    let machine = Machine::new(&cluster);
    let mut said = Vec::new();
    let joined = machine.join(&joining).await.unwrap();
    said.push(chain(&machine.join(&joining).await.unwrap_err()));
    said.push(chain(&machine.join(&access).await.unwrap_err()));
    let (linked, _) = machine.link(&machine.identity(&joined), &FakeAgent::new("attic")).await;
    assert_eq!(linked, "101");

    // The right token at the wrong place, a wrong one at the right place, and a good one that is then removed.
    let bearing = |token: &TokenText| {
        let config = tls::client_config(&joined.authority, None).unwrap();
        let server = TlsServer { addresses: cluster.servers.clone(), name: tls::server_name(), config };
        Client::new(Channel::tls(server).bearing(token))
    };
    let user = bearing(&access);
    said.push(format!("{:?} {:?}", user.whoami().await.unwrap(), user.tokens().await.unwrap()));
    said.push(format!("{:?}", user.events(&EventQuery::default()).await.unwrap()));
    said.push(chain(&bearing(&unused).whoami().await.unwrap_err()));
    user.remove_token(access.id()).await.unwrap();
    said.push(chain(&user.whoami().await.unwrap_err()));
    let request =
        JoinRequest { token: access.expose(), csr: machine.csr(), node: None, hostname: "x".to_owned() };
    said.push(format!("{request:?} {joining:?} {:?} {:?}", machine.identity(&joined), cluster.handle));

    let folder = cluster.end().await;
    drop(logging);
    let logged = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(logged.contains("a token lets nobody join"), "the log is not listened to: {logged}");
    said.push(logged);
    let files = files(folder.path());
    let names: Vec<_> = files.iter().map(|(path, _)| path.display().to_string()).collect();
    assert!(names.iter().any(|name| name.contains("export-")), "{names:?}");

    let secret = |token: &TokenText| token.expose().split('.').nth(2).unwrap().to_owned();
    let key = machine.key.serialize_pem().lines().nth(1).unwrap().to_owned();
    let authority = std::fs::read_to_string(folder.path().join("state/authority/key.pem")).unwrap();
    let authority = authority.lines().nth(1).unwrap().to_owned();
    for canary in [secret(&joining), secret(&unused), secret(&access), key, authority] {
        assert!(canary.len() >= 32, "{canary}");
        let shown = said.iter().find(|text| text.contains(&canary));
        assert!(shown.is_none(), "{canary} is told: {shown:?}");
        let is_in = |text: &[u8]| text.windows(canary.len()).any(|part| part == canary.as_bytes());
        let kept = files.iter().find(|(_, text)| is_in(text)).map(|(path, _)| path);
        assert!(kept.is_none(), "{canary} is kept in {kept:?}");
    }
}
