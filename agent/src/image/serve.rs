//! What other agents may ask of this one's images.

use std::io::{self, Seek, SeekFrom};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use futures_util::{StreamExt, stream};
use http::header::{CONTENT_LENGTH, RANGE};
use http::{HeaderMap, StatusCode};
use tokio::time::timeout;
use tokio_util::io::ReaderStream;
use tug_api::error::{ApiError, Code, chain};
use tug_api::image::{PartsWanted, Preparation, Shape};
use tug_api::lines;
use tug_api::tls::{Caller, Peer};
use tug_model::Digest;

use super::Images;
use super::prepare::Export;

/// The largest list of layers, in bytes.
const LARGEST: usize = 1 << 20;
/// How often whoever waits is told how far it is.
const TELL: Duration = Duration::from_secs(1);
/// How soon whoever finds it busy may ask again.
const BUSY: Duration = Duration::from_secs(1);
/// How much is read at once.
const PIECE: usize = 64 << 10;

pub(super) fn router(images: Arc<Images>) -> Router {
    Router::new()
        .route("/images/{id}", get(shape))
        .route("/images/{id}/parts", post(parts))
        .route("/images/{id}/parts/{digest}", get(part))
        .with_state(images)
}

async fn shape(
    State(images): State<Arc<Images>>,
    Extension(caller): Extension<Caller>,
    Path(image): Path<String>,
) -> Result<Json<Shape>, ApiError> {
    let image = images.allowed(&caller, &image)?;
    images.shape(&image).await.map(Json)
}

async fn parts(
    State(images): State<Arc<Images>>,
    Extension(caller): Extension<Caller>,
    Path(image): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let image = images.allowed(&caller, &image)?;
    let body = axum::body::to_bytes(request.into_body(), LARGEST).await;
    let body = body.map_err(|error| ApiError::new(Code::TooLarge, chain(&error)))?;
    let PartsWanted { layers } =
        serde_json::from_slice(&body).map_err(|error| ApiError::new(Code::Invalid, error.to_string()))?;
    let shape = images.shape(&image).await?;
    if let Some(foreign) = layers.iter().find(|layer| !shape.layers.contains(layer)) {
        return Err(ApiError::not_found(format!("layer `{foreign}` in image `{image}`")));
    }
    if let Some(parts) = images.exports.ready(&image, &layers) {
        return Ok(lines::response(stream::iter([Preparation::Ready { parts }])));
    }
    let export = images.exports.begin(&image, &layers);
    let exports = Arc::clone(&images.exports);
    Ok(lines::response(stream::unfold(Some(export), move |export| {
        let (exports, image, layers) = (Arc::clone(&exports), image.clone(), layers.clone());
        async move {
            let mut export = export?;
            // At the end at once, on the way now and then.
            let ended = export.wait_for(|export| !matches!(export, Export::Going(_)));
            let ended = timeout(TELL, ended).await.map(|export| export.map(|export| export.clone()));
            Some(match ended {
                Err(_) => {
                    let done = match &*export.borrow() {
                        Export::Going(done) => *done,
                        Export::Done | Export::Failed(_) => tug_model::Bytes(0),
                    };
                    (Preparation::Going { done }, Some(export))
                }
                Ok(Ok(Export::Failed(error))) => (Preparation::Failed { reason: chain(&*error) }, None),
                Ok(_) => match exports.ready(&image, &layers) {
                    Some(parts) => (Preparation::Ready { parts }, None),
                    // It was begun for somebody who wanted less.
                    None => (
                        Preparation::Going { done: tug_model::Bytes(0) },
                        Some(exports.begin(&image, &layers)),
                    ),
                },
            })
        }
    })))
}

async fn part(
    State(images): State<Arc<Images>>,
    Extension(caller): Extension<Caller>,
    Path((image, digest)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let image = images.allowed(&caller, &image)?;
    let digest = parse(&digest)?;
    // What is in the spool may be of another image, which is none of the caller's business.
    if digest != image && !images.shape(&image).await?.layers.contains(&digest) {
        return Err(ApiError::not_found(format!("layer `{digest}` in image `{image}`")));
    }
    let turn = Arc::clone(&images.outgoing).try_acquire_owned();
    let turn = turn.map_err(|_| {
        ApiError::new(Code::TooMany, "this node is giving images to others").retry_after(BUSY)
    })?;
    let hold = images.spool.hold(&digest);
    let gone = || ApiError::not_found(format!("part `{digest}`, ready to be sent"));
    let size = images.spool.whole(&digest).ok_or_else(gone)?;
    let mut file = images.spool.open(&digest).map_err(|_| gone())?;
    let from = from(&headers)?;
    if from > size {
        return Err(ApiError::new(Code::BadRequest, format!("`{digest}` has only {size} bytes")));
    }
    file.seek(SeekFrom::Start(from)).map_err(|error| ApiError::new(Code::Internal, error.to_string()))?;
    let pieces = ReaderStream::with_capacity(tokio::fs::File::from_std(file), PIECE);
    let pieces = pieces.map(move |piece: io::Result<_>| {
        let _until_the_last = (&hold, &turn);
        piece
    });
    let status = if from > 0 { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
    let headers = [(CONTENT_LENGTH, (size - from).to_string())];
    Ok((status, headers, Body::from_stream(pieces)).into_response())
}

/// The first byte that is asked for.
fn from(headers: &HeaderMap) -> Result<u64, ApiError> {
    let Some(range) = headers.get(RANGE) else { return Ok(0) };
    let from =
        range.to_str().ok().and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
    from.ok_or_else(|| ApiError::new(Code::BadRequest, "the range is to be `bytes=N-`"))
}

fn parse(digest: &str) -> Result<Digest, ApiError> {
    Digest::parse(digest).map_err(|error| ApiError::new(Code::BadRequest, error.to_string()))
}

impl Images {
    /// The image, if the caller may have it.
    fn allowed(&self, caller: &Caller, image: &str) -> Result<Digest, ApiError> {
        let image = parse(image)?;
        match &caller.peer {
            Peer::Node { node, .. } if self.exchange.may_read(node, &image) => Ok(image),
            Peer::Node { .. } | Peer::Local | Peer::Server | Peer::Nobody => Err(ApiError::new(
                Code::Forbidden,
                "the control plane has not said that you may have this image",
            )),
        }
    }
}
