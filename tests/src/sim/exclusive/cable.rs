//! A cable between an orchestrator and an agent, of which each direction breaks by itself. What was sent waits for the
//! repair, and arrives then, whoever has given up on it.

use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use futures_util::future::BoxFuture;
use futures_util::{StreamExt, stream};
use http::{Request, Response};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;
use tower::{Service, ServiceExt};
use tug_api::transport::{Channel, TransportError};

/// One connection over a cable.
#[derive(Debug, Clone)]
pub(super) struct Cable {
    pub(super) router: Router,
    /// Whether what is sent to the agent arrives.
    pub(super) there: watch::Receiver<bool>,
    /// Whether what the agent sends arrives.
    pub(super) back: watch::Receiver<bool>,
    /// The connection is gone, with all that was on its way.
    pub(super) gone: CancellationToken,
    pub(super) delay: Duration,
}

impl Cable {
    pub(super) fn channel(self) -> Channel {
        Channel::fallible(self)
    }

    async fn exchange(self, request: Request<Body>) -> Result<Response<Body>, TransportError> {
        let lost = || TransportError::lost("the connection is gone");
        let (answer, answered) = oneshot::channel();
        let Self { router, there, back, gone, delay } = self;
        let (until, response_back) = (gone.clone(), back.clone());
        tokio::spawn(async move {
            let delivered = async {
                open(there, delay).await;
                let response = router.oneshot(request).await.map_err(|never| match never {})?;
                open(response_back, delay).await;
                // Whoever asked may have given up.
                drop(answer.send(response));
                Ok::<_, TransportError>(())
            };
            until.run_until_cancelled(delivered).await
        });
        let response = tokio::select! {
            biased;
            () = gone.cancelled() => return Err(lost()),
            response = answered => response.map_err(|_| lost())?,
        };
        Ok(response.map(|body| {
            let chunks = body.into_data_stream().then(move |chunk| {
                let back = back.clone();
                async move {
                    open(back, delay).await;
                    chunk
                }
            });
            Body::from_stream(stream::StreamExt::take_until(chunks, gone.cancelled_owned()))
        }))
    }
}

/// Returns when something that is sent now has arrived.
async fn open(mut way: watch::Receiver<bool>, delay: Duration) {
    tokio::time::sleep(delay).await;
    if way.wait_for(|is_open| *is_open).await.is_err() {
        std::future::pending::<()>().await;
    }
}

impl Service<Request<Body>> for Cable {
    type Response = Response<Body>;
    type Error = TransportError;
    type Future = BoxFuture<'static, Result<Response<Body>, TransportError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.clone().exchange(request))
    }
}
