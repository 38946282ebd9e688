//! Serving a router on a socket, or on one connection that is open already.

mod handshake;
mod requests;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

pub use self::handshake::HandshakeError;
use self::handshake::secure;
use self::requests::Requests;
use crate::error::chain;
use crate::tls::{Caller, Peer};
use crate::transport::{CONNECTION_WINDOW, STREAM_WINDOW};

/// How long a client has to send the head of a request, and the first one at all.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long open requests have to end after a stop was asked for.
const STOP_GRACE: Duration = Duration::from_secs(5);
/// The largest head of an HTTP/1 request in bytes: a line of 8 KiB and 16 KiB of headers fit.
const LARGEST_HEAD: usize = 32 << 10;
/// So many connections are open at once on a socket; more wait to be accepted.
const MOST_CONNECTIONS: usize = 1_024;
/// So many of them come from one network address; more are closed at once.
const MOST_FROM_ONE: usize = 128;
/// So many requests run at once on a link: one for the logs of each task, and a few more.
const MOST_STREAMS: u32 = 4_096;

/// Serves `router` (HTTP/1.1 with upgrades, and HTTP/2) on `listener` until `stop`, then lets open requests end.
/// Streams that would never end must watch the same token themselves. Each request says that it is [`Peer::Local`].
pub async fn unix(listener: UnixListener, router: Router, stop: CancellationToken) -> io::Result<()> {
    let house = House::new(router);
    loop {
        let Some((permit, (stream, _))) = house.next(|| listener.accept(), &stop).await else { break };
        let place = Place { _permit: permit, _guest: None };
        house.serve(stream, Caller { peer: Peer::Local, address: None }, place);
    }
    drop(listener);
    house.close().await;
    Ok(())
}

/// The same over TLS. Each request says who its client is, by its certificate. `unserved` hears of each handshake that
/// comes to nothing.
pub async fn tls(
    listener: TcpListener,
    router: Router,
    config: Arc<ServerConfig>,
    unserved: impl Fn(&HandshakeError) + Send + Sync + 'static,
    stop: CancellationToken,
) -> io::Result<()> {
    let house = House::new(router);
    let (acceptor, guests, unserved) = (TlsAcceptor::from(config), Guests::default(), Arc::new(unserved));
    loop {
        let Some((permit, (stream, address))) = house.next(|| listener.accept(), &stop).await else { break };
        let Some(guest) = guests.welcome(address.ip()) else {
            tracing::debug!(%address, "too many connections from one address");
            continue;
        };
        let place = Place { _permit: permit, _guest: Some(guest) };
        let (house, acceptor, unserved) = (house.clone(), acceptor.clone(), Arc::clone(&unserved));
        tokio::spawn(async move {
            match secure(stream, &acceptor, HEAD_TIMEOUT).await {
                Ok((stream, peer)) => house.serve(stream, Caller { peer, address: Some(address) }, place),
                Err(error) => {
                    // Anybody can have as many of these lines as they like: who counts them needs no log for it.
                    tracing::debug!(%address, error = chain(&error), "a TLS handshake failed");
                    unserved(&error);
                }
            }
        });
    }
    drop(listener);
    house.close().await;
    Ok(())
}

/// The part of an address that its owner cannot choose: whoever has one IPv6 address has all of its /64.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
    }
}

/// A connection's place among the open ones.
struct Place {
    _permit: OwnedSemaphorePermit,
    _guest: Option<Guest>,
}

/// How many connections are open from each network address.
#[derive(Default, Clone)]
struct Guests(Arc<Mutex<BTreeMap<IpAddr, usize>>>);

/// One of them.
struct Guest {
    guests: Guests,
    from: IpAddr,
}

impl Guests {
    /// One more; `None`: there are too many from there.
    fn welcome(&self, address: IpAddr) -> Option<Guest> {
        let from = network(address);
        let mut counts = self.counts();
        let count = counts.entry(from).or_default();
        if *count == MOST_FROM_ONE {
            return None;
        }
        *count += 1;
        Some(Guest { guests: self.clone(), from })
    }

    fn counts(&self) -> MutexGuard<'_, BTreeMap<IpAddr, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut counts = self.guests.counts();
        if let Some(count) = counts.get_mut(&self.from) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.from);
            }
        }
    }
}

/// What all connections of a listener share.
#[derive(Clone)]
struct House {
    router: Router,
    places: Arc<Semaphore>,
    connections: TaskTracker,
    closing: CancellationToken,
}

impl House {
    fn new(router: Router) -> Self {
        let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
        Self { router, places, connections: TaskTracker::new(), closing: CancellationToken::new() }
    }

