//! What a person says about a machine: whether it is to have tasks, what it is labelled, that it is gone.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use tug_api::user::{AvailabilityRequest, LabelsRequest, NodeRemoval, NodeStatus};
use tug_api::{ApiError, Code};
use tug_model::event::{Event, EventKind};
use tug_model::node::{Availability, Node};
use tug_model::spec::rule;
use tug_model::task::Desired;
use tug_model::{NodeId, Revision, Timestamp};

use super::authorise::Who;
use super::extract::{self, Asked, InNode};
use super::mutate::commit;
use super::{Context, Shared, fleet};
use crate::store::{Change, State as Stored};

/// How many labels a node may have.
const MOST_LABELS: usize = 64;

/// One machine.
#[utoipa::path(get, path = "/v1/nodes/{node}", tag = "nodes",
    params(("node" = String, Path, description = "The node's id")),
    responses(
        (status = 200, description = "The node", body = NodeStatus),
        (status = 404, description = "There is no such node", body = tug_api::error::ErrorBody)))]
pub(super) async fn read(
    State(context): State<Shared>,
    who: Who,
    InNode(id): InNode,
) -> Result<Json<NodeStatus>, ApiError> {
    let view = context.stand.view();
    let node = view.world.nodes.get(&id).ok_or_else(|| unknown(&context.store.snapshot(), &id))?;
    Ok(Json(fleet::one(&context, &view, node, &who)))
}

/// Empties a machine, the replacements first, or lets it have tasks again.
#[utoipa::path(put, path = "/v1/nodes/{node}/availability", tag = "nodes", request_body = AvailabilityRequest,
    params(("node" = String, Path, description = "The node's id")),
    responses(
        (status = 200, description = "It is on disk; how the node stands says how far it is", body = NodeStatus),
        (status = 404, description = "There is no such node", body = tug_api::error::ErrorBody)))]
pub(super) async fn availability(
    State(context): State<Shared>,
    who: Who,
    InNode(id): InNode,
    extract::Json { value: request, .. }: extract::Json<AvailabilityRequest>,
) -> Result<Json<NodeStatus>, ApiError> {
    change(&context, &who, id, move |node, now| Ok(set_availability(node, &request, now))).await
}

/// Changes what a machine is labelled.
#[utoipa::path(put, path = "/v1/nodes/{node}/labels", tag = "nodes", request_body = LabelsRequest,
    params(("node" = String, Path, description = "The node's id")),
    responses(
        (status = 200, description = "It is on disk", body = NodeStatus),
        (status = 404, description = "There is no such node", body = tug_api::error::ErrorBody),
        (status = 422, description = "A label is none", body = tug_api::error::ErrorBody)))]
pub(super) async fn labels(
    State(context): State<Shared>,
    who: Who,
    InNode(id): InNode,
    extract::Json { value: request, .. }: extract::Json<LabelsRequest>,
) -> Result<Json<NodeStatus>, ApiError> {
    check_labels(&request)?;
    change(&context, &who, id, move |node, _| set_labels(node, request)).await
}

/// Removes a machine from the cluster. Nothing of it is kept; its containers stay until its agent is told otherwise.
#[utoipa::path(delete, path = "/v1/nodes/{node}", tag = "nodes",
    params(("node" = String, Path, description = "The node's id"),
        ("force" = Option<bool>, Query, description = "Also when tasks, or the only data of volumes, are there")),
    responses(
        (status = 200, description = "It is on disk: the node is no part of the cluster any more"),
        (status = 404, description = "There is no such node", body = tug_api::error::ErrorBody),
        (status = 409, description = "Something is there", body = tug_api::error::ErrorBody)))]
pub(super) async fn remove(
    State(context): State<Shared>,
    InNode(id): InNode,
    Asked(NodeRemoval { force }): Asked<NodeRemoval>,
) -> Result<Json<serde_json::Value>, ApiError> {
    let (now, node) = (context.clock.now(), id.clone());
    commit(&context, move |state| {
        if !state.nodes.contains_key(&node) {
            return Err(unknown(state, &node));
        }
        let there = there(state, &node);
        if !force && !there.is_empty() {
            let message = format!("node {node} still has {}", there.join(", "));
            let hint = format!(
                "empty it first: tug node drain {node} --wait; data that no service uses any more: tug volume ls; \
                 or give it all up: --force"
            );
            return Err(ApiError::new(Code::Conflict, message).hint(hint));
        }
        let what = if there.is_empty() { String::new() } else { format!("; given up: {}", there.join(", ")) };
        let event = event(&node, now, format!("removed from the cluster{what}"));
        Ok((vec![Change::RemoveNode(node), event], ()))
    })
    .await?;
    context.nodes.forget(&id);
    Ok(Json(serde_json::json!({})))
}

