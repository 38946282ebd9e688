//! What handlers take from a request, each part checked on the way in, each refusal an [`ApiError`].

use std::collections::BTreeMap;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderMap, Method, Uri};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use tug_api::error::chain;
use tug_api::user::{IDEMPOTENCY_KEY, IF_REVISION, LARGEST_BODY};
use tug_api::{ApiError, Code};
use tug_model::{NodeId, ProjectName, Revision, ServiceName};

use super::authorise::Who;
use super::json;

/// How long a client has to send a body.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest body of whoever need not be known, in bytes: a token and a request for a certificate fit.
const LARGEST_OF_STRANGERS: usize = 64 << 10;
/// The longest idempotency key.
const LONGEST_KEY: usize = 128;

/// The project that the path names.
#[derive(Debug)]
pub(super) struct InProject(pub(super) ProjectName);

/// The service that the path names.
#[derive(Debug)]
pub(super) struct InService {
    /// Its project.
    pub(super) project: ProjectName,
    /// Its name.
    pub(super) service: ServiceName,
}

/// The node that the path names.
#[derive(Debug)]
pub(super) struct InNode(pub(super) NodeId);

/// The query, as a type.
#[derive(Debug)]
pub(super) struct Asked<T>(pub(super) T);

/// A JSON body, and the bytes that it was read from.
#[derive(Debug)]
pub(super) struct Json<T> {
    /// What it says.
    pub(super) value: T,
    /// The body itself.
    pub(super) bytes: Bytes,
}

/// What makes a mutation the same as another one, and the headers that guard it.
#[derive(Debug, Clone)]
pub(super) struct Guarded {
    /// What is asked …
    pub(super) method: Method,
    /// … of what.
    pub(super) path: String,
    /// The same key with the same request is the same mutation.
    pub(super) key: Option<String>,
    /// Only if the project is at this revision; 0: only if there is none.
    pub(super) if_revision: Option<Revision>,
}

// === path ===

impl<S: Send + Sync> FromRequestParts<S> for InProject {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let segments = segments(parts, state).await?;
        named(&segments, "project", ProjectName::parse).map(Self)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for InService {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let segments = segments(parts, state).await?;
        Ok(Self {
            project: named(&segments, "project", ProjectName::parse)?,
            service: named(&segments, "service", ServiceName::parse)?,
        })
    }
}

impl<S: Send + Sync> FromRequestParts<S> for InNode {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let segments = segments(parts, state).await?;
        named(&segments, "node", NodeId::parse).map(Self)
    }
}

async fn segments<S: Send + Sync>(
    parts: &mut Parts,
    state: &S,
) -> Result<BTreeMap<String, String>, ApiError> {
    Path::from_request_parts(parts, state)
        .await
        .map(|Path(segments)| segments)
        .map_err(|error| ApiError::new(Code::BadRequest, error.body_text()).field("path"))
}

fn named<T>(
    segments: &BTreeMap<String, String>,
    key: &'static str,
    parse: fn(&str) -> Result<T, tug_model::name::InvalidName>,
) -> Result<T, ApiError> {
    let text = segments.get(key).map_or("", String::as_str);
    parse(text).map_err(|error| ApiError::new(Code::Invalid, error.to_string()).field(key))
}

// === query ===

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Asked<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let Query(value) = query(&parts.uri)?;
        Ok(Self(value))
    }
}

fn query<T: DeserializeOwned>(uri: &Uri) -> Result<Query<T>, ApiError> {
    Query::try_from_uri(uri).map_err(|error| {
        let text = error.body_text();
        let reason = text.split_once(": ").map_or(text.as_str(), |(_, reason)| reason);
        ApiError::new(Code::Invalid, format!("the query cannot be understood: {reason}")).field("query")
    })
}

// === headers ===

impl<S: Send + Sync> FromRequestParts<S> for Guarded {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let key = header(&parts.headers, IDEMPOTENCY_KEY)?;
        if let Some(key) = &key
            && (key.is_empty() || key.len() > LONGEST_KEY || !key.bytes().all(|byte| byte.is_ascii_graphic()))
        {
            let rule = format!("use 1 to {LONGEST_KEY} visible ASCII characters");
            return Err(ApiError::new(Code::BadRequest, rule).field(IDEMPOTENCY_KEY));
        }
        let if_revision = header(&parts.headers, IF_REVISION)?
            .map(|text| {
                text.parse().map(Revision).map_err(|_| {
                    let message = format!("`{}` is not a revision", text.escape_default());
                    ApiError::new(Code::BadRequest, message).field(IF_REVISION)
                })
            })
            .transpose()?;
        Ok(Self { method: parts.method.clone(), path: parts.uri.path().to_owned(), key, if_revision })
    }
}

fn header(headers: &HeaderMap, name: &'static str) -> Result<Option<String>, ApiError> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(ApiError::new(Code::BadRequest, format!("the header {name} stands twice")).field(name));
    }
    let text = value.to_str().map_err(|_| {
        ApiError::new(Code::BadRequest, format!("the header {name} is not plain text")).field(name)
    })?;
    Ok(Some(text.to_owned()))
}

// === body ===

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        check_content(&parts.headers)?;
        let largest = match parts.extensions.get::<Who>() {
            Some(Who::Nobody) | None => LARGEST_OF_STRANGERS,
            Some(Who::Local | Who::Node { .. } | Who::Token { .. }) => LARGEST_BODY,
        };
        let bytes = whole(&parts.headers, body, largest).await?;
        Ok(Self { value: json::read(&bytes)?, bytes })
    }
}

fn check_content(headers: &HeaderMap) -> Result<(), ApiError> {
    let unsupported = |message| Err(ApiError::new(Code::UnsupportedMediaType, message));
    if let Some(encoding) = headers.get(CONTENT_ENCODING)
        && !encoding.as_bytes().eq_ignore_ascii_case(b"identity")
    {
        let encoding = String::from_utf8_lossy(encoding.as_bytes()).escape_default().to_string();
        return unsupported(format!(
            "content encoding `{encoding}` is not supported: send the body as it is"
        ));
    }
    let content = headers.get(CONTENT_TYPE).map(|value| String::from_utf8_lossy(value.as_bytes()));
    let Some(content) = content else {
        return unsupported("the content type is missing: send application/json".to_owned());
    };
    let essence = content.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        let shown = essence.escape_default();
        return unsupported(format!("content type `{shown}` is not supported: send application/json"));
    }
    Ok(())
}

async fn whole(headers: &HeaderMap, body: Body, largest: usize) -> Result<Bytes, ApiError> {
    let told = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if told.is_some_and(|length| length > largest as u64) {
        return Err(too_large(largest));
    }
    let collected = tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, largest).collect()).await;
    let late = format!("the body did not arrive within {} s", BODY_TIMEOUT.as_secs());
    match collected {
        Err(_) => Err(ApiError::new(Code::Timeout, late)),
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large(largest)),
        Ok(Err(error)) => {
            let message = format!("the body could not be read: {}", chain(&*error));
            Err(ApiError::new(Code::BadRequest, message))
        }
    }
}

fn too_large(largest: usize) -> ApiError {
    let error = ApiError::new(Code::TooLarge, format!("the body is larger than {} KiB", largest >> 10));
    if largest < LARGEST_BODY {
        return error;
    }
    error.hint("large files belong into an image or a volume, not into a config")
}