    /// A place for a connection, then the connection; `None` after `stop`.
    async fn next<T, F: Future<Output = io::Result<T>>>(
        &self,
        accept: impl Fn() -> F,
        stop: &CancellationToken,
    ) -> Option<(OwnedSemaphorePermit, T)> {
        loop {
            let accepted = async {
                let place = Arc::clone(&self.places).acquire_owned().await.map_err(io::Error::other)?;
                Ok::<_, io::Error>((place, accept().await?))
            };
            let accepted = tokio::select! {
                biased;
                () = stop.cancelled() => return None,
                accepted = accepted => accepted,
            };
            match accepted {
                Ok(accepted) => return Some(accepted),
                Err(error) => {
                    tracing::warn!(%error, "accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    /// Serves one connection beside the others.
    fn serve<I>(&self, io: I, caller: Caller, place: Place)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (router, requests) = (self.router.clone(), Requests::default());
        let begun = requests.clone();
        let service = tower::service_fn(move |request: Request<Incoming>| {
            let open = begun.begin();
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(caller.clone());
            let answer = router.clone().oneshot(request);
            async move { Ok::<_, Infallible>(open.until_the_end_of(answer.await?)) }
        });
        let (service, closing) = (TowerToHyperService::new(service), self.closing.clone());
        self.connections.spawn(async move {
            let builder = builder();
            let connection = builder.serve_connection_with_upgrades(TokioIo::new(io), service);
            let mut connection = std::pin::pin!(connection);
            let ended = tokio::select! {
                biased;
                ended = connection.as_mut() => Some(ended),
                () = closing.cancelled() => None,
                () = requests.idle(HEAD_TIMEOUT) => None,
            };
            let ended = if let Some(ended) = ended {
                ended
            } else {
                connection.as_mut().graceful_shutdown();
                timeout(STOP_GRACE, connection).await.unwrap_or(Ok(()))
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "connection ended");
            }
            drop(place);
        });
    }

    /// Lets open requests end, for a while.
    async fn close(&self) {
        self.closing.cancel();
        self.connections.close();
        if timeout(STOP_GRACE, self.connections.wait()).await.is_err() {
            tracing::debug!("requests were still open at the end of the grace");
        }
    }
}

/// Serves `router` on one connection, HTTP/2 only, until it ends or `stop`.
pub async fn connection<I>(io: I, router: Router, stop: CancellationToken) -> Result<(), hyper::Error>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = TowerToHyperService::new(router.map_request(|r: Request<Incoming>| r.map(Body::new)));
    let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(Duration::from_secs(1))
        .keep_alive_timeout(Duration::from_secs(2))
        .max_concurrent_streams(MOST_STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    let connection = builder.serve_connection(TokioIo::new(io), service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        ended = connection.as_mut() => return ended,
    }
    connection.as_mut().graceful_shutdown();
    // The other side may hang up before it has heard our last word; a stop that was asked for is no error.
    let _ended = tokio::time::timeout(STOP_GRACE, connection).await;
    Ok(())
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(LARGEST_HEAD)
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(16 << 10)
        .max_concurrent_streams(256)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    builder
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use futures_util::stream::once;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::time::sleep;

    use super::requests::IDLE;
    use super::*;

    /// So long an answer takes that does not come at once.
    const LATE: Duration = Duration::from_secs(600);

    async fn late() -> Body {
        Body::from_stream(once(async {
            sleep(LATE).await;
            Ok::<_, Infallible>("late")
        }))
    }

    /// A connection to a server, from outside.
    fn connection() -> DuplexStream {
        let house = House::new(Router::new().route("/", get("soon")).route("/late", get(late)));
        let (ours, theirs) = duplex(1 << 10);
        let permit = Arc::clone(&house.places).try_acquire_owned().unwrap();
        let place = Place { _permit: permit, _guest: None };
        house.serve(theirs, Caller { peer: Peer::Nobody, address: None }, place);
        ours
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_on_which_nothing_is_asked_is_closed() {
        const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
        for (asked, answer, most) in [
            (&b""[..], "", HEAD_TIMEOUT),
            (&PREFACE[..5], "", HEAD_TIMEOUT),
            (PREFACE, "", HEAD_TIMEOUT + STOP_GRACE),
            (b"GET / HTTP/1.1\r\nhost: tug\r\n\r\n", "soon", 2 * IDLE),
            (b"GET /late HTTP/1.1\r\nhost: tug\r\n\r\n", "late", LATE + 2 * IDLE),
        ] {
            let mut stream = connection();
            stream.write_all(asked).await.unwrap();
            let mut answered = Vec::new();
            let asked = String::from_utf8_lossy(asked);
            let read = timeout(most + Duration::from_secs(1), stream.read_to_end(&mut answered)).await;
            read.unwrap_or_else(|_| panic!("after {most:?} it is open: {asked}")).unwrap();
            let answered = String::from_utf8_lossy(&answered);
            assert!(answered.contains(answer), "{asked}: {answered}");
        }
    }

    #[test]
    fn one_network_address_has_its_share_of_the_connections_and_gets_them_back() {
        let guests = Guests::default();
        let v6 = |last: u16| IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, last]);
        let mut open: Vec<_> = (0..1000).filter_map(|last| guests.welcome(v6(last))).collect();
        assert_eq!(open.len(), MOST_FROM_ONE);
        let other = guests.welcome(IpAddr::from([192, 0, 2, 1]));
        assert!(other.is_some(), "others are served");
        open.pop();
        let again = guests.welcome(v6(7));
        assert!(again.is_some() && guests.welcome(v6(8)).is_none());
        drop((open, again, other));
        assert!(guests.counts().is_empty(), "nothing is remembered of who has gone");
    }

    #[test]
    fn an_ipv4_address_is_the_same_in_either_notation() {
        assert_eq!(network("::ffff:192.0.2.9".parse().unwrap()), IpAddr::from([192, 0, 2, 9]));
    }
}
