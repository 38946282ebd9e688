//! What a node is told.

use std::sync::Arc;

use tug_model::endpoints::ServiceEndpoints;
use tug_model::project::ServiceRef;
use tug_model::spec;
use tug_model::spec::container::{Attachment, ConfigMount, Mount, MountSource};
use tug_model::spec::resource::{Config, Network, Volume};
use tug_model::task::Template;
use tug_model::{NetworkName, Revision, VolumeName};

use super::draw::{draw, node_id, project_name, service_name, stored, tasks_on};
use crate::plan::{assignment, endpoints};

const TWO_NODES: &str = "
    node n1
    node n2
    service shop/db v2 volume
    service shop/web x3 port=8080:80 port=53
    task shop.db.1.5 n1 v1 healthy
    task shop.web.1.5 n1 v1 healthy
    task shop.web.2.5 n2 v1 starting
    task shop.web.3.5 n1 v1 healthy drain=9@99000
    task gone.old.1.3 n1 v0 stopping stop=8";

#[test]
fn a_node_is_told_of_its_own_tasks_whole() {
    let world = draw(TWO_NODES);
    let told = assignment(&world, "c", 3, &node_id("n1"), tasks_on(&world, &node_id("n1")));
    assert_eq!((told.cluster.as_str(), told.epoch, told.generation), ("c", 3, Revision(10)));
    let tasks: Vec<String> =
        told.tasks.iter().map(|task| format!("{} {:?}", task.id, task.desired)).collect();
    assert_eq!(
        tasks,
        [
            "gone.old.1.3 Stop { since: Revision(8) }",
            "shop.db.1.5 Run",
            "shop.web.1.5 Run",
            "shop.web.3.5 Drain { since: Revision(9), at: Timestamp(99000) }",
        ]
    );
    assert!(told.tasks.iter().all(|task| told.templates.contains_key(&task.template)));
    assert_eq!(told.templates.len(), 3, "each template once: {:?}", told.templates.keys());
    assert!(told.tasks.is_sorted_by_key(|task| &task.id));
}

fn web_of(world: &crate::plan::World) -> ServiceEndpoints {
    let web = ServiceRef { project: project_name("shop"), service: service_name("web") };
    endpoints(world, &web, world.tasks.values().map(AsRef::as_ref).filter(|task| task.service_ref() == web))
}

#[test]
fn endpoints_are_the_ports_with_a_number_and_the_tasks_that_may_be_given_connections() {
    let mut world = draw(TWO_NODES);
    let told = web_of(&world);
    let ports: Vec<_> = told.ports.iter().map(|port| port.published).collect();
    assert_eq!(ports, [Some(8080)]);
    let tasks = |node: &str| -> Vec<String> {
        told.nodes[&node_id(node)].tasks.iter().map(ToString::to_string).collect()
    };
    assert_eq!((tasks("n1"), tasks("n2")), (vec!["shop.web.1.5".into()], vec!["shop.web.2.5".into()]));
    assert!(told.nodes.values().all(|node| node.address.is_none()));

    let second = world.nodes.get_mut(&node_id("n2")).unwrap();
    Arc::make_mut(second).info.address = Some("192.0.2.2:7444".to_owned());
    let moved = web_of(&world);
    assert_eq!(moved.nodes[&node_id("n2")].address.as_deref(), Some("192.0.2.2:7444"));
    assert_ne!(told.version, moved.version);
    world.projects.clear();
    let gone = web_of(&world);
    assert!(gone.ports.is_empty() && gone.nodes.is_empty());
}

#[test]
fn a_port_without_tasks_is_still_open() {
    let told = web_of(&draw("node n1\nservice shop/web x0 port=8080:80"));
    assert_eq!((told.ports.len(), told.nodes.len()), (1, 0));
}

#[test]
fn what_is_observed_changes_nothing_that_a_node_is_told() {
    let world = draw(TWO_NODES);
    let mut later = world.clone();
    later.observed = Arc::default();
    let told = |world: &crate::plan::World| {
        assignment(world, "c", 1, &node_id("n1"), tasks_on(world, &node_id("n1")))
    };
    assert_eq!(told(&world), told(&later));
}

#[test]
fn a_task_comes_with_what_it_was_made_from_also_when_its_project_has_changed_or_gone() {
    let mut world = draw("node n1\nservice shop/web\nservice idle/web x0\ntask shop.web.1.5 n1 v1 healthy");
    let mut spec = world.projects[&project_name("shop")].spec.clone();
    let content = Config { content: b"listen 80".to_vec() };
    let other = Config { content: b"never mounted".to_vec() };
    let mount = ConfigMount {
        config: "web".into(),
        hash: content.hash(),
        target: "/etc/web".into(),
        mode: None,
        uid: None,
        gid: None,
    };
    let (default, unused) = (NetworkName::parse("default").unwrap(), NetworkName::parse("unused").unwrap());
    let data = VolumeName::parse("data").unwrap();
    let container = &mut spec.services.get_mut(&service_name("web")).unwrap().container;
    container.configs = vec![mount];
    container.networks = [(default.clone(), Attachment::default())].into();
    let source = MountSource::Volume { name: data.clone(), nocopy: false, subpath: None };
    container.mounts = vec![Mount { source, target: "/data".into(), read_only: true }];
    spec.configs = [("web".into(), content.clone()), ("other".into(), other)].into();
    spec.networks = [(default.clone(), Network::default()), (unused, Network::default())].into();
    spec.volumes = [(data.clone(), Volume::default())].into();
    let template = Template::of(&spec, &spec.services[&service_name("web")]);
    let task = world.tasks.get_mut(&tug_model::TaskId::parse("shop.web.1.5").unwrap()).unwrap();
    Arc::make_mut(task).template = template.hash();
    world.templates.insert(template.hash(), Arc::new(template));
    let check = |world: &crate::plan::World| {
        let told = assignment(world, "c", 1, &node_id("n1"), tasks_on(world, &node_id("n1")));
        assert_eq!(told.configs, [(content.hash(), content.clone())].into());
        let projects: Vec<&str> = told.projects.keys().map(tug_model::ProjectName::as_str).collect();
        assert_eq!(projects, ["shop"]);
        let resources = &told.projects[&project_name("shop")];
        assert_eq!(resources.networks, [(default.clone(), Network::default())].into());
        assert_eq!(resources.volumes, [(data.clone(), Volume::default())].into());
    };
    world.projects.insert(project_name("shop"), Arc::new(stored(spec.clone())));
    check(&world);

    let changed = spec::Project { configs: [].into(), networks: [].into(), volumes: [].into(), ..spec };
    world.projects.insert(project_name("shop"), Arc::new(stored(changed)));
    check(&world);
    world.projects.remove(&project_name("shop"));
    check(&world);
}

#[test]
fn a_volume_under_another_name_is_another_template() {
    let world = draw("node n1\nservice shop/web volume");
    let spec = &world.projects[&project_name("shop")].spec;
    let web = &spec.services[&service_name("web")];
    let mut renamed = spec.clone();
    let data = VolumeName::parse("data").unwrap();
    let volume = |name: &str| Volume { engine_name: name.into(), ..Volume::default() };
    renamed.volumes.insert(data.clone(), volume("new"));
    let mut usual = spec.clone();
    usual.volumes.insert(data, volume("shop_data"));
    assert_ne!(Template::of(&renamed, web).hash(), Template::of(&usual, web).hash());
}
