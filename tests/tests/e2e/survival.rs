//! Killing, stopping or upgrading our own parts stops no container and fails no request.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use rustix::process::Signal;
use tokio::time::Instant;
use tug_tests::docker;
use tug_tests::load::Load;
use tug_tests::tug::{Tug, service};

use crate::Web;

/// Every container of the node, with the moment it was started.
async fn starts(tug: &Tug) -> Result<BTreeMap<String, String>> {
    let engine = docker::connect()?;
    let mut starts = BTreeMap::new();
    for container in docker::containers(&format!("tug.node={}", tug.node())).await? {
        let id = container.id.unwrap_or_default();
        let state = engine.inspect_container(&id, None).await?.state.unwrap_or_default();
        starts.insert(id, state.started_at.unwrap_or_default());
    }
    Ok(starts)
}

/// Waits until the status is whole again, and says how long that took.
async fn adopted(web: &Web) -> Result<Duration> {
    let start = Instant::now();
    web.tug.until_settled(&web.project).await?;
    Ok(start.elapsed())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_orchestrators_death_fails_no_request_and_restarts_nothing() -> Result<()> {
    let mut web = Web::start("server", 3).await?;
    let before = starts(&web.tug).await?;
    let load = Load::start(web.port, "/api/hello", 4);
    for _ in 0..3 {
        load.more(50).await?;
        web.tug.end_server(Signal::KILL).await?;
        load.more(200).await?;
        web.tug.start_server()?;
        let took = adopted(&web).await?;
        ensure!(took < Duration::from_secs(20), "adopted after {took:?}\n{}", web.tug.logs());
    }
    let outcome = load.finish().await;
    assert_eq!(outcome.failures, Vec::<String>::new(), "of {} requests", outcome.total());
    assert_eq!(starts(&web.tug).await?, before, "no container was restarted");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_orchestrator_the_agent_heals_and_balances_also_after_its_own_restart() -> Result<()> {
    let mut web = Web::start("alone", 3).await?;
    let status = web.tug.until_settled(&web.project).await?;
    let victims: Vec<String> = service(&status, "web").tasks.iter().map(|task| task.id.to_string()).collect();
    web.tug.end_server(Signal::KILL).await?;
    let load = Load::start(web.port, "/", 2);
    docker::kill(&victims[0]).await?;
    docker::until_running(&victims[0]).await?;
    web.tug.end_agent(Signal::KILL).await?;
    docker::kill(&victims[1]).await?;
    web.tug.start_agent()?;
    docker::until_running(&victims[1]).await?;
    load.more(300).await?;
    let outcome = load.finish().await;
    assert_eq!(outcome.answers.len(), 3, "all three answer: {:?}", outcome.answers);
    web.tug.start_server()?;
    web.tug.until_settled(&web.project).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agents_death_restarts_nothing_and_fails_only_what_was_in_flight() -> Result<()> {
    let mut web = Web::start("agent", 3).await?;
    let before = starts(&web.tug).await?;
    let clients = 4;
    let load = Load::start(web.port, "/api/hello", clients);
    let rounds = 3;
    for _ in 0..rounds {
        load.more(50).await?;
        web.tug.end_agent(Signal::KILL).await?;
        web.tug.start_agent()?;
        load.more(50).await?;
        adopted(&web).await?;
    }
    let outcome = load.finish().await;
    assert!(outcome.failures.len() <= rounds * clients, "only what was in flight: {:?}", outcome.failures);
    let refused = outcome.failures.iter().filter(|failure| failure.starts_with("connect")).count();
    assert_eq!(refused, 0, "new connections wait for the next agent: {:?}", outcome.failures);
    assert_eq!(starts(&web.tug).await?, before, "no container was restarted");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn upgrading_the_agent_fails_no_request() -> Result<()> {
    let mut web = Web::start("upgrade", 3).await?;
    let before = starts(&web.tug).await?;
    let load = Load::start(web.port, "/api/hello", 4);
    for _ in 0..5 {
        load.more(50).await?;
        web.tug.replace_agent().await?;
        load.more(50).await?;
        adopted(&web).await?;
    }
    let outcome = load.finish().await;
    assert_eq!(outcome.failures, Vec::<String>::new(), "of {} requests", outcome.total());
    assert_eq!(starts(&web.tug).await?, before, "no container was restarted");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn both_dying_at_once_restarts_nothing() -> Result<()> {
    let mut web = Web::start("both", 3).await?;
    let before = starts(&web.tug).await?;
    web.tug.end_server(Signal::KILL).await?;
    web.tug.end_agent(Signal::KILL).await?;
    web.tug.start_server()?;
    web.tug.start_agent()?;
    web.tug.until_connected().await?;
    let took = adopted(&web).await?;
    ensure!(took < Duration::from_secs(20), "adopted after {took:?}");
    assert_eq!(starts(&web.tug).await?, before, "no container was restarted");
    Ok(())
}
