//! Docker Swarm on the hosts of a lab, at its defaults: one manager, the others workers.
//!
//! Its service publishes no port: its mesh needs more of the kernel than every machine has, and costs it time.

use anyhow::{Context, Result};
use bollard::Docker;
use bollard::models::{
    NodeState, Service, ServiceSpec, ServiceSpecMode, ServiceSpecModeReplicated, SwarmInitRequest,
    SwarmJoinRequest, TaskSpec, TaskSpecContainerSpec,
};
use bollard::query_parameters::{LeaveSwarmOptionsBuilder, ListNodesOptions, UpdateServiceOptionsBuilder};
use futures_util::future::{BoxFuture, try_join_all};
use tug_tests::lab::{Host, Lab};

use super::System;

const SERVICE: &str = "web";
const PORT: u16 = 2377;

/// A swarm with one service.
#[derive(Debug)]
pub(super) struct Swarm {
    manager: Docker,
    /// All, the manager last.
    engines: Vec<Docker>,
    service: String,
    image: String,
}

// === impl Swarm ===

impl Swarm {
    /// Makes the hosts of `lab` a swarm, with a service of one replica.
    pub(super) async fn start(lab: &Lab, image: &str) -> Result<Self> {
        let (first, workers) = lab.hosts().split_first().context("a lab has hosts")?;
        let manager = first.connect()?;
        let listen = format!("0.0.0.0:{PORT}");
        let init = SwarmInitRequest {
            listen_addr: Some(listen.clone()),
            advertise_addr: Some(first.address().to_string()),
            ..SwarmInitRequest::default()
        };
        manager.init_swarm(init).await.context("make a swarm")?;
        let tokens = manager.inspect_swarm().await?.join_tokens.context("a swarm has tokens")?;
        let mut engines = Vec::new();
        for worker in workers {
            let join = SwarmJoinRequest {
                listen_addr: Some(listen.clone()),
                advertise_addr: Some(worker.address().to_string()),
                remote_addrs: Some(vec![format!("{}:{PORT}", first.address())]),
                join_token: tokens.worker.clone(),
                ..SwarmJoinRequest::default()
            };
            let engine = worker.connect()?;
            engine.join_swarm(join).await.with_context(|| format!("{} joins", worker.name()))?;
            engines.push(engine);
        }
        engines.push(manager.clone());
        let mut swarm = Self { manager, engines, service: String::new(), image: image.to_owned() };
        let made = swarm.manager.create_service(swarm.spec(1), None).await?;
        swarm.service = made.id.context("a service has an id")?;
        Ok(swarm)
    }

    fn spec(&self, replicas: u32) -> ServiceSpec {
        let container = TaskSpecContainerSpec {
            image: Some(self.image.clone()),
            stop_signal: Some("SIGKILL".to_owned()),
            ..TaskSpecContainerSpec::default()
        };
        let task = TaskSpec { container_spec: Some(container), ..TaskSpec::default() };
        let replicated = ServiceSpecModeReplicated { replicas: Some(i64::from(replicas)) };
        ServiceSpec {
            name: Some(SERVICE.to_owned()),
            task_template: Some(task),
            mode: Some(ServiceSpecMode { replicated: Some(replicated), ..ServiceSpecMode::default() }),
            ..ServiceSpec::default()
        }
    }

    async fn update(&self, replicas: u32) -> Result<()> {
        let Service { version, .. } = self.manager.inspect_service(&self.service, None).await?;
        let version = version.and_then(|version| version.index).context("a service has a version")?;
        let options = UpdateServiceOptionsBuilder::new().version(i32::try_from(version)?).build();
        self.manager.update_service(&self.service, self.spec(replicas), options, None).await?;
        Ok(())
    }

    async fn state(&self, host: &Host) -> Result<NodeState> {
        let nodes = self.manager.list_nodes(None::<ListNodesOptions>).await?;
        let hostname = Some(host.name());
        let node = nodes
            .into_iter()
            .find(|node| node.description.as_ref().is_some_and(|about| about.hostname == hostname));
        node.and_then(|node| node.status?.state).with_context(|| format!("{} is no node", host.name()))
    }
}

impl System for Swarm {
    fn name(&self) -> &'static str {
        "swarm"
    }

    fn label(&self) -> String {
        format!("com.docker.swarm.service.name={SERVICE}")
    }

    fn scale(&self, replicas: u32) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.update(replicas))
    }

    fn is_ready<'a>(&'a self, host: &'a Host) -> BoxFuture<'a, Result<bool>> {
        Box::pin(async { Ok(self.state(host).await? == NodeState::READY) })
    }

    fn leave<'a>(self: Box<Self>) -> BoxFuture<'a, Result<()>>
    where
        Self: 'a,
    {
        Box::pin(async move {
            self.manager.delete_service(&self.service).await?;
            let force = LeaveSwarmOptionsBuilder::new().force(true).build();
            let leave = |engine: Docker| {
                let force = force.clone();
                async move { engine.leave_swarm(Some(force)).await }
            };
            try_join_all(self.engines.into_iter().map(leave)).await.context("leave the swarm").map(drop)
        })
    }
}
