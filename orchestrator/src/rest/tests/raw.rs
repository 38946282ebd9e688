//! Bytes as they come over a socket, from clients that are no clients, or are cut off.

use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::super::bench::{Bench, shop};

/// A socket on which the API is served, for clients that are no clients.
struct Socket {
    folder: TempDir,
    stop: CancellationToken,
    serving: JoinHandle<std::io::Result<()>>,
}

// === impl Socket ===

impl Socket {
    fn of(bench: &Bench) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("tug.sock")).unwrap();
        let stop = CancellationToken::new();
        let serving = tokio::spawn(tug_api::serve::unix(listener, bench.router.clone(), stop.clone()));
        Self { folder, stop, serving }
    }

    /// A connection over which this was said.
    async fn send(&self, bytes: &[u8]) -> UnixStream {
        let mut stream = UnixStream::connect(self.folder.path().join("tug.sock")).await.unwrap();
        // The server may have answered and hung up before it has all of it.
        let _sent = stream.write_all(bytes).await;
        stream
    }

    /// What is answered until the connection ends.
    async fn rest_of(mut stream: UnixStream) -> String {
        let mut answer = Vec::new();
        let read = timeout(Duration::from_secs(30), stream.read_to_end(&mut answer));
        let _closed = read.await.expect("the connection stays open");
        String::from_utf8_lossy(&answer).into_owned()
    }

    async fn end(self) {
        self.stop.cancel();
        self.serving.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn bytes_that_are_no_request_end_the_connection() {
    let bench = Bench::new().await;
    let socket = Socket::of(&bench);
    let put = "PUT /v1/projects/shop HTTP/1.1\r\nhost: tug\r\ncontent-type: application/json\r\n";
    let long = format!("GET /{} HTTP/1.1\r\nhost: tug\r\n\r\n", "a".repeat(100 << 10));
    for (bytes, statuses) in [
        (format!("{put}content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"), &["400"][..]),
        (format!("{put}transfer-encoding: chunked\r\n\r\nxyz\r\n"), &["400"]),
        (format!("{put}content-length: 1\r\ncontent-length: 2\r\n\r\n{{}}"), &["400"]),
        (format!("{put}x: a\nb\r\n\r\n"), &["400"]),
        ("GET /v1/info HTTP/1.1\r\nhost: a\0b\r\n\r\n".to_owned(), &["400"]),
        ("\u{16}\u{3}\u{1} hello TLS\r\n\r\n".to_owned(), &["400"]),
        (long, &["414", "431"]),
        (
            "GET http://elsewhere/v1/secrets HTTP/1.1\r\nhost: tug\r\nconnection: close\r\n\r\n".to_owned(),
            &["404"],
        ),
    ] {
        let answer = Socket::rest_of(socket.send(bytes.as_bytes()).await).await;
        let status = answer.split(' ').nth(1).unwrap_or_default();
        assert!(statuses.contains(&status), "{bytes:.80}: {answer}");
    }
    assert_eq!(bench.store.snapshot().revision.0, 0);
    socket.end().await;
    bench.end().await;
}

/// Whoever does not know what became of a change asks again under the same key.
#[tokio::test]
async fn a_change_that_is_cut_off_at_any_byte_and_asked_for_again_is_made_once() {
    let bench = Bench::new().await;
    let socket = Socket::of(&bench);
    let body = json!({ "spec": shop() }).to_string();
    let request = format!(
        "PUT /v1/projects/shop HTTP/1.1\r\nhost: tug\r\ncontent-type: application/json\r\n\
         idempotency-key: key-1\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    for length in 0..request.len() {
        let mut stream = socket.send(&request.as_bytes()[..length]).await;
        stream.shutdown().await.unwrap();
        let answer = Socket::rest_of(stream).await;
        assert!(!answer.contains("200 OK"), "{length}: {answer}");
    }
    assert_eq!(bench.store.snapshot().revision.0, 0, "half of a change is none");

    let whole = Socket::rest_of(socket.send(request.as_bytes()).await).await;
    assert!(whole.contains("200 OK") && whole.contains("\"revision\":1"), "{whole}");
    for length in 0..whole.len() {
        let mut begun = socket.send(request.as_bytes()).await.take(length as u64);
        begun.read_to_end(&mut Vec::new()).await.unwrap();
    }
    let again = Socket::rest_of(socket.send(request.as_bytes()).await).await;
    assert!(again.contains("200 OK") && again.contains("\"revision\":1"), "{again}");
    assert_eq!(bench.store.snapshot().revision.0, 1);
    socket.end().await;
    bench.end().await;
}
