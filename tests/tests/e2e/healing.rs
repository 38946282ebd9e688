//! What breaks is mended by itself, and what cannot be mended says why.

use std::time::Duration;

use anyhow::Result;
use rustix::process::Signal;
use tug_model::report::{Failure, Phase};
use tug_model::status::ServiceState;
use tug_tests::docker;
use tug_tests::tug::{Tug, service};

use crate::Web;

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_was_removed_by_hand_is_made_again() -> Result<()> {
    let web = Web::start("removed", 2).await?;
    let status = web.tug.until_settled(&web.project).await?;
    let victim = service(&status, "web").tasks[0].id.clone();
    let engine = docker::connect()?;
    let force = bollard::query_parameters::RemoveContainerOptionsBuilder::new().force(true).build();
    let before = engine.inspect_container(victim.as_str(), None).await?.id;
    engine.remove_container(victim.as_str(), Some(force)).await?;
    web.tug.until(&web.project, "the loss to be noticed", |status| !status.settled).await?;
    web.tug.until_settled(&web.project).await?;
    let after = engine.inspect_container(victim.as_str(), None).await?.id;
    assert_ne!(before, after, "a new container runs in the same slot");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_was_renamed_by_hand_is_still_ours() -> Result<()> {
    let mut web = Web::start("renamed", 2).await?;
    let status = web.tug.until_settled(&web.project).await?;
    let task = &service(&status, "web").tasks[0].id;
    let engine = docker::connect()?;
    let id = engine.inspect_container(task.as_str(), None).await?.id;
    let before = web.tug.starts().await?;
    let other = format!("other-{}", web.tug.node());
    engine.rename_container(task.as_str(), named(&other)).await?;
    web.tug.ok(&["scale", &format!("{}=3", web.service())]).await?;
    let grown = web.tug.starts().await?;
    assert_eq!(grown.len(), 3, "one more, and nothing in its place: {grown:?}");
    assert!(before.iter().all(|(container, at)| grown.get(container) == Some(at)), "{before:?} {grown:?}");
    let logs = web.tug.ok(&["logs", "--tail", "1", &web.service()]).await?;
    assert_eq!(logs.lines().count(), 3, "one line of each replica: {logs}");

    // The next agent has never seen it under the name that it had.
    web.tug.end_agent(Signal::KILL).await?;
    web.tug.start_agent()?;
    docker::kill(&other).await?;
    web.tug
        .until(&web.project, "the renamed one to be started again", |status| {
            let tasks = &service(status, "web").tasks;
            status.settled && tasks.iter().map(|task| task.restarts).sum::<u32>() == 1
        })
        .await?;
    assert_eq!(engine.inspect_container(&other, None).await?.id, id, "the same container");
    let again = web.tug.starts().await?;
    let untouched = grown.iter().filter(|(container, at)| again.get(*container) == Some(*at));
    assert_eq!((again.len(), untouched.count()), (3, 2), "{grown:?} {again:?}");
    web.tug.ok(&["rm", "--yes", web.project.as_str()]).await?;
    assert_eq!(web.tug.starts().await?.len(), 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_loop_backs_off_and_why_says_what_the_container_said() -> Result<()> {
    let tug = Tug::start().await?;
    let image = crate::hello_image().await;
    let project = tug.project("loop");
    let manifest = format!(
        "name: {project}\nservices:\n  web:\n    image: {image}\n    pull_policy: never\n    command: [exit, '3']\n"
    );
    let path = tug.write("compose.yaml", &manifest)?;
    let output = tug.run(&["apply", "--yes", "--timeout", "30s", "--file", &path.to_string_lossy()]).await?;
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "an apply that fails says so: {text}");
    let status = tug
        .until(&project, "the service to be failing", |s| service(s, "web").state == ServiceState::Failing)
        .await?;
    let task = &service(&status, "web").tasks[0];
    assert!(task.restarts >= 3, "{task:?}");
    let why = tug.ok(&["why", &format!("{project}/web")]).await?;
    assert!(why.contains("exited with code 3"), "{why}");

    // The waits double: from one to the next they grow.
    let wait = |status: &tug_model::status::ProjectStatus| match &service(status, "web").tasks[0].phase {
        Some(Phase::Waiting { failure: Failure::Exited { .. }, retry_in }) => retry_in.duration(),
        _ => Duration::ZERO,
    };
    tug.until(&project, "a wait of over two seconds", |status| wait(status) > Duration::from_secs(2)).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_container_of_our_name_is_named_and_left_alone() -> Result<()> {
    let web = Web::start("foreign", 1).await?;
    let engine = docker::connect()?;
    let status = web.tug.until_settled(&web.project).await?;
    let ours = service(&status, "web").tasks[0].id.clone();
    let stray = docker::Stray::start(&web.image, &format!("stray-{}", web.tug.node())).await?;
    // Somebody renames ours and gives its name to a container of their own.
    engine.remove_container(ours.as_str(), Some(force())).await?;
    engine.rename_container(stray.id(), named(ours.as_str())).await?;
    let status = web
        .tug
        .until(&web.project, "the clash to be seen", |status| {
            matches!(
                &service(status, "web").tasks[0].phase,
                Some(Phase::Waiting { failure: Failure::Refused { .. }, .. })
            )
        })
        .await?;
    let reason = service(&status, "web").tasks[0].phase.as_ref().unwrap().to_string();
    assert!(reason.contains("not Tug's"), "{reason}");
    assert!(stray.is_running().await?, "it is not ours to touch");
    stray.remove().await?;
    web.tug.until_settled(&web.project).await?;
    Ok(())
}

fn named(name: &str) -> bollard::query_parameters::RenameContainerOptions {
    bollard::query_parameters::RenameContainerOptionsBuilder::new().name(name).build()
}

fn force() -> bollard::query_parameters::RemoveContainerOptions {
    bollard::query_parameters::RemoveContainerOptionsBuilder::new().force(true).build()
}
