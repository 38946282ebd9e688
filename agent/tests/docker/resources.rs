//! Networks, volumes and configs.

use std::collections::BTreeMap;
use std::error::Error as _;

use bollard::models::{NetworkCreateRequest, VolumeCreateRequest};
use bollard::query_parameters::{InspectContainerOptions, RemoveVolumeOptions};
use futures_util::future::join_all;
use tug_agent::runtime::{Cause, Runtime, RuntimeError};
use tug_model::assignment::Resources;
use tug_model::quantity::Millis;
use tug_model::spec::container::{Attachment, ConfigMount, Mount, MountSource};
use tug_model::spec::resource::{Network, Volume};
use tug_model::{NetworkName, VolumeName};

use crate::scope::{Scope, engine, get};

fn network_key(name: &str) -> NetworkName {
    NetworkName::parse(name).unwrap()
}

fn cause(error: &RuntimeError) -> String {
    error.source().unwrap().to_string()
}

#[tokio::test]
async fn a_container_is_on_all_of_its_networks_before_it_starts() {
    let scope = Scope::new("networks").await;
    let mut resources = Resources::default();
    for name in ["back", "front"] {
        let network = Network { engine_name: format!("{}_{name}", scope.project), ..Network::default() };
        scope.docker.ensure_network(&scope.project, &network_key(name), &network).await.unwrap();
        resources.networks.insert(network_key(name), network);
    }
    let request = scope.request_for("web", resources.clone(), |template| {
        template.container.networks =
            ["back", "front"].map(|name| (network_key(name), Attachment::default())).into();
    });
    let id = scope.docker.run(&request).await.unwrap();
    let found = scope.only().await;
    let names: Vec<&String> = found.addresses.keys().collect();
    assert_eq!(names, [&format!("{}_back", scope.project), &format!("{}_front", scope.project)]);
    for address in found.addresses.values() {
        assert!(get(*address, "/version").await.ends_with("1\n"));
    }

    // A network in use stays, also for a container that has stopped; one that nobody uses goes.
    let names: Vec<String> =
        scope.docker.networks().await.unwrap().into_iter().map(|n| n.engine_name).collect();
    assert_eq!(names.len(), 2);
    assert!(!scope.docker.remove_network(&names[0]).await.unwrap());
    scope.docker.stop(&id, Millis(1000)).await.unwrap();
    assert!(!scope.docker.remove_network(&names[0]).await.unwrap());
    scope.docker.remove(&id).await.unwrap();
    for name in &names {
        assert!(scope.docker.remove_network(name).await.unwrap());
        assert!(scope.docker.remove_network(name).await.unwrap());
    }
    assert_eq!(scope.docker.networks().await.unwrap(), []);
}

#[tokio::test]
async fn a_container_that_cannot_join_its_second_network_leaves_nothing_behind() {
    let scope = Scope::new("join").await;
    let network =
        |name: &str| Network { engine_name: format!("{}_{name}", scope.project), ..Network::default() };
    for name in ["a", "b"] {
        scope.docker.ensure_network(&scope.project, &network_key(name), &network(name)).await.unwrap();
    }
    // Only a network with a subnet of its own takes a fixed address.
    let fixed = Attachment { ipv4_address: Some([10, 1, 2, 3].into()), ..Attachment::default() };
    let attempt = |second: &str, attachment: Attachment| {
        let attachments: BTreeMap<_, _> =
            [(network_key("a"), Attachment::default()), (network_key(second), attachment)].into();
        let networks = ["a", second].map(|name| (network_key(name), network(name))).into();
        let resources = Resources { networks, volumes: BTreeMap::new() };
        scope.request_for("web", resources, |template| template.container.networks = attachments)
    };
    for (request, word) in
        [(attempt("b", fixed), "subnet"), (attempt("missing", Attachment::default()), "_missing")]
    {
        let error = scope.docker.run(&request).await.unwrap_err();
        assert!(cause(&error).contains(word), "{error:?}");
        assert_eq!(scope.docker.list().await.unwrap(), []);
    }
}

