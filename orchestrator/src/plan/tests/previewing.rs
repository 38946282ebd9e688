//! What an apply would do.

use tug_api::user::{Action, Preview};
use tug_model::Revision;
use tug_model::spec::Project;
use tug_model::spec::resource::{Config, Network, Volume};
use tug_model::{NetworkName, VolumeName};

use super::draw::{draw, project_name, service_name};
use crate::plan::preview;

fn handed_in(drawing: &str) -> Project {
    draw(drawing).projects[&project_name("shop")].spec.clone()
}

fn said(preview: &Preview) -> String {
    let mut lines = vec![];
    for service in &preview.services {
        let (before, after) = (service.replicas_before, service.replicas_after);
        lines.push(format!("{:?} {} {before} to {after}", service.action, service.name));
        lines.extend(service.differences.iter().map(|line| format!("  {line}")));
        lines.extend(service.obstacles.iter().map(|line| format!("  ! {line}")));
    }
    lines.extend(preview.notes.iter().map(|note| format!("note: {note}")));
    lines.join("\n")
}

#[test]
fn a_new_project_is_created_whole() {
    let preview = preview::project(
        &draw("node n1"),
        &handed_in("service shop/db\nservice shop/web x3 after=db:healthy"),
    );
    assert_eq!(said(&preview), "Create db 0 to 1\nCreate web 0 to 3");
    assert_eq!(preview.base, Revision(0));
}

#[test]
fn each_service_has_its_own_action() {
    let world = draw(
        "node n1\nservice shop/keep\nservice shop/more x1\nservice shop/new-image\nservice shop/old x2\n\
         task shop.keep.1.5 n1 v1 healthy",
    );
    let spec = handed_in(
        "service shop/add\nservice shop/keep\nservice shop/more x4 after=keep:started\nservice shop/new-image v2 grace=1000",
    );
    let preview = preview::project(&world, &spec);
    assert_eq!(
        said(&preview),
        "Create add 0 to 1\n\
         Keep keep 1 to 1\n\
         Change more 1 to 4\n  \
           depends_on.keep.condition: not set → started\n  \
           depends_on.keep.required: not set → true\n  \
           deploy.mode.replicated: 1 → 4\n\
         Replace new-image 1 to 1\n  \
           image: v1 → v2\n  \
           stop_grace_period: 10000 → 1000\n\
         Remove old 2 to 0"
    );
    assert_eq!(preview.base, Revision(4));
    assert_eq!(preview.services[3].action, Action::Replace);
}

#[test]
fn values_of_the_environment_are_never_shown() {
    let mut old = handed_in("service shop/web");
    let mut new = old.clone();
    let name = service_name("web");
    let environment =
        |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
    old.services.get_mut(&name).unwrap().container.environment =
        environment(&[("KEPT", "secret0"), ("PASSWORD", "secret1"), ("GONE", "secret2")]);
    new.services.get_mut(&name).unwrap().container.environment =
        environment(&[("KEPT", "secret0"), ("PASSWORD", "secret3"), ("TOKEN", "secret4")]);
    let mut world = draw("node n1");
    world.projects.insert(project_name("shop"), std::sync::Arc::new(super::draw::stored(old)));
    let said = said(&preview::project(&world, &new));
    assert_eq!(
        said,
        "Replace web 1 to 1\n  environment.GONE: removed\n  environment.PASSWORD: changed\n  environment.TOKEN: added"
    );
    assert!(!said.contains("secret"), "{said}");
}

#[test]
fn what_has_no_place_is_said_beforehand() {
    let world = draw("node n1 mem=500");
    let spec = handed_in(
        "service shop/big mem=600\nservice shop/fits x2 mem=200\nservice shop/web after=big:healthy",
    );
    assert_eq!(
        said(&preview::project(&world, &spec)),
        "Create big 0 to 1\n  ! node n1: 100.0 MiB short of memory\nCreate fits 0 to 2\nCreate web 0 to 1"
    );
}

#[test]
fn a_global_service_has_as_many_replicas_as_nodes() {
    let preview = preview::project(&draw("node n1\nnode n2"), &handed_in("service shop/logs global"));
    assert_eq!(said(&preview), "Create logs 0 to 2");
}

#[test]
fn what_is_shared_is_noted() {
    let mut old = handed_in("service shop/web");
    let network = |text: &str| NetworkName::parse(text).unwrap();
    let volume = |text: &str| VolumeName::parse(text).unwrap();
    let named = |name: &str| Volume { engine_name: name.into(), ..Volume::default() };
    old.networks = [(network("back"), Network::default()), (network("same"), Network::default())].into();
    old.volumes = [(volume("data"), named("a")), (volume("old"), named("b"))].into();
    old.configs = [("site".into(), Config { content: b"one".to_vec() })].into();
    let mut new = handed_in("service shop/web");
    let external = Network { external: true, ..Network::default() };
    new.networks = [(network("edge"), external), (network("same"), Network::default())].into();
    new.volumes = [(volume("data"), named("c")), (volume("new"), named("d"))].into();
    new.configs = [("site".into(), Config { content: b"two".to_vec() })].into();
    let mut world = draw("node n1");
    world.projects.insert(project_name("shop"), std::sync::Arc::new(super::draw::stored(old)));
    assert_eq!(
        preview::project(&world, &new).notes,
        [
            "network back goes when nothing uses it any more",
            "network edge is external: it must be there already",
            "volume data changes; one that exists already stays as it is",
            "volume new is new",
            "volume old is no longer used; its data stays",
            "config site changes",
        ]
    );
}

#[test]
fn looking_changes_nothing() {
    let world = draw("node n1\nservice shop/web\ntask shop.web.1.5 n1 v1 healthy");
    let before = world.clone();
    assert_eq!(said(&preview::project(&world, &handed_in("service shop/web"))), "Keep web 1 to 1");
    assert_eq!(world, before);
}
