//! The requests of one connection: whether one is being answered, and since when none is.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::Response;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::sleep;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// A connection on which nothing is asked for so long is closed; some last twice as long.
pub(super) const IDLE: Duration = Duration::from_secs(60);

/// All of them. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Requests {
    begun: Arc<AtomicU64>,
    open: TaskTracker,
}

/// One of them: open for as long as this lives.
pub(super) struct Open(#[expect(dead_code, reason = "it is counted")] TaskTrackerToken);

/// A body that keeps its request open.
struct Held {
    body: Body,
    _open: Open,
}

// === impl Requests ===

impl Requests {
    /// One more.
    pub(super) fn begin(&self) -> Open {
        self.begun.fetch_add(1, Ordering::Relaxed);
        Open(self.open.token())
    }

    /// Ends when nothing has been asked for a while; who has never asked has only `first` to do so.
    pub(super) async fn idle(&self, first: Duration) {
        let (mut seen, mut wait) = (0, first);
        loop {
            sleep(wait).await;
            let begun = self.begun.load(Ordering::Relaxed);
            if begun == seen && self.open.is_empty() {
                return;
            }
            (seen, wait) = (begun, IDLE);
        }
    }
}

// === impl Open ===

impl Open {
    /// The answer, with which the request ends.
    pub(super) fn until_the_end_of(self, answer: Response<Body>) -> Response<Body> {
        answer.map(|body| Body::new(Held { body, _open: self }))
    }
}

// === impl Held ===

impl HttpBody for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
