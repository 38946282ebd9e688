//! A node of its own machine: its certificate is renewed in time, one that has ended keeps nobody away, and a control plane
//! that has moved is found again. Real TLS on this machine, real clocks, no containers.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use axum::body::Body;
use http::Request;
use serde_json::json;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tug_agent::health::Network;
use tug_agent::identity::{Folder, Membership, Origin};
use tug_agent::{Agent, Server, peer, proxy};
use tug_api::client::{CallError, Client, Guard, call};
use tug_api::join::{CertificateRequest, JoinRequest, TokenRequest};
use tug_api::tls::{self, Credentials, Identity};
use tug_api::token::TokenText;
use tug_api::transport::{Channel, TlsServer};
use tug_api::user::{ApplyRequest, NodeRemoval, NodeState};
use tug_api::{Clock, Code};
use tug_model::token::Grant;
use tug_model::{Millis, NodeId, ProjectName};
use tug_orchestrator::app::{self, Listen};
use tug_tests::fake::Engine;
use tug_tests::folder;

const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(20);
const LONG: Millis = Millis::from_secs(3600);

/// A control plane that listens on this machine.
struct Plane {
    folder: TempDir,
    address: SocketAddr,
    running: Option<(CancellationToken, JoinHandle<Result<(), app::Error>>)>,
}

/// A machine that has joined.
struct Machine {
    state: TempDir,
    node: NodeId,
    token: TokenText,
}

async fn until(what: &str, mut is_so: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    while !is_so().await? {
        if start.elapsed() > PATIENCE {
            bail!("waited for {what}");
        }
        sleep(LOOK).await;
    }
    Ok(())
}

/// An address of this machine that nobody uses.
fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

impl Plane {
    async fn start(life: Millis) -> Result<Self> {
        let mut plane = Self { folder: tempfile::tempdir()?, address: free_address()?, running: None };
        plane.serve(life).await?;
        Ok(plane)
    }

    async fn serve(&mut self, life: Millis) -> Result<()> {
        let address = self.address;
        let path = self.folder.path();
        let config = app::Config::daemon(path.join("state"), path.join("tug.sock"))?;
        let listen = Listen { address, servers: Vec::new(), certificate_life: life };
        let config = app::Config { listen: Some(listen), ..config };
        let stop = CancellationToken::new();
        let running = tokio::spawn(app::serve(config, stop.clone()));
        self.running = Some((stop, running));
        let client = self.client();
        until("the control plane", async || Ok(client.info().await.is_ok())).await
    }

    /// A copy of one that does not run, for another address.
    fn copied(&self) -> Result<Self> {
        let aside = tempfile::tempdir()?;
        folder::copy(&self.folder.path().join("state"), &aside.path().join("state"))?;
        Ok(Self { folder: aside, address: free_address()?, running: None })
    }

    async fn end(&mut self) -> Result<()> {
        let (stop, running) = self.running.take().context("it runs")?;
        stop.cancel();
        Ok(running.await??)
    }

    fn client(&self) -> Client {
        Client::new(Channel::unix(self.folder.path().join("tug.sock")))
    }

    async fn sees(&self, node: &NodeId) -> Result<bool> {
        Ok(self.client().nodes().await?.iter().any(|one| one.node.id == *node && one.connected))
    }

    /// Wants a project of one replica, and waits until it runs.
    async fn deploy(&self, name: &str) -> Result<()> {
        let spec = json!({ "name": name, "services": { "web": { "container": { "image": "web:1" } } } });
        let request = ApplyRequest { spec: serde_json::from_value(spec)?, source: Vec::new() };
        let client = self.client();
        client.apply(&request, &Guard::default()).await?;
        let project = ProjectName::parse(name)?;
        until("the project to settle", async || Ok(client.status(&project).await?.settled)).await
    }
}

