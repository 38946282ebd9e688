//! Projects: what is wanted of them, and how they stand.

use std::sync::Arc;

use axum::extract::State;
use tug_api::user::{Accepted, ApplyRequest, Preview, RestartRequest, ScaleRequest};
use tug_api::{ApiError, Code};
use tug_model::ProjectName;
use tug_model::project::StoredProject;
use tug_model::status::ProjectStatus;

use super::authorise::Who;
use super::extract::{Guarded, InProject, Json};
use super::mutate::Mutation;
use super::{Shared, accept, pins, validate};
use crate::plan::preview;

type Answer<T> = Result<axum::Json<T>, ApiError>;

/// How all projects stand.
#[utoipa::path(get, path = "/v1/projects", tag = "projects",
    responses((status = 200, description = "How all projects stand, sorted by name", body = Vec<ProjectStatus>)))]
pub(super) async fn list(State(context): State<Shared>, who: Who) -> axum::Json<Vec<Arc<ProjectStatus>>> {
    let statuses = context.stand.statuses();
    axum::Json(statuses.values().filter(|status| who.sees(&status.name)).cloned().collect())
}

/// What is wanted of one project.
#[utoipa::path(get, path = "/v1/projects/{project}", tag = "projects",
    params(("project" = String, Path, description = "The project's name")),
    responses(
        (status = 200, description = "Its newest version, with the manifest's text", body = StoredProject),
        (status = 404, description = "There is no such project", body = tug_api::error::ErrorBody)))]
pub(super) async fn read(
    State(context): State<Shared>,
    InProject(name): InProject,
) -> Answer<Arc<StoredProject>> {
    let state = context.store.snapshot();
    state.projects.get(&name).cloned().map(axum::Json).ok_or_else(|| accept::unknown_project(&state, &name))
}

/// How one project stands.
#[utoipa::path(get, path = "/v1/projects/{project}/status", tag = "projects",
    params(("project" = String, Path, description = "The project's name")),
    responses(
        (status = 200, description = "How it stands; while it is being removed, too", body = ProjectStatus),
        (status = 404, description = "There is no such project", body = tug_api::error::ErrorBody)))]
pub(super) async fn status(
    State(context): State<Shared>,
    InProject(name): InProject,
) -> Answer<Arc<ProjectStatus>> {
    let status = context.stand.statuses().get(&name).cloned();
    status.map(axum::Json).ok_or_else(|| accept::unknown_project(&context.store.snapshot(), &name))
}

/// Makes the project what the body says.
#[utoipa::path(put, path = "/v1/projects/{project}", tag = "projects", request_body = ApplyRequest,
    params(("project" = String, Path, description = "The project's name"),
        ("idempotency-key" = Option<String>, Header, description = "The same key with the same request acts once"),
        ("if-revision" = Option<u64>, Header, description = "Only if the project is at this revision; 0: if there is none")),
    responses(
        (status = 200, description = "It is on disk", body = Accepted),
        (status = 409, description = "It changed meanwhile, or a port is another project's", body = tug_api::error::ErrorBody),
        (status = 422, description = "Something is wrong with it: all of it is told", body = tug_api::error::ErrorBody),
        (status = 507, description = "The disk is full", body = tug_api::error::ErrorBody)))]
pub(super) async fn apply(
    State(context): State<Shared>,
    who: Who,
    InProject(name): InProject,
    guarded: Guarded,
    Json { value: mut request, bytes }: Json<ApplyRequest>,
) -> Answer<Accepted> {
    check(&context, &name, &request)?;
    pins::pin(&context, &mut request.spec).await;
    Mutation::new(name, guarded, &bytes)
        .make(&context, move |state, now| accept::apply(state, &request, &who, now))
        .await
        .map(axum::Json)
}

/// What an apply would do. Nothing is written.
#[utoipa::path(post, path = "/v1/projects/{project}/plan", tag = "projects", request_body = ApplyRequest,
    params(("project" = String, Path, description = "The project's name")),
    responses(
        (status = 200, description = "What an apply would do", body = Preview),
        (status = 422, description = "Something is wrong with it: all of it is told", body = tug_api::error::ErrorBody)))]
