//! Looking: who answers, what happened, and why a service is as it is.

use axum::Json;
use axum::extract::State;
use tug_api::client::EventQuery;
use tug_api::user::{Info, Why};
use tug_api::{ApiError, Code};
use tug_model::ServiceName;
use tug_model::event::Event;

use super::authorise::Who;
use super::extract::{Asked, InService};
use super::{Shared, accept};
use crate::plan::why as reasons;
use crate::store;

/// So many events are listed unless told otherwise.
const USUAL_EVENTS: usize = 200;
/// So many events are part of a [`Why`].
const WHY_EVENTS: usize = 20;

/// Who answers.
#[utoipa::path(get, path = "/v1/info", tag = "look",
    responses((status = 200, description = "Version, cluster, newest commit and addresses", body = Info)))]
pub(super) async fn info(State(context): State<Shared>) -> Json<Info> {
    let state = context.store.snapshot();
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let (cluster, revision, servers) = (state.cluster.clone(), state.revision, context.servers.now());
    Json(Info { version, cluster, revision, servers, now: Some(context.clock.now()) })
}

/// What happened, oldest first.
#[utoipa::path(get, path = "/v1/events", tag = "look",
    params(("project" = Option<String>, Query, description = "Only of this project"),
        ("service" = Option<String>, Query, description = "Only of this service of it"),
        ("limit" = Option<usize>, Query, description = "Only the newest so many; 200 unless told otherwise")),
    responses(
        (status = 200, description = "The events, oldest first", body = Vec<Event>),
        (status = 422, description = "The query is wrong", body = tug_api::error::ErrorBody)))]
pub(super) async fn events(
    State(context): State<Shared>,
    who: Who,
    Asked(which): Asked<EventQuery>,
) -> Result<Json<Vec<Event>>, ApiError> {
    let limit = which.limit.unwrap_or(USUAL_EVENTS);
    let most = store::State::MOST_EVENTS;
    if !(1..=most).contains(&limit) {
        let message = format!("limit {limit} is out of range: use 1 to {most}");
        return Err(ApiError::new(Code::Invalid, message).field("limit"));
    }
    let state = context.store.snapshot();
    if let Some(name) = &which.project {
        // A removed project has events still; one that never was has none, and that is worth a word.
        let has_any = || state.events.values().any(|event| event.project.as_ref() == Some(name));
        if !who.sees(name) || (!state.projects.contains_key(name) && !has_any()) {
            return Err(accept::unknown_project(&state, name));
        }
    }
    Ok(Json(newest(&state, limit, &which, &who)))
}

/// Why a service is as it is.
#[utoipa::path(get, path = "/v1/projects/{project}/services/{service}/why", tag = "look",
    params(("project" = String, Path, description = "The project's name"),
        ("service" = String, Path, description = "The service's name")),
    responses(
        (status = 200, description = "How it stands, why, and what happened to it", body = Why),
        (status = 404, description = "There is no such service", body = tug_api::error::ErrorBody)))]
pub(super) async fn why(
    State(context): State<Shared>,
    who: Who,
    InService { project, service }: InService,
) -> Result<Json<Why>, ApiError> {
    let state = context.store.snapshot();
    let statuses = context.stand.statuses();
    let status = statuses.get(&project).ok_or_else(|| accept::unknown_project(&state, &project))?;
    let status = status.services.iter().find(|it| it.name == service);
    let status = status.cloned().ok_or_else(|| no_service(&state, &project, &service))?;
    let explanations = reasons::service(&context.stand.view(), &project, &service);
    let which = EventQuery { project: Some(project), service: Some(service), limit: None };
    Ok(Json(Why { status, explanations, events: newest(&state, WHY_EVENTS, &which, &who) }))
}

/// There is no such service, but these.
pub(super) fn no_service(
    state: &store::State,
    project: &tug_model::ProjectName,
    service: &ServiceName,
) -> ApiError {
    match state.projects.get(project) {
        None => accept::unknown_project(state, project),
        Some(stored) => ApiError { code: Code::NotFound, ..accept::unknown_service(&stored.spec, service) },
    }
}

fn newest(state: &store::State, limit: usize, which: &EventQuery, who: &Who) -> Vec<Event> {
    let is_asked = |event: &Event| {
        (which.project.is_none() || which.project == event.project)
            && (which.service.is_none() || which.service == event.service)
            && who.sees_event(event)
    };
    let found = state.events.values().rev().filter(|event| is_asked(event));
    let mut events: Vec<Event> = found.take(limit).map(|event| Event::clone(event)).collect();
    events.reverse();
    events
}
