//! One connection between two agents, of whichever side: what both have to agree on, and how its death is noticed.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{MissedTickBehavior, interval};

/// So many streams share a connection; for more there is another one.
pub(super) const STREAMS: u32 = 256;
/// What may be sent on one stream before the other side has read it, in bytes.
pub(super) const STREAM_WINDOW: u32 = 1 << 20;
/// The same for the whole connection: so much that a stream nobody reads never holds up the others.
pub(super) const CONNECTION_WINDOW: u32 = 1 << 30;
/// So much of one stream waits in this process to be sent, in bytes.
pub(super) const SEND_BUFFER: usize = 256 << 10;
/// So much is sent of one stream before it is another's turn, in bytes.
pub(super) const FRAME: u32 = 32 << 10;
/// Clients that give up are no attack: those of a whole connection may, at once and again.
pub(super) const RESETS: usize = 16 * STREAMS as usize;

/// How often it is looked whether anything has come.
const TICK: Duration = Duration::from_millis(500);
/// After so many looks without a byte the other side is gone. It was asked for one at the first.
const PATIENCE: u32 = 5;

/// Counts what comes.
#[derive(Debug)]
pub(super) struct Heard<I> {
    io: I,
    bytes: Arc<AtomicU64>,
}

/// The streams of one connection.
#[derive(Debug, Default)]
pub(super) struct Seats {
    taken: AtomicU32,
    given: AtomicU64,
}

/// A place among them.
#[derive(Debug)]
pub(super) struct Seat(Arc<Seats>);

/// Returns when nothing has come for so long that the other side must be gone.
///
/// It counts looks and not time: a process that was held up itself has looked once, whatever the clock says.
pub(super) async fn silence(mut pings: PingPong, heard: Arc<AtomicU64>) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut before, mut silent, mut is_asked) = (heard.load(Ordering::Relaxed), 0, false);
    while silent < PATIENCE {
        ticks.tick().await;
        if is_asked {
            let answered = std::future::poll_fn(|cx| Poll::Ready(pings.poll_pong(cx))).await;
            is_asked = answered.is_pending();
        }
        let now = heard.load(Ordering::Relaxed);
        silent = if now == before { silent + 1 } else { 0 };
        before = now;
        if silent > 0 && !is_asked {
            is_asked = pings.send_ping(Ping::opaque()).is_ok();
        }
    }
}

// === impl Seats ===

impl Seats {
    /// How many are taken.
    pub(super) fn taken(&self) -> u32 {
        self.taken.load(Ordering::Relaxed)
    }

    /// How many were ever taken.
    pub(super) fn given(&self) -> u64 {
        self.given.load(Ordering::Relaxed)
    }

    /// One more.
    pub(super) fn take(self: &Arc<Self>) -> Seat {
        self.taken.fetch_add(1, Ordering::Relaxed);
        self.given.fetch_add(1, Ordering::Relaxed);
        Seat(Arc::clone(self))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

// === impl Heard ===

impl<I> Heard<I> {
    pub(super) fn new(io: I) -> (Self, Arc<AtomicU64>) {
        let bytes = Arc::<AtomicU64>::default();
        (Self { io, bytes: Arc::clone(&bytes) }, bytes)
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Heard<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, into);
        let read = into.filled().len() - before;
        if read > 0 {
            self.bytes.fetch_add(read as u64, Ordering::Relaxed);
        }
        polled
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Heard<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
