//! Machines that are well: they join, share the work and the port, are emptied, filled again and upgraded.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use tokio::time::Instant;
use tug_api::user::{AvailabilityRequest, NodeState, NodeStatus};
use tug_model::status::ProjectStatus;
use tug_tests::cluster::{Cluster, Home, spread};
use tug_tests::lab::Lab;
use tug_tests::load::get_from;
use tug_tests::tug::{PATIENCE, service};

use super::{PORT, REPLICAS, hosts, load, manifest, project, shares, unchanged, without_failure};
use crate::number;

/// `TUG_TEST_ROUNDS` asks for more.
const ROUNDS: usize = 2;
/// Beside `web`: one that wants a certain machine, and one that is everywhere.
const BESIDE: &str = "  \
  picky:
    image: tug-test-hello:1
    pull_policy: never
    init: true
    deploy: {placement: {constraints: ['node.hostname == h2']}}
  everywhere:
    image: tug-test-hello:1
    pull_policy: never
    init: true
    deploy: {mode: global}
";

#[tokio::test(flavor = "multi_thread")]
async fn in_a_lab_three_machines_are_as_one() -> Result<()> {
    let start = Instant::now();
    let lab = Lab::start(3).await?;
    let cluster = Cluster::start(&lab, Home::Apart).await?;
    println!("three machines have joined after {:?}", start.elapsed());
    cluster.apply(&(manifest(REPLICAS) + BESIDE)).await?;
    let status = cluster.until_settled(&project()).await?;
    work_is_spread(&cluster, &status);
    every_machine_answers_for_all(&cluster).await?;
    people_see_the_machines(&cluster).await?;
    println!("work is spread and seen after {:?}", start.elapsed());
    emptied_and_filled_again(&cluster).await?;
    println!("a machine was emptied and filled again after {:?}", start.elapsed());
    upgrades(&cluster).await?;
    println!("all was upgraded after {:?}", start.elapsed());
    Ok(())
}

fn nodes_of(status: &ProjectStatus, name: &str) -> Vec<String> {
    service(status, name).tasks.iter().map(|task| task.node.to_string()).collect()
}

fn work_is_spread(cluster: &Cluster<'_>, status: &ProjectStatus) {
    let mut web = status.clone();
    web.services.retain(|service| service.name.as_str() == "web");
    assert_eq!(spread(&web), shares(cluster, &[2, 2, 2]));
    assert_eq!(nodes_of(status, "picky"), ["h2"]);
    let everywhere: BTreeSet<String> = nodes_of(status, "everywhere").into_iter().collect();
    assert_eq!(everywhere.len(), 3, "{everywhere:?}");
}

/// A new connection for each request: all replicas take turns, wherever they are.
async fn every_machine_answers_for_all(cluster: &Cluster<'_>) -> Result<()> {
    for number in 1..=3 {
        let address = SocketAddr::from((cluster.host(number).address(), PORT));
        let start = Instant::now();
        let mut answers = BTreeSet::new();
        while answers.len() < REPLICAS as usize {
            let answer = cluster.lab().outside().run(async move { get_from(address, "/").await }).await;
            answers.insert(answer.with_context(|| format!("h{number}\n{}", cluster.logs()))?);
            ensure!(start.elapsed() < PATIENCE, "h{number} answers only for {answers:?}\n{}", cluster.logs());
        }
    }
    Ok(())
}

async fn people_see_the_machines(cluster: &Cluster<'_>) -> Result<()> {
    let nodes = cluster.ok(&["node", "ls"]).await?;
    let tasks = cluster.ok(&["ps", "-o", "wide"]).await?;
    for host in cluster.lab().hosts() {
        let name = host.name();
        ensure!(nodes.lines().any(|line| line.starts_with(&name) && line.contains("ready")), "{nodes}");
        ensure!(tasks.lines().filter(|line| line.contains(&name)).count() >= 3, "{tasks}");
    }
    Ok(())
}

/// Replacements first, and no request fails; afterwards the machine is filled again, as gently.
async fn emptied_and_filled_again(cluster: &Cluster<'_>) -> Result<()> {
    let all = hosts(cluster, &[1, 2, 3]);
    let before = cluster.starts(&all).await?;
    let load = load(cluster, &[1, 2, 3]);
    load.more(50).await?;
    cluster.ok(&["node", "drain", "h3", "--wait"]).await?;
    let drained = cluster.until_node(3, NodeState::Drained).await?;
    assert_eq!(drained.tasks, 0, "{drained:?}");
    cluster.until_running(&hosts(cluster, &[3]), 0).await?;
    let status = cluster.until_settled(&project()).await?;
    assert_eq!(nodes_of(&status, "everywhere").len(), 2, "nothing is asked of a machine that is drained");
    load.more(50).await?;
    cluster.client().set_availability(&cluster.node(3), &AvailabilityRequest::Active).await?;
    let web_is_spread = |status: &ProjectStatus| {
        let of_third =
            service(status, "web").tasks.iter().filter(|task| task.node == cluster.node(3)).count();
        status.settled && of_third == 2
    };
    cluster.until(&project(), "the machine to be filled again", web_is_spread).await?;
    load.more(50).await?;
    without_failure(&load.finish().await)?;
    unchanged(&before, &cluster.starts(&all).await?)
}

/// Agents and control plane make place for their successors: nothing is restarted, and no request fails.
async fn upgrades(cluster: &Cluster<'_>) -> Result<()> {
    cluster.until_settled(&project()).await?;
    let all = hosts(cluster, &[1, 2, 3]);
    let before = cluster.starts(&all).await?;
    let load = load(cluster, &[1, 2, 3]);
    for round in 0..number("TUG_TEST_ROUNDS").unwrap_or(ROUNDS) {
        for number in 1..=3 {
            load.more(20).await?;
            cluster.replace_agent(number).await?;
        }
        cluster.end_server(if round % 2 == 0 { Signal::TERM } else { Signal::KILL }).await?;
        load.more(20).await?;
        cluster.start_server().await?;
        all_are_back(cluster).await?;
    }
    load.more(50).await?;
    without_failure(&load.finish().await)?;
    let after = cluster.starts(&all).await?;
    ensure!(after == before, "before: {before:#?}\nafter: {after:#?}\n{}", cluster.logs());
    Ok(())
}

async fn all_are_back(cluster: &Cluster<'_>) -> Result<()> {
    let are_there = |nodes: &[NodeStatus]| {
        nodes.len() == 3 && nodes.iter().all(|node| node.connected && node.state == NodeState::Ready)
    };
    cluster.until_nodes("all to be back", are_there).await?;
    cluster.until_settled(&project()).await.map(drop)
}
