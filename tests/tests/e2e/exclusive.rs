//! A service that never runs twice at once ends with its lease, also when its agent is in no state to end it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bollard::models::{ContainerSummary, ContainerSummaryStateEnum};
use rustix::process::Signal;
use tokio::time::Instant;
use tug_model::lease::{LASTS, OVER_AFTER};
use tug_tests::docker;
use tug_tests::tug::{PATIENCE, Tug};

use crate::hello_image;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_exclusive_ends_in_time_also_when_its_agent_is_stopped_or_dead() -> Result<()> {
    let mut tug = Tug::start().await?;
    let (project, image) = (tug.project("lone"), hello_image().await);
    let service = "{command: [sleep], pull_policy: never, init: true, x-exclusive: true, image";
    tug.apply(&format!("name: {project}\nservices: {{one: {service}: '{image}'}}}}\n")).await?;
    let mut number = running(&tug).await?.context("it runs")?;

    for is_dead in [false, true] {
        let began = Instant::now();
        if is_dead {
            tug.end_agent(Signal::KILL).await?;
        } else {
            tug.signal_agent(Signal::STOP)?;
        }
        until(&tug, "it to end", |number| number.is_none()).await?;
        let took = began.elapsed();
        println!("it ended {took:?} after its agent was {}", if is_dead { "killed" } else { "stopped" });
        ensure!(took < OVER_AFTER.duration(), "after {took:?} another node may start it");
        ensure!(took > LASTS.duration(), "after {took:?} it had a lease");
        if is_dead {
            tug.start_agent()?;
        } else {
            tug.signal_agent(Signal::CONT)?;
        }
        let next = until(&tug, "it to run again", |number| number.is_some()).await?.context("it runs")?;
        ensure!(next > number, "{next} follows {number}");
        number = next;
        tug.until_settled(&project).await?;
    }
    Ok(())
}

/// The fencing number of what runs on the node.
async fn running(tug: &Tug) -> Result<Option<u64>> {
    let containers = docker::containers(&format!("tug.node={}", tug.node())).await?;
    let is_running =
        |container: &&ContainerSummary| container.state == Some(ContainerSummaryStateEnum::RUNNING);
    let running: Vec<&ContainerSummary> = containers.iter().filter(is_running).collect();
    ensure!(running.len() < 2, "{running:?}");
    let Some(labels) = running.first().and_then(|container| container.labels.as_ref()) else {
        return Ok(None);
    };
    Ok(Some(labels.get("tug.fencing").context("it has a number")?.parse()?))
}

async fn until(tug: &Tug, what: &str, is_so: impl Fn(Option<u64>) -> bool) -> Result<Option<u64>> {
    let start = Instant::now();
    loop {
        let number = running(tug).await?;
        if is_so(number) {
            return Ok(number);
        }
        ensure!(start.elapsed() < PATIENCE, "waited for {what}\n{}", tug.logs());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