/// Commits what `decide` makes of the node, if that is something else, with what there is to tell about it.
async fn change<D>(context: &Context, who: &Who, id: NodeId, decide: D) -> Result<Json<NodeStatus>, ApiError>
where
    D: FnOnce(&mut Node, Timestamp) -> Result<String, ApiError> + Send + 'static,
{
    let now = context.clock.now();
    let node = commit(context, move |state| {
        let old = state.nodes.get(&id).ok_or_else(|| unknown(state, &id))?;
        let mut node = Node::clone(old);
        let message = decide(&mut node, now)?;
        let mut changes = Vec::new();
        if node != **old {
            changes.extend([Change::PutNode(Arc::new(node.clone())), event(&id, now, message)]);
        }
        Ok((changes, node))
    })
    .await?;
    Ok(Json(fleet::one(context, &context.stand.view(), &node, who)))
}

// === What is decided ===

/// A drain that is asked for again keeps its beginning, and may have another deadline.
fn set_availability(node: &mut Node, request: &AvailabilityRequest, now: Timestamp) -> String {
    match request {
        AvailabilityRequest::Active => {
            node.availability = Availability::Active;
            "it is to have tasks again".to_owned()
        }
        AvailabilityRequest::Drain { deadline } => {
            let at = match node.availability {
                Availability::Drain { at, deadline: old } if old == *deadline => at,
                Availability::Drain { .. } | Availability::Active => now,
            };
            node.availability = Availability::Drain { at, deadline: *deadline };
            match deadline {
                Some(deadline) => format!("it is to be empty within {deadline}"),
                None => "it is to be empty".to_owned(),
            }
        }
    }
}

fn check_labels(request: &LabelsRequest) -> Result<(), ApiError> {
    let wrong = request.set.iter().filter_map(|(key, value)| {
        let message = rule::label(key, value).err()?;
        Some(ApiError::new(Code::Invalid, message).field(format!("set.{}", rule::shown(key))))
    });
    ApiError::all(wrong).map_or(Ok(()), Err)
}

fn set_labels(node: &mut Node, request: LabelsRequest) -> Result<String, ApiError> {
    for key in &request.remove {
        node.labels.remove(key);
    }
    node.labels.extend(request.set);
    if node.labels.len() > MOST_LABELS {
        let message = format!("a node has at most {MOST_LABELS} labels");
        return Err(ApiError::new(Code::Invalid, message).field("set"));
    }
    let all: Vec<String> = node.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    Ok(format!("its labels are now: {}", if all.is_empty() { "none".to_owned() } else { all.join(", ") }))
}

/// What would be given up with a node: tasks that are to run there, and volumes that have their data nowhere else.
fn there(state: &Stored, node: &NodeId) -> Vec<String> {
    let tasks = state.tasks.values().filter(|task| task.node == *node && task.desired == Desired::Run);
    let homes = state.homes.iter().filter(|(_, nodes)| nodes.len() == 1 && nodes.contains(node));
    let tasks = tasks.map(|task| task.id.to_string());
    tasks.chain(homes.map(|(volume, _)| format!("the data of volume {volume}"))).collect()
}

fn unknown(state: &Stored, id: &NodeId) -> ApiError {
    let names: Vec<String> = state.nodes.keys().take(12).map(|id| format!("`{id}`")).collect();
    let error = ApiError::not_found(format_args!("node `{id}`"));
    if names.is_empty() { error } else { error.hint(format!("there is {}", names.join(", "))) }
}

/// An event about a node; its revision is that of its commit.
pub(super) fn event(node: &NodeId, at: Timestamp, message: String) -> Change {
    let (project, service, task) = (None, None, None);
    let (revision, kind, node) = (Revision(0), EventKind::Node, Some(node.clone()));
    Change::Record(Arc::new(Event { revision, at, kind, project, service, task, node, message }))
}

#[cfg(test)]
mod tests;
