//! The control plane is away, for long; or it comes back as another than the one that the machines know. Nothing stops.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use tokio::time::Instant;
use tug_api::user::{NodeState, NodeStatus};
use tug_tests::cluster::{Cluster, Home, spread};
use tug_tests::docker;
use tug_tests::folder;
use tug_tests::lab::Lab;

use super::{REPLICAS, hosts, load, manifest, project, shares, until_spread, without_failure};

/// The second address of the control plane's host.
const SECOND: &str = "10.77.0.101";

#[tokio::test(flavor = "multi_thread")]
async fn in_a_lab_an_absent_or_wrong_control_plane_stops_nothing() -> Result<()> {
    let start = Instant::now();
    let lab = Lab::start(3).await?;
    // Machines that join are told of both addresses.
    on_first(&lab, &format!("ip addr add {SECOND}/24 dev eth0")).await?;
    let foreign = store_of_another_cluster(&lab).await?;
    println!("another cluster was here after {:?}", start.elapsed());
    let cluster = Cluster::start(&lab, Home::Apart).await?;
    cluster.apply(&manifest(REPLICAS)).await?;
    until_spread(&cluster, &[2, 2, 2]).await?;
    away(&cluster).await?;
    println!("away and back after {:?}", start.elapsed());
    empty(&cluster).await?;
    println!("empty and right again after {:?}", start.elapsed());
    of_another_cluster(&cluster, &foreign).await?;
    println!("another cluster's and right again after {:?}", start.elapsed());
    older(&cluster).await?;
    println!("older and right again after {:?}", start.elapsed());
    elsewhere(&cluster).await?;
    println!("at another address after {:?}", start.elapsed());
    Ok(())
}

