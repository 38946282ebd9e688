//! The daemons beside the usual pair: both in one process, in the foreground with `tug dev`, put back from an export, and
//! in each other's way.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use bollard::query_parameters::{ListNetworksOptionsBuilder, RemoveVolumeOptions};
use rustix::process::Signal;
use tug_tests::docker;
use tug_tests::load::get;
use tug_tests::running::{Running, until_unmentioned};
use tug_tests::tug::{self, Tug, free_port, program};

use crate::Web;

#[tokio::test(flavor = "multi_thread")]
async fn one_process_can_be_control_plane_and_node() -> Result<()> {
    let tug = Tug::start_as_one(docker::socket()).await?;
    let mut web =
        Web { project: tug.project("one"), tug, image: crate::hello_image().await, port: free_port() };
    web.tug.apply(&web.manifest(2, "1")).await?;
    assert_eq!(get(web.port, "/version").await?, "1");
    let before = web.tug.starts().await?;
    ensure!(before.len() == 2, "{before:?}");

    web.tug.end_server(Signal::TERM).await?;
    web.tug.start_server()?;
    web.tug.until_connected().await?;
    web.tug.until_settled(&web.project).await?;
    assert_eq!(get(web.port, "/version").await?, "1");
    assert_eq!(web.tug.starts().await?, before, "no container was restarted");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_state_is_obeyed_and_its_containers_go_on() -> Result<()> {
    let mut web = Web::start("restore", 2).await?;
    let before = web.tug.starts().await?;
    let store = PathBuf::from(web.tug.server_folder()).join("server/store");
    // A clean end leaves an export.
    web.tug.end_server(Signal::TERM).await?;
    let export = std::fs::read_dir(&store)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("export-")))
        .max()
        .context("an export")?;
    let backup = web.tug.folder().join("backup.jsonl");
    std::fs::copy(export, &backup)?;
    let epoch = || -> Result<u64> {
        let sentinel: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(store.join("cluster.json"))?)?;
        sentinel["sentinel"]["epoch"].as_u64().context("an epoch")
    };
    let old_epoch = epoch()?;

    web.tug.start_server()?;
    web.tug.until_connected().await?;
    let later = web.manifest(1, "1").replace(web.project.as_str(), &format!("later-{}", web.tug.node()));
    let later = later.replace(&format!("{}:8080", web.port), "8080").replace("replicas: 1", "replicas: 0");
    web.tug.apply(&later).await?;
    let last = web.tug.client().info().await?.revision;
    let folder = web.tug.server_folder();
    let restore = ["restore", &*backup.to_string_lossy(), "--state-dir", &folder];
    let refused = web.tug.run(&restore).await?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(!refused.status.success() && said.contains("in use"), "while the server runs: {said}");

    web.tug.end_server(Signal::TERM).await?;
    let restored = web.tug.run(&restore).await?;
    let said = String::from_utf8_lossy(&restored.stderr).into_owned();
    ensure!(restored.status.success() && said.contains("start the server again"), "{said}");
    assert_eq!(epoch()?, old_epoch + 1);
    web.tug.start_server()?;
    web.tug.until_connected().await?;
    web.tug.until_settled(&web.project).await?;
    let revision = web.tug.client().info().await?.revision;
    ensure!(revision > last, "no number means two things: {revision} after {last}");
    let names: Vec<String> =
        web.tug.client().projects().await?.iter().map(|one| one.name.to_string()).collect();
    assert_eq!(names, [web.project.as_str()], "what came after the export is not there");
    assert_eq!(web.tug.starts().await?, before, "no container was restarted");

    web.tug.ok(&["scale", &format!("{}=3", web.service())]).await?;
    let after = web.tug.starts().await?;
    ensure!(after.len() == 3 && before.keys().all(|id| after.contains_key(id)), "{before:?} {after:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_server_says_that_the_state_is_in_use_and_may_be_tried_again() -> Result<()> {
    let tug = Tug::start().await?;
    let mut second = Command::new(program());
    second.arg("--socket").arg(tug.folder().join("other.sock"));
    second.args(["server", "--listen", "none", "--state-dir", &tug.server_folder()]);
    let (status, said) = Running::start(second)?.ended().await?;
    assert_eq!(status.code(), Some(1), "{said}");
    let server = tug.server_id().context("it runs")?;
    ensure!(
        said.lines().any(|line| line.contains("in use by") && line.contains(&server.to_string())),
        "{said}"
    );
    tug.ok(&["ls"]).await?;
    Ok(())
}

/// `tug dev` on a manifest with a named volume, with its state below `folder`.
fn dev(folder: &std::path::Path, manifest: &str) -> Result<Command> {
    std::fs::write(folder.join("compose.yaml"), manifest)?;
    let mut command = Command::new(program());
    command.args(["dev", "compose.yaml"]).current_dir(folder);
    command.env("XDG_STATE_HOME", folder).env("NO_COLOR", "1").env_remove("DOCKER_HOST");
    Ok(command)
}

#[tokio::test(flavor = "multi_thread")]
async fn dev_deploys_follows_and_leaves_nothing_but_volumes() -> Result<()> {
    docker::require().await?;
    let _turn = tug::turn().await;
    let folder = tempfile::tempdir()?;
    let (project, port) = (format!("dev-{}", std::process::id()), free_port());
    let image = crate::hello_image().await;
    let manifest = format!(
        "name: {project}\nservices:\n  web:\n    image: {image}\n    pull_policy: never\n    init: true\n    \
         ports: ['{port}:8080']\n    volumes: ['data:/data:ro']\n    deploy: {{replicas: 2}}\nvolumes:\n  data:\n"
    );
    let mut dev = Running::start(dev(folder.path(), &manifest)?)?;
    let said = dev
        .until("the address and both replicas", |said| {
            said.contains("is healthy")
                && said.contains("web.1 | hello 1")
                && said.contains("web.2 | hello 1")
        })
        .await?;
    ensure!(said.contains(&format!("localhost:{port}")), "{said}");
    assert_eq!(get(port, "/version").await?, "1");
    let label = format!("tug.project={project}");
    assert_eq!(docker::containers(&label).await?.len(), 2);

    dev.signal(Signal::INT)?;
    let (status, said) = dev.ended().await?;
    ensure!(status.success(), "{status}: {said}");
    let volume = format!("{project}_data");
    ensure!(said.contains(&format!("volumes stay: {volume}")), "{said}");
    let engine = docker::connect()?;
    engine.remove_volume(&volume, None::<RemoveVolumeOptions>).await.context("the volume has stayed")?;
    assert_eq!(docker::containers(&label).await?, [], "no container is left");
    let filters = std::collections::HashMap::from([("label".to_owned(), vec![label])]);
    let networks = ListNetworksOptionsBuilder::new().filters(&filters).build();
    assert_eq!(engine.list_networks(Some(networks)).await?, [], "no network is left");
    ensure!(!folder.path().join("tug/dev").join(&project).exists(), "no state is left");
    ensure!(get(port, "/").await.is_err(), "the port is closed");
    until_unmentioned(folder.path()).await
}
