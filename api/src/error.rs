//! The one shape of every error that crosses the wire:
//! `{"error":{"code":"…","field":"services.web.ports[0]","message":"…","hint":"…"},"request_id":"…"}`.
//!
//! The message says what is wrong, with the value; the hint says what to do. Codes are part of the contract.
//! Where several things are wrong with one request, `error.also` has the others.

use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use serde::{Deserialize, Serialize};

/// An error as the caller sees it. It never holds a secret or an internal detail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// What kind of error; decides the status.
    pub code: Code,
    /// The part of the request that is wrong, as a path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// What is wrong, with the value.
    pub message: String,
    /// What to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// After so many seconds it may be tried again; the header `retry-after` says it too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
    /// What else is wrong with the same request, in its order; these have no `also` of their own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(no_recursion)]
    pub also: Vec<ApiError>,
}

/// The body of every error response.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ErrorBody {
    /// The error.
    pub error: ApiError,
    /// What the server's log calls this request.
    #[serde(default)]
    pub request_id: String,
}

/// Kinds of errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// 400: the request is not what the route expects (a bad header, query or path).
    BadRequest,
    /// 400: the body is not JSON; the message has the position.
    JsonSyntax,
    /// 400: a watch was asked to start at a revision that does not exist yet.
    FutureRevision,
    /// 401: nobody known asks.
    Unauthenticated,
    /// 403: the caller may not.
    Forbidden,
    /// 404: there is no such thing.
    NotFound,
    /// 405: not with this method.
    MethodNotAllowed,
    /// 408: the request came too slowly.
    Timeout,
    /// 409: it changed in between, or exists already; nothing was written.
    Conflict,
    /// 410: the watch asks for commits that are no longer kept; list, then watch from there.
    Compacted,
    /// 413: the body or an object is too large.
    TooLarge,
    /// 415: not this content type or encoding.
    UnsupportedMediaType,
    /// 422: understood, but wrong; the message and field say what.
    Invalid,
    /// 422: the same idempotency key came with another request.
    IdempotencyMismatch,
    /// 429: too much at once.
    TooMany,
    /// 500: our fault.
    Internal,
    /// 502: the node's agent answered with an error.
    NodeFailed,
    /// 503: not now; shutting down, or no node can answer.
    Unavailable,
    /// 503: it is not known whether the write took place; ask again with the same idempotency key.
    OutcomeUnknown,
    /// 507: the disk is full; reads and deletes still work.
    StoreFull,
}

// === impl ApiError ===

impl ApiError {
    /// An error without field or hint.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, field: None, message: message.into(), hint: None, retry_after: None, also: Vec::new() }
    }

    /// The same, naming the part of the request that is wrong.
    #[must_use]
    pub fn field(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }

    /// The same, saying what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same, saying when it may be tried again.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait.as_secs() + u64::from(wait.subsec_nanos() > 0));
        self
    }

    /// The first of `errors`, with the others beside it; `None` when there are none.
    pub fn all(errors: impl IntoIterator<Item = Self>) -> Option<Self> {
        let mut errors = errors.into_iter();
        let mut first = errors.next()?;
        first.also.extend(errors);
        Some(first)
    }

    /// There is no such thing.
    pub fn not_found(what: impl std::fmt::Display) -> Self {
        Self::new(Code::NotFound, format!("there is no {what}"))
    }
}

impl Code {
    /// The HTTP status of this kind of error.
    pub fn status(self) -> StatusCode {
        match self {
            Self::BadRequest | Self::JsonSyntax | Self::FutureRevision => StatusCode::BAD_REQUEST,
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::Timeout => StatusCode::REQUEST_TIMEOUT,
            Self::Conflict => StatusCode::CONFLICT,
            Self::Compacted => StatusCode::GONE,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Invalid | Self::IdempotencyMismatch => StatusCode::UNPROCESSABLE_ENTITY,
            Self::TooMany => StatusCode::TOO_MANY_REQUESTS,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::NodeFailed => StatusCode::BAD_GATEWAY,
            Self::Unavailable | Self::OutcomeUnknown => StatusCode::SERVICE_UNAVAILABLE,
            Self::StoreFull => StatusCode::INSUFFICIENT_STORAGE,
        }
    }
}

// === impl ErrorBody ===

impl IntoResponse for ErrorBody {
    fn into_response(self) -> Response {
        let json = serde_json::to_vec(&self).expect("an error body is plain JSON");
        let mut response = Response::new(Body::from(json));
        *response.status_mut() = self.error.code.status();
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(seconds) = self.error.retry_after {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl IntoResponse for ApiError {
    /// Without a request id; the orchestrator's outermost layer adds it.
    fn into_response(self) -> Response {
        let mut response = ErrorBody { error: self.clone(), request_id: String::new() }.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// An error with all its causes, joined by `: `, the way every log line and message shows it.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_to_try_again_is_in_the_body_and_in_the_header() {
        let error = ApiError::new(Code::TooMany, "slower").retry_after(Duration::from_millis(5_100));
        assert_eq!(error.retry_after, Some(6), "never too early");
        let response = ErrorBody { error, request_id: String::new() }.into_response();
        assert_eq!(response.status().as_u16(), 429);
        assert_eq!(response.headers()[RETRY_AFTER], "6");
    }

    #[test]
    fn several_errors_are_one_with_the_others_beside_it() {
        assert_eq!(ApiError::all([]), None);
        let one = ApiError::new(Code::Invalid, "first").field("a");
        let alone = serde_json::to_value(&one).unwrap();
        assert_eq!(alone, serde_json::json!({ "code": "invalid", "field": "a", "message": "first" }));
        let all = ApiError::all([one, ApiError::new(Code::Conflict, "second").hint("wait")]).unwrap();
        assert_eq!((all.code, all.message.as_str(), all.also.len()), (Code::Invalid, "first", 1));
        let read: ApiError = serde_json::from_str(&serde_json::to_string(&all).unwrap()).unwrap();
        assert_eq!(read, all);
    }
}
