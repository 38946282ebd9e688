//! The connection between an agent and the orchestrator: requests go straight to the agent's router until it is cut,
//! which also ends every stream that runs over it.

use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use tokio_util::sync::CancellationToken;
use tower::{Service, ServiceExt};
use tug_api::transport::{Channel, TransportError};

/// One connection. When it is cut it stays cut.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    router: Router,
    cut: CancellationToken,
    delay: Duration,
}

impl Link {
    /// A connection to `router` that lives until `cut`, and carries a request within `delay`.
    pub(crate) fn channel(router: Router, cut: CancellationToken, delay: Duration) -> Channel {
        Channel::fallible(Self { router, cut, delay })
    }

    async fn exchange(self, request: Request<Body>) -> Result<Response<Body>, TransportError> {
        let lost = || TransportError::lost("the cable is cut");
        let answered = async {
            tokio::time::sleep(self.delay).await;
            self.router.oneshot(request).await
        };
        let response = tokio::select! {
            biased;
            () = self.cut.cancelled() => return Err(lost()),
            answered = answered => answered.map_err(|never| match never {})?,
        };
        let cut = self.cut;
        Ok(response.map(|body| {
            let chunks = body.into_data_stream().take_until(cut.cancelled_owned());
            Body::from_stream(chunks)
        }))
    }
}

impl Service<Request<Body>> for Link {
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