#[tokio::test]
async fn a_network_is_made_once_and_a_change_of_it_is_told() {
    let scope = Scope::new("network").await;
    let key = network_key("net");
    let name = format!("{}_net", scope.project);
    let network = Network { engine_name: name.clone(), ..Network::default() };
    let ensure = || scope.docker.ensure_network(&scope.project, &key, &network);
    for made in join_all([ensure(), ensure(), ensure(), ensure()]).await {
        made.unwrap();
    }
    assert_eq!(scope.docker.networks().await.unwrap().len(), 1);

    let changed = Network { internal: true, ..network.clone() };
    let error = scope.docker.ensure_network(&scope.project, &key, &changed).await.unwrap_err();
    assert!(matches!(error.cause, Cause::Differs(_)) && error.is_permanent());
    assert!(cause(&error).contains("internal"), "{error:?}");
    assert!(cause(&error).contains(&format!("docker network rm {name}")), "{error:?}");
}

#[tokio::test]
async fn a_foreign_network_is_used_only_when_the_manifest_says_so() {
    let scope = Scope::new("foreign-network").await;
    let key = network_key("net");
    let name = format!("{}_theirs", scope.project);
    let mut network = Network { engine_name: name.clone(), external: true, ..Network::default() };
    let missing = scope.docker.ensure_network(&scope.project, &key, &network).await.unwrap_err();

    let request = NetworkCreateRequest { name: name.clone(), ..NetworkCreateRequest::default() };
    engine().create_network(request).await.unwrap();
    let external = scope.docker.ensure_network(&scope.project, &key, &network).await;
    network.external = false;
    let claimed = scope.docker.ensure_network(&scope.project, &key, &network).await;
    let removed = scope.docker.remove_network(&name).await;
    engine().remove_network(&name).await.unwrap();

    assert!(missing.is_not_found() && cause(&missing).contains("docker network create"), "{missing:?}");
    external.unwrap();
    assert!(cause(&claimed.unwrap_err()).contains("external: true"));
    assert!(matches!(removed.unwrap_err().cause, Cause::Foreign(_)));
}

#[tokio::test]
async fn a_volume_outlives_its_containers_and_a_change_of_it_is_told() {
    let scope = Scope::new("volume").await;
    let key = VolumeName::parse("data").unwrap();
    let name = format!("{}_data", scope.project);
    let volume = Volume { engine_name: name.clone(), ..Volume::default() };
    for _ in 0..2 {
        scope.docker.ensure_volume(&scope.project, &key, &volume).await.unwrap();
    }
    let resources = Resources { networks: BTreeMap::new(), volumes: [(key.clone(), volume.clone())].into() };
    let source = MountSource::Volume { name: key.clone(), nocopy: false, subpath: None };
    let mount = Mount { source, target: "/data".to_owned(), read_only: false };
    let request = scope.request_for("web", resources, |template| template.container.mounts = vec![mount]);
    let id = scope.docker.run(&request).await.unwrap();
    scope.docker.remove(&id).await.unwrap();
    engine().inspect_volume(&name).await.unwrap();

    let relabelled = Volume { labels: [("a".to_owned(), "b".to_owned())].into(), ..volume.clone() };
    scope.docker.ensure_volume(&scope.project, &key, &relabelled).await.unwrap();
    let options = [("type".to_owned(), "tmpfs".to_owned()), ("device".to_owned(), "tmpfs".to_owned())].into();
    let changed = Volume { driver_opts: options, ..volume };
    let error = scope.docker.ensure_volume(&scope.project, &key, &changed).await.unwrap_err();
    assert!(cause(&error).contains("driver_opts"), "{error:?}");
    assert!(cause(&error).contains("does not delete data"), "{error:?}");
}

