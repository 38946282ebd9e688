//! One stream of HTTP/2 as a connection: reads, writes, an orderly end, or a broken one.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::{Reason, RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::line::Seat;

/// A connection through another agent. Dropped before both sides have ended, it is broken off.
#[derive(Debug)]
pub(crate) struct Tunnel {
    send: SendStream<Bytes>,
    receive: RecvStream,
    /// What has come and was not read yet.
    come: Bytes,
    _seat: Option<Seat>,
}

// === impl Tunnel ===

impl Tunnel {
    pub(super) fn new(send: SendStream<Bytes>, receive: RecvStream, seat: Option<Seat>) -> Self {
        Self { send, receive, come: Bytes::new(), _seat: seat }
    }

    /// Lets the other side see a broken connection.
    pub(crate) fn reset(mut self) {
        self.send.send_reset(Reason::CONNECT_ERROR);
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.come.is_empty() {
            match ready!(self.receive.poll_data(cx)) {
                None => return Poll::Ready(Ok(())),
                Some(Ok(data)) => self.come = data,
                // Whatever the reason: only an end of the stream says that it is complete.
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
            }
        }
        let taken = self.come.len().min(into.remaining());
        into.put_slice(self.come.get(..taken).unwrap_or_default());
        self.come.advance(taken);
        self.receive.flow_control().release_capacity(taken).map_err(broken)?;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let taken = self.send.capacity().min(data.len());
            if taken > 0 || data.is_empty() {
                let data = Bytes::copy_from_slice(data.get(..taken).unwrap_or_default());
                self.send.send_data(data, false).map_err(broken)?;
                return Poll::Ready(Ok(taken));
            }
            self.send.reserve_capacity(data.len());
            match ready!(self.send.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        }
    }

    /// The connection sends what it has been given by itself.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.send.send_data(Bytes::new(), true).map_err(broken))
    }
}

fn broken(error: h2::Error) -> io::Error {
    match error.into_io() {
        Some(error) => error,
        None => io::ErrorKind::ConnectionReset.into(),
    }
}
