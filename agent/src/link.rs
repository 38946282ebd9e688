//! The connection to the orchestrator: the agent dials, the connection is upgraded, and then the roles turn round.
//! The orchestrator asks, the agent's router answers. It is dialled again whenever it is lost, for ever.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::header::{CONNECTION, HOST, UPGRADE};
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tug_api::error::{ErrorBody, chain};
use tug_api::node::{LINK_PATH, LINK_PROTOCOL};
use tug_api::transport::{TlsServer, TransportError};
use tug_model::NodeId;

use crate::plan::spread;

/// Keeps the orchestrator connected.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) place: Place,
    pub(crate) node: NodeId,
    /// Which run of the machine this is; `None`: its kernel does not say.
    pub(crate) boot: Option<String>,
    pub(crate) router: Router,
    /// Is told by which address of this machine the orchestrator is reached; `None`: it is on this machine.
    pub(crate) local: watch::Sender<Option<IpAddr>>,
    pub(crate) seed: u64,
}

/// The kernel's name for this run of the machine.
pub(crate) fn boot_id() -> Option<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || letter == '-';
    Some(text.trim()).filter(|id| !id.is_empty() && id.chars().all(is_plain)).map(str::to_owned)
}

/// Where the orchestrator is.
#[derive(Debug)]
pub(crate) enum Place {
    /// On this machine, behind a socket.
    Socket(PathBuf),
    /// Elsewhere.
    Servers {
        /// Who is expected there, and what is shown.
        server: TlsServer,
        /// At these addresses now.
        addresses: watch::Receiver<Vec<String>>,
    },
}

/// Why there is no link.
#[derive(Debug, thiserror::Error)]
enum LinkError {
    #[error("connect to the orchestrator at {}", path.display())]
    Connect {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("connect to the orchestrator")]
    Dial(#[source] TransportError),
    #[error("no answer from the orchestrator within {} s", .0.as_secs())]
    Timeout(Duration),
    #[error("ask the orchestrator for a link")]
    Ask(#[source] hyper::Error),
    #[error("the orchestrator refuses the link with status {status}: {reason}")]
    Refused { status: StatusCode, reason: String },
    #[error("serve the link")]
    Serve(#[source] hyper::Error),
}

/// How long a server that was reached may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// A cable that is plugged in again, or an orchestrator that comes back, shall not be waited for: one try a second costs
/// nobody anything.
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// A link that lasted this long makes the waits short again.
const GOOD: Duration = Duration::from_secs(5);

// === impl Link ===

impl Link {
    /// Dials and serves until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut failures: u32 = 0;
        while !stop.is_cancelled() {
            let began = Instant::now();
            let ended = self.session(failures, &stop).await;
            if began.elapsed() >= GOOD {
                failures = 0;
            }
            match ended {
                Err(error) if failures == 0 => tracing::warn!(reason = chain(&error), "no link"),
                Err(error) => tracing::debug!(reason = chain(&error), "no link"),
                Ok(()) => {}
            }
            let wait = self.wait(failures);
            failures = failures.saturating_add(1);
            // Cut short by the stop, which the loop then sees.
            let _ = tokio::time::timeout(wait, stop.cancelled()).await;
        }
    }

    /// One connection, from the dialling to its end.
    async fn session(&self, failures: u32, stop: &CancellationToken) -> Result<(), LinkError> {
        let (io, local) = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            dialled = Box::pin(self.dial(failures)) => dialled?,
        };
        self.local.send_replace(local);
        tracing::info!(server = %self.place, "linked to the orchestrator");
        let served = tug_api::serve::connection(TokioIo::new(io), self.router.clone(), stop.clone());
        served.await.map_err(LinkError::Serve)
    }

    /// The wait before the next try: many agents that lost the same orchestrator do not come back at once.
    fn wait(&self, failures: u32) -> Duration {
        let longest = (FIRST_WAIT * 2_u32.saturating_pow(failures.min(16))).min(LONGEST_WAIT);
        longest.mul_f64(spread(failures, self.node.as_str(), self.seed))
    }

    async fn dial(&self, failures: u32) -> Result<(Upgraded, Option<IpAddr>), LinkError> {
        match &self.place {
            Place::Socket(path) => {
                let connected = UnixStream::connect(path).await;
                let stream = connected.map_err(|source| LinkError::Connect { path: path.clone(), source })?;
                Ok((self.turn_round(stream).await?, None))
            }
            Place::Servers { server, addresses } => {
                let addresses = rotated(&addresses.borrow(), failures);
                let server = TlsServer { addresses, ..server.clone() };
                let stream = server.dial(&[b"http/1.1"]).await.map_err(LinkError::Dial)?;
                let local = stream.get_ref().0.local_addr().ok().map(|address| address.ip());
                Ok((self.turn_round(stream).await?, local))
            }
        }
    }

    async fn turn_round<I>(&self, stream: I) -> Result<Upgraded, LinkError>
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let upgraded = tokio::time::timeout(ANSWER_TIMEOUT, self.upgrade(stream)).await;
        upgraded.unwrap_or(Err(LinkError::Timeout(ANSWER_TIMEOUT)))
    }