pub(super) async fn plan(
    State(context): State<Shared>,
    who: Who,
    InProject(name): InProject,
    Json { value: mut request, .. }: Json<ApplyRequest>,
) -> Answer<Preview> {
    check(&context, &name, &request)?;
    pins::pin(&context, &mut request.spec).await;
    let spec = accept::complete(&context.store.snapshot(), &request.spec, &who)?;
    Ok(axum::Json(preview::project(&context.stand.view().world, &spec)))
}

/// Changes how many replicas services have.
#[utoipa::path(post, path = "/v1/projects/{project}/scale", tag = "projects", request_body = ScaleRequest,
    params(("project" = String, Path, description = "The project's name"),
        ("idempotency-key" = Option<String>, Header, description = "The same key with the same request acts once"),
        ("if-revision" = Option<u64>, Header, description = "Only if the project is at this revision")),
    responses(
        (status = 200, description = "It is on disk", body = Accepted),
        (status = 404, description = "There is no such project", body = tug_api::error::ErrorBody),
        (status = 409, description = "It changed meanwhile", body = tug_api::error::ErrorBody),
        (status = 422, description = "No such service, or not so many", body = tug_api::error::ErrorBody)))]
pub(super) async fn scale(
    State(context): State<Shared>,
    InProject(name): InProject,
    guarded: Guarded,
    Json { value: request, bytes }: Json<ScaleRequest>,
) -> Answer<Accepted> {
    let project = name.clone();
    Mutation::new(name, guarded, &bytes)
        .make(&context, move |state, now| accept::scale(state, &project, &request, now))
        .await
        .map(axum::Json)
}

/// Replaces the containers of services, one at a time.
#[utoipa::path(post, path = "/v1/projects/{project}/restart", tag = "projects", request_body = RestartRequest,
    params(("project" = String, Path, description = "The project's name"),
        ("idempotency-key" = Option<String>, Header, description = "The same key with the same request acts once"),
        ("if-revision" = Option<u64>, Header, description = "Only if the project is at this revision")),
    responses(
        (status = 200, description = "It is on disk", body = Accepted),
        (status = 404, description = "There is no such project", body = tug_api::error::ErrorBody),
        (status = 409, description = "It changed meanwhile", body = tug_api::error::ErrorBody),
        (status = 422, description = "No such service", body = tug_api::error::ErrorBody)))]
pub(super) async fn restart(
    State(context): State<Shared>,
    InProject(name): InProject,
    guarded: Guarded,
    Json { value: request, bytes }: Json<RestartRequest>,
) -> Answer<Accepted> {
    let project = name.clone();
    Mutation::new(name, guarded, &bytes)
        .make(&context, move |state, now| accept::restart(state, &project, &request, now))
        .await
        .map(axum::Json)
}

/// Removes a project; its volumes stay.
#[utoipa::path(delete, path = "/v1/projects/{project}", tag = "projects",
    params(("project" = String, Path, description = "The project's name"),
        ("idempotency-key" = Option<String>, Header, description = "The same key with the same request acts once"),
        ("if-revision" = Option<u64>, Header, description = "Only if the project is at this revision")),
    responses(
        (status = 200, description = "It is on disk; its containers are being stopped", body = Accepted),
        (status = 404, description = "There is no such project", body = tug_api::error::ErrorBody),
        (status = 409, description = "It changed meanwhile", body = tug_api::error::ErrorBody)))]
pub(super) async fn remove(
    State(context): State<Shared>,
    InProject(name): InProject,
    guarded: Guarded,
) -> Answer<Accepted> {
    let project = name.clone();
    Mutation::new(name, guarded, &bytes::Bytes::new())
        .make(&context, move |state, now| accept::remove(state, &project, now))
        .await
        .map(axum::Json)
}

fn check(context: &Shared, name: &ProjectName, request: &ApplyRequest) -> Result<(), ApiError> {
    if request.spec.name != *name {
        let message = format!("the body names project `{}`, the path `{name}`", request.spec.name);
        return Err(ApiError::new(Code::Invalid, message).field("spec.name"));
    }
    validate::project(&request.spec, &context.private)
}
