//! The connection between an agent and the orchestrator: requests go straight to the agent's router, as far as the cable
//! lets them.
//!
//! A connection is *cut* when both sides know that it is lost; then every stream that runs over it ends. What a cable
//! swallows nobody is told of: requests and answers wait, until the cable is whole again or somebody loses patience.

use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream;
use http::{Request, Response};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tower::{Service, ServiceExt};
use tug_api::transport::{Channel, TransportError};

/// What the cable of one node lets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cable {
    /// What the orchestrator sends arrives.
    pub(crate) orders: bool,
    /// What the agent sends arrives.
    pub(crate) reports: bool,
    /// Everything takes up to this much longer, each way.
    pub(crate) delay: Duration,
    /// Of a hundred requests, so many take effect before the connection breaks.
    pub(crate) lost_replies: u8,
}

/// One connection. When it is cut it stays cut.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    router: Router,
    cut: CancellationToken,
    cable: watch::Receiver<Cable>,
    dice: Arc<Mutex<fastrand::Rng>>,
}

// === impl Cable ===

impl Cable {
    /// One that is whole.
    pub(crate) const WHOLE: Self =
        Self { orders: true, reports: true, delay: Duration::ZERO, lost_replies: 0 };

    /// Whether everything arrives, sooner or later.
    pub(crate) fn is_open(&self) -> bool {
        self.orders && self.reports
    }
}

// === impl Link ===

impl Link {
    /// A connection to `router` over a cable, that lives until `cut`. The same seed gives the same luck.
    pub(crate) fn channel(
        router: Router,
        cut: CancellationToken,
        cable: watch::Receiver<Cable>,
        seed: u64,
    ) -> Channel {
        let dice = Arc::new(Mutex::new(fastrand::Rng::with_seed(seed)));
        Channel::fallible(Self { router, cut, cable, dice })
    }

    async fn exchange(self, request: Request<Body>) -> Result<Response<Body>, TransportError> {
        let lost = || TransportError::lost("the cable is cut");
        let cut = self.cut.clone();
        let (mut there, mut back) = (self.cable.clone(), self.cable.clone());
        let answered = async {
            self.passes(&mut there, |cable| cable.orders).await;
            let answer = self.router.clone().oneshot(request).await;
            let often = there.borrow().lost_replies;
            if self.roll(100) < u64::from(often) {
                self.cut.cancel();
                return Err(lost());
            }
            self.passes(&mut back, |cable| cable.reports).await;
            answer.map_err(|never| match never {})
        };
        let response = tokio::select! {
            biased;
            () = cut.cancelled() => return Err(lost()),
            answered = answered => answered?,
        };
        let link = self.clone();
        Ok(response.map(|body| {
            let chunks = stream::unfold((body.into_data_stream(), link), async |(mut chunks, link)| {
                let chunk = chunks.next().await;
                // The end of a stream must pass, too.
                let mut cable = link.cable.clone();
                link.passes(&mut cable, |cable| cable.reports).await;
                Some((chunk?, (chunks, link)))
            });
            Body::from_stream(chunks.take_until(cut.cancelled_owned()))
        }))
    }

    /// Waits until the cable lets something through, and for as long as it takes.
    async fn passes(&self, cable: &mut watch::Receiver<Cable>, open: impl Fn(&Cable) -> bool) {
        let delay = cable.wait_for(|cable| open(cable)).await.ok().map(|cable| cable.delay);
        // Nobody will ever change the cable of a machine that is gone.
        let Some(delay) = delay else { return std::future::pending().await };
        let millis = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        tokio::time::sleep(Duration::from_millis(self.roll(millis.saturating_add(1)))).await;
    }

    fn roll(&self, below: u64) -> u64 {
        self.dice.lock().unwrap_or_else(PoisonError::into_inner).u64(0..below)
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
