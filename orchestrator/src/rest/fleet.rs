//! The machines: how they stand, and what the tasks on them use.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use futures_util::future::join_all;
use tokio::time::timeout;
use tug_api::client::CallError;
use tug_api::error::chain;
use tug_api::node::TaskUse;
use tug_api::user::{NodeStatus, TaskUsage};
use tug_model::NodeId;
use tug_model::node::Node;

use super::authorise::Who;
use super::{Context, Shared};
use crate::plan::machine::Machines;
use crate::plan::{View, World};

/// An agent that takes longer is left out.
const USAGE_TIMEOUT: Duration = Duration::from_secs(3);

/// The machines.
#[utoipa::path(get, path = "/v1/nodes", tag = "nodes",
    responses((status = 200, description = "The nodes, sorted by id", body = Vec<NodeStatus>)))]
pub(super) async fn nodes(State(context): State<Shared>, who: Who) -> Json<Vec<NodeStatus>> {
    let view = context.stand.view();
    let machines = Machines::new(&view, context.clock.now());
    Json(view.world.nodes.values().map(|node| status(&context, &view.world, &machines, node, &who)).collect())
}

/// How one node stands, as `who` is told.
pub(super) fn one(context: &Context, view: &View, node: &Node, who: &Who) -> NodeStatus {
    status(context, &view.world, &Machines::new(view, context.clock.now()), node, who)
}

fn status(context: &Context, world: &World, machines: &Machines<'_>, node: &Node, who: &Who) -> NodeStatus {
    let observed = world.observed.nodes.get(&node.id);
    let report = observed.and_then(|observed| observed.report.as_ref());
    let stand = machines.stand(&node.id).unwrap_or_default();
    let leaving = stand.leaving.into_iter().filter(|(project, _)| who.sees(project));
    NodeStatus {
        node: node.clone(),
        connected: observed.is_some_and(|observed| observed.connected),
        last_report: observed
            .filter(|_| report.is_some())
            .map(|it| context.nodes.heard_at(&node.id).unwrap_or_default().max(it.received_at))
            .map(|at| context.clock.now().since(at)),
        engine: observed.and_then(|observed| observed.engine(context.clock.now())),
        tasks: u32::try_from(stand.tasks).unwrap_or(u32::MAX),
        refusal: context.nodes.refusal(&node.id),
        state: stand.state,
        reasons: stand.reasons,
        reserved: stand.reserved,
        leaving: leaving.map(|(_, leaving)| leaving).collect(),
    }
}

/// What every task uses now. Nodes that do not answer in time are left out.
#[utoipa::path(get, path = "/v1/top", tag = "nodes",
    responses((status = 200, description = "What the tasks use, sorted by task", body = Vec<TaskUsage>)))]
pub(super) async fn top(State(context): State<Shared>, who: Who) -> Json<Vec<TaskUsage>> {
    let view = context.stand.view();
    let asked = view.world.nodes.keys().filter_map(|id| Some((id, context.nodes.client(id)?)));
    let answers = asked.map(async |(id, client)| (id, timeout(USAGE_TIMEOUT, client.usage()).await));
    let mut lines = Vec::new();
    for (node, answer) in join_all(answers).await {
        match answer {
            Ok(Ok(used)) => lines.extend(used.into_iter().filter_map(|used| line(&view.world, node, used))),
            Ok(Err(error)) => unanswered(node, &error),
            Err(_) => tracing::warn!(%node, "an agent did not say in time what its tasks use"),
        }
    }
    lines.retain(|line| who.sees(&line.project));
    lines.sort_by(|a: &TaskUsage, b| a.task.cmp(&b.task));
    Json(lines)
}

fn unanswered(node: &NodeId, error: &CallError) {
    tracing::warn!(%node, error = chain(error), "ask what tasks use");
}

/// `None` for a task that nobody knows, or that is another node's.
fn line(world: &World, node: &NodeId, used: TaskUse) -> Option<TaskUsage> {
    let task = world.tasks.get(&used.task).filter(|task| task.node == *node)?;
    let report = world.observed.nodes.get(node).and_then(|it| it.report.as_ref());
    let reported = report.and_then(|report| report.tasks.iter().find(|it| it.id == used.task));
    let TaskUse { task: id, cpu, memory, memory_limit, pids, received, sent } = used;
    Some(TaskUsage {
        task: id,
        project: task.project.clone(),
        service: task.service.clone(),
        slot: task.slot,
        node: node.clone(),
        cpu,
        memory,
        memory_limit,
        pids,
        received,
        sent,
        connections: reported.map_or(0, |reported| reported.connections),
    })
}