    async fn upgrade<I>(&self, stream: I) -> Result<Upgraded, LinkError>
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(LinkError::Ask)?;
        let boot = self.boot.as_ref().map(|boot| format!("&boot={boot}")).unwrap_or_default();
        let request = Request::get(format!("{LINK_PATH}?node={}{boot}", self.node))
            .header(HOST, "tug")
            .header(CONNECTION, "upgrade")
            .header(UPGRADE, LINK_PROTOCOL)
            .body(Body::empty())
            .expect("the parts of this request are valid");
        let exchange = async {
            let response = sender.send_request(request).await.map_err(LinkError::Ask)?;
            if response.status() != StatusCode::SWITCHING_PROTOCOLS {
                let status = response.status();
                let body = response.into_body().collect().await.map_err(LinkError::Ask)?.to_bytes();
                let reason = serde_json::from_slice::<ErrorBody>(&body).map(|body| body.error.message);
                return Err(LinkError::Refused { status, reason: reason.unwrap_or_default() });
            }
            hyper::upgrade::on(response).await.map_err(LinkError::Ask)
        };
        let mut exchange = std::pin::pin!(exchange);
        let mut connection = std::pin::pin!(connection.with_upgrades());
        tokio::select! {
            biased;
            upgraded = &mut exchange => upgraded,
            ended = &mut connection => match ended {
                Ok(()) => exchange.await,
                Err(error) => Err(LinkError::Ask(error)),
            },
        }
    }
}

// === impl Place ===

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Socket(path) => path.display().fmt(f),
            Self::Servers { addresses, .. } => f.write_str(&addresses.borrow().join(", ")),
        }
    }
}

/// The addresses, beginning with another one after each failure: one that leads nowhere takes its time.
fn rotated(addresses: &[String], failures: u32) -> Vec<String> {
    let mut addresses = addresses.to_vec();
    if let Some(first) = usize::try_from(failures).ok().and_then(|it| it.checked_rem(addresses.len())) {
        addresses.rotate_left(first);
    }
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_stay_short_enough_to_be_back_soon() {
        let node = NodeId::parse("n1").unwrap();
        let place = Place::Socket(PathBuf::new());
        let (router, local) = (Router::new(), watch::Sender::new(None));
        let link = Link { place, node, boot: None, router, local, seed: 1 };
        let waits: Vec<Duration> = (0..40).map(|failures| link.wait(failures)).collect();
        assert!(
            waits[0] < Duration::from_millis(200) && waits[39] >= Duration::from_millis(500),
            "{waits:?}"
        );
        assert!(waits.iter().all(|wait| *wait <= Duration::from_secs(1)), "{waits:?}");
    }

    #[test]
    fn every_address_comes_first_in_turn() {
        let addresses = ["a", "b", "c"].map(str::to_owned);
        let first = |failures| rotated(&addresses, failures).remove(0);
        assert_eq!((0..4).map(first).collect::<Vec<_>>(), ["a", "b", "c", "a"]);
        assert!(rotated(&[], 3).is_empty());
    }
}
