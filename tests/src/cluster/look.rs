//! What a test sees of a cluster: what the API says, what the Engines say, and waiting for either.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bollard::models::ContainerSummaryStateEnum;
use futures_util::future::try_join_all;
use tokio::time::Instant;
use tug_api::user::{NodeState, NodeStatus};
use tug_model::status::ProjectStatus;
use tug_model::{NodeId, ProjectName};

use super::Cluster;
use crate::lab::Host;
use crate::tug::PATIENCE;
use crate::{docker, wait};

/// How often something is looked at that is waited for.
pub(super) const LOOK: Duration = Duration::from_millis(50);
/// What the containers of every Tug carry.
const LABEL: &str = "tug.task";

// === impl Cluster ===

impl Cluster<'_> {
    // --- what the API says ---

    /// How the nodes stand.
    pub async fn nodes(&self) -> Result<Vec<NodeStatus>> {
        Ok(self.client().nodes().await?)
    }

    /// Waits until the nodes satisfy `condition`, and gives them then.
    pub async fn until_nodes(
        &self,
        what: &str,
        condition: impl Fn(&[NodeStatus]) -> bool,
    ) -> Result<Vec<NodeStatus>> {
        wait::until_nodes(&self.client(), what, condition).await.with_context(|| self.logs())
    }

    /// Waits until a host's node stands so.
    pub async fn until_node(&self, number: usize, state: NodeState) -> Result<NodeStatus> {
        let id = self.node(number);
        let stands = |nodes: &[NodeStatus]| nodes.iter().any(|it| it.node.id == id && it.state == state);
        let nodes = self.until_nodes(&format!("{id} to be {state:?}"), stands).await?;
        Ok(nodes.into_iter().find(|it| it.node.id == id).expect("it was there a moment ago"))
    }

    /// Waits until `project` satisfies `condition`, and gives its status then.
    pub async fn until(
        &self,
        project: &ProjectName,
        what: &str,
        condition: impl Fn(&ProjectStatus) -> bool,
    ) -> Result<ProjectStatus> {
        let waited = wait::until_status(&self.client(), project, what, condition).await;
        waited.with_context(|| self.logs())
    }

    /// Waits until everything of `project` is as wanted.
    pub async fn until_settled(&self, project: &ProjectName) -> Result<ProjectStatus> {
        self.until(project, "the project to settle", |status| status.settled).await
    }

    // --- what the Engines say ---

    /// Every running container of Tug on `hosts`, as `host/task`, with the moment it was started.
    pub async fn starts(&self, hosts: &[&Host]) -> Result<BTreeMap<String, String>> {
        Ok(try_join_all(hosts.iter().map(|host| starts_on(host))).await?.into_iter().flatten().collect())
    }

    /// Waits until exactly so many run on `hosts`.
    pub async fn until_running(&self, hosts: &[&Host], count: usize) -> Result<BTreeMap<String, String>> {
        let begun = Instant::now();
        let mut last = BTreeMap::new();
        while begun.elapsed() < PATIENCE {
            last = self.starts(hosts).await?;
            if last.len() == count {
                return Ok(last);
            }
            tokio::time::sleep(LOOK).await;
        }
        bail!("waited for {count} to run; last: {last:#?}\n{}", self.logs())
    }

    /// What all daemons logged, the last lines of each.
    pub fn logs(&self) -> String {
        let daemons = ["server", "agent", "agent-next", "dockerd"];
        let logs = self.lab().hosts().iter().flat_map(|host| {
            let logs =
                daemons.map(|name| (name, host.log(name))).into_iter().filter(|(_, log)| !log.is_empty());
            logs.map(|(name, log)| format!("--- {name} of {}\n{log}\n", host.name()))
        });
        logs.collect()
    }
}

/// Who has how many of a project's tasks that are to stay.
pub fn spread(status: &ProjectStatus) -> BTreeMap<NodeId, usize> {
    let mut spread = BTreeMap::new();
    for task in status.services.iter().flat_map(|service| &service.tasks) {
        if task.desired == tug_model::task::Desired::Run {
            *spread.entry(task.node.clone()).or_default() += 1;
        }
    }
    spread
}

async fn starts_on(host: &Host) -> Result<Vec<(String, String)>> {
    let engine = host.connect()?;
    let mut starts = Vec::new();
    for container in docker::containers_of(&engine, LABEL).await? {
        if container.state != Some(ContainerSummaryStateEnum::RUNNING) {
            continue;
        }
        let name = container.names.into_iter().flatten().next().unwrap_or_default();
        // It may be gone since.
        let Ok(found) = engine.inspect_container(&container.id.unwrap_or_default(), None).await else {
            continue;
        };
        let started = found.state.and_then(|state| state.started_at).unwrap_or_default();
        starts.push((format!("{}{name}", host.name()), started));
    }
    Ok(starts)
}
