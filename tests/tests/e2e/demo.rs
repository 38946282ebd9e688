//! `cargo xtask demo` leaves nothing behind, wherever it ends; and where there is no Docker, one line says how to get it.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use bollard::query_parameters::{ListNetworksOptionsBuilder, ListVolumesOptionsBuilder};
use rustix::process::Signal;
use tempfile::TempDir;
use tug_tests::docker;
use tug_tests::running::{Running, until_unmentioned};
use tug_tests::tug;

/// What `cargo xtask WORDS` runs, with its temporary files in `folder`.
fn xtask(words: &[&str], folder: &Path) -> Command {
    let program = tug::program().with_file_name("xtask");
    assert!(program.exists(), "build it with `cargo build --package xtask`");
    let mut command = Command::new(program);
    command.args(words).current_dir(crate::readme::root());
    command.env("TMPDIR", folder).env("NO_COLOR", "1");
    command
}

/// Fails if a demo that is over has left anything: in its `folder`, among the processes, in the Engine.
pub(crate) async fn nothing_is_left(folder: &Path) -> Result<()> {
    until_unmentioned(folder).await?;
    let left: Vec<_> = std::fs::read_dir(folder)?.map(|entry| entry.unwrap().file_name()).collect();
    ensure!(left.is_empty(), "temporary files are left: {left:?}");
    let engine = docker::connect()?;
    let filters = std::collections::HashMap::from([("label", vec!["tug.node"])]);
    let networks = ListNetworksOptionsBuilder::new().filters(&filters).build();
    let volumes = ListVolumesOptionsBuilder::new().filters(&filters).build();
    let containers = docker::containers("tug.node").await?.into_iter().filter_map(|one| one.labels);
    let networks = engine.list_networks(Some(networks)).await?.into_iter().filter_map(|one| one.labels);
    let volumes = engine.list_volumes(Some(volumes)).await?.volumes.unwrap_or_default();
    for labels in containers.chain(networks).chain(volumes.into_iter().map(|one| one.labels)) {
        // The node is named after the demo's process.
        let demo = labels.get("tug.node").and_then(|node| node.strip_prefix("demo-"));
        let is_over = demo.is_some_and(|process| !Path::new("/proc").join(process).exists());
        ensure!(!is_over, "something is left of a demo: {labels:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_demo_that_is_interrupted_leaves_nothing() -> Result<()> {
    docker::require().await?;
    let _turn = tug::turn().await;
    let folder = TempDir::new()?;
    let mut demo = Running::start(xtask(&["demo"], folder.path()))?;
    demo.until_said("==> scale to five").await?;
    ensure!(std::fs::read_dir(folder.path())?.next().is_some(), "its files are where they are looked for");
    demo.signal(Signal::INT)?;
    let (status, said) = demo.ended().await?;
    ensure!(!status.success() && said.contains("interrupted"), "{status}: {said}");
    nothing_is_left(folder.path()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_demo_on_a_terminal_stays_until_ctrl_c_and_leaves_nothing() -> Result<()> {
    docker::require().await?;
    let _turn = tug::turn().await;
    let folder = TempDir::new()?;
    let mut demo = Running::on_terminal(&xtask(&["demo"], folder.path()))?;
    let said = demo.until_said("Ctrl-C ends the demo and removes everything").await?;
    let port = said.split_once("http://localhost:").and_then(|(_, rest)| rest.split('/').next());
    let port = port.context("the address")?.parse()?;
    let answer = tug_tests::load::get(port, "/api/hello").await?;
    ensure!(answer.contains("replica"), "it stays: {answer}");
    demo.press_ctrl_c()?;
    let (status, said) = demo.ended().await?;
    ensure!(status.success(), "{status}: {said}");
    ensure!(tug_tests::load::get(port, "/").await.is_err(), "the port is closed");
    nothing_is_left(folder.path()).await
}

/// Fails unless `command`, which finds no Engine, says so in one line with what to do, and fails.
async fn says_how_to_get_docker(mut command: Command) -> Result<()> {
    let folder = TempDir::new()?;
    command.env("DOCKER_HOST", format!("unix://{}", folder.path().join("docker.sock").display()));
    let shown = format!("{command:?}");
    let (status, said) = Running::start(command)?.ended().await?;
    ensure!(!status.success(), "{shown}: {said}");
    let how = |line: &&str| line.contains("Docker") && line.contains("apt-get install docker.io");
    let lines: Vec<&str> = said.lines().filter(how).collect();
    ensure!(lines.len() == 1, "{shown} says it once: {said}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_docker_one_line_says_how_to_get_it() -> Result<()> {
    let folder = TempDir::new()?;
    for words in [&["demo"][..], &["test"], &["bench", "scale"]] {
        says_how_to_get_docker(xtask(words, folder.path())).await?;
    }
    // The tests with real containers, such as this one.
    let mut tests = Command::new(std::env::current_exe()?);
    tests.args(["--exact", "commands::a_look_around"]).env("RUST_BACKTRACE", "0");
    says_how_to_get_docker(tests).await?;

    std::fs::write(folder.path().join("compose.yaml"), "services: {web: {build: .}}\n")?;
    let mut dev = Command::new(tug::program());
    dev.arg("dev").current_dir(folder.path()).env("XDG_STATE_HOME", folder.path());
    says_how_to_get_docker(dev).await
}
