//! The Engine itself dies, is restarted, hangs. Each test has an Engine of its own for that, and so needs root.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use rustix::process::Signal;
use tokio::time::Instant;
use tug_model::report::Engine;
use tug_tests::lab::{Host, Inside, Lab};
use tug_tests::load::Load;
use tug_tests::tug::{PATIENCE, Tug, service};
use tug_tests::{docker, image};

use crate::Web;

const REPLICAS: u32 = 3;

/// A deployed project, on an Engine of its own. Tug ends before the Engine.
struct Deployed {
    web: Web,
    lab: Lab,
    inside: Inside,
}

// === impl Deployed ===

impl Deployed {
    async fn start(name: &str) -> Result<Self> {
        let lab = Lab::start(1).await?;
        let host = lab.host(1);
        let image = "tug-test-hello:1".to_owned();
        image::hello_image_of(&host.connect()?, &image).await;
        let inside = host.inside()?;
        let tug = Tug::start_in(host.place()?).await?;
        // Nobody else is in this network.
        let web = Web { project: tug.project(name), tug, image, port: 8080 };
        web.tug.apply(&web.manifest(REPLICAS, "1")).await?;
        Ok(Self { web, lab, inside })
    }

    fn engine(&self) -> &Host {
        self.lab.host(1)
    }

    /// Clients of the published port.
    fn load(&self) -> Load {
        let _inside = self.inside.enter();
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
        bail!(
            "waited for the Engine to be {what}: {last:?}\n{}{}",
            self.web.tug.logs(),
            self.engine().log("dockerd")
        )
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
        let engine = self.engine().connect()?;
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
async fn in_a_lab_a_restarted_engine_is_converged_again_within_thirty_seconds() -> Result<()> {
    let lab = Deployed::start("restart").await?;
    lab.converge().await?;
    for signal in [Signal::KILL, Signal::TERM] {
        let start = Instant::now();
        lab.engine().end_engine(signal).await?;
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

        lab.engine().start_engine().await?;
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
async fn in_a_lab_a_hung_engine_is_noticed_and_survived() -> Result<()> {
    let lab = Deployed::start("hung").await?;
    lab.converge().await?;
    let before = lab.starts().await?;
    let load = lab.load();
    load.more(50).await?;
    let start = Instant::now();
    lab.engine().signal_engine(Signal::STOP)?;
    let reason = lab.until_down().await?;
    let noticed = start.elapsed();
    load.more(300).await?;

    lab.engine().signal_engine(Signal::CONT)?;
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
