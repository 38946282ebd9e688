//! One service from 1 to 50 replicas and back: Tug until every replica is healthy (or gone), the raw engine's creates
//! and starts (or removals) at its best concurrency, Docker Swarm where this Engine can be one.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bollard::Docker;
use bollard::models::{
    ContainerCreateBody, HostConfig, Service, ServiceSpec, ServiceSpecMode, ServiceSpecModeReplicated,
    SwarmInitRequest, TaskSpec, TaskSpecContainerSpec,
};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, LeaveSwarmOptionsBuilder, RemoveContainerOptionsBuilder,
    StartContainerOptions, UpdateServiceOptionsBuilder,
};
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::time::Instant;
use tug_model::ProjectName;
use tug_tests::tug::{Tug, free_port};
use tug_tests::{docker, image};

use crate::table::Table;

const MANY: u32 = 50;
/// What the raw engine is given to do at once; the best of them is its figure.
const CONCURRENCIES: [usize; 3] = [4, 8, 16];
const IMAGE: &str = "tug-test-hello:1";
const UP: &str = "1 -> 50";
const DOWN: &str = "50 -> 1";
const PATIENCE: Duration = Duration::from_secs(300);

/// Measures `runs` rounds, the systems in turn.
pub(crate) async fn measure(table: &mut Table, runs: usize) -> Result<()> {
    image::hello_image(IMAGE).await;
    let swarm = Swarm::start().await;
    if let Err(error) = &swarm {
        eprintln!("without Swarm: {error:#}");
    }
    let mut best = best_concurrency().await?;
    for run in 1..=runs {
        eprintln!("run {run} of {runs}");
        for port in [false, true] {
            measure_tug(table, port).await?;
            measure_engine(table, &mut best, port).await?;
        }
        if let Ok(swarm) = &swarm {
            swarm.measure(table).await?;
        }
    }
    if let Ok(swarm) = swarm {
        swarm.leave().await?;
    }
    Ok(())
}

fn scenario(direction: &str, port: bool) -> String {
    if port { format!("{direction}, with a port") } else { direction.to_owned() }
}

// === tug ===

async fn measure_tug(table: &mut Table, with_port: bool) -> Result<()> {
    let tug = Tug::start().await?;
    let project = tug.project("scale");
    let ports = if with_port { format!("    ports: ['{}:8080']\n", free_port()) } else { String::new() };
    let manifest = format!(
        "name: {project}\nservices:\n  web:\n    image: {IMAGE}\n    pull_policy: never\n    stop_signal: SIGKILL\n{ports}"
    );
    tug.apply(&manifest).await?;
    for (direction, replicas) in [(UP, MANY), (DOWN, 1)] {
        let start = Instant::now();
        scale_to(&tug, &project, replicas).await?;
        table.add(
            [&scenario(direction, with_port), "tug", "all healthy or gone", "s"],
            start.elapsed().as_secs_f64(),
        );
    }
    Ok(())
}

async fn scale_to(tug: &Tug, project: &ProjectName, replicas: u32) -> Result<()> {
    tug.ok(&["scale", &format!("{project}/web={replicas}")]).await?;
    let status = tug.until_settled(project).await?;
    ensure!(status.services.iter().all(|service| service.ready == replicas), "{status:?}");
    Ok(())
}

// === the raw engine ===

async fn best_concurrency() -> Result<usize> {
    let mut times = Vec::new();
    for concurrency in CONCURRENCIES {
        let (up, _) = engine_up_and_down(concurrency, false, MANY / 2).await?;
        times.push((up, concurrency));
    }
    let (_, best) = times.into_iter().min().context("there are concurrencies to try")?;
    eprintln!("the engine is fastest with {best} at once");
    Ok(best)
}

async fn measure_engine(table: &mut Table, best: &mut usize, with_port: bool) -> Result<()> {
    // Tug's service keeps one replica and adds the rest; so does the engine here.
    let (up, down) = engine_up_and_down(*best, with_port, MANY - 1).await?;
    table.add([&scenario(UP, with_port), "engine", "all healthy or gone", "s"], up.as_secs_f64());
    table.add([&scenario(DOWN, with_port), "engine", "all healthy or gone", "s"], down.as_secs_f64());
    Ok(())
}

