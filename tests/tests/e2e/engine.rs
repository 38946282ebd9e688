//! The Engine itself dies, is restarted, hangs. Each test has an Engine of its own for that, and so needs root.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use bollard::models::ContainerCreateBody;
use bollard::query_parameters::{CreateContainerOptions, StartContainerOptions};
use rustix::process::Signal;
use tokio::time::Instant;
use tug_model::report::Engine;
use tug_tests::lab;
use tug_tests::load::Load;
use tug_tests::tug::{PATIENCE, Tug, service};
use tug_tests::{docker, image};

use crate::Web;

const REPLICAS: u32 = 3;

/// A deployed project, on an Engine of its own. Tug ends before the Engine.
struct Lab {
    web: Web,
    engine: lab::Engine,
}

// === impl Lab ===

impl Lab {
    async fn start(name: &str) -> Result<Self> {
        let engine = lab::Engine::start().await?;
        let image = "tug-test-hello:1".to_owned();
        image::hello_image_of(&engine.connect()?, &image).await;
        let tug = Tug::start_in(engine.place()).await?;
        // Nobody else is in this network.
        let web = Web { project: tug.project(name), tug, image, port: 8080 };
        web.tug.apply(&web.manifest(REPLICAS, "1")).await?;
        Ok(Self { web, engine })
    }

    /// Clients of the published port.
    fn load(&self) -> Load {
        let _inside = self.engine.enter();
        Load::start(self.web.port, "/api/hello", 2)
    }

