//! Tug on the hosts of a lab, at its defaults: control plane and node on the first, the others joined.

use anyhow::{Context, Result};
use futures_util::future::BoxFuture;
use tug_api::client::{Client, Guard};
use tug_api::user::ScaleRequest;
use tug_model::{ProjectName, ServiceName};
use tug_tests::cluster::{Cluster, Home, IMAGE};
use tug_tests::lab::{Host, Lab};

use super::System;

const PROJECT: &str = "bench";
const SERVICE: &str = "web";

/// A cluster with one service.
#[derive(Debug)]
pub(super) struct Tug<'l> {
    cluster: Cluster<'l>,
    client: Client,
    project: ProjectName,
    service: ServiceName,
}

// === impl Tug ===

impl<'l> Tug<'l> {
    /// Makes the hosts of `lab` a cluster, with a service of one replica.
    pub(super) async fn start(lab: &'l Lab) -> Result<Self> {
        let cluster = Cluster::start_with(lab, Home::Together, &[]).await?;
        cluster
            .apply(&format!(
                "name: {PROJECT}\nservices:\n  {SERVICE}:\n    image: {IMAGE}\n    pull_policy: never\n    \
                 stop_signal: SIGKILL\n"
            ))
            .await?;
        let (project, service) = (ProjectName::parse(PROJECT)?, ServiceName::parse(SERVICE)?);
        Ok(Self { client: cluster.client(), cluster, project, service })
    }

    async fn update(&self, replicas: u32) -> Result<()> {
        let request = ScaleRequest { replicas: [(self.service.clone(), replicas)].into() };
        self.client.scale(&self.project, &request, &Guard::default()).await?;
        Ok(())
    }

    async fn is_connected(&self, host: &Host) -> Result<bool> {
        let nodes = self.client.nodes().await?;
        let node = nodes.iter().find(|node| node.node.info.hostname == host.name());
        Ok(node.with_context(|| format!("{} is no node", host.name()))?.connected)
    }
}

impl System for Tug<'_> {
    fn name(&self) -> &'static str {
        "tug"
    }

    fn label(&self) -> String {
        format!("tug.service={SERVICE}")
    }

    fn scale(&self, replicas: u32) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.update(replicas))
    }

    fn is_ready<'a>(&'a self, host: &'a Host) -> BoxFuture<'a, Result<bool>> {
        Box::pin(self.is_connected(host))
    }

    fn leave<'a>(self: Box<Self>) -> BoxFuture<'a, Result<()>>
    where
        Self: 'a,
    {
        Box::pin(async move { self.cluster.leave(&self.project).await })
    }
}
