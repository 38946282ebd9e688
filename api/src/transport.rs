//! How a request gets to its server: a [`Channel`].
//!
//! This is one of the few seams of Tug. In production a channel is HTTP/2 over a Unix socket or over a connection that
//! the other side dialled; in tests and simulations it is the server's router itself, or a fault layer before it.

mod severable;

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use futures_util::future::BoxFuture;
use http::header::{AUTHORIZATION, HeaderValue};
use http::{Request, Response, Uri};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Mutex;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tower::{Service, ServiceExt};

use self::severable::Severable;

use crate::token::TokenText;

/// Where requests can be sent. Cheap to clone.
#[derive(Clone)]
pub struct Channel(Arc<dyn Exchange>);

/// Why there was no response.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The server's socket could not be connected to.
    #[error("cannot reach {address}")]
    Connect {
        /// The socket.
        address: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The connection broke, or the other side does not speak HTTP/2. Whether the request took effect is unknown.
    #[error("the connection was lost")]
    Lost(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Anything that answers requests.
trait Exchange: Send + Sync {
    fn send(&self, request: Request<Body>) -> BoxFuture<'static, Result<Response<Body>, TransportError>>;
}

/// The pace of HTTP/2 keep-alive on a link: a silent peer is noticed after about three seconds.
const KEEP_ALIVE: Duration = Duration::from_secs(1);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long an address has to answer with a whole TLS handshake.
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);
/// What one side may send on one stream before the other has read it, in bytes.
pub(crate) const STREAM_WINDOW: u32 = 256 << 10;
/// The same for a whole connection: so much that a stream nobody reads never holds up the others.
pub(crate) const CONNECTION_WINDOW: u32 = 1 << 30;

// === impl Channel ===

impl Channel {
    /// A channel to a service in this process, such as an axum router.
    pub fn service<S>(service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        Self::fallible(tower::util::MapErr::new(service, |never: Infallible| match never {}))
    }

    /// A channel to a service in this process that may lose requests: a fault layer before a router.
    pub fn fallible<S>(service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = TransportError>
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        Self(Arc::new(InProcess(service)))
    }

    /// A channel to the server behind a Unix socket. It connects at the first request and again after a loss.
    pub fn unix(path: impl Into<PathBuf>) -> Self {
        Self::dialled(Way::Unix(path.into()))
    }

    /// A channel to a server of the cluster, by TLS. It connects at the first request and again after a loss.
    pub fn tls(server: TlsServer) -> Self {
        Self::dialled(Way::Tls(server))
    }

    /// The same channel; every request carries `token`.
    #[must_use]
    pub fn bearing(self, token: &TokenText) -> Self {
        let mut value = HeaderValue::try_from(format!("Bearer {}", token.expose()))
            .expect("a token has only letters that a header may have");
        value.set_sensitive(true);
        Self(Arc::new(Bearing { value, channel: self }))
    }

    fn dialled(way: Way) -> Self {
        Self(Arc::new(Dialled { way: Arc::new(way), connection: Arc::default() }))
    }

    /// Makes `io`, a connection that is open already, a channel: this side asks, the other side serves.
    /// The second value completes when the connection has ended; when it is dropped, the connection is cut.
    pub async fn over<I>(io: I) -> Result<(Self, BoxFuture<'static, ()>), TransportError>
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (io, uncut) = Severable::new(io);
        let (sender, connection) = handshake(io).await?;
        let ended = Box::pin(async move {
            // The connection itself is moved by another task, for as long as there is a request.
            let _uncut = uncut;
            connection.await;
        });
        Ok((Self(Arc::new(Connected(sender))), ended))
    }

    /// Sends `request` and gives the response as soon as its headers are there.
    pub async fn send(&self, request: Request<Body>) -> Result<Response<Body>, TransportError> {
        self.0.send(request).await
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Channel")
    }
}

// === impl TransportError ===

impl TransportError {
    /// The connection was lost because of `cause`.
    pub fn lost(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Lost(cause.into())
    }
}

// === in this process ===

struct InProcess<S>(S);

impl<S> Exchange for InProcess<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = TransportError>
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send + 'static,
{
    fn send(&self, request: Request<Body>) -> BoxFuture<'static, Result<Response<Body>, TransportError>> {
        Box::pin(self.0.clone().oneshot(request))
    }
}

// === with a token ===

struct Bearing {
    value: HeaderValue,
    channel: Channel,
}

impl Exchange for Bearing {
    fn send(&self, mut request: Request<Body>) -> BoxFuture<'static, Result<Response<Body>, TransportError>> {
        request.headers_mut().insert(AUTHORIZATION, self.value.clone());
        self.channel.0.send(request)
    }
}

// === over an open connection ===

