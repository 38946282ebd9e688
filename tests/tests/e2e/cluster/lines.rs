//! Lines that are not well: packets are lost by chance, or two machines have one address. A machine behind such a line is
//! not a dead machine, and whoever asks is answered.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::time::Instant;
use tug_api::user::NodeStatus;
use tug_tests::cluster::{Cluster, Home};
use tug_tests::lab::{Host, Lab, Way};

use super::{REPLICAS, hosts, load, losses, manifest, unchanged, until_spread, without_failure};

/// One packet in ten each way: one question in five gets no answer at first.
const LOST: &str = "0.1";
/// For at least so long.
const WHILE: Duration = Duration::from_secs(30);
/// The machine that it happens to.
const VICTIM: usize = 3;
/// The machine whose address it takes.
const OWNER: usize = 2;
/// By then requests no longer go where nobody answers. It is three seconds on a machine with time to spare.
const LEFT_OUT: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn in_a_lab_a_bad_line_is_not_a_dead_machine() -> Result<()> {
    let start = Instant::now();
    let lab = Lab::start(3).await?;
    let cluster = Cluster::start(&lab, Home::Together).await?;
    cluster.apply(&manifest(REPLICAS)).await?;
    until_spread(&cluster, &[2, 2, 2]).await?;
    println!("all run after {:?}", start.elapsed());
    loses_packets(&cluster).await?;
    println!("packets were lost, after {:?}", start.elapsed());
    has_the_address_of_another(&cluster).await?;
    println!("an address was two machines', after {:?}", start.elapsed());
    Ok(())
}

/// Requests to what runs there are answered, a change goes through, and the machine is never taken for lost.
async fn loses_packets(cluster: &Cluster<'_>) -> Result<()> {
    let (victim, all) = (cluster.host(VICTIM), hosts(cluster, &[1, 2, 3]));
    let (before, lost) = (cluster.starts(&all).await?, losses(cluster).await?);
    let begun = Instant::now();
    for way in [Way::In, Way::Out] {
        victim.lose(way, LOST)?;
    }
    let load = load(cluster, &[1, 2]);
    cluster.apply(&manifest(REPLICAS + 3)).await?;
    until_spread(cluster, &[3, 3, 3]).await?;
    println!("three more after {:?}", begun.elapsed());
    while begun.elapsed() < WHILE {
        load.more(50).await?;
    }
    let outcome = load.finish().await;
    println!("of {} requests {} failed", outcome.total(), outcome.failures.len());
    without_failure(&outcome).with_context(|| cluster.logs())?;
    assert_eq!(losses(cluster).await?, lost, "no machine counted as lost\n{}", cluster.logs());
    unchanged(&before, &cluster.starts(&all).await?)?;
    for way in [Way::In, Way::Out] {
        victim.keep(way, LOST)?;
    }
    cluster.apply(&manifest(REPLICAS)).await?;
    until_spread(cluster, &[2, 2, 2]).await.map(drop)
}

/// One of the two is reached, and now and then the other one. That is said; requests go elsewhere; and what is sent to a
/// machine is never given to the other one.
async fn has_the_address_of_another(cluster: &Cluster<'_>) -> Result<()> {
    let (owner, victim) = (cluster.host(OWNER), cluster.host(VICTIM));
    let at_home = hosts(cluster, &[1]);
    let before = cluster.starts(&at_home).await?;
    let load = load(cluster, &[1]);
    load.more(50).await?;
    let begun = Instant::now();
    moves(victim, owner).await?;
    let is_told = |nodes: &[NodeStatus]| {
        let told = |number| {
            let node = nodes.iter().find(|it| it.node.id == cluster.node(number));
            node.is_some_and(|it| it.reasons.iter().any(|why| why.contains("has the same address")))
        };
        told(OWNER) && told(VICTIM) && nodes.iter().any(|it| !it.connected)
    };
    let nodes = cluster.until_nodes("both to be said to have one address", is_told).await?;
    println!("{:?}", nodes.iter().map(|it| (it.connected, &it.reasons)).collect::<Vec<_>>());
    while begun.elapsed() < LEFT_OUT {
        load.more(20).await?;
    }
    let failed = load.outcome().await.failures.len();
    load.more(100).await?;
    let outcome = load.finish().await;
    println!("{failed} of {} requests failed until it was noticed", outcome.total());
    ensure!(outcome.failures.len() == failed, "{:?}\n{}", outcome.failures, cluster.logs());
    moves(victim, victim).await?;
    until_spread(cluster, &[2, 2, 2]).await?;
    let is_past = |nodes: &[NodeStatus]| {
        nodes
            .iter()
            .all(|it| it.connected && !it.reasons.iter().any(|why| why.contains("has the same address")))
    };
    cluster.until_nodes("each to be at an address of its own", is_past).await?;
    unchanged(&before, &cluster.starts(&at_home).await?)
}

/// Gives a host the address of some host, and lets it ask anew where the others are, who learn by that where it is.
async fn moves(host: &Host, to: &Host) -> Result<()> {
    let script = format!(
        "ip addr flush dev eth0 scope global; ip addr add {}/24 dev eth0; ip neigh flush dev eth0",
        to.address()
    );
    let output = host.run(&["sh", "-ec", &script]).await?;
    ensure!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
