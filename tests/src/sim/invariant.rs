//! What must hold after every step.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail, ensure};
use tug_model::spec::deploy::Mode;
use tug_model::status::{ProjectStatus, ServiceState};
use tug_model::task::Desired;
use tug_model::{ProjectName, ServiceName, TaskId};

use super::cluster::Cluster;
use crate::fake::Container;

/// How long the planner may take to look again, in milliseconds.
const A_MOMENT: u64 = 200;

/// Safety: holds always.
pub(super) async fn check(cluster: &mut Cluster) -> Result<()> {
    cluster.pass(A_MOMENT).await?;
    foreign_containers_are_left_alone(cluster)?;
    no_task_has_two_containers(cluster)?;
    every_container_was_decided(cluster)?;
    never_more_than_wanted_and_one(cluster)?;
    acknowledged_writes_are_there(cluster).await?;
    what_is_missing_has_a_reason(cluster).await
}

/// How every project stands.
pub(super) async fn statuses(cluster: &Cluster) -> Result<Vec<ProjectStatus>> {
    let Some(client) = cluster.client() else { return Ok(Vec::new()) };
    client.projects().await.context("ask how everything stands")
}

fn foreign_containers_are_left_alone(cluster: &Cluster) -> Result<()> {
    for node in &cluster.nodes {
        ensure!(node.engine.trespasses() == 0, "somebody asked for a foreign container on {}", node.id);
        for container in node.engine.containers() {
            let foreign = container.identity.is_none();
            ensure!(!foreign || container.is_running(), "a foreign container on {} was ended", node.id);
        }
    }
    Ok(())
}

/// The containers of machines that are part of the cluster.
pub(super) fn ours(cluster: &Cluster) -> impl Iterator<Item = (Container, TaskId)> {
    let nodes = cluster.nodes.iter().filter(|node| !node.removed);
    let containers = nodes.flat_map(|node| node.engine.containers());
    containers.filter_map(|container| {
        let task = container.identity.as_ref()?.task.clone();
        Some((container, task))
    })
}

fn no_task_has_two_containers(cluster: &Cluster) -> Result<()> {
    let mut seen = BTreeSet::new();
    for (_, task) in ours(cluster) {
        ensure!(seen.insert(task.clone()), "two containers of task {task}");
    }
    Ok(())
}

fn every_container_was_decided(cluster: &Cluster) -> Result<()> {
    if cluster.state().is_none() {
        return Ok(());
    }
    for (_, task) in ours(cluster) {
        ensure!(cluster.decided.contains(&task), "the container of task {task} was decided by nobody");
    }
    Ok(())
}

fn never_more_than_wanted_and_one(cluster: &Cluster) -> Result<()> {
    let Some(state) = cluster.state() else { return Ok(()) };
    let mut running: BTreeMap<(&ProjectName, &ServiceName), u32> = BTreeMap::new();
    for task in state.tasks.values().filter(|task| task.desired == Desired::Run) {
        *running.entry((&task.project, &task.service)).or_default() += 1;
    }
    for ((project, service), count) in running {
        let spec = state.projects.get(project).and_then(|project| project.spec.services.get(service));
        let wanted = match spec.map(|service| service.deploy.mode) {
            Some(Mode::Replicated(wanted)) => wanted,
            Some(Mode::Global) => u32::try_from(state.nodes.len()).unwrap_or(u32::MAX),
            None => bail!("{project}/{service} is not wanted and has {count} running tasks"),
        };
        ensure!(count <= wanted + 1, "{project}/{service} has {count} running tasks for {wanted} replicas");
    }
    Ok(())
}

async fn acknowledged_writes_are_there(cluster: &Cluster) -> Result<()> {
    let Some(client) = cluster.client() else { return Ok(()) };
    for (name, revision) in &cluster.acknowledged {
        let found =
            client.project(name).await.with_context(|| format!("{name} was acknowledged at {revision}"))?;
        ensure!(
            found.revision >= *revision,
            "{name} was acknowledged at {revision} and is at {}",
            found.revision
        );
    }
    Ok(())
}

async fn what_is_missing_has_a_reason(cluster: &Cluster) -> Result<()> {
    for project in statuses(cluster).await? {
        for service in &project.services {
            let whole = matches!(service.state, ServiceState::Ready | ServiceState::Completed);
            let explained = whole || service.state == ServiceState::Removing || !service.reasons.is_empty();
            ensure!(explained, "{}/{} is {:?} without a reason", project.name, service.name, service.state);
        }
    }
    Ok(())
}
