//! A registry that is not well: what people see of it, and that all comes right by itself when it is.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, Result, ensure};
use tug_model::ProjectName;
use tug_model::report::{Failure, Phase};
use tug_model::status::{ProjectStatus, TaskStatus};
use tug_tests::docker;
use tug_tests::load::Load;
use tug_tests::registry::{Mood, Registry};
use tug_tests::tug::{Tug, free_port, service};

/// What is said of an image while its registry is in this mood; of one that breaks off nobody hears, since the Engine asks
/// again for the rest.
const SAID: [(Mood, &str); 4] = [
    (Mood::Closed, "unauthorized"),
    (Mood::Crowded, "toomanyrequests"),
    (Mood::Broken, "500 Internal Server Error"),
    (Mood::Silent, "from the registry"),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_refuses_or_hangs_is_told_and_asked_again_and_the_old_version_serves_on() -> Result<()>
{
    let registry = Registry::start().await?;
    let tug = Tug::start().await?;
    let project = tug.project("registry");
    let ports = Mood::ALL.map(|mood| (mood, free_port()));
    let built = crate::hello_image().await;
    tug.apply(&manifest(&project, &ports, |_| built.clone())).await?;
    let before = tug.until_settled(&project).await?;
    let addresses = ports.map(|(_, port)| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    let load = Load::start_on(&addresses, "/", 1);

    let path = tug.write("compose.yaml", &manifest(&project, &ports, |mood| registry.reference(mood)))?;
    tug.ok(&["apply", "--yes", "--detach", "--file", &path.to_string_lossy()]).await?;
    let are_told = |status: &ProjectStatus| SAID.into_iter().all(|said| is_told(status, said));
    let status = tug.until(&project, "all to be told", are_told).await?;
    for (mood, words) in SAID {
        let why = tug.ok(&["why", &format!("{project}/{}", mood.name())]).await?;
        println!("{why}");
        ensure!(why.contains(words), "{mood:?}: {why}");
        let old = &service(&before, mood.name()).tasks[0].id;
        let kept = service(&status, mood.name()).tasks.iter().find(|task| task.id == *old);
        let serves =
            |task: &TaskStatus| task.restarts == 0 && task.phase.as_ref().is_some_and(Phase::is_healthy);
        ensure!(kept.is_some_and(serves), "{mood:?}: {status:#?}");
    }
    load.more(200).await?;
    registry.is_well_again();
    tug.until_settled(&project).await.context("all to be pulled, none by our hand")?;
    load.more(100).await?;
    let outcome = load.finish().await;
    ensure!(outcome.failures.is_empty(), "of {}: {:?}\n{}", outcome.total(), outcome.failures, tug.logs());
    let containers = docker::containers(&format!("tug.node={}", tug.node())).await?;
    let images: Vec<_> = containers.iter().map(|container| container.image_id.as_deref()).collect();
    assert_eq!(images, [Some(&*registry.image()); 5]);
    Ok(())
}

/// Whether the service of a mood has a task that waits for its image, and says this of it.
fn is_told(status: &ProjectStatus, (mood, words): (Mood, &str)) -> bool {
    service(status, mood.name()).tasks.iter().filter_map(|task| task.phase.as_ref()).any(|phase| {
        let waits =
            matches!(phase, Phase::Pulling { .. } | Phase::Waiting { failure: Failure::Refused { .. }, .. });
        waits && phase.to_string().contains(words)
    })
}

/// A service for each mood.
fn manifest(project: &ProjectName, ports: &[(Mood, u16)], image: impl Fn(Mood) -> String) -> String {
    let service = |(mood, port): &(Mood, u16)| {
        format!(
            "  {}:\n    \
               image: {}\n    \
               init: true\n    \
               ports: ['{port}:8080']\n    \
               x-probe: {{http: /healthz, port: 8080}}\n    \
               stop_grace_period: 5s\n",
            mood.name(),
            image(*mood)
        )
    };
    format!("name: {project}\nservices:\n{}", ports.iter().map(service).collect::<String>())
}
