//! Machines that are well: they join, share the work and the port, are emptied, filled again and upgraded.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use tokio::time::Instant;
use tug_api::user::{AvailabilityRequest, NodeState, NodeStatus};
use tug_model::NodeId;
use tug_model::status::ProjectStatus;
use tug_tests::cluster::{Cluster, Home, spread};
use tug_tests::lab::Lab;
use tug_tests::load::get_from;
use tug_tests::tug::{PATIENCE, service};

use super::{PORT, REPLICAS, hosts, load, manifest, project, shares, unchanged, without_failure};
use crate::number;

/// `TUG_TEST_ROUNDS` asks for more.
const DRAINS: usize = 2;
const UPGRADES: usize = 3;
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
    let lab = Lab::start(4).await?;
    let cluster = Cluster::start_on(&lab, Home::Apart, 3).await?;
    println!("three machines have joined after {:?}", start.elapsed());
    cluster.apply(&(manifest(REPLICAS) + BESIDE)).await?;
    let status = cluster.until_settled(&project()).await?;
    work_is_spread(&cluster, &status);
    every_machine_answers_for_all(&cluster, &[1, 2, 3], REPLICAS).await?;
    people_see_the_machines(&cluster).await?;
    println!("work is spread and seen after {:?}", start.elapsed());
    emptied_and_filled_again(&cluster).await?;
    println!("machines were emptied and filled again after {:?}", start.elapsed());
    a_fourth_joins(&cluster).await?;
    println!("a fourth machine has its share after {:?}", start.elapsed());
    Ok(())
}

fn nodes_of(status: &ProjectStatus, name: &str) -> Vec<String> {
    service(status, name).tasks.iter().map(|task| task.node.to_string()).collect()
}

/// Who has how many replicas of `web`.
fn spread_of_web(status: &ProjectStatus) -> BTreeMap<NodeId, usize> {
    let mut web = status.clone();
    web.services.retain(|service| service.name.as_str() == "web");
    spread(&web)
}

fn work_is_spread(cluster: &Cluster<'_>, status: &ProjectStatus) {
    assert_eq!(spread_of_web(status), shares(cluster, &[2, 2, 2]));
    assert_eq!(nodes_of(status, "picky"), ["h2"]);
    let everywhere: BTreeSet<String> = nodes_of(status, "everywhere").into_iter().collect();
    assert_eq!(everywhere.len(), 3, "{everywhere:?}");
}

