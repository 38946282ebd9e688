//! The orchestrator about itself: whether it lives, whether it serves, what it counts, what it offers.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use tug_api::{ApiError, Code};

use super::Shared;
use crate::store::Condition;

/// It lives. Says nothing else, because anybody may ask.
#[utoipa::path(get, path = "/healthz", tag = "own",
    responses((status = 200, description = "It lives", body = String)))]
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// It serves: the store takes commits and the control loop runs.
#[utoipa::path(get, path = "/readyz", tag = "own",
    responses(
        (status = 200, description = "It serves", body = String),
        (status = 503, description = "It does not, and why", body = tug_api::error::ErrorBody)))]
pub(super) async fn readyz(State(context): State<Shared>) -> Result<&'static str, ApiError> {
    if context.closing.is_cancelled() {
        return Err(ApiError::new(Code::Unavailable, "the orchestrator is shutting down"));
    }
    let condition = context.store.condition();
    if condition.has_changed().is_err() {
        return Err(ApiError::new(Code::Unavailable, "the store is closed"));
    }
    if let Condition::ReadOnly { reason } = &*condition.borrow() {
        return Err(ApiError::new(Code::Unavailable, format!("the store is read-only: {reason}")));
    }
    if !context.stand.is_decided() {
        return Err(ApiError::new(Code::Unavailable, "the control loop does not run"));
    }
    Ok("ok\n")
}

/// What it counts, for Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "own",
    responses((status = 200, description = "Metrics in the OpenMetrics text format", body = String)))]
pub(super) async fn metrics(State(context): State<Shared>) -> Response {
    let text = context.metrics.text(&context.levels());
    ([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text).into_response()
}

/// What it offers: this document.
#[utoipa::path(get, path = "/v1/openapi.json", tag = "own",
    responses((status = 200, description = "The OpenAPI document", body = Object)))]
pub(super) async fn openapi() -> Json<utoipa::openapi::OpenApi> {
    Json(super::document())
}
