//! The machine's real Engine, as tests see it: is it there, what runs on it, and away with what a test made.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use bollard::Docker;
use bollard::models::{ContainerCreateBody, ContainerSummary};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, KillContainerOptions, ListContainersOptionsBuilder,
    ListNetworksOptionsBuilder, ListVolumesOptionsBuilder, RemoveContainerOptionsBuilder,
    RemoveVolumeOptions, StartContainerOptions,
};

const HOW_TO_GET_IT: &str = "these tests need a running Docker Engine: install one with `sudo apt-get install docker.io` \
    (or see https://docs.docker.com/engine/install), and run them as a user that may open its socket";

pub use crate::image::socket;

/// A connection to the Engine.
pub fn connect() -> Result<Docker> {
    connect_to(&socket())
}

/// A connection to the Engine behind `socket`.
pub fn connect_to(socket: &Path) -> Result<Docker> {
    Docker::connect_with_unix(&socket.to_string_lossy(), 120, bollard::API_DEFAULT_VERSION)
        .context(HOW_TO_GET_IT)
}

/// Succeeds when the Engine answers; the error says how to get one.
pub async fn require() -> Result<()> {
    connect()?.ping().await.map(drop).context(HOW_TO_GET_IT)
}

/// The containers with this label, running or not, sorted by name.
pub async fn containers(label: &str) -> Result<Vec<ContainerSummary>> {
    containers_of(&connect()?, label).await
}

/// The same, of another Engine.
pub async fn containers_of(engine: &Docker, label: &str) -> Result<Vec<ContainerSummary>> {
    let filters = HashMap::from([("label".to_owned(), vec![label.to_owned()])]);
    let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
    let mut containers = engine.list_containers(Some(options)).await?;
    containers.sort_by(|a, b| a.names.cmp(&b.names));
    Ok(containers)
}

/// Ends the main process of a container by SIGKILL, as `docker kill` does.
pub async fn kill(container: &str) -> Result<()> {
    Ok(connect()?.kill_container(container, None::<KillContainerOptions>).await?)
}

/// Removes every container, network and volume that carries this node's label. Never fails: it runs in guards.
pub fn remove_all_of(node: &str) {
    let label = format!("tug.node={node}");
    let removed = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(remove_labelled(&label))
    });
    if let Ok(Err(error)) = removed.join() {
        eprintln!("cleaning up after {node}: {error:#}");
    }
}

async fn remove_labelled(label: &str) -> Result<()> {
    let docker = connect()?;
    let filters = HashMap::from([("label".to_owned(), vec![label.to_owned()])]);
    let force = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
    let ids = containers(label).await?.into_iter().filter_map(|container| container.id);
    let removals = ids.map(|id| {
        let (docker, force) = (docker.clone(), force.clone());
        async move { docker.remove_container(&id, Some(force)).await }
    });
    futures_util::future::join_all(removals).await;
    let networks =
        docker.list_networks(Some(ListNetworksOptionsBuilder::new().filters(&filters).build())).await?;
    for name in networks.into_iter().filter_map(|network| network.name) {
        docker.remove_network(&name).await?;
    }
    let volumes =
        docker.list_volumes(Some(ListVolumesOptionsBuilder::new().filters(&filters).build())).await?;
    for volume in volumes.volumes.unwrap_or_default() {
        docker.remove_volume(&volume.name, None::<RemoveVolumeOptions>).await?;
    }
    Ok(())
}

/// Waits until a container runs.
pub async fn until_running(container: &str) -> Result<()> {
    let engine = connect()?;
    let running = async {
        loop {
            let found = engine.inspect_container(container, None).await;
            if found.is_ok_and(|found| found.state.and_then(|state| state.running) == Some(true)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), running)
        .await
        .with_context(|| format!("{container} does not run"))
}

/// A container that is not Tug's.
#[derive(Debug)]
pub struct Stray {
    engine: Docker,
    id: String,
}

impl Stray {
    /// Starts one.
    pub async fn start(image: &str, name: &str) -> Result<Self> {
        let engine = connect()?;
        let body = ContainerCreateBody { image: Some(image.to_owned()), ..ContainerCreateBody::default() };
        let options = CreateContainerOptionsBuilder::new().name(name).build();
        let id = engine.create_container(Some(options), body).await?.id;
        let stray = Self { engine, id };
        stray.engine.start_container(&stray.id, None::<StartContainerOptions>).await?;
        Ok(stray)
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Whether it still runs.
    pub async fn is_running(&self) -> Result<bool> {
        let found = self.engine.inspect_container(&self.id, None).await?;
        Ok(found.state.and_then(|state| state.running) == Some(true))
    }

    /// Removes it.
    pub async fn remove(self) -> Result<()> {
        let force = RemoveContainerOptionsBuilder::new().force(true).build();
        Ok(self.engine.remove_container(&self.id, Some(force)).await?)
    }
}

impl Drop for Stray {
    fn drop(&mut self) {
        let (engine, id) = (self.engine.clone(), std::mem::take(&mut self.id));
        let force = RemoveContainerOptionsBuilder::new().force(true).build();
        let removed = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
            runtime.block_on(engine.remove_container(&id, Some(force))).ok()
        });
        // It is gone already after a call of `remove`.
        let _ = removed.join();
    }
}
