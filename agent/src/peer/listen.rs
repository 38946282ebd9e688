//! The accepting side: agents of other nodes that want a connection to a task here, or ask something.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use bytes::Bytes;
use h2::server::{Builder, Connection, SendResponse};
use h2::{Reason, RecvStream};
use http::{Method, Request, Response, StatusCode};
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tug_api::error::chain;
use tug_api::tls::{Caller, ClientCertificates, Peer, TlsError, server_config};
use tug_model::node::KeyId;
use tug_model::{NodeId, TaskId};

use super::line::{self, Heard};
use super::{Address, Members, REQUESTS, TUNNELS, Tunnel};
use crate::identity::Member;

/// How long another agent has to say who it is.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// So many may be about it at once; more wait to be accepted.
const HANDSHAKES: usize = 128;
/// How long somebody waits who is no node, as far as is known here: the news of who has just joined is on its way.
const NEWS: Duration = Duration::from_secs(2);
/// How often a port that cannot be listened on is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// How long nothing is accepted after the system had no room for another connection.
const PAUSE: Duration = Duration::from_millis(100);

/// Listens for other agents.
#[derive(Debug)]
pub(crate) struct Listener {
    listen: SocketAddr,
    member: watch::Receiver<Option<Member>>,
    address: Address,
    router: Router,
    members: Members,
}

/// A node's agent that wants a connection to a task.
#[derive(Debug)]
pub(crate) struct Knock {
    from: NodeId,
    task: TaskId,
    port: u16,
    respond: SendResponse<Bytes>,
    receive: RecvStream,
}

/// What every connection needs.
struct Entrance<H> {
    member: watch::Receiver<Option<Member>>,
    router: Router,
    members: Members,
    answer: H,
    stop: CancellationToken,
}

/// Another agent.
struct Guest {
    node: NodeId,
    key: KeyId,
    takes_tunnels: bool,
    stream: TlsStream<TcpStream>,
}

// === impl Listener ===

impl Listener {
    pub(super) fn new(
        listen: SocketAddr,
        member: watch::Receiver<Option<Member>>,
        address: Address,
        router: Router,
        members: Members,
    ) -> Self {
        Self { listen, member, address, router, members }
    }

    /// Accepts until `stop`. Each wish for a connection goes to `answer`; `closed` is told why the port is not open, or that
    /// it is. What was accepted goes on, among `lines`, until its last tunnel has ended.
    pub(crate) async fn run<H>(
        self,
        answer: H,
        closed: impl Fn(Option<(u16, io::Error)>),
        lines: TaskTracker,
        stop: CancellationToken,
    ) where
        H: Fn(Knock) + Send + Sync + 'static,
    {
        let Some(listener) = stop.run_until_cancelled(self.open(closed)).await else { return };
        let Self { member, router, members, .. } = self;
        let entrance = Arc::new(Entrance { member, router, members, answer, stop });
        let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
        loop {
            let accepted = async {
                let turn = Arc::clone(&handshakes).acquire_owned().await.map_err(io::Error::other)?;
                Ok::<_, io::Error>((turn, listener.accept().await?))
            };
            match entrance.stop.run_until_cancelled(accepted).await {
                None => return,
                Some(Ok((turn, (stream, address)))) => {
                    let entrance = Arc::clone(&entrance);
                    lines.spawn(async move {
                        let guest = timeout(HANDSHAKE, entrance.welcome(stream)).await;
                        drop(turn);
                        match guest.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                            Ok(guest) => entrance.serve(guest, address).await,
                            Err(error) => {
                                tracing::info!(%address, %error, "not another agent of the cluster");
                            }
                        }
                    });
                }
                Some(Err(error)) => {
                    tracing::warn!(%error, "accept another agent");
                    sleep(PAUSE).await;
                }
            }
        }
    }

    /// Tries until the port can be listened on.
    async fn open(&self, closed: impl Fn(Option<(u16, io::Error)>)) -> TcpListener {
        loop {
            let opened = TcpListener::bind(self.listen).await;
            match opened.and_then(|listener| Ok((listener.local_addr()?.port(), listener))) {
                Ok((port, listener)) => {
                    closed(None);
                    self.address.set_port(port);
                    return listener;
                }
                Err(error) => closed(Some((self.listen.port(), error))),
            }
            sleep(RETRY).await;
        }
    }
}

// === impl Entrance ===

impl<H: Fn(Knock)> Entrance<H> {
    /// Finds out who it is.
    async fn welcome(&self, stream: TcpStream) -> io::Result<Guest> {
        let refused = |why| io::Error::new(io::ErrorKind::PermissionDenied, why);
        stream.set_nodelay(true)?;
        let member = self.member.borrow().clone();
        let member = member.ok_or_else(|| refused("this node is in no cluster yet"))?;
        let stream = acceptor(&member).map_err(io::Error::other)?.accept(stream).await?;
        let session = stream.get_ref().1;
        let takes_tunnels = match session.alpn_protocol() {
            Some(TUNNELS) => true,
            Some(REQUESTS) => false,
            Some(_) | None => return Err(refused("it speaks none of our protocols")),
        };
        let certificate = session.peer_certificates().and_then(|chain| chain.first());
        let peer = certificate.map_or(Peer::Nobody, |certificate| Peer::of_certificate(certificate));
        let Peer::Node { node, key } = peer else { return Err(refused("its certificate names no node")) };
        let admitted = timeout(NEWS, self.members.admitted(&node, &key)).await;
        admitted.map_err(|_| refused("its node is not, or no longer, part of the cluster"))?;
        Ok(Guest { node, key, takes_tunnels, stream })
    }

