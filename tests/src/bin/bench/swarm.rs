//! Docker Swarm: this Engine as a swarm of one, made for the measurement.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bollard::Docker;
use bollard::models::{
    EndpointPortConfig, EndpointPortConfigProtocolEnum, EndpointPortConfigPublishModeEnum, EndpointSpec,
    NetworkAttachmentConfig, NetworkCreateRequest, Service, ServiceSpec, ServiceSpecMode,
    ServiceSpecModeReplicated, SwarmInitRequest, TaskSpec, TaskSpecContainerSpec,
};
use bollard::query_parameters::{LeaveSwarmOptionsBuilder, UpdateServiceOptionsBuilder};
use tokio::time::Instant;
use tug_tests::docker;

const PATIENCE: Duration = Duration::from_secs(300);
const PAUSE: Duration = Duration::from_millis(100);
const SERVICE: &str = "tug-bench";
const NETWORK: &str = "tug-bench";

/// The swarm.
#[derive(Debug)]
pub(crate) struct Swarm {
    engine: Docker,
}

/// A service of it.
#[derive(Debug)]
pub(crate) struct SwarmService<'a> {
    swarm: &'a Swarm,
    id: String,
    image: &'a str,
    /// Where it is published and the port in the container.
    port: Option<(u16, u16)>,
}

// === impl Swarm ===

impl Swarm {
    /// Makes this Engine a swarm, with a network like the one that Tug gives a project.
    pub(crate) async fn start() -> Result<Self> {
        let engine = docker::connect()?;
        ensure!(
            engine.inspect_swarm().await.is_err(),
            "this Engine is part of a swarm already; it is left alone"
        );
        let request = SwarmInitRequest {
            listen_addr: Some("127.0.0.1:22377".to_owned()),
            advertise_addr: Some("127.0.0.1".to_owned()),
            ..SwarmInitRequest::default()
        };
        engine.init_swarm(request).await.context("make this Engine a swarm")?;
        let swarm = Self { engine };
        let network = NetworkCreateRequest {
            name: NETWORK.to_owned(),
            driver: Some("bridge".to_owned()),
            scope: Some("swarm".to_owned()),
            ..NetworkCreateRequest::default()
        };
        if let Err(error) = swarm.engine.create_network(network).await {
            swarm.leave().await?;
            return Err(error).context("make a network for the swarm");
        }
        Ok(swarm)
    }

    /// The Engine as it was.
    pub(crate) async fn leave(self) -> Result<()> {
        let force = LeaveSwarmOptionsBuilder::new().force(true).build();
        self.engine.leave_swarm(Some(force)).await.context("leave the swarm again")?;
        // The node's own part of the network outlives the swarm.
        match self.engine.remove_network(NETWORK).await {
            Ok(()) | Err(bollard::errors::Error::DockerResponseServerError { status_code: 404, .. }) => {
                Ok(())
            }
            Err(error) => Err(error).context("remove the network of the swarm"),
        }
    }

    /// Makes a service of one replica and waits until it runs.
    pub(crate) async fn service<'a>(
        &'a self,
        image: &'a str,
        port: Option<(u16, u16)>,
    ) -> Result<SwarmService<'a>> {
        let mut service = SwarmService { swarm: self, id: String::new(), image, port };
        let made = self.engine.create_service(service.spec(1), None).await?;
        service.id = made.id.context("a service has an id")?;
        until_running(1).await?;
        Ok(service)
    }
}

// === impl SwarmService ===

impl SwarmService<'_> {
    /// Scales it, and waits until exactly so many containers are there, and all of them run.
    pub(crate) async fn scale_to(&self, replicas: u32) -> Result<Duration> {
        let engine = &self.swarm.engine;
        let begun = Instant::now();
        let Service { version, .. } = engine.inspect_service(&self.id, None).await?;
        let version = version.and_then(|version| version.index).context("a service has a version")?;
        let options = UpdateServiceOptionsBuilder::new().version(i32::try_from(version)?).build();
        engine.update_service(&self.id, self.spec(replicas), options, None).await?;
        until_running(replicas).await?;
        Ok(begun.elapsed())
    }

    /// Removes it, and waits until its containers are gone.
    pub(crate) async fn remove(self) -> Result<()> {
        self.swarm.engine.delete_service(&self.id).await?;
        until_running(0).await
    }

    fn spec(&self, replicas: u32) -> ServiceSpec {
        let container = TaskSpecContainerSpec {
            image: Some(self.image.to_owned()),
            stop_signal: Some("SIGKILL".to_owned()),
            ..TaskSpecContainerSpec::default()
        };
        let network = NetworkAttachmentConfig {
            target: Some(NETWORK.to_owned()),
            ..NetworkAttachmentConfig::default()
        };
        let task = TaskSpec {
            container_spec: Some(container),
            networks: Some(vec![network]),
            ..TaskSpec::default()
        };
        let replicated = ServiceSpecModeReplicated { replicas: Some(i64::from(replicas)) };
        let mode = ServiceSpecMode { replicated: Some(replicated), ..ServiceSpecMode::default() };
        let port = |(published, target): (u16, u16)| EndpointPortConfig {
            protocol: Some(EndpointPortConfigProtocolEnum::TCP),
            target_port: Some(i64::from(target)),
            published_port: Some(i64::from(published)),
            publish_mode: Some(EndpointPortConfigPublishModeEnum::INGRESS),
            ..EndpointPortConfig::default()
        };
        let endpoint =
            self.port.map(|ports| EndpointSpec { ports: Some(vec![port(ports)]), ..EndpointSpec::default() });
        ServiceSpec {
            name: Some(SERVICE.to_owned()),
            task_template: Some(task),
            mode: Some(mode),
            endpoint_spec: endpoint,
            ..ServiceSpec::default()
        }
    }
}

async fn until_running(count: u32) -> Result<()> {
    let reached = async {
        loop {
            let found = docker::containers(&format!("com.docker.swarm.service.name={SERVICE}")).await?;
            let is_up = |status: &str| status.starts_with("Up");
            let running = found.iter().filter(|one| one.status.as_deref().is_some_and(is_up)).count();
            if running == count as usize && found.len() == running {
                return Ok::<(), anyhow::Error>(());
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    tokio::time::timeout(PATIENCE, reached).await.context("Swarm does not get there")?
}