#[derive(Clone)]
struct Connected(SendRequest<Body>);

impl Exchange for Connected {
    fn send(&self, request: Request<Body>) -> BoxFuture<'static, Result<Response<Body>, TransportError>> {
        let mut sender = self.0.clone();
        Box::pin(async move {
            let request = with_authority(request)?;
            sender.ready().await.map_err(TransportError::lost)?;
            let response = sender.send_request(request).await.map_err(TransportError::lost)?;
            Ok(response.map(Body::new))
        })
    }
}

/// HTTP/2 wants a scheme and an authority; a connection of ours has only one server, so any name will do.
fn with_authority(mut request: Request<Body>) -> Result<Request<Body>, TransportError> {
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.scheme = Some(http::uri::Scheme::HTTP);
    parts.authority = Some(http::uri::Authority::from_static("tug"));
    *request.uri_mut() = Uri::from_parts(parts).map_err(TransportError::lost)?;
    Ok(request)
}

// === over a connection that is dialled ===

struct Dialled {
    way: Arc<Way>,
    connection: Arc<Mutex<Option<SendRequest<Body>>>>,
}

enum Way {
    Unix(PathBuf),
    Tls(TlsServer),
}

/// A server of the cluster, reached by TLS.
#[derive(Debug, Clone)]
pub struct TlsServer {
    /// Where it may be reached, as `host:port`; they are tried in this order.
    pub addresses: Vec<String>,
    /// What its certificate must name.
    pub name: ServerName<'static>,
    /// Whom to trust, and what to show.
    pub config: Arc<ClientConfig>,
}

impl Exchange for Dialled {
    fn send(&self, request: Request<Body>) -> BoxFuture<'static, Result<Response<Body>, TransportError>> {
        let (way, connection) = (Arc::clone(&self.way), Arc::clone(&self.connection));
        Box::pin(async move {
            let sender = {
                let mut connection = connection.lock().await;
                match connection.as_ref().filter(|sender| !sender.is_closed()) {
                    Some(sender) => sender.clone(),
                    None => connection.insert(way.connect().await?).clone(),
                }
            };
            Connected(sender).send(request).await
        })
    }
}

impl Way {
    async fn connect(&self) -> Result<SendRequest<Body>, TransportError> {
        let (sender, connection) = match self {
            Self::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(|source| TransportError::Connect {
                    address: path.display().to_string(),
                    source,
                })?;
                handshake(stream).await?
            }
            Self::Tls(server) => handshake(server.dial(&[b"h2"]).await?).await?,
        };
        tokio::spawn(connection);
        Ok(sender)
    }
}

impl TlsServer {
    /// A new connection to the first address that answers as who is expected. `protocols` are offered by ALPN. When none
    /// does, the error is that of the first.
    pub async fn dial(&self, protocols: &[&[u8]]) -> Result<TlsStream<TcpStream>, TransportError> {
        let mut config = ClientConfig::clone(&self.config);
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        let connector = TlsConnector::from(Arc::new(config));
        let mut first = None;
        for address in &self.addresses {
            let dialled = timeout(DIAL_TIMEOUT, async {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                connector.connect(self.name.clone(), stream).await
            });
            let source = match dialled.await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => error,
                Err(_) => io::Error::from(io::ErrorKind::TimedOut),
            };
            first.get_or_insert_with(|| TransportError::Connect { address: address.clone(), source });
        }
        let nowhere = || TransportError::Connect {
            address: "the server".to_owned(),
            source: io::Error::new(io::ErrorKind::AddrNotAvailable, "no address is known"),
        };
        Err(first.unwrap_or_else(nowhere))
    }
}

