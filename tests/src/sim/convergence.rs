//! What must come true once everything has healed: it all becomes as wanted, and then stays so.

use std::collections::BTreeSet;

use anyhow::{Result, bail, ensure};
use tug_model::status::{ProjectStatus, ServiceState};
use tug_model::{ProjectName, ServiceName, TaskId};
use tug_orchestrator::plan::plan;

use super::cluster::Cluster;
use super::invariant::{check, ours, statuses};
use crate::fake::Behaviour;

/// How long a healed cluster may take: a crash loop waits up to five minutes, and drains up to ten seconds each.
const CONVERGENCE_STEPS: usize = 240;
const CONVERGENCE_STEP: u64 = 5_000;
/// What has converged may still be spread, one replica after the other.
const CALM_STEPS: usize = 16;
const CALM_STEP: u64 = 30_000;

/// Liveness: after everything healed it all becomes as wanted, and then stays so.
pub(super) async fn converges(cluster: &mut Cluster) -> Result<()> {
    let mut unsettled = Vec::new();
    for _ in 0..CONVERGENCE_STEPS {
        cluster.pass(CONVERGENCE_STEP).await?;
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
    let (mut before, mut after) = (BTreeSet::new(), steady_tasks(cluster));
    for _ in 0..CALM_STEPS {
        before = after;
        cluster.pass(CALM_STEP).await?;
        after = steady_tasks(cluster);
        if before == after {
            return plans_nothing(cluster);
        }
    }
    bail!("a stable plan changes nothing:\n  {before:?}\n  {after:?}");
}

/// A second look at the same world decides nothing.
fn plans_nothing(cluster: &Cluster) -> Result<()> {
    let Some(view) = cluster.view() else { return Ok(()) };
    let (once, again) = (plan(&view.world, view.at), plan(&view.world, view.at));
    ensure!(once == again, "two looks at the same world give two plans:\n  {once:?}\n  {again:?}");
    ensure!(once.brake.is_none(), "the brake is on although everything is there: {:?}", once.brake);
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
