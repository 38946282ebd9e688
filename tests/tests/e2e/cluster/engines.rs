//! A machine whose Engine hangs or dies, or what that needs: who is there serves on as long as it lives, and no other
//! machine takes it for dead.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use bollard::models::ContainerSummaryStateEnum;
use rustix::process::Signal;
use tokio::time::Instant;
use tug_api::user::NodeState;
use tug_model::report::Engine;
use tug_model::status::ProjectStatus;
use tug_tests::cluster::{Cluster, Home, spread};
use tug_tests::docker;
use tug_tests::lab::{Host, Lab};
use tug_tests::tug::service;

use super::{REPLICAS, hosts, load, manifest, project, unchanged, until_spread, without_failure};

/// The machine that most of it happens to; the control plane is on the first.
const VICTIM: usize = 3;
/// The containers of this one live on when its Engine is started anew.
const LASTING: usize = 2;
const LIVE_RESTORE: &str = "--live-restore";

#[tokio::test(flavor = "multi_thread")]
async fn in_a_lab_a_machine_without_its_engine_is_not_a_dead_machine() -> Result<()> {
    let start = Instant::now();
    let lab = Lab::start(3).await?;
    lab.host(LASTING).end_engine(Signal::TERM).await?;
    lab.host(LASTING).start_engine_with(&[LIVE_RESTORE]).await?;
    let cluster = Cluster::start(&lab, Home::Together).await?;
    cluster.apply(&manifest(REPLICAS)).await?;
    until_spread(&cluster, &[2, 2, 2]).await?;
    println!("all run after {:?}", start.elapsed());
    hangs(&cluster).await?;
    println!("its Engine has hung, after {:?}", start.elapsed());
    its_containerd_hangs(&cluster).await?;
    println!("its containerd has hung, after {:?}", start.elapsed());
    a_shim_is_killed(&cluster).await?;
    println!("a shim was killed, after {:?}", start.elapsed());
    leaves_its_containers_alone(&cluster).await?;
    println!("one with live-restore was away twice, after {:?}", start.elapsed());
    dies(&cluster).await?;
    println!("and one without, after {:?}", start.elapsed());
    Ok(())
}

/// It is waited for: what it runs serves on.
async fn hangs(cluster: &Cluster<'_>) -> Result<()> {
    let (victim, others) = (cluster.host(VICTIM), hosts(cluster, &[1, 2]));
    let before = cluster.starts(&hosts(cluster, &[1, 2, 3])).await?;
    let load = load(cluster, &[1, 2, 3]);
    victim.signal_engine(Signal::STOP)?;
    let down = cluster.until_node(VICTIM, NodeState::EngineDown).await?;
    ensure!(down.connected, "the machine is there: {down:?}");
    load.more(200).await?;
    assert_eq!(cluster.starts(&others).await?.len(), 4, "nothing is moved");
    victim.signal_engine(Signal::CONT)?;
    cluster.until_node(VICTIM, NodeState::Ready).await?;
    without_failure(&load.finish().await)?;
    assert_eq!(cluster.starts(&hosts(cluster, &[1, 2, 3])).await?, before, "nothing was restarted");
    Ok(())
}

/// Its Engine answers, and gets nothing done: of what ends meanwhile it hears when that goes on.
async fn its_containerd_hangs(cluster: &Cluster<'_>) -> Result<()> {
    let (victim, others) = (cluster.host(VICTIM), hosts(cluster, &[1, 2]));
    let before = cluster.starts(&hosts(cluster, &[1, 2, 3])).await?;
    let process = a_process(victim).await?;
    let load = load(cluster, &[1, 2, 3]);
    load.more(50).await?;
    victim.signal_containerd(Signal::STOP)?;
    let killed = victim.run(&["kill", "-KILL", &process]).await?;
    ensure!(killed.status.success(), "{}", String::from_utf8_lossy(&killed.stderr));
    let down = cluster.until_node(VICTIM, NodeState::EngineDown).await?;
    let Some(Engine::Down { reason, doomed: false, .. }) = &down.engine else {
        anyhow::bail!("it will not end what it runs: {down:?}")
    };
    ensure!(down.connected && reason.contains("its containerd may hang"), "{down:?}");
    let why = cluster.ok(&["why", "shop/web"]).await?;
    ensure!(why.contains("its Docker Engine does not answer"), "{why}");
    load.more(200).await?;
    assert_eq!(cluster.starts(&others).await?.len(), 4, "nothing is moved");
    victim.signal_containerd(Signal::CONT)?;
    cluster.until_node(VICTIM, NodeState::Ready).await?;
    until_one_was_started_again(cluster, &before).await?;
    without_failure(&load.finish().await)
}

