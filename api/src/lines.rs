//! Streams of JSON values, one a line (`application/x-ndjson`): reports, logs, watches.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use http::header::{CONTENT_TYPE, HeaderValue};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::transport::TransportError;

/// The content type of such a stream.
pub const CONTENT: &str = "application/x-ndjson";
/// The longest line that a reader takes, in bytes.
const LONGEST: usize = 64 << 20;

/// Why a line could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// The connection ended in the middle.
    #[error("read the stream")]
    Read(#[source] TransportError),
    /// A line is not the value that was expected.
    #[error("understand a line of the stream")]
    Parse(#[source] serde_json::Error),
    /// A line does not end.
    #[error("a line of the stream is longer than {LONGEST} bytes")]
    TooLong,
}

/// A response that streams `values`.
pub fn response<T, S>(values: S) -> Response
where
    T: Serialize,
    S: Stream<Item = T> + Send + 'static,
{
    let lines = values.map(|value| {
        let mut line = serde_json::to_vec(&value)?;
        line.push(b'\n');
        Ok::<_, serde_json::Error>(Bytes::from(line))
    });
    let mut response = Body::from_stream(lines).into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(CONTENT));
    response
}

/// The values that `body` streams.
pub fn read<T: DeserializeOwned>(body: Body) -> impl Stream<Item = Result<T, LineError>> + Send + Unpin {
    let state = Some((body.into_data_stream(), BytesMut::new()));
    Box::pin(futures_util::stream::unfold(state, async |state| {
        let (mut chunks, mut buffer) = state?;
        loop {
            if let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
                let line = buffer.split_to(end + 1);
                let value = serde_json::from_slice(&line).map_err(LineError::Parse);
                return Some((value, Some((chunks, buffer))));
            }
            if buffer.len() > LONGEST {
                return Some((Err(LineError::TooLong), None));
            }
            match chunks.next().await {
                Some(Ok(chunk)) => buffer.extend_from_slice(&chunk),
                Some(Err(error)) => return Some((Err(LineError::Read(TransportError::lost(error))), None)),
                None => return None,
            }
        }
    }))
}
