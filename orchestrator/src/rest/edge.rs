//! The outermost layer: what is true of every request and every answer.
//!
//! Each request gets an id, a span, a count and a size limit. Each error leaves in the one shape of
//! [`tug_api::error`] with that id, whoever made it: a handler, axum, or a panic.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use http::header::{ALLOW, CONNECTION, CONTENT_LENGTH, HeaderName, HeaderValue, TRANSFER_ENCODING};
use http::{HeaderMap, Method, StatusCode, Version};
use tokio::time::Instant;
use tracing::Instrument;
use tug_api::error::ErrorBody;
use tug_api::{ApiError, Clock, Code};

use crate::metrics::Metrics;

/// The header of every answer that names the request in the log.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The longest path with its query, in bytes.
const LONGEST_TARGET: usize = 8 << 10;
/// All headers together, in bytes.
const LARGEST_HEADERS: usize = 16 << 10;

/// What the layer needs.
#[derive(Debug)]
pub(super) struct Edge {
    started: u64,
    count: AtomicU64,
    metrics: Metrics,
}

// === impl Edge ===

impl Edge {
    pub(super) fn new(clock: Clock, metrics: Metrics) -> Self {
        Self { started: clock.now().0, count: AtomicU64::new(0), metrics }
    }

    /// Unique in the log, also after a restart, and the same in every run of a simulation.
    fn next_id(&self) -> String {
        let count = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        format!("{:x}-{count}", self.started)
    }
}

/// Runs one request.
pub(super) async fn run(State(edge): State<std::sync::Arc<Edge>>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = edge.next_id();
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    let span = tracing::info_span!("request", id, %method, path = request.uri().path());

    let hang_up = request.version() <= Version::HTTP_11;
    let answered = match check_head(&request) {
        // What follows on a connection whose sender is that far off is better not read.
        Err(error) if hang_up => ([(CONNECTION, "close")], error).into_response(),
        Err(error) => error.into_response(),
        Ok(()) => match AssertUnwindSafe(next.run(request).instrument(span.clone())).catch_unwind().await {
            Ok(response) => response,
            Err(panic) => {
                edge.metrics.panicked();
                span.in_scope(|| tracing::error!(panic = said(&*panic), "a request panicked"));
                internal().into_response()
            }
        },
    };
    let answered = with_id(answered, &id, &method);
    let status = answered.status();
    edge.metrics.answered(&route, known(&method), status.as_u16(), started.elapsed());
    span.in_scope(|| {
        if status.is_server_error() {
            tracing::warn!(%status, "answered");
        } else {
            tracing::debug!(%status, "answered");
        }
    });
    answered
}

/// No such route.
pub(super) async fn not_found(request: Request) -> ApiError {
    let path: String = request.uri().path().chars().take(100).flat_map(char::escape_default).collect();
    ApiError::new(Code::NotFound, format!("there is no route {path}"))
        .hint("the routes are listed in /v1/openapi.json")
}

fn check_head(request: &Request) -> Result<(), ApiError> {
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    if target > LONGEST_TARGET {
        let message = format!("the path is longer than {} KiB", LONGEST_TARGET >> 10);
        return Err(ApiError::new(Code::BadRequest, message));
    }
    if request.headers().contains_key(CONTENT_LENGTH) && request.headers().contains_key(TRANSFER_ENCODING) {
        // Which of the two a proxy before us believed is anybody's guess.
        let message = "a request has either a content length or a transfer encoding";
        return Err(ApiError::new(Code::BadRequest, message));
    }
    if size(request.headers()) > LARGEST_HEADERS {
        let message = format!("the headers are larger than {} KiB", LARGEST_HEADERS >> 10);
        return Err(ApiError::new(Code::BadRequest, message));
    }
    Ok(())
}

fn size(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum()
}