/// A new connection for each request: all replicas take turns, wherever they are.
async fn every_machine_answers_for_all(
    cluster: &Cluster<'_>,
    machines: &[usize],
    replicas: u32,
) -> Result<()> {
    for &number in machines {
        let address = SocketAddr::from((cluster.host(number).address(), PORT));
        let start = Instant::now();
        let mut answers = BTreeSet::new();
        while answers.len() < replicas as usize {
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
    for host in hosts(cluster, &[1, 2, 3]) {
        let name = host.name();
        ensure!(nodes.lines().any(|line| line.starts_with(&name) && line.contains("ready")), "{nodes}");
        ensure!(tasks.lines().filter(|line| line.contains(&name)).count() >= 3, "{tasks}");
    }
    Ok(())
}

/// Replacements first, and no request fails; afterwards the machine is filled again, as gently. So it is with one machine
/// after the other, also with that of the control plane.
async fn emptied_and_filled_again(cluster: &Cluster<'_>) -> Result<()> {
    let load = load(cluster, &[1, 2, 3]);
    for round in 0..number("TUG_TEST_ROUNDS").unwrap_or(DRAINS) {
        let emptied = if round % 2 == 0 { 3 } else { 1 };
        let others = hosts(cluster, &[2, 4 - emptied]);
        let before = cluster.starts(&others).await?;
        load.more(50).await?;
        cluster.ok(&["node", "drain", &cluster.host(emptied).name(), "--wait"]).await?;
        let drained = cluster.until_node(emptied, NodeState::Drained).await?;
        assert_eq!(drained.tasks, 0, "{drained:?}");
        cluster.until_running(&hosts(cluster, &[emptied]), 0).await?;
        let status = cluster.until_settled(&project()).await?;
        assert_eq!(nodes_of(&status, "everywhere").len(), 2, "nothing is asked of a machine that is drained");
        load.more(50).await?;
        cluster.client().set_availability(&cluster.node(emptied), &AvailabilityRequest::Active).await?;
        until_web_is_spread(cluster, &[2, 2, 2]).await?;
        load.more(50).await?;
        unchanged(&before, &cluster.starts(&others).await?)?;
    }
    let outcome = load.finish().await;
    println!("emptied and filled: of {} requests {} failed", outcome.total(), outcome.failures.len());
    without_failure(&outcome)
}

async fn until_web_is_spread(cluster: &Cluster<'_>, wanted: &[usize]) -> Result<ProjectStatus> {
    let wanted = shares(cluster, wanted);
    let is_spread = |status: &ProjectStatus| status.settled && spread_of_web(status) == wanted;
    cluster.until(&project(), &format!("web to be spread {wanted:?}"), is_spread).await
}

/// Agents make place for their successors, and so does the control plane, or it is killed.
#[tokio::test(flavor = "multi_thread")]
async fn in_a_lab_upgrades_restart_nothing_and_fail_no_request() -> Result<()> {
    let lab = Lab::start(3).await?;
    let cluster = Cluster::start(&lab, Home::Apart).await?;
    cluster.apply(&(manifest(REPLICAS) + BESIDE)).await?;
    cluster.until_settled(&project()).await?;
    let (all, start) = (hosts(&cluster, &[1, 2, 3]), Instant::now());
    let before = cluster.starts(&all).await?;
    let load = load(&cluster, &[1, 2, 3]);
    for round in 0..number("TUG_TEST_ROUNDS").unwrap_or(UPGRADES) {
        for number in 1..=3 {
            load.more(20).await?;
            cluster.replace_agent(number).await?;
        }
        cluster.end_server(if round % 2 == 0 { Signal::TERM } else { Signal::KILL }).await?;
        load.more(20).await?;
        cluster.start_server().await?;
        all_are_back(&cluster).await?;
    }
    load.more(50).await?;
    let outcome = load.finish().await;
    println!(
        "upgraded in {:?}: of {} requests {} failed",
        start.elapsed(),
        outcome.total(),
        outcome.failures.len()
    );
    without_failure(&outcome)?;
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

/// It gets what is to be everywhere, and its share of the rest, one task at a time: replacements first, no request fails, and
/// what stays where it is is not restarted.
async fn a_fourth_joins(cluster: &Cluster<'_>) -> Result<()> {
    let replicas = 8;
    let all = hosts(cluster, &[1, 2, 3]);
    cluster.apply(&(manifest(replicas) + BESIDE)).await?;
    cluster.until_settled(&project()).await?;
    let before = cluster.starts(&all).await?;
    let load = load(cluster, &[1, 2, 3]);
    load.more(50).await?;
    cluster.join(4).await?;
    cluster.start_agent(4)?;
    let (wanted, most) = (shares(cluster, &[2, 2, 2, 2]), Cell::new(0));
    let has_its_share = |status: &ProjectStatus| {
        let spread = spread_of_web(status);
        most.set(most.get().max(spread.values().sum()));
        status.settled && spread == wanted && nodes_of(status, "everywhere").len() == 4
    };
    let status = cluster.until(&project(), "the fourth to have its share", has_its_share).await?;
    ensure!(nodes_of(&status, "everywhere").contains(&cluster.node(4).to_string()), "{status:?}");
    assert_eq!(most.get(), replicas as usize + 1, "one after the other");
    unchanged(&before, &cluster.starts(&all).await?)?;
    every_machine_answers_for_all(cluster, &[4], replicas).await?;
    without_failure(&load.finish().await)
}
