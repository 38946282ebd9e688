//! The machine's real Engine, as tests see it: is it there, what runs on it, and away with what a test made.

use std::collections::HashMap;
use std::path::PathBuf;

use anyhow::{Context, Result};
use bollard::Docker;
use bollard::models::ContainerSummary;
use bollard::query_parameters::{
    KillContainerOptions, ListContainersOptionsBuilder, ListNetworksOptionsBuilder,
    ListVolumesOptionsBuilder, RemoveContainerOptionsBuilder, RemoveVolumeOptions,
};

const HOW_TO_GET_IT: &str = "these tests need a running Docker Engine: install one with `sudo apt-get install docker.io` \
    (or see https://docs.docker.com/engine/install), and run them as a user that may open its socket";

/// The Engine's socket: `DOCKER_HOST=unix://…`, or the usual place.
pub fn socket() -> PathBuf {
    let host = std::env::vars().find_map(|(key, value)| (key == "DOCKER_HOST").then_some(value));
    let path = host.as_deref().and_then(|host| host.strip_prefix("unix://"));
    PathBuf::from(path.unwrap_or("/var/run/docker.sock"))
}

/// A connection to the Engine.
pub fn connect() -> Result<Docker> {
    let socket = socket();
    Docker::connect_with_unix(&socket.to_string_lossy(), 120, bollard::API_DEFAULT_VERSION)
        .context(HOW_TO_GET_IT)
}

/// Succeeds when the Engine answers; the error says how to get one.
pub async fn require() -> Result<()> {
    connect()?.ping().await.map(drop).context(HOW_TO_GET_IT)
}

/// The containers with this label, running or not, sorted by name.
pub async fn containers(label: &str) -> Result<Vec<ContainerSummary>> {
    let filters = HashMap::from([("label".to_owned(), vec![label.to_owned()])]);
    let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
    let mut containers = connect()?.list_containers(Some(options)).await?;
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