async fn engine_up_and_down(concurrency: usize, with_port: bool, count: u32) -> Result<(Duration, Duration)> {
    let engine = docker::connect()?;
    let label = format!("bench-{}", std::process::id());
    let start = Instant::now();
    let ids: Vec<String> = stream::iter(0..count)
        .map(|number| create_and_start(&engine, &label, number, with_port))
        .buffer_unordered(concurrency)
        .try_collect()
        .await?;
    let up = start.elapsed();
    let start = Instant::now();
    stream::iter(ids).map(|id| remove(&engine, id)).buffer_unordered(concurrency).try_collect::<()>().await?;
    Ok((up, start.elapsed()))
}

async fn create_and_start(engine: &Docker, label: &str, number: u32, with_port: bool) -> Result<String> {
    // Tug's own balancer opens the port: what the engine must do for a container is the same with and without.
    let exposed = with_port.then(|| vec!["8080/tcp".to_owned()]);
    let body = ContainerCreateBody {
        image: Some(IMAGE.to_owned()),
        labels: Some(HashMap::from([("tug.node".to_owned(), label.to_owned())])),
        exposed_ports: exposed,
        host_config: Some(HostConfig::default()),
        ..ContainerCreateBody::default()
    };
    let options = CreateContainerOptionsBuilder::new().name(&format!("{label}-{number}")).build();
    let id = engine.create_container(Some(options), body).await?.id;
    engine.start_container(&id, None::<StartContainerOptions>).await?;
    Ok(id)
}

async fn remove(engine: &Docker, id: String) -> Result<()> {
    let force = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
    Ok(engine.remove_container(&id, Some(force)).await?)
}

// === Docker Swarm ===

/// This Engine as a swarm of one, made for the measurement.
struct Swarm {
    engine: Docker,
}

impl Swarm {
    async fn start() -> Result<Self> {
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
        Ok(Self { engine })
    }

    async fn leave(self) -> Result<()> {
        let force = LeaveSwarmOptionsBuilder::new().force(true).build();
        self.engine.leave_swarm(Some(force)).await.context("leave the swarm again")
    }

    async fn measure(&self, table: &mut Table) -> Result<()> {
        let id = self.engine.create_service(spec(1), None).await?.id.context("a service has an id")?;
        self.until_running(1).await?;
        for (direction, replicas) in [(UP, MANY), (DOWN, 1)] {
            let start = Instant::now();
            let Service { version, .. } = self.engine.inspect_service(&id, None).await?;
            let version = version.and_then(|version| version.index).context("a service has a version")?;
            let options = UpdateServiceOptionsBuilder::new().version(i32::try_from(version)?).build();
            self.engine.update_service(&id, spec(i64::from(replicas)), options, None).await?;
            self.until_running(replicas as usize).await?;
            table.add([direction, "swarm", "all healthy or gone", "s"], start.elapsed().as_secs_f64());
        }
        self.engine.delete_service(&id).await?;
        self.until_running(0).await
    }

    /// Waits until exactly so many containers of the service are there, and all of them run.
    async fn until_running(&self, count: usize) -> Result<()> {
        let reached = async {
            loop {
                let found = docker::containers("com.docker.swarm.service.name=tug-bench").await?;
                let running = found
                    .iter()
                    .filter(|one| one.status.as_deref().is_some_and(|text| text.starts_with("Up")));
                let running = running.count();
                if running == count && (count > 1 || found.len() == count) {
                    return Ok::<(), anyhow::Error>(());
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(PATIENCE, reached).await.context("Swarm does not get there")?
    }
}

fn spec(replicas: i64) -> ServiceSpec {
    let container = TaskSpecContainerSpec {
        image: Some(IMAGE.to_owned()),
        stop_signal: Some("SIGKILL".to_owned()),
        ..TaskSpecContainerSpec::default()
    };
    let task = TaskSpec { container_spec: Some(container), ..TaskSpec::default() };
    let replicated = ServiceSpecModeReplicated { replicas: Some(replicas) };
    let mode = ServiceSpecMode { replicated: Some(replicated), ..ServiceSpecMode::default() };
    ServiceSpec {
        name: Some("tug-bench".to_owned()),
        task_template: Some(task),
        mode: Some(mode),
        ..ServiceSpec::default()
    }
}
