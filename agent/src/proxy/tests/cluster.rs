//! Balancers of several nodes in one process, each with a runtime of its own that can be killed or held up, over loopback
//! TLS and with an authority of the test's own.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, mpsc};

use axum::routing::get as on_get;
use axum::{Extension, Router};
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    PKCS_ECDSA_P256_SHA256,
};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tug_api::tls::{Caller, Credentials, Identity, KeyPem, NODE_SUFFIX};
use tug_model::{NodeId, TaskId};

use super::world::{PORT, is_open, own_address, route, until};
use crate::identity::Member;
use crate::peer::{self, Members, Peers};
use crate::proxy::{Balancer, BalancerHandle, Config};
use crate::route::{Backend, Location, Table};

/// The port of every agent; the address is the node's own.
const PEER_PORT: u16 = 7444;

/// Signs what a node shows.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) place: SocketAddr,
    pub(super) peer: SocketAddr,
    pub(super) handle: BalancerHandle,
    pub(super) members: Members,
    table: watch::Sender<Arc<Table>>,
    number: u64,
    stop: CancellationToken,
    running: Option<JoinHandle<()>>,
    runtime: Option<Runtime>,
}

/// A node that does nothing until this is dropped.
pub(super) struct Frozen(#[expect(dead_code, reason = "its end is what matters")] mpsc::Sender<()>);

// === impl Authority ===

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// Who shows a certificate of this authority for `name`, and trusts it.
    pub(crate) fn member(&self, node: &NodeId, name: &str) -> Member {
        Member {
            node: node.clone(),
            cluster: "test".into(),
            authority_pem: self.pem.as_str().into(),
            credentials: Credentials::new(&self.identity(name)).unwrap(),
        }
    }

    /// A new key, with a certificate for `name`.
    pub(super) fn identity(&self, name: &str) -> Identity {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Identity {
            certificate_pem: certificate.pem(),
            key_pem: KeyPem::new(key.serialize_pem()),
            authority_pem: self.pem.clone(),
        }
    }

    pub(super) fn pem(&self) -> &str {
        &self.pem
    }
}

// === impl Node ===

impl Node {
    /// A node without tasks that listens for other agents.
    pub(super) async fn start(authority: &Authority, name: &str) -> Self {
        let id = NodeId::parse(name).unwrap();
        let member = authority.member(&id, &format!("{name}{NODE_SUFFIX}"));
        Self::of(id, member).await
    }

    pub(super) async fn of(id: NodeId, member: Member) -> Self {
        let (place, peer) = (SocketAddr::new(own_address(), PORT), SocketAddr::new(own_address(), PEER_PORT));
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (table, follow) = watch::channel(Arc::new(Table { number: 1, ..Table::default() }));
        let config = peer::Config { listen: peer, advertise: None };
        let router = Router::new()
            .route("/who", on_get(async |Extension(caller): Extension<Caller>| format!("{:?}", caller.peer)));
        let (member, local) = (watch::Sender::new(Some(member)).subscribe(), watch::Sender::new(None));
        let members = Members::default();
        let (peers, _) = Peers::new(&config, member, local.subscribe(), router, members.clone());
        let stop = CancellationToken::new();
        let (balancer, handle) = Balancer::new(Config::default(), follow, Some(peers));
        let running = Some(runtime.spawn(balancer.run(stop.clone())));
        until("other agents may connect", async || is_open(peer)).await;
        let runtime = Some(runtime);
        Self { id, place, peer, handle, table, members, number: 1, stop, running, runtime }
    }

    /// Routes to `tasks`, of whichever of `nodes` each is, by its server's address.
    pub(super) async fn route(&mut self, tasks: &[(TaskId, NodeId, SocketAddr)], nodes: &[SocketAddr; 3]) {
        let mut published = route(self.place, &[]);
        published.backends = tasks.iter().map(|task| self.backend(task)).collect();
        let peers = (1..).zip(nodes).map(|(n, at)| (node_id(n), at.to_string()));
        let peers: BTreeMap<_, _> = peers.filter(|(node, _)| *node != self.id).collect();
        self.number += 1;
        self.table.send_replace(Arc::new(Table { number: self.number, routes: vec![published], peers }));
        until("the table is followed", async || self.handle.applied() == self.number).await;
        until("the port is open", async || is_open(self.place)).await;
    }

    fn backend(&self, (task, node, address): &(TaskId, NodeId, SocketAddr)) -> Backend {
        let location = if *node == self.id {
            Location::Here(*address)
        } else {
            Location::There { node: node.clone(), port: address.port() }
        };
        Backend { task: task.clone(), location }
    }

    /// Ends it as a killed process ends.
    pub(super) fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    /// Holds up everything in it.
    pub(super) fn freeze(&self) -> Frozen {
        let (thaw, thawed) = mpsc::channel();
        self.on().spawn(async move {
            // This is the only thread that the node has.
            let _ = thawed.recv();
        });
        Frozen(thaw)
    }

    /// Stops it, and returns when its last connection has ended.
    pub(super) async fn end(&mut self) {
        self.stop.cancel();
        self.running.take().unwrap().await.unwrap();
    }

    pub(super) fn connections(&self, task: &TaskId) -> u32 {
        self.handle.connections().get(task).copied().unwrap_or(0)
    }

    fn on(&self) -> &Handle {
        self.runtime.as_ref().unwrap().handle()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

pub(super) fn node_id(number: usize) -> NodeId {
    NodeId::parse(&format!("n{number}")).unwrap()
}