async fn handshake<I>(io: I) -> Result<(SendRequest<Body>, BoxFuture<'static, ()>), TransportError>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .handshake(TokioIo::new(io))
        .await
        .map_err(TransportError::lost)?;
    let ended = Box::pin(async move {
        if let Err(error) = connection.await {
            tracing::debug!(error = crate::error::chain(&error), "connection ended");
        }
    });
    Ok((sender, ended))
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::routing::get;
    use futures_util::StreamExt;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::client::{CallError, call};
    use crate::error::{ApiError, Code};

    fn router() -> Router {
        Router::new()
            .route("/hello", get(async || "hello"))
            .route("/no", get(async || ApiError::new(Code::Conflict, "taken").hint("choose another")))
            .route("/numbers", get(async || crate::lines::response(futures_util::stream::iter(0..1000))))
    }

    async fn text(channel: &Channel, path: &str) -> Result<String, CallError> {
        let response = call(channel, Request::get(path).body(Body::empty()).unwrap()).await?;
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        Ok(String::from_utf8(bytes.to_vec()).unwrap())
    }

    async fn check(channel: &Channel) {
        assert_eq!(text(channel, "/hello").await.unwrap(), "hello");
        let Err(CallError::Api(error)) = text(channel, "/no").await else { panic!("not an API error") };
        assert_eq!((error.code, error.hint.as_deref()), (Code::Conflict, Some("choose another")));
        let response = call(channel, Request::get("/numbers").body(Body::empty()).unwrap()).await.unwrap();
        let numbers: Vec<u32> =
            crate::lines::read::<u32>(response.into_body()).map(Result::unwrap).collect().await;
        assert_eq!(numbers, (0..1000).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn the_same_router_answers_in_process_over_a_socket_and_over_an_open_connection() {
        check(&Channel::service(router())).await;

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tug.sock");
        let stop = CancellationToken::new();
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let served = tokio::spawn(crate::serve::unix(listener, router(), stop.clone()));
        let channel = Channel::unix(&path);
        check(&channel).await;
        stop.cancel();
        served.await.unwrap().unwrap();
        assert!(
            matches!(text(&channel, "/hello").await, Err(CallError::Transport(_))),
            "the server has gone"
        );

        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let stop = CancellationToken::new();
        let served = tokio::spawn(crate::serve::connection(theirs, router(), stop.clone()));
        let (channel, ended) = Channel::over(ours).await.unwrap();
        let ended = tokio::spawn(ended);
        check(&channel).await;
        stop.cancel();
        served.await.unwrap().unwrap();
        ended.await.unwrap();
    }

    #[tokio::test]
    async fn an_answer_is_read_to_its_end_although_the_channel_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tug.sock");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let (going_on, wait) = tokio::sync::oneshot::channel::<u32>();
        let wait = Arc::new(Mutex::new(Some(wait)));
        let slow = async move || {
            let number = wait.lock().await.take().unwrap();
            crate::lines::response(futures_util::stream::once(async { number.await.unwrap() }))
        };
        let router = router().route("/slow", get(slow));
        let served = tokio::spawn(crate::serve::unix(listener, router, CancellationToken::new()));
        let channel = Channel::unix(&path);
        let response = call(&channel, Request::get("/slow").body(Body::empty()).unwrap()).await.unwrap();
        drop(channel);
        // All that is not the answer has every opportunity to end.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        going_on.send(7).unwrap();
        let numbers: Vec<u32> =
            crate::lines::read::<u32>(response.into_body()).map(Result::unwrap).collect().await;
        assert_eq!(numbers, [7]);
        served.abort();
    }

    #[tokio::test]
    async fn streams_that_nobody_reads_hold_up_nobody() {
        let chunk = bytes::Bytes::from(vec![0; 64 << 10]);
        let endless = async move || {
            let chunk = chunk.clone();
            Body::from_stream(futures_util::stream::repeat_with(move || Ok::<_, io::Error>(chunk.clone())))
        };
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let stop = CancellationToken::new();
        let router = router().route("/endless", get(endless));
        let served = tokio::spawn(crate::serve::connection(theirs, router, stop.clone()));
        let (channel, ended) = Channel::over(ours).await.unwrap();
        let ended = tokio::spawn(ended);
        let mut unread = Vec::new();
        for _ in 0..64 {
            let request = Request::get("/endless").body(Body::empty()).unwrap();
            unread.push(call(&channel, request).await.unwrap());
        }
        assert_eq!(text(&channel, "/hello").await.unwrap(), "hello");
        drop(unread);
        stop.cancel();
        served.await.unwrap().unwrap();
        ended.await.unwrap();
    }

    #[tokio::test]
    async fn a_connection_whose_end_nobody_waits_for_is_cut_with_all_that_goes_on_over_it() {
        let endless =
            async || Body::from_stream(futures_util::stream::pending::<Result<String, io::Error>>());
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let router = router().route("/endless", get(endless));
        let served = tokio::spawn(crate::serve::connection(theirs, router, CancellationToken::new()));
        let (channel, ended) = Channel::over(ours).await.unwrap();
        let ended = tokio::spawn(ended);
        let request = Request::get("/endless").body(Body::empty()).unwrap();
        let response = call(&channel, request).await.unwrap();
        ended.abort();
        axum::body::to_bytes(response.into_body(), 1).await.unwrap_err();
        assert!(matches!(text(&channel, "/hello").await, Err(CallError::Transport(_))));
        // However the other side calls it, it is over.
        drop(served.await.unwrap());
    }

    #[tokio::test]
    async fn a_socket_without_a_server_is_named() {
        let error = text(&Channel::unix("/nowhere/tug.sock"), "/hello").await.unwrap_err();
        assert!(
            crate::error::chain(&error).contains("cannot reach /nowhere/tug.sock: No such file"),
            "{error:?}"
        );
    }
}