impl Machine {
    async fn join(plane: &Plane, name: &str) -> Result<Self> {
        let grant = Grant::Join { node: None, uses: 1 };
        let request = TokenRequest { name: String::new(), grant, life: None };
        let token: TokenText = plane.client().make_token(&request).await?.token.parse()?;
        let machine = Self { state: tempfile::tempdir()?, node: NodeId::parse(name)?, token };
        let request = JoinRequest {
            token: machine.token.expose(),
            csr: machine.folder().request()?,
            node: Some(machine.node.clone()),
            hostname: "attic".to_owned(),
        };
        let joined = machine.stranger(plane)?.join(&request).await?;
        machine.folder().keep(
            joined,
            Origin::Joined { at: plane.address.to_string() },
            Clock::system().now(),
        )?;
        Ok(machine)
    }

    fn folder(&self) -> Folder {
        Folder::of(self.state.path())
    }

    fn membership(&self) -> Result<Membership> {
        self.folder().load()?.context("it has joined")
    }

    /// Asks as somebody who knows no more than the token.
    fn stranger(&self, plane: &Plane) -> Result<Client> {
        let config = tls::pinned_client_config(&self.token.authority())?;
        let server =
            TlsServer { addresses: vec![plane.address.to_string()], name: tls::server_name(), config };
        Ok(Client::new(Channel::tls(server)))
    }

    /// What `tug join` does on a machine that is a node already.
    async fn learn(&self, plane: &Plane) -> Result<()> {
        let request = CertificateRequest { csr: self.folder().request()? };
        let renewed = self.stranger(plane)?.renew(&request).await?;
        self.folder().keep(
            renewed,
            Origin::Joined { at: plane.address.to_string() },
            Clock::system().now(),
        )?;
        Ok(())
    }

    /// Asks who it is, over a new connection, with the certificate that it has now.
    async fn whoami(&self) -> Result<Result<(), CallError>> {
        let membership = self.membership()?;
        let server = membership.server(Some(&Credentials::new(&membership.identity)?))?;
        Ok(Client::new(Channel::tls(server)).whoami().await.map(drop))
    }

    /// Whether the agent of `other` answers, over a new connection: that it gives no image that nobody has spoken of.
    async fn is_heard(&self, plane: &Plane, other: &NodeId) -> Result<bool> {
        let nodes = plane.client().nodes().await?;
        let address =
            nodes.into_iter().find(|one| one.node.id == *other).and_then(|one| one.node.info.address);
        let Identity { authority_pem, .. } = &self.membership()?.identity;
        let shown = Credentials::new(&self.membership()?.identity)?;
        let config = tls::client_config(authority_pem, Some(&shown))?;
        let name = tls::node_name(other).context("a name")?;
        // It is told soon after the link.
        let Some(address) = address else { return Ok(false) };
        let channel = Channel::tls(TlsServer { addresses: vec![address], name, config });
        let request = Request::get(format!("/images/sha256:{}", "0".repeat(64))).body(Body::empty())?;
        match call(&channel, request).await {
            Err(CallError::Api(error)) => Ok(error.code == Code::Forbidden),
            Err(_) => Ok(false),
            Ok(_) => bail!("it gives an image"),
        }
    }