    async fn serve(&self, guest: Guest, address: SocketAddr) {
        let Guest { node, key, takes_tunnels, stream } = guest;
        tracing::debug!(%node, %address, takes_tunnels, "another agent connected");
        let served = async {
            if takes_tunnels {
                return self.tunnels(&node, stream).await.map_err(|error| chain(&error));
            }
            let peer = Peer::Node { node: node.clone(), key: key.clone() };
            let router = self.router.clone().layer(Extension(Caller { peer, address: Some(address) }));
            let served = tug_api::serve::connection(stream, router, self.stop.clone());
            served.await.map_err(|error| chain(&error))
        };
        let ended = tokio::select! {
            biased;
            () = self.members.shut_out(&node, &key) => Err("its node was removed".to_owned()),
            ended = served => ended,
        };
        tracing::debug!(%node, %address, reason = ended.err(), "the connection of another agent ended");
    }

    async fn tunnels(&self, node: &NodeId, stream: TlsStream<TcpStream>) -> Result<(), h2::Error> {
        let (io, heard) = Heard::new(stream);
        let mut connection: Connection<_, Bytes> = match timeout(HANDSHAKE, builder().handshake(io)).await {
            Ok(shaken) => shaken?,
            Err(_) => return Err(Reason::SETTINGS_TIMEOUT.into()),
        };
        let Some(pings) = connection.ping_pong() else { return Ok(()) };
        let mut silence = pin!(line::silence(pings, heard));
        let mut is_leaving = false;
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled(), if !is_leaving => {
                    is_leaving = true;
                    connection.graceful_shutdown();
                }
                wish = connection.accept() => match wish {
                    Some(wish) => {
                        let (request, respond) = wish?;
                        self.wish(node, request, respond);
                    }
                    None => return Ok(()),
                },
                () = &mut silence => return Err(Reason::CANCEL.into()),
            }
        }
    }

    fn wish(&self, from: &NodeId, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
        let (parts, receive) = request.into_parts();
        let destination = parts.uri.authority().filter(|_| parts.method == Method::CONNECT);
        match destination.and_then(|authority| parse(authority.as_str())) {
            Some((task, port)) => (self.answer)(Knock { from: from.clone(), task, port, respond, receive }),
            None => refuse(&mut respond, StatusCode::BAD_REQUEST),
        }
    }
}

/// Made for each connection: they last, and a certificate may have been renewed.
fn acceptor(member: &Member) -> Result<TlsAcceptor, TlsError> {
    let config = server_config(&member.credentials, &member.authority_pem, ClientCertificates::Required)?;
    let mut config = ServerConfig::clone(&config);
    config.alpn_protocols = vec![TUNNELS.to_vec(), REQUESTS.to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// `shop.web.1.7:80`
fn parse(authority: &str) -> Option<(TaskId, u16)> {
    let (task, port) = authority.rsplit_once(':')?;
    Some((TaskId::parse(task).ok()?, port.parse().ok()?))
}

fn refuse(respond: &mut SendResponse<Bytes>, status: StatusCode) {
    let mut response = Response::new(());
    *response.status_mut() = status;
    if let Err(error) = respond.send_response(response, true) {
        tracing::debug!(%error, "another agent has lost patience");
    }
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(line::STREAMS)
        .initial_window_size(line::STREAM_WINDOW)
        .initial_connection_window_size(line::CONNECTION_WINDOW)
        .max_frame_size(line::FRAME)
        .max_header_list_size(4 << 10)
        .max_send_buffer_size(line::SEND_BUFFER)
        .max_concurrent_reset_streams(line::RESETS)
        .max_pending_accept_reset_streams(line::RESETS);
    builder
}

// === impl Knock ===

impl Knock {
    /// Who asks.
    pub(crate) fn from(&self) -> &NodeId {
        &self.from
    }

    /// For which task.
    pub(crate) fn task(&self) -> &TaskId {
        &self.task
    }

    /// For which port inside its container.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The task is connected to.
    pub(crate) fn accept(mut self) -> Result<Tunnel, h2::Error> {
        let send = self.respond.send_response(Response::new(()), false)?;
        Ok(Tunnel::new(send, self.receive, None))
    }

    /// Another one may serve: the task does not.
    pub(crate) fn refuse(mut self) {
        refuse(&mut self.respond, StatusCode::SERVICE_UNAVAILABLE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_is_a_task_and_a_port() {
        let (task, port) = parse("shop.web.1.7:80").unwrap();
        assert_eq!((task.as_str(), port), ("shop.web.1.7", 80));
        for wrong in ["shop.web.1.7", "shop.web.1.7:", "shop.web.1.7:65536", ":80", "[::1]:22"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