/// The answer with the request's id, and, if it is an error, in the one shape of errors.
fn with_id(mut response: Response, id: &str, method: &Method) -> Response {
    let status = response.status();
    if status.is_client_error() || status.is_server_error() {
        let error = response.extensions_mut().remove::<ApiError>();
        let error = error.unwrap_or_else(|| made_elsewhere(status, method));
        let kept = [ALLOW, CONNECTION].map(|name| (response.headers_mut().remove(&name), name));
        response = ErrorBody { error, request_id: id.to_owned() }.into_response();
        for (value, name) in kept {
            if let Some(value) = value {
                response.headers_mut().insert(name, value);
            }
        }
    }
    let id = HeaderValue::from_str(id).expect("an id is hexadecimal digits and a dash");
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

/// An error that axum made.
fn made_elsewhere(status: StatusCode, method: &Method) -> ApiError {
    match status {
        StatusCode::METHOD_NOT_ALLOWED => {
            ApiError::new(Code::MethodNotAllowed, format!("this route does not answer {method}"))
        }
        StatusCode::NOT_FOUND => ApiError::new(Code::NotFound, "there is no such route"),
        status if status.is_server_error() => internal(),
        status => ApiError::new(Code::BadRequest, status.canonical_reason().unwrap_or("bad request")),
    }
}

fn internal() -> ApiError {
    ApiError::new(Code::Internal, "this is a mistake of ours; the server's log has it under the request id")
}

/// Methods are labels of metrics, and a caller may invent any.
fn known(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "PUT" => "PUT",
        "POST" => "POST",
        "DELETE" => "DELETE",
        _ => "other",
    }
}

fn said(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::Router;
    use axum::body::{Body, to_bytes};
    use axum::routing::get;
    use tower::ServiceExt;

    use super::*;
    use crate::metrics::Levels;

    fn router(metrics: &Metrics) -> Router {
        let clock = Clock::starting_at(tug_model::Timestamp(0xabc));
        let edge = Arc::new(Edge::new(clock, metrics.clone()));
        Router::new()
            .route("/fine", get(async || "fine"))
            .route("/panic", get(async || -> String { panic!("slipped") }))
            .route("/full", get(async || ApiError::new(Code::StoreFull, "no room")))
            .route("/bare", get(async || StatusCode::IM_A_TEAPOT))
            .fallback(not_found)
            .layer(axum::middleware::from_fn_with_state(edge, run))
    }

    async fn ask(router: &Router, request: Request) -> (StatusCode, HeaderMap, Option<ErrorBody>) {
        let response = router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = to_bytes(body, 1 << 20).await.unwrap();
        (parts.status, parts.headers, serde_json::from_slice(&bytes).ok())
    }

    fn request(method: &str, path: &str) -> Request {
        Request::builder().method(method).uri(path).body(Body::empty()).unwrap()
    }

    #[tokio::test]
    async fn every_error_has_the_one_shape_and_the_id_of_its_request() {
        let metrics = Metrics::new();
        let router = router(&metrics);
        let long = format!("/fine?{}", "a".repeat(9000));
        for (number, (method, path, status, code)) in [
            ("GET", "/nowhere", 404, Code::NotFound),
            ("PUT", "/fine", 405, Code::MethodNotAllowed),
            ("GET", "/panic", 500, Code::Internal),
            ("GET", "/full", 507, Code::StoreFull),
            ("GET", "/bare", 418, Code::BadRequest),
            ("GET", &long, 400, Code::BadRequest),
        ]
        .into_iter()
        .enumerate()
        {
            let (found, headers, body) = ask(&router, request(method, path)).await;
            let body = body.unwrap_or_else(|| panic!("{path} has no error body"));
            // An error made elsewhere leaves with the status of its code.
            let status = if status == 418 { 400 } else { status };
            assert_eq!((found.as_u16(), body.error.code), (status, code), "{path}");
            assert_eq!(body.request_id, format!("abc-{}", number + 1));
            assert_eq!(headers.get(REQUEST_ID).unwrap(), body.request_id.as_str());
        }
        let (_, headers, _) = ask(&router, request("PUT", "/fine")).await;
        assert_eq!(headers.get(ALLOW).unwrap(), "GET,HEAD");
        let (status, headers, _) = ask(&router, request("GET", "/fine")).await;
        assert_eq!(status, 200);
        assert!(headers.contains_key(REQUEST_ID));
        let text = metrics.text(&Levels::default());
        assert!(text.contains("tug_panics_total 1"), "{text}");
        assert!(text.contains(r#"route="/panic",method="GET",status="500"} 1"#), "{text}");
    }

    #[tokio::test]
    async fn too_many_headers_are_refused() {
        let router = router(&Metrics::new());
        let mut large = request("GET", "/fine");
        large.headers_mut().insert("x-large", HeaderValue::from_str(&"a".repeat(17 << 10)).unwrap());
        let (status, _, body) = ask(&router, large).await;
        assert_eq!((status.as_u16(), body.unwrap().error.code), (400, Code::BadRequest));
    }
}
