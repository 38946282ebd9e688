//! The dialling side: for each node that a route names, the connections to its agent, made at the first use and kept.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Builder, Connection, SendRequest};
use http::{Method, Request, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::task::TaskTracker;
use tug_api::error::chain;
use tug_api::tls::{client_config, node_name};
use tug_api::transport::{TlsServer, TransportError};
use tug_model::{NodeId, TaskId};

use super::line::{self, Heard, Seat, Seats};
use super::{TUNNELS, Tunnel};
use crate::identity::Member;

/// A connection that nobody has used for so long is closed.
const IDLE: Duration = Duration::from_secs(300);
/// How long the last words of connections may take when all of them are given up.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The agents of other nodes, as far as the newest table names them.
#[derive(Debug)]
pub(crate) struct Pool {
    member: watch::Receiver<Option<Member>>,
    neighbours: Mutex<BTreeMap<NodeId, Arc<Neighbour>>>,
    lines: TaskTracker,
}

/// One other agent.
#[derive(Debug)]
pub(crate) struct Neighbour {
    node: NodeId,
    member: watch::Receiver<Option<Member>>,
    address: Mutex<String>,
    switch: watch::Sender<Switch>,
    tasks: TaskTracker,
}

/// The connections to one agent.
#[derive(Debug, Default)]
struct Switch {
    lines: Vec<Line>,
    is_dialling: bool,
    /// How often dialling has failed, and why the last time.
    failures: u64,
    failure: Option<Arc<TransportError>>,
    is_closed: bool,
}

/// An open connection.
#[derive(Debug, Clone)]
struct Line {
    sender: SendRequest<Bytes>,
    seats: Arc<Seats>,
    heard: Arc<AtomicU64>,
}

/// Why there is no tunnel.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TunnelError {
    /// The other agent cannot be reached.
    #[error("reach the agent of node {node}")]
    Unreachable {
        node: NodeId,
        #[source]
        source: Arc<TransportError>,
    },
    /// The other agent does not serve the task.
    #[error("the agent of node {node} answers {status}")]
    Refused { node: NodeId, status: StatusCode },
    /// The connection was lost meanwhile.
    #[error("the connection to the agent of node {node} was lost")]
    Lost {
        node: NodeId,
        #[source]
        source: h2::Error,
    },
    /// It is to be forgotten.
    #[error("node {node} is no longer a peer")]
    Closed { node: NodeId },
}

// === impl Pool ===

impl Pool {
    /// Knows nobody yet.
    pub(super) fn new(member: watch::Receiver<Option<Member>>) -> Self {
        Self { member, neighbours: Mutex::default(), lines: TaskTracker::new() }
    }

    /// From now on these are the nodes that may be dialled. Tunnels to others go on until they end.
    pub(crate) fn follow(&self, addresses: &BTreeMap<NodeId, String>) {
        let mut neighbours = lock(&self.neighbours);
        neighbours.retain(|node, neighbour| {
            let stays = addresses.contains_key(node);
            if !stays {
                neighbour.close();
            }
            stays
        });
        for (node, address) in addresses {
            if let Some(known) = neighbours.get(node) {
                address.clone_into(&mut lock(&known.address));
            } else {
                let new = Neighbour::new(node, address, &self.member, &self.lines);
                neighbours.insert(node.clone(), Arc::new(new));
            }
        }
    }

    /// The agent of `node`, if it may be dialled.
    pub(crate) fn neighbour(&self, node: &NodeId) -> Option<Arc<Neighbour>> {
        lock(&self.neighbours).get(node).cloned()
    }

    /// Gives up all connections, once everything that was said over them is sent.
    pub(crate) async fn close(&self) {
        self.follow(&BTreeMap::new());
        self.lines.close();
        if timeout(LAST_WORDS, self.lines.wait()).await.is_err() {
            tracing::debug!("connections to other agents were still open at the end");
        }
    }
}

// === impl Neighbour ===

impl Neighbour {
    fn new(
        node: &NodeId,
        address: &str,
        member: &watch::Receiver<Option<Member>>,
        tasks: &TaskTracker,
    ) -> Self {
        Self {
            node: node.clone(),
            member: member.clone(),
            address: Mutex::new(address.to_owned()),
            switch: watch::Sender::default(),
            tasks: tasks.clone(),
        }
    }

    /// Which node.
    pub(crate) fn node(&self) -> &NodeId {
        &self.node
    }

    /// Moves whenever anything comes from it.
    pub(crate) fn heard(&self) -> u64 {
        let switch = self.switch.borrow();
        switch.lines.iter().fold(0, |sum, line| sum.wrapping_add(line.heard.load(Ordering::Relaxed)))
    }

    /// A connection to a port of a task there, as soon as its agent has one itself.
    pub(crate) async fn tunnel(self: &Arc<Self>, task: &TaskId, port: u16) -> Result<Tunnel, TunnelError> {
        let lost = |source| TunnelError::Lost { node: self.node.clone(), source };
        let request = Request::builder().method(Method::CONNECT).uri(format!("{task}:{port}")).body(());
        let request = request.expect("a task's id with a port is an authority");
        let (mut sender, seat) = self.seat().await?;
        let (response, send) = sender.send_request(request, false).map_err(lost)?;
        let response = response.await.map_err(lost)?;
        if response.status() != StatusCode::OK {
            return Err(TunnelError::Refused { node: self.node.clone(), status: response.status() });
        }
        Ok(Tunnel::new(send, response.into_body(), Some(seat)))
    }