/// Its container ends with it, which is a crash like any other.
async fn a_shim_is_killed(cluster: &Cluster<'_>) -> Result<()> {
    let victim = cluster.host(VICTIM);
    let before = cluster.starts(&hosts(cluster, &[1, 2, 3])).await?;
    let process = a_process(victim).await?;
    let load = load(cluster, &[1, 2, 3]);
    load.more(50).await?;
    victim.kill_shim(&process)?;
    until_one_was_started_again(cluster, &before).await?;
    ensure!(!victim.has_process(&process)?, "what it watched over is gone");
    load.more(50).await?;
    without_failure(&load.finish().await)
}

/// The main process of some container that runs there.
async fn a_process(host: &Host) -> Result<String> {
    let containers = docker::containers_of(&host.connect()?, "tug.task").await?;
    let mut running =
        containers.into_iter().filter(|one| one.state == Some(ContainerSummaryStateEnum::RUNNING));
    let id = running.next().and_then(|container| container.id).context("a container runs there")?;
    host.process_of(&id).await
}

/// Waits until one has been started again in its place, and fails when more were.
async fn until_one_was_started_again(cluster: &Cluster<'_>, before: &BTreeMap<String, String>) -> Result<()> {
    let all = hosts(cluster, &[1, 2, 3]);
    let begun = Instant::now();
    loop {
        let now = cluster.starts(&all).await?;
        let kept = before.iter().filter(|(task, at)| now.get(*task) == Some(*at)).count();
        if now.len() == before.len() && now.keys().eq(before.keys()) && kept + 1 == before.len() {
            break;
        }
        ensure!(
            begun.elapsed() < tug_tests::tug::PATIENCE && kept + 1 >= before.len(),
            "before: {before:#?}\nnow: {now:#?}\n{}",
            cluster.logs()
        );
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let status = until_spread(cluster, &[2, 2, 2]).await?;
    ensure!(service(&status, "web").ready == REPLICAS, "{status:#?}");
    Ok(())
}

/// Where containers live on, whoever ends the Engine: it is waited for, and finds them as they were.
async fn leaves_its_containers_alone(cluster: &Cluster<'_>) -> Result<()> {
    let all = hosts(cluster, &[1, 2, 3]);
    let lasting = cluster.host(LASTING);
    let before = cluster.starts(&all).await?;
    let load = load(cluster, &[1, 2, 3]);
    for signal in [Signal::KILL, Signal::TERM] {
        lasting.end_engine(signal).await?;
        let down = cluster.until_node(LASTING, NodeState::EngineDown).await?;
        let is_doomed = matches!(down.engine, Some(Engine::Down { doomed: true, .. }) | None);
        ensure!(down.connected && !is_doomed, "they are known to live on: {down:?}");
        load.more(200).await?;
        let others = cluster.starts(&hosts(cluster, &[1, VICTIM])).await?;
        ensure!(others.len() == 4, "nothing is moved: {others:#?}");
        lasting.start_engine_with(&[LIVE_RESTORE]).await?;
        cluster.until_node(LASTING, NodeState::Ready).await?;
        until_spread(cluster, &[2, 2, 2]).await?;
        assert_eq!(cluster.starts(&all).await?, before, "nothing was restarted");
    }
    load.more(50).await?;
    without_failure(&load.finish().await)
}

/// It ends what it ran when it starts again, so all is elsewhere before that.
async fn dies(cluster: &Cluster<'_>) -> Result<()> {
    let (victim, others) = (cluster.host(VICTIM), hosts(cluster, &[1, 2]));
    let before = cluster.starts(&hosts(cluster, &[1, 2, 3])).await?;
    let load = load(cluster, &[1, 2, 3]);
    load.more(50).await?;
    let begun = Instant::now();
    victim.end_engine(Signal::KILL).await?;
    cluster.until_running(&others, REPLICAS as usize).await?;
    println!("the Engine was killed: all run elsewhere after {:?}", begun.elapsed());
    let serve_elsewhere = |status: &ProjectStatus| {
        status.services.iter().all(|it| it.ready >= REPLICAS)
            && !spread(status).contains_key(&cluster.node(VICTIM))
    };
    cluster.until(&project(), "all to serve elsewhere", serve_elsewhere).await?;
    victim.start_engine().await?;
    cluster.until_node(VICTIM, NodeState::Ready).await?;
    until_spread(cluster, &[2, 2, 2]).await?;
    let outcome = load.finish().await;
    without_failure(&outcome).with_context(|| cluster.logs())?;
    cluster.until_running(&hosts(cluster, &[1, 2, 3]), REPLICAS as usize).await?;
    unchanged(&before, &cluster.starts(&others).await?)
}
