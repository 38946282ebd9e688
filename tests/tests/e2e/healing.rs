//! What breaks is mended by itself, and what cannot be mended says why.

use std::time::Duration;

use anyhow::Result;
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
    let rename =
        |name: String| bollard::query_parameters::RenameContainerOptionsBuilder::new().name(&name).build();
    engine.remove_container(ours.as_str(), Some(force())).await?;
    engine.rename_container(stray.id(), rename(ours.to_string())).await?;
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

fn force() -> bollard::query_parameters::RemoveContainerOptions {
    bollard::query_parameters::RemoveContainerOptionsBuilder::new().force(true).build()
}
