//! One service from 1 to 50 replicas and back: Tug until every replica is healthy (or gone), the raw engine's creates
//! and starts (or removals) of the same containers, Docker Swarm where this Engine can be one.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures_util::StreamExt;
use tokio::time::{Instant, timeout};
use tug_api::client::WatchQuery;
use tug_api::user::WatchItem;
use tug_model::ProjectName;
use tug_tests::image;
use tug_tests::tug::{Tug, free_port};

use crate::engine::{Concurrency, Copies, Took};
use crate::swarm::Swarm;
use crate::table::Table;
use crate::usage::processor_time;

const MANY: u32 = 50;
const IMAGE: &str = "tug-test-hello:1";
const PORT: u16 = 8080;
const UP: &str = "1 -> 50";
const DOWN: &str = "50 -> 1";
const THERE: &str = "all healthy or gone";
const PATIENCE: Duration = Duration::from_secs(300);

/// Measures `runs` rounds, the systems in turn.
pub(crate) async fn measure(table: &mut Table, runs: usize) -> Result<()> {
    image::hello_image(IMAGE).await;
    let mut best = None;
    for run in 1..=runs {
        eprintln!("run {run} of {runs}");
        for with_port in [false, true] {
            measure_pair(table, with_port, run % 2 == 0, &mut best).await?;
        }
        // A swarm slows an Engine down, so it is one only while it is measured.
        match Swarm::start().await {
            Ok(swarm) => {
                let measured = measure_swarm(table, &swarm).await;
                swarm.leave().await?;
                measured?;
            }
            Err(error) => eprintln!("without Swarm: {error:#}"),
        }
    }
    Ok(())
}

fn scenario(direction: &str, with_port: bool) -> String {
    if with_port { format!("{direction}, with a port") } else { direction.to_owned() }
}

/// Tug and the raw engine, one after the other, on one network.
async fn measure_pair(
    table: &mut Table,
    with_port: bool,
    tug_first: bool,
    best: &mut Option<Concurrency>,
) -> Result<()> {
    let tug = Tug::start().await?;
    let project = tug.project("scale");
    let ports = if with_port { format!("    ports: ['{}:{PORT}']\n", free_port()) } else { String::new() };
    let manifest = format!(
        "name: {project}\nservices:\n  web:\n    image: {IMAGE}\n    pull_policy: never\n    stop_signal: SIGKILL\n{ports}"
    );
    tug.apply(&manifest).await?;
    let copies = Copies::of_node(tug.node()).await?;
    let best = if let Some(best) = best {
        *best
    } else {
        let found = copies.best_concurrency(MANY - 1).await?;
        eprintln!("the engine is fastest with {found:?}");
        *best.insert(found)
    };
    if tug_first {
        measure_tug(table, &tug, &project, with_port).await?;
    }
    // Tug's service keeps one replica and adds the rest; so does the engine here.
    let Took { up, down } = copies.up_and_down(MANY - 1, best).await?;
    table.add([&scenario(UP, with_port), "engine", THERE, "s"], up.as_secs_f64());
    table.add([&scenario(DOWN, with_port), "engine", THERE, "s"], down.as_secs_f64());
    if !tug_first {
        measure_tug(table, &tug, &project, with_port).await?;
    }
    Ok(())
}

async fn measure_tug(table: &mut Table, tug: &Tug, project: &ProjectName, with_port: bool) -> Result<()> {
    let daemons = || -> Result<Duration> {
        let ids = tug.server_id().zip(tug.agent_id()).context("both daemons run")?;
        Ok(processor_time(ids.0)? + processor_time(ids.1)?)
    };
    for (direction, replicas) in [(UP, MANY), (DOWN, 1)] {
        let scenario = scenario(direction, with_port);
        let (begun, used) = (Instant::now(), daemons()?);
        let target = format!("{project}/web={replicas}");
        let command = ["scale", &target];
        let command = async { tug.ok(&command).await.map(|_| begun.elapsed()) };
        let there = async { until_there(tug, project, replicas).await.map(|()| begun.elapsed()) };
        let (command, there) = tokio::try_join!(command, there)?;
        table.add([&scenario, "tug", THERE, "s"], there.as_secs_f64());
        table.add([&scenario, "tug", "`tug scale` returns", "s"], command.as_secs_f64());
        table.add(
            [&scenario, "tug", "its processor time", "s"],
            daemons()?.saturating_sub(used).as_secs_f64(),
        );
    }
    Ok(())
}

/// Waits until the service has so many replicas, all healthy, and no others.
async fn until_there(tug: &Tug, project: &ProjectName, replicas: u32) -> Result<()> {
    let query = WatchQuery { since: None, project: Some(project.clone()) };
    let mut items = tug.client().watch(&query).await?;
    let there = async {
        while let Some(item) = items.next().await {
            if let WatchItem::Status(status) = item?
                && status.settled
                && status
                    .services
                    .iter()
                    .all(|service| (service.wanted, service.ready) == (replicas, replicas))
            {
                return Ok(());
            }
        }
        bail!("the watch ended")
    };
    timeout(PATIENCE, there).await.with_context(|| format!("{project} is not at {replicas} replicas"))?
}

async fn measure_swarm(table: &mut Table, swarm: &Swarm) -> Result<()> {
    for with_port in [false, true] {
        let service = swarm.service(IMAGE, with_port.then(|| (free_port(), PORT))).await?;
        for (direction, replicas) in [(UP, MANY), (DOWN, 1)] {
            let took = service.scale_to(replicas).await?;
            table.add([&scenario(direction, with_port), "swarm", THERE, "s"], took.as_secs_f64());
        }
        service.remove().await?;
    }
    Ok(())
}
