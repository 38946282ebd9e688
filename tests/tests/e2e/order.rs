//! What comes before what: a service after the one that it waits for, and the old replica's end before the new one's
//! start where both would hold the same thing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Result, ensure};
use bollard::query_parameters::{EventsOptionsBuilder, KillContainerOptionsBuilder};
use futures_util::StreamExt;
use tokio::task::JoinHandle;
use tug_api::Clock;
use tug_model::status::ServiceState;
use tug_tests::docker;
use tug_tests::load::get;
use tug_tests::running::Running;
use tug_tests::tug::{PATIENCE, Tug, free_port, service};

/// What the Engine says of the containers of one project: starts and ends, in their order.
struct Witness {
    seen: Arc<Mutex<Vec<(String, String)>>>,
    listening: JoinHandle<()>,
}

// === impl Witness ===

impl Witness {
    /// Listens to what happens from now on; what happens before the Engine has heard of that is told afterwards.
    fn of(project: &str) -> Result<Self> {
        let engine = docker::connect()?;
        let filters = HashMap::from([
            ("label", vec![format!("tug.project={project}")]),
            ("event", vec!["start".to_owned(), "die".to_owned()]),
        ]);
        let now = Clock::system().now().0;
        let since = format!("{}.{:03}", now / 1000, now % 1000);
        let options = EventsOptionsBuilder::new().since(&since).filters(&filters).build();
        let seen: Arc<Mutex<Vec<(String, String)>>> = Arc::default();
        let noted = Arc::clone(&seen);
        let listening = tokio::spawn(async move {
            let mut events = engine.events(Some(options));
            while let Some(Ok(event)) = events.next().await {
                let attributes = event.actor.and_then(|actor| actor.attributes).unwrap_or_default();
                let of = attributes.get("tug.service").cloned().unwrap_or_default();
                let entry = (of, event.action.unwrap_or_default());
                noted.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
            }
        });
        Ok(Self { seen, listening })
    }

    /// What was seen of `service` so far.
    fn of_service(&self, service: &str) -> Vec<String> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.iter().filter(|(of, _)| of == service).map(|(_, what)| what.clone()).collect()
    }

    /// Waits until so much was seen of `service`, and gives it.
    async fn until(&self, service: &str, count: usize) -> Result<Vec<String>> {
        let enough = async {
            while self.of_service(service).len() < count {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        };
        let reached = tokio::time::timeout(PATIENCE, enough).await;
        ensure!(reached.is_ok(), "{count} events of {service}: {:?}", self.of_service(service));
        Ok(self.of_service(service))
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_waits_for_another_to_complete_and_says_so() -> Result<()> {
    let tug = Tug::start().await?;
    let (project, image) = (tug.project("job"), crate::hello_image().await);
    let manifest = |setup: &str| {
        format!(
            "name: {project}\nservices:\n  setup:\n    image: {image}\n    pull_policy: never\n    {setup}\n  web:\n    \
             image: {image}\n    pull_policy: never\n    init: true\n    depends_on:\n      setup: \
             {{condition: service_completed_successfully}}\n"
        )
    };
    let web = format!("{project}/web");
    // Its first process ends well when it is asked to.
    let path = tug.write("compose.yaml", &manifest("command: [sleep]"))?;
    let mut apply = Running::start(tug.command(&["apply", "--yes", "--file", &path.to_string_lossy()]))?;
    let status = tug
        .until(&project, "the job to run", |status| {
            status.services.len() == 2
                && service(status, "setup")
                    .tasks
                    .iter()
                    .any(|task| task.phase.as_ref().is_some_and(tug_model::report::Phase::has_started))
        })
        .await?;
    ensure!(service(&status, "web").tasks.is_empty(), "it waits: {status:#?}");
    let why = tug.ok(&["why", &web]).await?;
    ensure!(why.contains("waiting for setup to complete"), "{why}");
    apply.until_said("waiting for setup to complete").await?;

    let job = &service(&status, "setup").tasks[0].id;
    let term = KillContainerOptionsBuilder::new().signal("SIGTERM").build();
    docker::connect()?.kill_container(job.as_str(), Some(term)).await?;
    let (code, said) = apply.ended().await?;
    ensure!(code.success(), "{code}: {said}\n{}", tug.logs());
    let status = tug.until_settled(&project).await?;
    assert_eq!(service(&status, "setup").state, ServiceState::Completed);
    assert_eq!(service(&status, "web").ready, 1);
    tug.ok(&["rm", "--yes", project.as_str()]).await?;

    // One that fails and is not started again keeps the other away, and the command says why.
    let path = tug.write("compose.yaml", &manifest("command: [exit, '3']\n    restart: 'no'"))?;
    let failed = tug.run(&["apply", "--yes", "--file", &path.to_string_lossy()]).await?;
    let said = String::from_utf8_lossy(&failed.stderr).into_owned();
    assert_eq!(failed.status.code(), Some(1), "{said}");
    ensure!(said.contains("setup.1 failed: exited with code 3"), "{said}");
    let reason = "setup failed: exited with code 3";
    tug.until(&project, "the failure to reach the other", |status| {
        service(status, "web").reasons.iter().any(|one| one.contains(reason))
    })
    .await?;
    let why = tug.ok(&["why", &web]).await?;
    ensure!(why.contains(reason), "{why}");
    ensure!(service(&tug.client().status(&project).await?, "web").tasks.is_empty(), "it was never made");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_holds_a_host_port_or_writes_to_a_volume_ends_before_its_successor_starts() -> Result<()> {
    let tug = Tug::start().await?;
    let (project, image, port) = (tug.project("first"), crate::hello_image().await, free_port());
    let manifest = |version: &str| {
        let of = |name: &str, more: &str| {
            format!(
                "  {name}:\n    image: {image}\n    pull_policy: never\n    init: true\n    x-probe: {{http: /healthz, port: \
                 8080}}\n    environment: {{VERSION: '{version}'}}\n    {more}\n"
            )
        };
        format!(
            "name: {project}\nservices:\n{}{}{}volumes:\n  data:\n",
            of("port", &format!("ports: [{{target: 8080, published: {port}, mode: host}}]")),
            of("volume", "volumes: ['data:/data']"),
            of("plain", "volumes: ['data:/data:ro']"),
        )
    };
    tug.apply(&manifest("1")).await?;
    assert_eq!(get(port, "/version").await?, "1");

    let witness = Witness::of(project.as_str())?;
    tug.apply(&manifest("2")).await?;
    assert_eq!(get(port, "/version").await?, "2");
    for name in ["port", "volume"] {
        assert_eq!(witness.until(name, 2).await?, ["die", "start"], "{name}");
    }
    assert_eq!(witness.until("plain", 2).await?, ["start", "die"]);
    Ok(())
}
