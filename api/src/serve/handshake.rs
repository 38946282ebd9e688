//! The beginning of a connection over TLS: who the client is, or why it is not served.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::tls::{Peer, Refusal, refusal};

/// So much of a request is read that is not understood, in bytes.
const MOST_DRAINED: u64 = 64 << 10;

/// Why a handshake came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The client's certificate is not the cluster's, or not valid now, or it has none and must.
    #[error("take the client's certificate")]
    Certificate(#[source] io::Error),
    /// What came is not TLS as it is spoken here, or the client does not take our certificate.
    #[error("agree with the client")]
    Protocol(#[source] io::Error),
    /// The client hung up.
    #[error("keep the connection")]
    Lost(#[source] io::Error),
    /// It took too long.
    #[error("it took too long")]
    Slow,
}

// === impl HandshakeError ===

impl HandshakeError {
    fn new(error: io::Error) -> Self {
        match refusal(&error) {
            Some(Refusal::Stranger | Refusal::OutOfTime) => Self::Certificate(error),
            Some(Refusal::OtherProtocol) => Self::Protocol(error),
            None if error.kind() == io::ErrorKind::InvalidData => Self::Protocol(error),
            None => Self::Lost(error),
        }
    }
}

/// The handshake of TLS, which may take so long. Who speaks plain HTTP is told so.
pub(super) async fn secure(
    stream: TcpStream,
    acceptor: &TlsAcceptor,
    longest: Duration,
) -> Result<(TlsStream<TcpStream>, Peer), HandshakeError> {
    let shaken = timeout(longest, shake_hands(stream, acceptor)).await.map_err(|_| HandshakeError::Slow)?;
    let stream = shaken.map_err(HandshakeError::new)?;
    let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let peer = certificate.map_or(Peer::Nobody, |certificate| Peer::of_certificate(certificate));
    Ok((stream, peer))
}

async fn shake_hands(stream: TcpStream, acceptor: &TlsAcceptor) -> io::Result<TlsStream<TcpStream>> {
    const HANDSHAKE: u8 = 0x16;
    const ANSWER: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\nconnection: close\r\n\
        content-length: 23\r\n\r\nthis port speaks HTTPS\n";
    stream.set_nodelay(true)?;
    let mut first = [0];
    if stream.peek(&mut first).await? == 1 && first != [HANDSHAKE] {
        let mut stream = stream;
        stream.write_all(ANSWER).await?;
        stream.shutdown().await?;
        // What is left unread at a close takes the answer away from the client.
        tokio::io::copy(&mut stream.take(MOST_DRAINED), &mut tokio::io::sink()).await?;
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the client does not speak TLS"));
    }
    acceptor.accept(stream).await
}