#[tokio::test]
async fn a_foreign_volume_is_used_only_when_the_manifest_says_so() {
    let scope = Scope::new("foreign-volume").await;
    let key = VolumeName::parse("data").unwrap();
    let name = format!("{}_theirs", scope.project);
    let mut volume = Volume { engine_name: name.clone(), external: true, ..Volume::default() };
    let missing = scope.docker.ensure_volume(&scope.project, &key, &volume).await.unwrap_err();

    let request = VolumeCreateRequest { name: Some(name.clone()), ..VolumeCreateRequest::default() };
    engine().create_volume(request).await.unwrap();
    let external = scope.docker.ensure_volume(&scope.project, &key, &volume).await;
    volume.external = false;
    let claimed = scope.docker.ensure_volume(&scope.project, &key, &volume).await;
    engine().remove_volume(&name, None::<RemoveVolumeOptions>).await.unwrap();

    assert!(missing.is_not_found() && cause(&missing).contains("docker volume create"), "{missing:?}");
    external.unwrap();
    assert!(matches!(claimed.unwrap_err().cause, Cause::Foreign(_)));
}

#[tokio::test]
async fn a_name_that_leads_elsewhere_is_refused() {
    let scope = Scope::new("names").await;
    for name in ["../containers", "a/b", "", "a b", "a?x=1", "-a"] {
        let network = Network { engine_name: name.to_owned(), ..Network::default() };
        let error =
            scope.docker.ensure_network(&scope.project, &network_key("a"), &network).await.unwrap_err();
        assert!(error.is_permanent(), "{name}: {error:?}");
        assert!(scope.docker.remove_network(name).await.unwrap_err().is_permanent());
        let volume = Volume { engine_name: name.to_owned(), ..Volume::default() };
        let key = VolumeName::parse("a").unwrap();
        assert!(
            scope.docker.ensure_volume(&scope.project, &key, &volume).await.unwrap_err().is_permanent(),
            "{name}"
        );
    }
}

#[tokio::test]
async fn a_config_is_a_file_in_the_container() {
    let scope = Scope::new("config").await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config");
    std::fs::write(&file, "hello").unwrap();
    let config = ConfigMount {
        config: "greeting".to_owned(),
        hash: "h".to_owned(),
        target: "/etc/greeting".to_owned(),
        mode: None,
        uid: None,
        gid: None,
    };
    let mut request = scope.request(|template| template.container.configs = vec![config]);
    request.config_files.insert("/etc/greeting".to_owned(), file);
    let id = scope.docker.run(&request).await.unwrap();
    let inspect = engine().inspect_container(id.as_str(), None::<InspectContainerOptions>).await.unwrap();
    let mount = inspect.mounts.unwrap().remove(0);
    assert_eq!((mount.destination.as_deref(), mount.rw), (Some("/etc/greeting"), Some(false)));
}

#[tokio::test]
async fn a_subpath_is_never_ignored_by_an_engine_that_does_not_know_it() {
    let scope = Scope::new("subpath").await;
    let key = VolumeName::parse("data").unwrap();
    let volume = Volume { engine_name: format!("{}_data", scope.project), ..Volume::default() };
    scope.docker.ensure_volume(&scope.project, &key, &volume).await.unwrap();
    let source =
        MountSource::Volume { name: key.clone(), nocopy: false, subpath: Some("missing".to_owned()) };
    let mount = Mount { source, target: "/data".to_owned(), read_only: false };
    let resources = Resources { networks: BTreeMap::new(), volumes: [(key, volume)].into() };
    let request = scope.request_for("web", resources, |template| template.container.mounts = vec![mount]);
    // Old engines do not know it; newer ones find that it is missing.
    let error = scope.docker.run(&request).await.unwrap_err();
    assert!(cause(&error).contains("subpath") || cause(&error).contains("missing"), "{error:?}");
    assert_eq!(scope.docker.list().await.unwrap(), []);
}
