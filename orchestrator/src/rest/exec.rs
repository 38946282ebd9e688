//! Running a command in a replica: both bodies pass through untouched, frame by frame as they come.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use futures_util::{StreamExt, TryStreamExt};
use serde::Deserialize;
use tug_api::client::CallError;
use tug_api::error::chain;
use tug_api::{ApiError, Code};
use tug_model::report::{Phase, TaskReport};
use tug_model::task::Task;
use tug_model::{Slot, TaskId};

use super::authorise::Who;
use super::extract::{Asked, InService};
use super::look::no_service;
use super::{Place, Shared};
use crate::plan::World;

/// Which replica.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ExecQuery {
    slot: Option<Slot>,
}

/// Runs a command in a replica of the service: the first healthy one, else the first running one.
#[utoipa::path(post, path = "/v1/projects/{project}/services/{service}/exec", tag = "inside",
    params(("project" = String, Path, description = "The project's name"),
        ("service" = String, Path, description = "The service's name"),
        ("slot" = Option<u32>, Query, description = "This replica")),
    request_body(content = Vec<u8>, description = "Frames", content_type = "application/octet-stream"),
    responses(
        (status = 200, description = "Frames", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 404, description = "There is no such service or replica", body = tug_api::error::ErrorBody),
        (status = 503, description = "No replica runs, or its node is not connected", body = tug_api::error::ErrorBody)))]
pub(super) async fn exec(
    State(context): State<Shared>,
    who: Who,
    InService { project, service }: InService,
    Asked(ExecQuery { slot }): Asked<ExecQuery>,
    request: Request,
) -> Result<Response, ApiError> {
    let view = context.stand.view();
    let of_service = |task: &&std::sync::Arc<Task>| task.project == project && task.service == service;
    let tasks: Vec<&Task> = view.world.tasks.values().filter(of_service).map(|task| &**task).collect();
    if tasks.is_empty() {
        let state = context.store.snapshot();
        let exists = state.projects.get(&project).is_some_and(|it| it.spec.services.contains_key(&service));
        return Err(if exists { nothing_runs() } else { no_service(&state, &project, &service) });
    }
    let chosen = choose(&view.world, &tasks, slot)?;
    let client = context.nodes.client(&chosen.node).ok_or_else(|| unreachable(chosen))?;
    let place = context.place("exec", &who)?;
    let closing = context.closing.clone();
    let response =
        client.exec(&chosen.id, request.into_body()).await.map_err(|error| failed(chosen, error))?;
    Ok(response.map(|body| {
        let bytes = body.into_data_stream().take_until(closing.cancelled_owned());
        Body::from_stream(bytes.inspect_ok(move |_| held(&place)))
    }))
}

/// Keeps the place for as long as the stream is there.
fn held(_: &Place) {}

fn choose<'a>(world: &World, tasks: &[&'a Task], slot: Option<Slot>) -> Result<&'a Task, ApiError> {
    let mut asked: Vec<&Task> =
        tasks.iter().copied().filter(|task| slot.is_none_or(|slot| task.slot == slot)).collect();
    if let Some(slot) = slot.filter(|_| asked.is_empty()) {
        return Err(ApiError::not_found(format_args!("replica {slot} of this service")).field("slot"));
    }
    // The newest task of the lowest slot first; among those that serve if any does.
    asked.sort_by(|a, b| a.slot.cmp(&b.slot).then(b.created_at.cmp(&a.created_at)).then(b.id.cmp(&a.id)));
    let running = |phase: &Phase| matches!(phase, Phase::Running { .. });
    let first =
        |fits: fn(&Phase) -> bool| asked.iter().find(|task| phase(world, task).is_some_and(fits)).copied();
    first(Phase::is_healthy).or_else(|| first(running)).ok_or_else(nothing_runs)
}

fn phase<'a>(world: &'a World, task: &Task) -> Option<&'a Phase> {
    let report = world.observed.nodes.get(&task.node)?.report.as_ref()?;
    reported(&report.tasks, &task.id).map(|it| &it.phase)
}

fn reported<'a>(tasks: &'a [TaskReport], id: &TaskId) -> Option<&'a TaskReport> {
    tasks.iter().find(|task| task.id == *id)
}

fn nothing_runs() -> ApiError {
    ApiError::new(Code::Unavailable, "no replica of this service runs now").hint("`tug why` says why")
}

fn unreachable(task: &Task) -> ApiError {
    let message = format!("node `{}`, where `{}` runs, is not connected", task.node, task.id);
    ApiError::new(Code::Unavailable, message)
}

/// What the agent said, for the caller.
fn failed(task: &Task, error: CallError) -> ApiError {
    match error {
        CallError::Api(error) if passes(error.code) => error,
        CallError::Api(error) => ApiError::new(Code::NodeFailed, format!("node `{}`: {error}", task.node)),
        CallError::Transport(_) => unreachable(task),
        other @ (CallError::Request(_) | CallError::Encode(_) | CallError::Decode(_)) => {
            ApiError::new(Code::NodeFailed, format!("node `{}`: {}", task.node, chain(&other)))
        }
    }
}

/// Errors of an agent that are the caller's own.
fn passes(code: Code) -> bool {
    matches!(code, Code::NotFound | Code::Invalid | Code::TooLarge | Code::Conflict | Code::BadRequest)
}
