//! The raw engine, as fast as it can be driven: the same creates, starts and removals, with nothing decided in between.
//!
//! What it makes are copies of a container that Tug made, on the same network: what a network of one's own, a label or a
//! log driver costs is no difference between the two.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bollard::Docker;
use bollard::models::{ContainerCreateBody, EndpointSettings, NetworkingConfig};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, RemoveContainerOptionsBuilder, StartContainerOptions,
};
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::time::Instant;
use tug_agent::runtime::label;
use tug_tests::docker;

/// What is tried to be done at once.
const CONCURRENCIES: [usize; 4] = [4, 8, 16, 32];

/// Copies of one container.
#[derive(Debug)]
pub(crate) struct Copies {
    engine: Docker,
    /// Whose they are by their label, so that no agent takes them for its own.
    owner: String,
    body: ContainerCreateBody,
}

/// How much is given to the engine at once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Concurrency {
    pub(crate) up: usize,
    pub(crate) down: usize,
}

/// How long it took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Took {
    pub(crate) up: Duration,
    pub(crate) down: Duration,
}

// === impl Copies ===

impl Copies {
    /// Of the one container of this node.
    pub(crate) async fn of_node(node: &str) -> Result<Self> {
        let engine = docker::connect()?;
        let found = docker::containers(&format!("{}={node}", label::NODE)).await?;
        ensure!(found.len() == 1, "{node} has {} containers", found.len());
        let id = found.into_iter().find_map(|one| one.id).context("a container has an id")?;
        let inspected = engine.inspect_container(&id, None).await?;
        let config = inspected.config.context("a container has a configuration")?;
        let networks = inspected.network_settings.and_then(|settings| settings.networks);
        // The two types have the same fields, and the Engine the same names for them.
        let mut body: ContainerCreateBody = serde_json::from_value(serde_json::to_value(config)?)?;
        let owner = format!("bench-{}", std::process::id());
        body.hostname = None;
        body.labels.get_or_insert_default().insert(label::NODE.to_owned(), owner.clone());
        body.host_config = inspected.host_config;
        body.networking_config =
            networks.map(|networks| NetworkingConfig { endpoints_config: Some(endpoints(networks, &id)) });
        Ok(Self { engine, owner, body })
    }

    /// The concurrencies at which the engine makes and removes `count` copies fastest.
    pub(crate) async fn best_concurrency(&self, count: u32) -> Result<Concurrency> {
        let mut ups = Vec::new();
        let mut downs = Vec::new();
        for concurrency in CONCURRENCIES {
            let Took { up, down } =
                self.up_and_down(count, Concurrency { up: concurrency, down: concurrency }).await?;
            ups.push((up, concurrency));
            downs.push((down, concurrency));
        }
        let best = |times: Vec<(Duration, usize)>| times.into_iter().min().map(|(_, best)| best);
        let (up, down) = best(ups).zip(best(downs)).context("there are concurrencies to try")?;
        Ok(Concurrency { up, down })
    }

    /// Makes and starts `count` copies, and removes them.
    pub(crate) async fn up_and_down(&self, count: u32, concurrency: Concurrency) -> Result<Took> {
        let begun = Instant::now();
        let made: Result<Vec<String>> = stream::iter(0..count)
            .map(|number| self.create_and_start(number))
            .buffer_unordered(concurrency.up)
            .try_collect()
            .await;
        let up = begun.elapsed();
        let begun = Instant::now();
        match made {
            Ok(ids) => {
                let removals = stream::iter(ids).map(|id| self.remove(id)).buffer_unordered(concurrency.down);
                removals.try_collect::<()>().await?;
            }
            Err(error) => {
                docker::remove_all_of(&self.owner);
                return Err(error);
            }
        }
        Ok(Took { up, down: begun.elapsed() })
    }

    async fn create_and_start(&self, number: u32) -> Result<String> {
        let options = CreateContainerOptionsBuilder::new().name(&format!("{}-{number}", self.owner)).build();
        let id = self.engine.create_container(Some(options), self.body.clone()).await?.id;
        self.engine.start_container(&id, None::<StartContainerOptions>).await?;
        Ok(id)
    }

    async fn remove(&self, id: String) -> Result<()> {
        let force = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        Ok(self.engine.remove_container(&id, Some(force)).await?)
    }
}

/// The same networks under the same names, without what is the container's alone.
fn endpoints(networks: HashMap<String, EndpointSettings>, id: &str) -> HashMap<String, EndpointSettings> {
    let copy = |endpoint: EndpointSettings| {
        let own = |alias: &String| id.starts_with(alias.as_str());
        let aliases = endpoint.aliases.map(|all| all.into_iter().filter(|alias| !own(alias)).collect());
        EndpointSettings { aliases, ..EndpointSettings::default() }
    };
    networks.into_iter().map(|(name, endpoint)| (name, copy(endpoint))).collect()
}
