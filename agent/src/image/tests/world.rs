//! Nodes with images, and the ways between them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tug_api::Clock;
use tug_api::image::{Exchange, Source};
use tug_api::tls::NODE_SUFFIX;
use tug_model::{Digest, NodeId, Timestamp};

use crate::control::tests::fake::Engine;
use crate::image::{FetchError, Images, Otherwise};
use crate::peer::{self, Members, Peers};
use crate::proxy::tests::cluster::Authority;

pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) engine: Engine,
    pub(super) images: Arc<Images>,
    pub(super) folder: tempfile::TempDir,
    pub(super) address: String,
    pub(super) said: Arc<Mutex<Vec<String>>>,
    told: Mutex<Exchange>,
    listening: AbortHandle,
}

/// A way to a node that breaks.
pub(super) struct Relay {
    pub(super) address: String,
    /// What came back over it, in all.
    pub(super) bytes: Arc<AtomicU64>,
    pub(super) connections: Arc<AtomicU64>,
    _tasks: JoinSet<()>,
}

impl Node {
    pub(super) async fn start(authority: &Authority, name: &str) -> Self {
        Self::serving(authority, name, None).await
    }

    /// A node that answers other agents with `router`; `None`: as it should.
    pub(super) async fn serving(authority: &Authority, name: &str, router: Option<Router>) -> Self {
        let id = NodeId::parse(name).unwrap();
        let member = authority.member(&id, &format!("{name}{NODE_SUFFIX}"));
        let member = watch::Sender::new(Some(member)).subscribe();
        let engine = Engine::new(Clock::starting_at(Timestamp(0)));
        let folder = tempfile::tempdir().unwrap();
        let images =
            Arc::new(Images::new(Arc::new(engine.clone()), member.clone(), folder.path().join("images")));
        let config = peer::Config { listen: "127.0.0.1:0".parse().unwrap(), advertise: None };
        let router = router.unwrap_or_else(|| images.router());
        let local = watch::Sender::new(None).subscribe();
        let (peers, address) = Peers::new(&config, member, local, router, Members::default());
        let listening = peers.listener.run(
            crate::peer::Knock::refuse,
            |_| {},
            TaskTracker::new(),
            CancellationToken::new(),
        );
        let listening = tokio::spawn(listening).abort_handle();
        let address = loop {
            match address.get().filter(|address| !address.ends_with(":0")) {
                Some(address) => break address,
                None => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        };
        let (said, told) = (Arc::default(), Mutex::default());
        Self { id, engine, images, folder, address, said, told, listening }
    }

    /// Says that `image` is there, and lets this node ask for it.
    pub(super) fn may_have(&self, image: &Digest, from: &[(&Self, &str)]) {
        for (source, _) in from {
            let mut told = source.told.lock().unwrap();
            told.readers.entry(image.clone()).or_default().insert(self.id.clone());
            source.images.tell(told.clone());
        }
        let source = |(node, address): &(&Self, &str)| Source {
            node: node.id.clone(),
            address: (*address).to_owned(),
        };
        let sources: Vec<Source> = from.iter().map(source).collect();
        let mut told = self.told.lock().unwrap();
        told.sources.insert(image.clone(), sources);
        self.images.tell(told.clone());
    }

    pub(super) async fn fetch(&self, image: &Digest) -> Result<(), FetchError> {
        let said = Arc::clone(&self.said);
        let fetched =
            self.images.fetch(image, Otherwise::Nothing, &move |text| said.lock().unwrap().push(text)).await;
        // Its wish is over, and with it the answer.
        self.told.lock().unwrap().sources.remove(image);
        fetched
    }

    /// The files that are on their way.
    pub(super) fn spooled(&self) -> BTreeMap<String, u64> {
        let entries = std::fs::read_dir(self.folder.path().join("images")).into_iter().flatten();
        let size = |entry: std::io::Result<std::fs::DirEntry>| {
            let entry = entry.unwrap();
            (entry.file_name().to_string_lossy().into_owned(), entry.metadata().unwrap().len())
        };
        entries.map(size).collect()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

impl Relay {
    /// To `target`. Each connection breaks when so many bytes came back as `budget` says for it.
    pub(super) async fn start(target: &str, mut budget: impl FnMut() -> u64 + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let target: SocketAddr = target.parse().unwrap();
        let (bytes, connections) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let (counted, opened) = (Arc::clone(&bytes), Arc::clone(&connections));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut lines = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                opened.fetch_add(1, Ordering::Relaxed);
                lines.spawn(relay(client, target, budget(), Arc::clone(&counted)));
            }
        });
        Self { address, bytes, connections, _tasks: tasks }
    }
}

async fn relay(client: TcpStream, target: SocketAddr, budget: u64, counted: Arc<AtomicU64>) {
    let Ok(server) = TcpStream::connect(target).await else { return };
    let (mut from_client, mut to_client) = client.into_split();
    let (from_server, mut to_server) = server.into_split();
    let there = async {
        let _ = tokio::io::copy(&mut from_client, &mut to_server).await;
    };
    let back = async {
        let (mut limited, mut piece) = (from_server.take(budget), vec![0; 4096]);
        while let Ok(read @ 1..) = limited.read(&mut piece).await {
            counted.fetch_add(read as u64, Ordering::Relaxed);
            if to_client.write_all(&piece[..read]).await.is_err() {
                break;
            }
        }
    };
    tokio::select! {
        biased;
        () = back => {}
        () = there => {}
    }
}
