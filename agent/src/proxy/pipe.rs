//! A connection to a client or to a task, whichever way it goes: a socket of this machine, or a tunnel through the agent
//! of another node.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::peer::Tunnel;

/// For how long a backend may not acknowledge what it was sent, while another could still be asked.
const UNACKNOWLEDGED: Duration = Duration::from_secs(3);

/// After how long without a byte a backend is asked whether it is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(60);

/// A connection.
#[derive(Debug)]
pub(super) enum Pipe {
    /// On this machine.
    Socket(TcpStream),
    /// Through another agent, which watches over the socket at the other end as this one does over its own.
    Tunnel(Tunnel),
}

// === impl Pipe ===

impl Pipe {
    /// Small packets leave at once, a backend that does not even acknowledge what it is asked is given up, and one that
    /// vanished later is noticed some time.
    pub(super) fn set_options(&self) {
        let Self::Socket(backend) = self else { return };
        let silent = u32::try_from(UNACKNOWLEDGED.as_millis()).unwrap_or(u32::MAX);
        let set = || {
            sockopt::set_tcp_nodelay(backend, true)?;
            sockopt::set_tcp_user_timeout(backend, silent)?;
            sockopt::set_socket_keepalive(backend, true)?;
            sockopt::set_tcp_keepidle(backend, KEEP_ALIVE)?;
            sockopt::set_tcp_keepintvl(backend, KEEP_ALIVE / 6)
        };
        note(set());
    }

    /// From the first answer on, and for what cannot be said again, the system's own patience holds: a backend may take
    /// its time with what it is sent.
    pub(super) fn set_patient(&self) {
        if let Self::Socket(backend) = self {
            note(sockopt::set_tcp_user_timeout(backend, 0));
        }
    }

    /// Closes it so that the other side sees a broken connection.
    pub(super) fn reset(self) {
        match self {
            Self::Socket(stream) => {
                // A socket that cannot be told so is broken already.
                let _ = stream.set_zero_linger();
            }
            Self::Tunnel(tunnel) => tunnel.reset(),
        }
    }
}

fn note(set: Result<(), rustix::io::Errno>) {
    // Whatever is wrong with the socket is seen when it is read.
    if let Err(error) = set {
        tracing::debug!(%error, "set the options of a backend's connection");
    }
}

impl AsyncRead for Pipe {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Socket(stream) => Pin::new(stream).poll_read(cx, into),
            Self::Tunnel(tunnel) => Pin::new(tunnel).poll_read(cx, into),
        }
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Socket(stream) => Pin::new(stream).poll_write(cx, data),
            Self::Tunnel(tunnel) => Pin::new(tunnel).poll_write(cx, data),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Socket(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tunnel(tunnel) => Pin::new(tunnel).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Socket(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tunnel(tunnel) => Pin::new(tunnel).poll_shutdown(cx),
        }
    }
}