    /// A connection that takes a stream, dialled if there is none.
    async fn seat(self: &Arc<Self>) -> Result<(SendRequest<Bytes>, Seat), TunnelError> {
        let mut news = self.switch.subscribe();
        let failures = news.borrow_and_update().failures;
        loop {
            if let Some((line, seat)) = self.take_seat()? {
                match line.sender.clone().ready().await {
                    Ok(sender) => return Ok((sender, seat)),
                    // The other side takes no more over this one.
                    Err(_) => self.forget(&line.seats),
                }
                continue;
            }
            if news.changed().await.is_err() {
                return Err(TunnelError::Closed { node: self.node.clone() });
            }
            let switch = news.borrow_and_update();
            if let Some(source) = switch.failure.clone().filter(|_| switch.failures > failures) {
                return Err(TunnelError::Unreachable { node: self.node.clone(), source });
            }
        }
    }

    /// A place on the connection that has the fewest streams; `None` begins to dial, unless somebody has.
    fn take_seat(self: &Arc<Self>) -> Result<Option<(Line, Seat)>, TunnelError> {
        let (mut seat, mut is_closed) = (None, false);
        self.switch.send_if_modified(|switch| {
            is_closed = switch.is_closed;
            let free = switch.lines.iter().filter(|line| line.seats.taken() < line::STREAMS);
            let best = free.min_by_key(|line| line.seats.taken());
            seat = best.map(|line| (line.clone(), line.seats.take()));
            let dials = seat.is_none() && !switch.is_dialling && !is_closed;
            if dials {
                switch.is_dialling = true;
                // Whoever waits may lose patience; the connection is of use to the next.
                self.tasks.spawn(Arc::clone(self).dial());
            }
            false
        });
        if is_closed { Err(TunnelError::Closed { node: self.node.clone() }) } else { Ok(seat) }
    }

    async fn dial(self: Arc<Self>) {
        let dialled = self.connect().await;
        if let Err(error) = &dialled {
            tracing::info!(node = %self.node, reason = chain(error), "no connection to another agent");
        }
        self.switch.send_modify(|switch| {
            switch.is_dialling = false;
            match dialled {
                Ok(line) if !switch.is_closed => switch.lines.push(line),
                Ok(_) => {}
                Err(error) => {
                    switch.failures += 1;
                    switch.failure = Some(Arc::new(error));
                }
            }
        });
    }

    async fn connect(self: &Arc<Self>) -> Result<Line, TransportError> {
        let address = lock(&self.address).clone();
        let name = node_name(&self.node).ok_or_else(|| TransportError::lost("its id is no name"))?;
        let member = self.member.borrow().clone();
        let member = member.ok_or_else(|| TransportError::lost("this node is in no cluster yet"))?;
        let config = client_config(&member.authority_pem, Some(&member.credentials));
        let config = config.map_err(TransportError::lost)?;
        let stream = TlsServer { addresses: vec![address], name, config }.dial(&[TUNNELS]).await?;
        if stream.get_ref().1.alpn_protocol() != Some(TUNNELS) {
            return Err(TransportError::lost("it is no agent that takes tunnels"));
        }
        let (io, heard) = Heard::new(stream);
        let (sender, connection) = builder().handshake(io).await.map_err(TransportError::lost)?;
        let line = Line { sender, seats: Arc::default(), heard };
        let (seats, heard) = (Arc::clone(&line.seats), Arc::clone(&line.heard));
        self.tasks.spawn(drive(Arc::downgrade(self), connection, seats, heard));
        Ok(line)
    }

    /// Gives nobody a place on this connection any more.
    fn forget(&self, seats: &Arc<Seats>) {
        self.switch.send_modify(|switch| switch.lines.retain(|line| !Arc::ptr_eq(&line.seats, seats)));
    }

    /// The same if nobody has had a place since `given` were.
    fn forget_idle(&self, seats: &Arc<Seats>, given: u64) {
        // A place is taken only under the same lock.
        self.switch.send_modify(|switch| {
            let is_idle =
                |line: &Line| Arc::ptr_eq(&line.seats, seats) && seats.taken() == 0 && seats.given() == given;
            switch.lines.retain(|line| !is_idle(line));
        });
    }

    fn close(&self) {
        self.switch.send_modify(|switch| {
            switch.lines.clear();
            switch.is_closed = true;
        });
    }
}

/// Moves the bytes of a connection until it ends, which it does by itself when nobody may use it any more.
async fn drive<I: AsyncRead + AsyncWrite + Unpin>(
    neighbour: Weak<Neighbour>,
    mut connection: Connection<I, Bytes>,
    seats: Arc<Seats>,
    heard: Arc<AtomicU64>,
) {
    let Some(pings) = connection.ping_pong() else { return };
    let (mut connection, mut silence) = (pin!(connection), pin!(line::silence(pings, heard)));
    let reason = loop {
        let given = seats.given();
        tokio::select! {
            biased;
            ended = &mut connection => break ended.err().map(|error| chain(&error)),
            () = &mut silence => break Some("it fell silent".to_owned()),
            () = sleep(IDLE) => {}
        }
        if let Some(neighbour) = neighbour.upgrade() {
            neighbour.forget_idle(&seats, given);
        }
    };
    if let Some(neighbour) = neighbour.upgrade() {
        tracing::debug!(node = %neighbour.node, reason, "a connection to another agent ended");
        neighbour.forget(&seats);
    }
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder
        .enable_push(false)
        .initial_max_send_streams(line::STREAMS as usize)
        .initial_window_size(line::STREAM_WINDOW)
        .initial_connection_window_size(line::CONNECTION_WINDOW)
        .max_frame_size(line::FRAME)
        .max_send_buffer_size(line::SEND_BUFFER)
        .max_concurrent_reset_streams(line::RESETS);
    builder
}

/// What these locks guard is whole at every moment, also after a panic elsewhere.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