/// Runs a script on the control plane's host.
async fn on_first(lab: &Lab, script: &str) -> Result<()> {
    let output = lab.host(1).run(&["sh", "-ec", script]).await?;
    ensure!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn all_are_ready(nodes: &[NodeStatus]) -> bool {
    nodes.len() == 3 && nodes.iter().all(|node| node.state == NodeState::Ready && node.engine.is_some())
}

/// Machines go on from their disks: a container that crashes is started again, an agent that was restarted goes on.
async fn away(cluster: &Cluster<'_>) -> Result<()> {
    let all = hosts(cluster, &[1, 2, 3]);
    cluster.end_server(Signal::KILL).await?;
    let load = load(cluster, &[1, 2, 3]);
    load.more(100).await?;
    cluster.end_agent(2, Signal::KILL).await?;
    cluster.start_agent(2)?;
    load.more(100).await?;
    let outcome = load.finish().await;
    println!("without a control plane: {} of {} requests failed", outcome.failures.len(), outcome.total());
    // What went through the agent that was killed is lost with it.
    ensure!(outcome.failures.len() <= 6, "{:?}\n{}", outcome.failures, cluster.logs());

    a_crash_is_healed(cluster).await?;
    let before = cluster.starts(&all).await?;
    cluster.start_server().await?;
    cluster.until_nodes("all to be back", all_are_ready).await?;
    until_spread(cluster, &[2, 2, 2]).await?;
    assert_eq!(cluster.starts(&all).await?, before, "the return restarts nothing");
    Ok(())
}

async fn a_crash_is_healed(cluster: &Cluster<'_>) -> Result<()> {
    let victim = cluster.host(3).connect()?;
    let container = docker::containers_of(&victim, "tug.task").await?.into_iter().find_map(|one| one.id);
    let container = container.context("a container on the third host")?;
    let started = cluster.starts(&hosts(cluster, &[3])).await?;
    victim.kill_container(&container, None::<bollard::query_parameters::KillContainerOptions>).await?;
    let begun = Instant::now();
    loop {
        let now = cluster.starts(&hosts(cluster, &[3])).await?;
        if now.len() == 2 && now != started {
            break;
        }
        ensure!(begun.elapsed() < tug_tests::tug::PATIENCE, "{now:?}\n{}", cluster.logs());
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    Ok(())
}

/// A control plane that has lost everything is nobody's.
async fn empty(cluster: &Cluster<'_>) -> Result<()> {
    let all = hosts(cluster, &[1, 2, 3]);
    let before = cluster.starts(&all).await?;
    let load = load(cluster, &[1, 2, 3]);
    cluster.end_server(Signal::KILL).await?;
    let (state, aside) = (cluster.state(1).join("server"), cluster.state(1).join("aside"));
    std::fs::rename(&state, &aside)?;
    cluster.start_server().await?;
    // The machine's own agent speaks by the socket, and so it is the one that is asked to obey.
    let refuses = |nodes: &[NodeStatus]| nodes.iter().any(|node| node.refusal.is_some());
    let nodes = cluster.until_nodes("the agent to refuse", refuses).await?;
    println!("an empty control plane is told: {:?}", nodes.iter().find_map(|node| node.refusal.clone()));
    load.more(100).await?;
    assert_eq!(cluster.starts(&all).await?, before, "an empty control plane stops nothing");
    cluster.end_server(Signal::KILL).await?;
    std::fs::remove_dir_all(&state)?;
    std::fs::rename(&aside, &state)?;
    cluster.start_server().await?;
    cluster.until_nodes("all to be back", all_are_ready).await?;
    until_spread(cluster, &[2, 2, 2]).await?;
    assert_eq!(cluster.starts(&all).await?, before, "nor does the right one");
    without_failure(&load.finish().await)
}

/// What a control plane keeps that was on the first host before: of a project of the same name, and of a node of the same
/// name that has all its tasks.
async fn store_of_another_cluster(lab: &Lab) -> Result<PathBuf> {
    let cluster = Cluster::start_on(lab, Home::Apart, 1).await?;
    cluster.apply(&manifest(REPLICAS - 1)).await?;
    cluster.until_settled(&project()).await?;
    let store = lab.host(1).folder().join("another");
    cluster.end_server(Signal::TERM).await?;
    folder::copy(&cluster.state(1).join("server"), &store)?;
    cluster.start_server().await?;
    cluster.leave(&project()).await?;
    Ok(store)
}

/// One that is at the right address and has a full store, of another cluster, is nobody's either.
async fn of_another_cluster(cluster: &Cluster<'_>, foreign: &std::path::Path) -> Result<()> {
    let all = hosts(cluster, &[1, 2, 3]);
    let before = cluster.starts(&all).await?;
    let load = load(cluster, &[1, 2, 3]);
    let aside = cluster.state(1).join("aside");
    exchange(cluster, &aside, foreign).await?;
    let refuses = |nodes: &[NodeStatus]| nodes.iter().any(|node| node.refusal.is_some());
    let nodes = cluster.until_nodes("the agent to refuse", refuses).await?;
    println!("another cluster's is told: {:?}", nodes.iter().find_map(|node| node.refusal.clone()));
    let here: Vec<_> = nodes.iter().map(|node| node.node.id.clone()).collect();
    assert_eq!(here, [cluster.node(1)], "those that come by TLS do not even talk to it");
    let status = cluster.client().status(&project()).await?;
    assert_eq!(spread(&status), shares(cluster, &[REPLICAS as usize - 1]), "it wants to run all of them");
    load.more(100).await?;
    assert_eq!(cluster.starts(&all).await?, before, "another cluster's starts and stops nothing");
    exchange(cluster, foreign, &aside).await?;
    cluster.until_nodes("all to be back", all_are_ready).await?;
    until_spread(cluster, &[2, 2, 2]).await?;
    assert_eq!(cluster.starts(&all).await?, before, "nor does the right one");
    without_failure(&load.finish().await)
}

/// Copies the state, and then has something change that the copy does not know.
async fn forgotten(cluster: &Cluster<'_>) -> Result<PathBuf> {
    let copy = cluster.state(1).join("copy");
    cluster.end_server(Signal::TERM).await?;
    folder::copy(&cluster.state(1).join("server"), &copy)?;
    cluster.start_server().await?;
    cluster.until_nodes("all to be back", all_are_ready).await?;
    cluster.apply(&manifest(REPLICAS + 3)).await?;
    until_spread(cluster, &[3, 3, 3]).await?;
    Ok(copy)
}

/// One that has forgotten the last changes is not obeyed, however many commits it makes of its own.
async fn older(cluster: &Cluster<'_>) -> Result<()> {
    let copy = forgotten(cluster).await?;
    let all = hosts(cluster, &[1, 2, 3]);
    let before = cluster.starts(&all).await?;
    let load = load(cluster, &[1, 2, 3]);
    let newest = cluster.state(1).join("newest");
    exchange(cluster, &newest, &copy).await?;
    let refuses = |nodes: &[NodeStatus]| nodes.iter().filter(|node| node.refusal.is_some()).count() == 3;
    let nodes = cluster.until_nodes("the agents to refuse", refuses).await?;
    println!("an older control plane is told: {:?}", nodes.iter().find_map(|node| node.refusal.clone()));
    load.more(100).await?;
    assert_eq!(cluster.starts(&all).await?, before, "an older control plane stops nothing");
    exchange(cluster, &copy, &newest).await?;
    cluster.until_nodes("all to be back", all_are_ready).await?;
    cluster.until_settled(&project()).await?;
    assert_eq!(cluster.starts(&all).await?, before, "nor does the right one");
    without_failure(&load.finish().await)
}

/// Starts the control plane anew with the state in `next`, and puts what it had aside.
async fn exchange(cluster: &Cluster<'_>, aside: &std::path::Path, next: &std::path::Path) -> Result<()> {
    let state = cluster.state(1).join("server");
    cluster.end_server(Signal::TERM).await?;
    std::fs::rename(&state, aside)?;
    std::fs::rename(next, &state)?;
    cluster.start_server().await
}

/// The first of its two addresses goes: it is found by the other, by the control plane's clients and by other agents.
async fn elsewhere(cluster: &Cluster<'_>) -> Result<()> {
    let all = hosts(cluster, &[1, 2, 3]);
    let before = cluster.starts(&all).await?;
    let load = load(cluster, &[2, 3]);
    let first = cluster.host(1).address();
    let promote = "echo 1 >/proc/sys/net/ipv4/conf/eth0/promote_secondaries";
    on_first(cluster.lab(), &format!("{promote}; ip addr del {first}/24 dev eth0")).await?;
    let has_moved = |nodes: &[NodeStatus]| {
        let address = nodes
            .iter()
            .find_map(|node| node.node.info.address.clone().filter(|_| node.node.id.as_str() == "h1"));
        let fresh = nodes.iter().all(|node| node.last_report.is_some_and(|age| age.0 < 2_000));
        all_are_ready(nodes) && fresh && address.is_some_and(|address| address.starts_with(SECOND))
    };
    cluster.until_nodes("all to be back by the other address", has_moved).await?;
    cluster.until_settled(&project()).await?;
    let failed = load.outcome().await.failures.len();
    load.more(100).await?;
    let outcome = load.finish().await;
    println!("a new address: {failed} of {} requests failed until all knew it", outcome.total());
    ensure!(outcome.failures.len() == failed, "{:?}\n{}", outcome.failures, cluster.logs());
    assert_eq!(cluster.starts(&all).await?, before, "nothing is moved or restarted");
    Ok(())
}
