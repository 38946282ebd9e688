//! Images without a registry: what is built on one host runs on all, and of the next build only what is new is moved.

use anyhow::{Context, Result, ensure};
use bollard::Docker;
use bollard::query_parameters::BuildImageOptionsBuilder;
use futures_util::TryStreamExt;
use tokio::time::Instant;
use tug_model::status::ProjectStatus;
use tug_tests::cluster::{Cluster, Home, IMAGE};
use tug_tests::lab::{Host, Lab};

use super::{PROJECT, losses, project, until_spread};

/// The image that only the first host has.
const BUILT: &str = "shop-web:1";
/// How large its first layer is, which stays.
const LARGE: usize = 8 << 20;
/// A line of 125 kB a second.
const NARROW: &str = "1mbit";
/// What takes eight seconds and more on it, far longer than a silence that counts.
const MUCH: usize = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn in_a_lab_an_image_that_one_host_has_reaches_the_others_and_later_only_what_is_new() -> Result<()> {
    let lab = Lab::start(3).await?;
    let cluster = Cluster::start(&lab, Home::Apart).await?;
    let first = build(cluster.host(1), b"first").await?;
    let before = received(&cluster).await?;
    cluster.apply(&manifest()).await?;
    until_spread(&cluster, &[1, 1, 1]).await?;
    let moved = all_have(&cluster, &first, &before).await?;
    println!("at first the second and third host receive {moved:?} bytes");
    ensure!(moved.iter().all(|bytes| *bytes > LARGE as u64), "{moved:?}");

    // The same name means another image from the next apply on, and not from a restart of an agent.
    let second = build(cluster.host(1), b"second").await?;
    ensure!(first != second, "nothing is new");
    let before = received(&cluster).await?;
    cluster.apply(&manifest()).await?;
    let is_new = |status: &ProjectStatus| status.settled;
    cluster.until(&project(), "the new version", is_new).await?;
    let moved = all_have(&cluster, &second, &before).await?;
    println!("then {moved:?}");
    ensure!(moved.iter().all(|bytes| *bytes < LARGE as u64 / 2), "more than what is new: {moved:?}");
    over_a_narrow_line(&cluster).await
}

/// An image takes its time there, and all the while the machine is heard. Its connection may break: it goes on after that.
async fn over_a_narrow_line(cluster: &Cluster<'_>) -> Result<()> {
    let (behind, lost) = (cluster.host(3), losses(cluster).await?);
    cluster.lab().narrow(behind, NARROW)?;
    let third = build(cluster.host(1), &noise(MUCH)).await?;
    let (before, begun) = (received(cluster).await?, Instant::now());
    cluster.apply(&manifest()).await?;
    let moved = all_have(cluster, &third, &before).await?;
    println!("over a narrow line {moved:?} in {:?}", begun.elapsed());
    ensure!(moved.iter().all(|bytes| *bytes > MUCH as u64), "{moved:?}");
    assert_eq!(losses(cluster).await?, lost, "no machine counted as lost\n{}", cluster.logs());
    cluster.lab().widen(behind)
}

fn manifest() -> String {
    format!(
        "name: {PROJECT}\n\
         services:\n  \
           web:\n    \
             image: {BUILT}\n    \
             init: true\n    \
             x-probe: {{http: /healthz, port: 8080}}\n    \
             stop_grace_period: 1s\n    \
             deploy: {{replicas: 3}}\n"
    )
}

/// What nobody can make smaller, always the same.
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    std::iter::repeat_with(next).take(bytes).collect()
}

/// Builds the image on one host, with a large layer that is always the same and another one that says `version`.
async fn build(host: &Host, version: &[u8]) -> Result<String> {
    let docker = host.connect()?;
    let dockerfile = format!("FROM {IMAGE}\nCOPY large /large\nCOPY version /version\n");
    let large = noise(LARGE);
    let mut archive = tar::Builder::new(Vec::new());
    for (name, content) in [("Dockerfile", dockerfile.as_bytes()), ("large", &*large), ("version", version)] {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, content)?;
    }
    let options = BuildImageOptionsBuilder::new().t(BUILT).rm(true).build();
    let body = bollard::body_full(archive.into_inner()?.into());
    let _built: Vec<_> = docker.build_image(options, None, Some(body)).try_collect().await?;
    docker.inspect_image(BUILT).await?.id.context("an image has an id")
}

/// Waits until every replica runs `image`; gives how much the second and the third host have received since `before`.
async fn all_have(cluster: &Cluster<'_>, image: &str, before: &[u64]) -> Result<Vec<u64>> {
    for number in 1..=3 {
        let docker: Docker = cluster.host(number).connect()?;
        let containers = tug_tests::docker::containers_of(&docker, "tug.task").await?;
        let images: Vec<_> = containers.iter().map(|one| one.image_id.as_deref()).collect();
        ensure!(images == [Some(image)], "host {number} runs {images:?} and not {image}\n{}", cluster.logs());
    }
    let now = received(cluster).await?;
    Ok(now.iter().zip(before).map(|(now, before)| now - before).collect())
}

/// What the second and the third host have received since they were started, in bytes.
async fn received(cluster: &Cluster<'_>) -> Result<Vec<u64>> {
    let mut received = Vec::new();
    for number in [2, 3] {
        let output = cluster.host(number).run(&["cat", "/sys/class/net/eth0/statistics/rx_bytes"]).await?;
        received.push(String::from_utf8_lossy(&output.stdout).trim().parse()?);
    }
    Ok(received)
}
