//! What must hold after every step, and what must come true once everything has healed.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail, ensure};
use tug_model::spec::deploy::Mode;
use tug_model::status::{ProjectStatus, ServiceState};
use tug_model::task::Desired;
use tug_model::{ProjectName, ServiceName, TaskId};

use super::cluster::Cluster;
use crate::fake::{Behaviour, Container};

/// How long the planner may take to look again, in milliseconds.
const A_MOMENT: u64 = 200;
/// How long a healed cluster may take: a crash loop waits up to five minutes, and drains up to ten seconds each.
const CONVERGENCE_STEPS: usize = 240;
const CONVERGENCE_STEP: u64 = 5_000;

/// Safety: holds always.
pub(super) async fn check(cluster: &mut Cluster) -> Result<()> {
    cluster.pass(A_MOMENT).await;
    foreign_containers_are_left_alone(cluster)?;
    no_task_has_two_containers(cluster)?;
    every_container_was_decided(cluster)?;
    never_more_than_wanted_and_one(cluster)?;
    acknowledged_writes_are_there(cluster).await?;
    what_is_missing_has_a_reason(cluster).await
}

/// Liveness: after everything healed it all becomes as wanted, and then stays so.
pub(super) async fn converges(cluster: &mut Cluster) -> Result<()> {
    let mut unsettled = Vec::new();
    for _ in 0..CONVERGENCE_STEPS {
        cluster.pass(CONVERGENCE_STEP).await;
        check(cluster).await?;
        let statuses = statuses(cluster).await?;
        unsettled = statuses.iter().flat_map(|project| not_there_yet(cluster, project)).collect();
        let strays = strays(cluster);
        unsettled.extend(strays);
        if unsettled.is_empty() {
            return stays(cluster).await;
        }
    }
    bail!("it does not converge:\n  {}", unsettled.join("\n  "))
}

/// What has converged does not move any more. A service whose new image crashes or never serves may still move: its
/// newest task can look healthy for a moment, and then the older one goes. One that waits for others was not waited
/// for, nor was a job that was killed.
async fn stays(cluster: &mut Cluster) -> Result<()> {
    let before: BTreeSet<TaskId> = steady_tasks(cluster);
    cluster.pass(30_000).await;
    let after = steady_tasks(cluster);
    ensure!(before == after, "a stable plan changes nothing:\n  {before:?}\n  {after:?}");
    Ok(())
}

fn steady_tasks(cluster: &Cluster) -> BTreeSet<TaskId> {
    let Some(state) = cluster.state() else { return BTreeSet::new() };
    let is_steady = |project: &ProjectName, service: &ServiceName| {
        let spec = state.projects.get(project).and_then(|stored| stored.spec.services.get(service));
        spec.is_some_and(|service| {
            let is_job = Behaviour::of(&service.container.image) == Behaviour::Job;
            can_serve(&service.container.image) && !is_job && service.depends_on.is_empty()
        })
    };
    let steady = state.tasks.values().filter(|task| is_steady(&task.project, &task.service));
    steady.map(|task| task.id.clone()).collect()
}

/// Whether an image gets where its service wants it.
fn can_serve(image: &str) -> bool {
    matches!(Behaviour::of(image), Behaviour::Good | Behaviour::Slow | Behaviour::Job)
}

async fn statuses(cluster: &Cluster) -> Result<Vec<ProjectStatus>> {
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

fn ours(cluster: &Cluster) -> impl Iterator<Item = (Container, TaskId)> {
    let containers = cluster.nodes.iter().flat_map(|node| node.engine.containers());
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
        let wanted = state.projects.get(project).and_then(|project| project.spec.services.get(service));
        let Some(Mode::Replicated(wanted)) = wanted.map(|service| service.deploy.mode) else {
            bail!("{project}/{service} is not wanted and has {count} running tasks");
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

/// What of a project is not as it can be. Images that cannot serve never will, and what depends on them may wait.
fn not_there_yet(cluster: &Cluster, project: &ProjectStatus) -> Vec<String> {
    let state = cluster.state();
    let spec = state.as_ref().and_then(|state| state.projects.get(&project.name)).map(|stored| &stored.spec);
    let waits = |service: &ServiceName| {
        spec.and_then(|spec| spec.services.get(service)).is_some_and(|service| !service.depends_on.is_empty())
    };
    let mut missing = Vec::new();
    for service in &project.services {
        let can = can_serve(&service.image);
        // A job that somebody killed has failed for good: that is its end.
        let killed =
            Behaviour::of(&service.image) == Behaviour::Job && service.state == ServiceState::Failing;
        let whole = killed || matches!(service.state, ServiceState::Ready | ServiceState::Completed);
        if can && !whole && !waits(&service.name) {
            missing.push(format!(
                "{}/{}: {:?} {:?}",
                project.name, service.name, service.state, service.reasons
            ));
        }
    }
    if spec.is_none() {
        missing.push(format!("{} is still there", project.name));
    }
    missing
}

/// Containers of ours that nobody wants any more.
fn strays(cluster: &Cluster) -> Vec<String> {
    let Some(state) = cluster.state() else { return Vec::new() };
    ours(cluster)
        .filter(|(_, task)| state.tasks.get(task).is_none())
        .map(|(_, task)| format!("the container of {task} is still there"))
        .collect()
}
