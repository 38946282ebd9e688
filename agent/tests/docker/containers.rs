//! The life of containers.

use std::error::Error as _;
use std::time::Duration;

use bollard::models::ContainerCreateBody;
use bollard::query_parameters::{CreateContainerOptionsBuilder, InspectContainerOptions};
use futures_util::future::join_all;
use tokio::time::Instant;
use tug_agent::runtime::{Cause, EngineHealth, EventKind, Runtime, State};
use tug_model::quantity::{Bytes, Millis};
use tug_model::spec::container::{Healthcheck, Mount, MountSource, StopGrace};
use tug_model::spec::service::{Port, PortMode, Protocol};

use crate::scope::{Scope, engine, get, get_at};

#[tokio::test]
async fn a_container_is_made_started_stopped_and_removed() {
    let scope = Scope::new("life").await;
    let request = scope.request(|_| {});

    let id = scope.docker.create(&request).await.unwrap();
    let found = scope.only().await;
    assert_eq!((&found.id, &found.identity), (&id, &request.identity));
    assert_eq!(found.name, request.identity.task.as_str());
    assert_eq!(found.state, State::Created);
    assert!(found.addresses.is_empty());

    scope.docker.start(&id).await.unwrap();
    let found = scope.only().await;
    let State::Running { started_at } = found.state else { panic!("{found:?}") };
    assert_eq!(found.health, EngineHealth::None);
    let answer = get(found.address().unwrap(), "/api/hello").await;
    assert!(answer.contains(&id.to_string()), "{answer}");
    // Starting what runs changes nothing.
    scope.docker.start(&id).await.unwrap();
    assert_eq!(scope.only().await.state, State::Running { started_at });

    let before = Instant::now();
    scope.docker.stop(&id, Millis::from_secs(10)).await.unwrap();
    assert!(before.elapsed() < Duration::from_secs(5), "SIGTERM was not enough: {:?}", before.elapsed());
    assert_eq!(scope.wait_for_exit().await, (0, false));
    scope.docker.stop(&id, Millis::from_secs(10)).await.unwrap();

    // Another start is another time.
    scope.docker.start(&id).await.unwrap();
    assert!(matches!(scope.only().await.state, State::Running { started_at: later } if later > started_at));
    scope.docker.kill(&id, None).await.unwrap();
    assert_eq!(scope.wait_for_exit().await, (137, false));
    scope.docker.kill(&id, None).await.unwrap();

    scope.docker.remove(&id).await.unwrap();
    assert_eq!(scope.docker.list().await.unwrap(), []);
    scope.docker.remove(&id).await.unwrap();
    scope.docker.stop(&id, Millis(0)).await.unwrap();
    assert!(scope.docker.start(&id).await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn our_own_container_of_that_name_is_adopted_and_a_half_made_one_is_made_again() {
    let scope = Scope::new("adopt").await;
    let request = scope.request(|_| {});
    let half_made = scope.docker.create(&request).await.unwrap();
    let id = scope.docker.create(&request).await.unwrap();
    assert_ne!(half_made, id);
    assert_eq!(scope.only().await.id, id);

    scope.docker.start(&id).await.unwrap();
    assert_eq!(scope.docker.run(&request).await.unwrap(), id);
    scope.docker.kill(&id, None).await.unwrap();
    assert_eq!(scope.docker.create(&request).await.unwrap(), id);

    // The same task of another template is ours, but not what is asked for.
    let other = scope.request(|template| template.restarts_asked = 1);
    let error = scope.docker.create(&other).await.unwrap_err();
    assert!(matches!(error.cause, Cause::Conflict(_)), "{error:?}");
    assert_eq!(scope.only().await.id, id);
}

#[tokio::test]
async fn a_foreign_container_of_that_name_is_named_and_not_touched() {
    let scope = Scope::new("foreign").await;
    let request = scope.request(|_| {});
    let name = request.identity.task.as_str();
    let body = ContainerCreateBody { image: Some(scope.image.clone()), ..ContainerCreateBody::default() };
    let options = CreateContainerOptionsBuilder::new().name(name).build();
    let foreign = engine().create_container(Some(options), body).await.unwrap().id;

    let error = scope.docker.run(&request).await.unwrap_err();
    let listed = scope.docker.list().await.unwrap();
    let untouched = engine().inspect_container(&foreign, None::<InspectContainerOptions>).await;
    engine().remove_container(&foreign, None).await.unwrap();

    assert!(error.is_conflict() && error.is_permanent());
    assert!(error.to_string().contains(name), "{error}");
    assert!(error.source().unwrap().to_string().contains(&foreign[..12]), "{error:?}");
    assert_eq!(listed, []);
    assert_eq!(untouched.unwrap().state.unwrap().running, Some(false));
}

#[tokio::test]
async fn a_container_that_cannot_start_leaves_nothing_behind() {
    let scope = Scope::new("nothing").await;
    let request =
        scope.request(|template| template.container.entrypoint = Some(vec!["/no/such/program".to_owned()]));
    let error = scope.docker.run(&request).await.unwrap_err();
    assert!(error.is_permanent(), "{error:?}");
    assert!(error.source().unwrap().to_string().contains("/no/such/program"), "{error:?}");
    assert_eq!(scope.docker.list().await.unwrap(), []);

    // A port of the node that somebody else has.
    let taken = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let published = taken.local_addr().unwrap().port();
    let host = Port {
        target: 8080,
        published: Some(published),
        host_ip: None,
        protocol: Protocol::Tcp,
        mode: PortMode::Host,
        app_protocol: None,
    };
    let request = scope.request(|template| template.host_ports = vec![host]);
    let error = scope.docker.run(&request).await.unwrap_err();
    assert!(error.source().unwrap().to_string().contains(&published.to_string()), "{error:?}");
    assert_eq!(scope.docker.list().await.unwrap(), []);
    drop(taken);
    scope.docker.run(&request).await.unwrap();
    assert!(get_at(([127, 0, 0, 1], published).into(), "/").await.contains("hello from"));
}

#[tokio::test]
async fn an_error_does_not_quote_the_environment() {
    let scope = Scope::new("secret").await;
    let variable = (String::new(), "hunter2-the-secret".to_owned());
    let request = scope.request(|template| template.container.environment = [variable].into());
    let error = scope.docker.create(&request).await.unwrap_err();
    let text = format!("{error:?} {error}");
    assert!(text.contains("***") && !text.contains("hunter2"), "{text}");
}

#[tokio::test]
async fn how_a_process_ended_is_told() {
    let scope = Scope::new("exit").await;
    let id = scope.run(&["exit", "3"]).await;
    assert_eq!(scope.wait_for_exit().await, (3, false));
    scope.docker.remove(&id).await.unwrap();

    let greedy = scope.request(|template| {
        template.container.command = Some(["print", "1", "400000000"].map(str::to_owned).to_vec());
        template.container.limits.memory = Some(Bytes(16 << 20));
        template.container.limits.memory_swap = Some(16 << 20);
    });
    // The Engine may hear that a process has ended before it hears why, and then never says so.
    let mut told = Vec::new();
    while told.last() != Some(&(137, true)) {
        let id = scope.docker.run(&greedy).await.unwrap();
        told.push(scope.wait_for_exit().await);
        scope.docker.remove(&id).await.unwrap();
        assert!(told.len() < 5, "never called killed for memory: {told:?}");
    }
}

#[tokio::test]
async fn an_empty_command_clears_the_images_own() {
    let scope = Scope::new("empty").await;
    let request = scope.request(|template| template.container.command = Some(Vec::new()));
    let id = scope.docker.create(&request).await.unwrap();
    let made = engine().inspect_container(id.as_str(), None::<InspectContainerOptions>).await.unwrap();
    let config = made.config.unwrap();
    assert_eq!(config.entrypoint, Some(vec!["/hello".to_owned()]));
    assert_eq!(config.cmd.unwrap_or_default(), Vec::<String>::new());
}

#[tokio::test]
async fn annotations_are_never_left_out_without_a_word() {
    let scope = Scope::new("annotations").await;
    let request = scope.request(|template| {
        template.container.annotations.insert("one".to_owned(), "two".to_owned());
    });
    // Old engines do not know them; newer ones have them.
    match scope.docker.create(&request).await {
        Ok(id) => {
            let made =
                engine().inspect_container(id.as_str(), None::<InspectContainerOptions>).await.unwrap();
            let annotations = made.host_config.unwrap().annotations.unwrap();
            assert_eq!(annotations["one"], "two");
        }
        Err(error) => {
            let why = error.source().unwrap().to_string();
            assert!(why.contains("`annotations` needs Docker Engine 24"), "{error:?}");
        }
    }
}

#[tokio::test]
async fn the_engines_health_check_is_read_with_its_words() {
    let scope = Scope::new("health").await;
    let check = Healthcheck {
        test: ["CMD", "/hello", "healthcheck"].map(str::to_owned).to_vec(),
        interval: Some(Millis(300)),
        timeout: Some(Millis(3000)),
        retries: Some(1),
        start_period: None,
        start_interval: None,
    };
    let request = scope.request(|template| template.container.healthcheck = Some(check));
    scope.docker.run(&request).await.unwrap();
    assert_ne!(scope.only().await.health, EngineHealth::None);
    let found = scope.wait(|found| found.health == EngineHealth::Healthy).await;

    get(found.address().unwrap(), "/break").await;
    let found = scope.wait(|found| matches!(found.health, EngineHealth::Unhealthy { .. })).await;
    let EngineHealth::Unhealthy { output } = found.health else { unreachable!() };
    assert!(output.contains("503"), "{output}");
}

#[tokio::test]
async fn a_container_paused_by_hand_is_seen_and_goes_on() {
    let scope = Scope::new("pause").await;
    let id = scope.run(&["sleep"]).await;
    engine().pause_container(id.as_str()).await.unwrap();
    assert_eq!(scope.only().await.state, State::Paused);
    scope.docker.unpause(&id).await.unwrap();
    assert!(matches!(scope.only().await.state, State::Running { .. }));
    scope.docker.unpause(&id).await.unwrap();
}

#[tokio::test]
async fn many_may_remove_one_container_and_its_anonymous_volume_goes_with_it() {
    let scope = Scope::new("remove").await;
    let mount = Mount { source: MountSource::Anonymous, target: "/data".to_owned(), read_only: false };
    let request = scope.request(|template| {
        template.container.mounts = vec![mount];
        template.container.stop_grace_period = StopGrace(Millis(0));
    });
    let id = scope.docker.run(&request).await.unwrap();
    let inspect = engine().inspect_container(id.as_str(), None::<InspectContainerOptions>).await.unwrap();
    let volume = inspect.mounts.unwrap().remove(0).name.unwrap();
    engine().inspect_volume(&volume).await.unwrap();

    for removed in join_all([&id, &id, &id, &id].map(|id| scope.docker.remove(id))).await {
        removed.unwrap();
    }
    assert_eq!(scope.docker.list().await.unwrap(), []);
    assert!(engine().inspect_volume(&volume).await.is_err());
}

#[tokio::test]
async fn events_tell_what_happens_to_our_containers_only() {
    use futures_util::StreamExt;

    let scope = Scope::new("events").await;
    let other = Scope::new("events-other").await;
    let mut events = scope.docker.events().await.unwrap();
    // Nothing that happens from here on is missed, although the feed is read only later.
    let theirs = other.run(&["exit", "0"]).await;
    other.wait_for_exit().await;
    let ours = scope.run(&["exit", "0"]).await;
    scope.wait_for_exit().await;
    scope.docker.remove(&ours).await.unwrap();
    other.docker.remove(&theirs).await.unwrap();

    let mut kinds = Vec::new();
    while kinds.last() != Some(&EventKind::Removed) {
        let event = tokio::time::timeout(Duration::from_secs(10), events.next()).await;
        let event = event.expect("the events come").unwrap().unwrap();
        assert_eq!(event.container, ours);
        kinds.push(event.kind);
    }
    assert_eq!(kinds, [EventKind::Created, EventKind::Started, EventKind::Died, EventKind::Removed]);
}

#[tokio::test]
async fn the_engine_says_what_it_is() {
    let scope = Scope::new("info").await;
    let info = scope.docker.check().await.unwrap();
    assert_eq!(info.os, "linux");
    assert!(info.api_version.starts_with("1."), "{info:?}");
    assert!(info.cpus.0 >= 1_000_000_000 && info.memory.0 > 1 << 20, "{info:?}");
    assert!(info.root.is_absolute(), "{info:?}");
}
