//! Lines that are not well: packets are lost by chance. A machine behind such a line is
//! not a dead machine, and whoever asks is answered.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::Instant;
use tug_tests::cluster::{Cluster, Home};
use tug_tests::lab::{Lab, Way};

use super::{REPLICAS, hosts, load, losses, manifest, unchanged, until_spread, without_failure};

/// One packet in ten each way: one question in five gets no answer at first.
const LOST: &str = "0.1";
/// For at least so long.
const WHILE: Duration = Duration::from_secs(30);
/// The machine that it happens to.
const VICTIM: usize = 3;

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
