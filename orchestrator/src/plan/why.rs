//! Why a service is as it is, slot by slot: what was decided, what stands against the rest, and what a container that
//! failed said last.

use std::collections::BTreeSet;

use tug_model::name::{NodeId, ProjectName, ServiceName};
use tug_model::report::Engine;

use super::decision::Change;
use super::fleet::Fleet;
use super::index::Index;
use super::status;
use super::{View, World};

/// What there is to say about a service that is not as wanted, one sentence each; empty when it is. That an Engine does
/// not answer is said in any case: its containers may go on, but nobody would see them end.
pub fn service(view: &View, project: &ProjectName, service: &ServiceName) -> Vec<String> {
    let Some(whole) = status::project(view, project) else { return Vec::new() };
    let Some(status) = whole.services.into_iter().find(|status| status.name == *service) else {
        return Vec::new();
    };
    let mut explanations: Vec<String> = decided(view, project, service).collect();
    let known: BTreeSet<&String> = status.reasons.iter().collect();
    explanations.retain(|explanation| !known.contains(explanation));
    explanations.extend(status.reasons);
    let index = Index::new(&view.world, &Fleet::new(&view.world, view.at));
    let tasks = index.of((project, service));
    let nodes: BTreeSet<&NodeId> = tasks.iter().map(|seen| &seen.task.node).collect();
    explanations.extend(nodes.into_iter().filter_map(|node| no_engine(&view.world, node)));
    for seen in tasks {
        let failing = seen.runs() && !seen.is_ready();
        if let Some((task, words)) = status::last_words(seen).filter(|_| failing) {
            explanations.push(format!("{task} said last: {words}"));
        }
    }
    explanations
}

/// That what is known about the tasks of `node` is old, because its Engine does not answer.
fn no_engine(world: &World, node: &NodeId) -> Option<String> {
    let observed = world.observed.nodes.get(node).filter(|observed| observed.connected)?;
    match &observed.report.as_ref()?.engine {
        Engine::Up => None,
        Engine::Down { reason, .. } => Some(format!(
            "node {node}: its Docker Engine does not answer ({reason}), and its tasks are shown as last seen"
        )),
    }
}

/// What the newest plan decided about the service, if it was not carried out yet.
fn decided(view: &View, project: &ProjectName, service: &ServiceName) -> impl Iterator<Item = String> {
    let concerns = move |change: &Change| match change {
        Change::Create(create) => create.project == *project && create.service == *service,
        Change::Drain(id) | Change::Stop(id) | Change::Forget(id) => {
            let task = view.world.tasks.get(id);
            task.is_some_and(|task| task.project == *project && task.service == *service)
        }
        Change::Settle { .. } => false,
    };
    let decisions = view.plan.decisions.iter().filter(move |decision| concerns(&decision.change));
    decisions.map(|decision| format!("decided: {decision}"))
}
