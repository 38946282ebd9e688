//! The connection to the orchestrator: the agent dials, the connection is upgraded, and then the roles turn round.
//! The orchestrator asks, the agent's router answers. It is dialled again whenever it is lost, for ever.

use std::path::PathBuf;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::header::{CONNECTION, HOST, UPGRADE};
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tug_api::error::{ErrorBody, chain};
use tug_api::node::{LINK_PATH, LINK_PROTOCOL};
use tug_model::NodeId;

use crate::plan::spread;

/// Keeps the orchestrator connected.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) server: PathBuf,
    pub(crate) node: NodeId,
    pub(crate) router: Router,
    pub(crate) seed: u64,
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
    #[error("no answer from the orchestrator within {} s", .0.as_secs())]
    Timeout(Duration),
    #[error("ask the orchestrator for a link")]
    Ask(#[source] hyper::Error),
    #[error("the orchestrator refuses the link with status {status}: {reason}")]
    Refused { status: StatusCode, reason: String },
    #[error("serve the link")]
    Serve(#[source] hyper::Error),
}

const DIAL_TIMEOUT: Duration = Duration::from_secs(5);
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// An orchestrator that comes back after a long time shall know everything within three seconds.
const LONGEST_WAIT: Duration = Duration::from_secs(2);
/// A link that lasted this long makes the waits short again.
const GOOD: Duration = Duration::from_secs(5);

// === impl Link ===

impl Link {
    /// Dials and serves until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut failures: u32 = 0;
        while !stop.is_cancelled() {
            let began = Instant::now();
            let ended = self.session(&stop).await;
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
    async fn session(&self, stop: &CancellationToken) -> Result<(), LinkError> {
        let io = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            upgraded = self.dial() => upgraded?,
        };
        tracing::info!(server = %self.server.display(), "linked to the orchestrator");
        let served = tug_api::serve::connection(TokioIo::new(io), self.router.clone(), stop.clone());
        served.await.map_err(LinkError::Serve)
    }

    /// The wait before the next try: many agents that lost the same orchestrator do not come back at once.
    fn wait(&self, failures: u32) -> Duration {
        let longest = (FIRST_WAIT * 2_u32.saturating_pow(failures.min(16))).min(LONGEST_WAIT);
        longest.mul_f64(spread(failures, self.node.as_str(), self.seed))
    }

    async fn dial(&self) -> Result<Upgraded, LinkError> {
        let dialled = tokio::time::timeout(DIAL_TIMEOUT, self.upgrade()).await;
        dialled.unwrap_or(Err(LinkError::Timeout(DIAL_TIMEOUT)))
    }

    async fn upgrade(&self) -> Result<Upgraded, LinkError> {
        let stream = UnixStream::connect(&self.server)
            .await
            .map_err(|source| LinkError::Connect { path: self.server.clone(), source })?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(LinkError::Ask)?;
        let request = Request::get(format!("{LINK_PATH}?node={}", self.node))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_stay_short_enough_to_be_back_soon() {
        let node = NodeId::parse("n1").unwrap();
        let link = Link { server: PathBuf::new(), node, router: Router::new(), seed: 1 };
        let waits: Vec<Duration> = (0..40).map(|failures| link.wait(failures)).collect();
        assert!(waits[0] < Duration::from_millis(200) && waits[39] > Duration::from_secs(1), "{waits:?}");
        assert!(waits.iter().all(|wait| *wait <= Duration::from_secs(2)), "{waits:?}");
    }
}