    /// Waits until the node says of its Engine what is wanted.
    async fn until_engine<T>(&self, what: &str, wanted: impl Fn(&Engine) -> Option<T>) -> Result<T> {
        let start = Instant::now();
        let client = self.web.tug.client();
        let mut last = None;
        while start.elapsed() < PATIENCE {
            last = client.nodes().await.ok().and_then(|nodes| nodes.into_iter().find_map(|node| node.engine));
            if let Some(found) = last.as_ref().and_then(&wanted) {
                return Ok(found);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        bail!("waited for the Engine to be {what}: {last:?}\n{}{}", self.web.tug.logs(), self.engine.logs())
    }

    /// Waits until the node says that its Engine does not answer: why.
    async fn until_down(&self) -> Result<String> {
        let reason = |engine: &Engine| match engine {
            Engine::Down { reason, .. } => Some(reason.clone()),
            Engine::Up => None,
        };
        self.until_engine("down", reason).await
    }

    async fn until_up(&self) -> Result<()> {
        self.until_engine("up", |engine| (*engine == Engine::Up).then_some(())).await
    }

    /// Every container of the node, with the moment it was started; `None` does not run.
    async fn starts(&self) -> Result<BTreeMap<String, Option<String>>> {
        let engine = self.engine.connect()?;
        let label = format!("tug.node={}", self.web.tug.node());
        let mut starts = BTreeMap::new();
        for container in docker::containers_of(&engine, &label).await? {
            let id = container.id.unwrap_or_default();
            let state = engine.inspect_container(&id, None).await?.state.unwrap_or_default();
            starts.insert(id, state.started_at.filter(|_| state.running == Some(true)));
        }
        Ok(starts)
    }

    /// Waits until everything is as wanted, and fails unless each replica runs once and serves.
    async fn converge(&self) -> Result<()> {
        let status = self.web.tug.until_settled(&self.web.project).await?;
        ensure!(service(&status, "web").tasks.len() == REPLICAS as usize, "{status:#?}");
        let starts = self.starts().await?;
        ensure!(starts.len() == REPLICAS as usize, "nothing is there twice: {starts:?}");
        ensure!(starts.values().all(Option::is_some), "all run: {starts:?}\n{}", self.web.tug.logs());
        self.serve().await
    }

    /// Fails unless each replica answers behind the port, and no request fails.
    async fn serve(&self) -> Result<()> {
        let load = self.load();
        load.more(60).await?;
        let outcome = load.finish().await;
        ensure!(outcome.failures.is_empty(), "{:?}\n{}", outcome.failures, self.web.tug.logs());
        ensure!(outcome.answers.len() == REPLICAS as usize, "all serve: {:?}", outcome.answers);
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn as_root_a_restarted_engine_is_converged_again_within_thirty_seconds() -> Result<()> {
    let mut lab = Lab::start("restart").await?;
    lab.converge().await?;
    for signal in [Signal::KILL, Signal::TERM] {
        let start = Instant::now();
        lab.engine.end_daemon(signal).await?;
        let ended = Instant::now();
        let reason = lab.until_down().await?;
        let noticed = ended.elapsed();
        ensure!(noticed < Duration::from_secs(8), "noticed after {noticed:?}");
        ensure!(reason.contains("Docker"), "{reason}");
        if signal == Signal::KILL {
            // The containers outlive it, and their ports too.
            lab.serve().await?;
        }
        let why = lab.web.tug.ok(&["why", &lab.web.service()]).await?;
        ensure!(why.contains("its Docker Engine does not answer"), "{why}");

        lab.engine.start_daemon().await?;
        let back = Instant::now();
        lab.until_up().await?;
        let up = back.elapsed();
        lab.converge().await?;
        let took = back.elapsed();
        println!(
            "dockerd ended by signal {} in {:?}, noticed after {noticed:?} ({reason}); when it was back: up after \
             {up:?}, converged after {took:?}\nwhy meanwhile: {why}",
            signal.as_raw(),
            ended - start,
        );
        ensure!(took < Duration::from_secs(30), "converged after {took:?}\n{}", lab.web.tug.logs());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn as_root_a_hung_engine_is_noticed_and_survived() -> Result<()> {
    let lab = Lab::start("hung").await?;
    lab.converge().await?;
    let before = lab.starts().await?;
    let load = lab.load();
    load.more(50).await?;
    let start = Instant::now();
    lab.engine.freeze()?;
    let reason = lab.until_down().await?;
    let noticed = start.elapsed();
    load.more(300).await?;

    lab.engine.thaw()?;
    let back = Instant::now();
    lab.until_up().await?;
    let up = back.elapsed();
    lab.converge().await?;
    let took = back.elapsed();
    load.more(50).await?;
    let outcome = load.finish().await;
    println!(
        "a hung dockerd noticed after {noticed:?} ({reason}); when it went on: up after {up:?}, converged after \
         {took:?}; {} requests, {} failed",
        outcome.total(),
        outcome.failures.len(),
    );
    assert_eq!(outcome.failures, Vec::<String>::new(), "of {} requests", outcome.total());
    assert_eq!(lab.starts().await?, before, "no container was restarted");
    ensure!(noticed < Duration::from_secs(20), "noticed after {noticed:?}");
    ensure!(took < Duration::from_secs(30), "converged after {took:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn as_root_nothing_is_left_of_an_engine_that_ends_frozen() -> Result<()> {
    let engine = lab::Engine::start().await?;
    let docker = engine.connect()?;
    image::hello_image_of(&docker, "tug-test-hello:1").await;
    let body = ContainerCreateBody { image: Some("tug-test-hello:1".to_owned()), ..Default::default() };
    let id = docker.create_container(None::<CreateContainerOptions>, body).await?.id;
    docker.start_container(&id, None::<StartContainerOptions>).await?;
    engine.freeze()?;
    let socket = engine.socket();
    let folder = socket.parent().unwrap().to_owned();
    let group = folder.file_name().unwrap().to_string_lossy().to_lowercase();
    assert!(mentioned(&folder)? >= 2, "dockerd and what waits for it name their folder");
    assert!(groups(&group)? > 0, "the container has a control group");

    tokio::task::spawn_blocking(move || drop(engine)).await?;
    assert_eq!(mentioned(&folder)?, 0, "no process is left");
    assert_eq!(groups(&group)?, 0, "no control group is left");
    assert!(!folder.exists(), "no file is left");
    Ok(())
}

/// How many processes have `folder` among their arguments.
fn mentioned(folder: &Path) -> Result<usize> {
    let folder = folder.to_string_lossy();
    let mut count = 0;
    for entry in fs::read_dir("/proc")? {
        let process = entry?.path();
        // A process may end while it is looked at, and a file of /proc that is no process has no such file in it.
        let arguments = fs::read(process.join("cmdline")).unwrap_or_default();
        count += usize::from(String::from_utf8_lossy(&arguments).contains(&*folder));
    }
    Ok(count)
}

/// In how many hierarchies a control group of this name is.
fn groups(name: &str) -> Result<usize> {
    let hierarchies = fs::read_dir("/sys/fs/cgroup")?.filter_map(Result::ok).map(|entry| entry.path());
    let all = hierarchies.chain([PathBuf::from("/sys/fs/cgroup")]);
    Ok(all.filter(|hierarchy| hierarchy.join(name).exists()).count())
}