    async fn start(&self) -> Result<(CancellationToken, JoinHandle<()>)> {
        let clock = Clock::system();
        let engine = Engine::new(self.node.clone(), clock, 1);
        let config = tug_agent::Config {
            state_dir: self.state.path().to_owned(),
            private: self.state.path().to_owned(),
            node: Some(self.node.clone()),
            hostname: "attic".to_owned(),
            labels: BTreeMap::new(),
            runtime: Arc::new(engine),
            prober: Arc::new(Network),
            clock,
            server: Some(Server::Joined),
            balancer: Some(proxy::Config::default()),
            peer: Some(peer::Config { listen: "127.0.0.1:0".parse()?, advertise: None }),
            guard: None,
            concurrency: tug_agent::Config::CONCURRENCY,
            seed: 1,
        };
        let (agent, _handle) = Agent::open(config).await?;
        let stop = CancellationToken::new();
        let running = tokio::spawn(agent.run(stop.clone()));
        Ok((stop, running))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_renewed_after_half_of_its_life_and_before_its_end() -> Result<()> {
    let mut plane = Plane::start(Millis::from_secs(12)).await?;
    let machine = Machine::join(&plane, "attic").await?;
    let first = machine.membership()?;
    let (stop, running) = machine.start().await?;
    until("the link", async || plane.sees(&machine.node).await).await?;
    until("another certificate", async || Ok(machine.membership()?.facts.since > first.facts.since)).await?;
    let second = machine.membership()?;
    let half = Millis(first.ends().since(first.facts.since).0 / 2);
    assert!(second.facts.since >= first.facts.since.plus(half), "{:?} {:?}", first.facts, second.facts);
    assert!(second.facts.since < first.ends(), "{:?} {:?}", first.facts, second.facts);
    assert_eq!(second.identity.key_pem, first.identity.key_pem, "a node is its key");

    // What is shown now outlives what was shown first.
    until("the end of the first one", async || Ok(Clock::system().now() > first.ends())).await?;
    machine.whoami().await??;
    assert!(plane.sees(&machine.node).await?, "the link has lasted");
    stop.cancel();
    running.await?;
    plane.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_off_until_its_certificate_had_ended_comes_back_by_its_key() -> Result<()> {
    let mut plane = Plane::start(Millis::from_secs(1)).await?;
    let machine = Machine::join(&plane, "attic").await?;
    until("the end of the certificate", async || Ok(machine.whoami().await?.is_err())).await?;
    // The control plane, too, is off for a while, and signs for longer when it is back.
    plane.end().await?;
    let (stop, running) = machine.start().await?;
    plane.serve(LONG).await?;
    until("the link", async || plane.sees(&machine.node).await).await?;
    machine.whoami().await??;
    stop.cancel();
    running.await?;
    plane.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_control_plane_at_another_address_is_found_by_a_running_agent_that_is_told() -> Result<()> {
    let mut plane = Plane::start(LONG).await?;
    let machine = Machine::join(&plane, "attic").await?;
    let (stop, running) = machine.start().await?;
    until("the link", async || plane.sees(&machine.node).await).await?;
    plane.end().await?;
    plane.address = free_address()?;
    plane.serve(LONG).await?;
    machine.learn(&plane).await?;
    until("the link", async || plane.sees(&machine.node).await).await?;
    stop.cancel();
    running.await?;
    plane.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_removed_is_shut_out_by_the_other_nodes_too() -> Result<()> {
    let mut plane = Plane::start(LONG).await?;
    let (attic, cellar) = (Machine::join(&plane, "attic").await?, Machine::join(&plane, "cellar").await?);
    let (stop, running) = attic.start().await?;
    until("the link", async || plane.sees(&attic.node).await).await?;
    until("an answer", async || cellar.is_heard(&plane, &attic.node).await).await?;
    plane.client().remove_node(&cellar.node, &NodeRemoval { force: false }).await?;
    let removed = Instant::now();
    until("no answer", async || Ok(!cellar.is_heard(&plane, &attic.node).await?)).await?;
    let took = removed.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    stop.cancel();
    running.await?;
    plane.end().await
}

/// Nothing tells them apart while both know the same: a node obeys the one that it is with, and whatever that changes makes
/// the other one older.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_servers_on_copies_of_one_state_a_node_obeys_the_one_whose_changes_it_knows() -> Result<()> {
    let mut plane = Plane::start(LONG).await?;
    let machine = Machine::join(&plane, "attic").await?;
    plane.end().await?;
    let mut copy = plane.copied()?;
    plane.serve(LONG).await?;
    copy.serve(LONG).await?;
    let (stop, running) = machine.start().await?;
    until("the link", async || plane.sees(&machine.node).await).await?;
    plane.deploy("shop").await?;
    assert!(!copy.sees(&machine.node).await?, "it is with one of them, and the other one calls it away");

    // Somebody lets the node join where the copy is.
    plane.end().await?;
    machine.learn(&copy).await?;
    let stands = async |plane: &Plane| plane.client().node(&machine.node).await;
    until("the link", async || copy.sees(&machine.node).await).await?;
    until("its refusal", async || Ok(stands(&copy).await?.state == NodeState::Disobedient)).await?;
    println!("{:?}", stands(&copy).await?);
    copy.end().await?;
    plane.serve(LONG).await?;
    machine.learn(&plane).await?;
    until("the link", async || plane.sees(&machine.node).await).await?;
    plane.deploy("office").await?;
    assert_eq!(stands(&plane).await?.refusal, None);
    stop.cancel();
    running.await?;
    plane.end().await
}
