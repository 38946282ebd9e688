//! A client that opens a new connection for every request, as fast as it is answered, and counts every failure.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long one request may take before it counts as failed.
const PATIENCE: Duration = Duration::from_secs(15);

/// What became of the requests.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// How often each answer came.
    pub answers: BTreeMap<String, usize>,
    /// What went wrong, each time.
    pub failures: Vec<String>,
    /// When that was, the last time.
    pub last_failure: Option<Instant>,
}

/// A load that runs until it is asked for its outcome.
#[derive(Debug)]
pub struct Load {
    stop: CancellationToken,
    clients: JoinSet<()>,
    outcome: Arc<Mutex<Outcome>>,
}

// === impl Load ===

impl Load {
    /// Starts `clients` of them against `path` on `port` of this machine.
    pub fn start(port: u16, path: &str, clients: usize) -> Self {
        Self::start_on(&[(Ipv4Addr::LOCALHOST, port).into()], path, clients)
    }

    /// The same against several addresses, `clients` for each.
    pub fn start_on(addresses: &[SocketAddr], path: &str, clients: usize) -> Self {
        let load = Self { stop: CancellationToken::new(), clients: JoinSet::new(), outcome: Arc::default() };
        let mut load = load;
        for address in addresses.iter().flat_map(|address| std::iter::repeat_n(*address, clients)) {
            let (stop, outcome, path) = (load.stop.clone(), Arc::clone(&load.outcome), path.to_owned());
            load.clients.spawn(async move {
                while !stop.is_cancelled() {
                    let answer = get_from(address, &path).await;
                    outcome.lock().await.count(answer);
                }
            });
        }
        load
    }

    /// How many requests have been answered or have failed so far.
    pub async fn count(&self) -> usize {
        self.outcome.lock().await.total()
    }

    /// What has become of the requests so far.
    pub async fn outcome(&self) -> Outcome {
        self.outcome.lock().await.clone()
    }

    /// Waits until so many more requests have been made.
    pub async fn more(&self, requests: usize) -> Result<()> {
        let wanted = self.count().await + requests;
        let reached = async {
            while self.count().await < wanted {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), reached).await.context("the load stands still")
    }

    /// Ends it, and says what became of the requests.
    pub async fn finish(mut self) -> Outcome {
        self.stop.cancel();
        while self.clients.join_next().await.is_some() {}
        self.outcome.lock().await.clone()
    }
}

// === impl Outcome ===

impl Outcome {
    /// How many requests there were.
    pub fn total(&self) -> usize {
        self.answers.values().sum::<usize>() + self.failures.len()
    }

    fn count(&mut self, answer: Result<String>) {
        match answer {
            Ok(answer) => *self.answers.entry(answer).or_default() += 1,
            Err(error) => {
                self.failures.push(format!("{error:#}"));
                self.last_failure = Some(Instant::now());
            }
        }
    }
}

/// One request to this machine, over a connection of its own: the body of the answer.
pub async fn get(port: u16, path: &str) -> Result<String> {
    get_from((Ipv4Addr::LOCALHOST, port).into(), path).await
}

/// The same to another machine.
pub async fn get_from(address: SocketAddr, path: &str) -> Result<String> {
    let request = async {
        let mut stream = TcpStream::connect(address).await.context("connect")?;
        let head = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n");
        stream.write_all(head.as_bytes()).await.context("send")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.context("receive")?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no whole answer")?;
        let status = head.lines().next().unwrap_or_default();
        ensure!(status.contains(" 200 "), "answered {status}");
        Ok(body.trim().to_owned())
    };
    tokio::time::timeout(PATIENCE, request).await.context("no answer in time")?
}
