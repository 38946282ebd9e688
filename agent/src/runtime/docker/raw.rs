//! The bytes of a terminal as the Engine sends them.
//!
//! A terminal's stream has no frames, but bollard looks for them all the same: a byte of 0, 1 or 2 at the wrong place
//! would hold the stream up for good, and a log without line ends would be kept in memory whole. So these two requests
//! are made here.

use std::path::Path;

use bollard::errors::Error as EngineError;
use bytes::Bytes;
use futures_util::stream::{Stream, StreamExt, TryStreamExt};
use http::header::{CONNECTION, CONTENT_TYPE, HOST, UPGRADE};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWrite;
use tokio::net::UnixStream;
use tokio_util::io::ReaderStream;

/// What comes of a terminal, and what goes to it.
pub(super) type Terminal =
    (Box<dyn Stream<Item = Result<Bytes, EngineError>> + Send + Unpin>, Box<dyn AsyncWrite + Send + Unpin>);

/// Attaches to a command that has a terminal, and starts it.
pub(super) async fn start_exec(socket: &Path, exec: &str) -> Result<Terminal, EngineError> {
    let request = Request::post(format!("/exec/{exec}/start"))
        .header(CONTENT_TYPE, "application/json")
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "tcp");
    let response = send(socket, request, r#"{"Detach":false,"Tty":true}"#).await?;
    let upgraded = hyper::upgrade::on(response).await?;
    let (output, input) = tokio::io::split(TokioIo::new(upgraded));
    Ok((Box::new(ReaderStream::new(output).map_err(EngineError::from)), Box::new(input)))
}

/// The log of a container that has a terminal, after `query`.
pub(super) async fn logs(
    socket: &Path,
    container: &str,
    query: &str,
) -> Result<impl Stream<Item = Result<Bytes, EngineError>> + Send + use<>, EngineError> {
    let request = Request::get(format!("/containers/{container}/logs?{query}"));
    let response = send(socket, request, "").await?;
    Ok(response.into_body().into_data_stream().map_err(EngineError::from).boxed())
}

/// One request on a connection of its own.
async fn send(
    socket: &Path,
    request: http::request::Builder,
    body: &'static str,
) -> Result<Response<Incoming>, EngineError> {
    let stream = UnixStream::connect(socket).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // It ends when the answer has been read, or is dropped.
    tokio::spawn(connection.with_upgrades());
    let request = request.header(HOST, "docker").body(Full::new(Bytes::from_static(body.as_bytes())))?;
    let response = sender.send_request(request).await?;
    match response.status() {
        status if status.is_success() || status == StatusCode::SWITCHING_PROTOCOLS => Ok(response),
        status => {
            let body = response.into_body().collect().await?.to_bytes();
            Err(EngineError::DockerResponseServerError {
                status_code: status.as_u16(),
                message: message(&body),
            })
        }
    }
}

/// The sentence in the body of an error.
fn message(body: &[u8]) -> String {
    let parsed = serde_json::from_slice::<serde_json::Value>(body).ok();
    let message = parsed.as_ref().and_then(|body| body.get("message")?.as_str());
    message.map_or_else(|| String::from_utf8_lossy(body).into_owned(), str::to_owned)
}
