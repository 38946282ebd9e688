//! Small nodes, and the printed steps.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use tug_model::assignment::{Assignment, Run};
use tug_model::endpoints::NodeEndpoints;
use tug_model::report::{Exit, Failure, Health, Phase};
use tug_model::spec::container::{NetworkMode, PullPolicy, StopGrace};
use tug_model::spec::service::{Restart, RestartOn};
use tug_model::task::Template;
use tug_model::{Millis, NetworkName, NodeId, Revision, Timestamp};

use super::super::*;
use super::sample::{
    CLUSTER, assignment, drain, endpoints_of, exited, found, id, node, port, probed, run, running, shop,
    stop, template, with_volume,
};
use crate::route::{Backend, Location};
use crate::runtime::{ContainerId, FoundNetwork};

const NOW: Timestamp = Timestamp(100_000);

/// A memory in which everything that `template` needs is there.
fn prepared(template: &Template) -> Memory {
    let mut memory = Memory::default();
    prepare(&mut memory, template, NOW);
    memory
}

fn prepare(memory: &mut Memory, template: &Template, now: Timestamp) {
    let assignment = assignment(1, template, &[]);
    let resources = &assignment.projects[&shop()];
    for network in resources.networks.values() {
        memory.ensured.insert(Key::Network(network.engine_name.clone()), Ensured::Network(network.clone()));
    }
    for volume in resources.volumes.values() {
        memory.ensured.insert(Key::Volume(volume.engine_name.clone()), Ensured::Volume(volume.clone()));
    }
    let image = Image { id: "sha256:1".to_owned(), at: now };
    memory.images.insert(ImageWanted::of(&template.container), image);
}

fn steps(orders: &Orders, found: &[Found], memory: &Memory) -> Vec<String> {
    let view = View { orders, found, memory, now: NOW };
    diff(&view).steps.iter().map(ToString::to_string).collect()
}

fn orders(template: &Template, tasks: &[(u32, tug_model::task::Desired)]) -> Orders {
    let told = assignment(5, template, tasks);
    let endpoints = endpoints_of(&told, port());
    Orders::new(told).unwrap().with(Arc::new(endpoints))
}

#[test]
fn what_the_first_container_needs_is_made_once_for_all_and_at_the_same_time() {
    let template = with_volume(template());
    let orders = orders(&template, &run(&[1, 2, 3]));
    assert_eq!(
        steps(&orders, &[], &Memory::default()),
        ["ensure network shop_default", "ensure volume shop_data", "fetch image web:1 if missing"]
    );
    assert_eq!(
        steps(&orders, &[], &prepared(&template)),
        ["create shop.web.1.1", "create shop.web.2.1", "create shop.web.3.1"]
    );
    let settled = [running(1, &template), running(2, &template), running(3, &template)];
    assert!(steps(&orders, &settled, &Memory::default()).is_empty());
}

#[test]
fn each_state_of_a_wanted_container_has_its_step() {
    let template = template();
    let orders = orders(&template, &run(&[1]));
    let memory = prepared(&template);
    let one = |state: State| steps(&orders, &[found(1, &template, state)], &memory);
    assert!(one(State::Running { started_at: NOW }).is_empty());
    assert!(one(State::Removing).is_empty());
    assert!(one(State::Restarting).is_empty());
    assert_eq!(one(State::Created), ["start shop.web.1.1"]);
    assert_eq!(one(State::Paused), ["unpause shop.web.1.1"]);
    assert_eq!(one(State::Dead), ["remove shop.web.1.1", "create shop.web.1.1"]);
    let exited = State::Exited { code: 1, out_of_memory: false, finished_at: NOW };
    assert_eq!(one(exited), ["start shop.web.1.1"]);
}

#[test]
fn what_is_to_stop_is_stopped_with_its_signal_and_grace_and_removed() {
    let mut template = template();
    template.container.stop_signal = Some("SIGINT".to_owned());
    template.container.stop_grace_period = StopGrace(Millis::from_secs(30));
    let orders = orders(&template, &[(1, stop()), (2, stop()), (3, stop()), (4, stop()), (5, drain())]);
    let containers = [
        running(1, &template),
        exited(2, &template, 0, 50),
        found(3, &template, State::Paused),
        running(5, &template),
    ];
    assert_eq!(
        steps(&orders, &containers, &Memory::default()),
        [
            "stop shop.web.1.1 with SIGINT, 30s",
            "remove shop.web.1.1",
            "remove shop.web.2.1",
            "unpause shop.web.3.1",
            "stop shop.web.3.1 with SIGINT, 30s",
            "remove shop.web.3.1",
        ]
    );
}

#[test]
fn what_ended_while_it_was_drained_stays_ended() {
    let template = template();
    let orders = orders(&template, &[(1, drain()), (2, drain())]);
    assert!(steps(&orders, &[exited(1, &template, 1, 50)], &prepared(&template)).is_empty());
}

#[test]
fn a_container_that_nothing_names_goes_only_if_it_is_ours_and_we_were_told() {
    let template = template();
    let mut foreign = running(2, &template);
    foreign.identity.cluster = "other".to_owned();
    let containers = [running(1, &template), foreign];
    let told = orders(&template, &[]);
    assert_eq!(
        steps(&told, &containers, &Memory::default()),
        ["stop shop.web.1.1 with SIGTERM, 10s", "remove shop.web.1.1"]
    );
    let untold = Orders::none(node(), CLUSTER.to_owned());
    assert!(steps(&untold, &containers, &Memory::default()).is_empty());
}

#[test]
fn a_container_of_another_template_or_a_second_one_goes() {
    let (old, new) = (template(), probed(template()));
    let orders = orders(&new, &run(&[1]));
    assert_eq!(
        steps(&orders, &[running(1, &old)], &prepared(&new)),
        ["stop shop.web.1.1 with SIGTERM, 10s", "remove shop.web.1.1", "create shop.web.1.1"]
    );
    let mut second = exited(1, &new, 0, 50);
    second.id = ContainerId::new("c9");
    second.name = "renamed".to_owned();
    assert_eq!(steps(&orders, &[second, running(1, &new)], &Memory::default()), ["remove shop.web.1.1"]);
}

#[test]
fn a_failure_is_waited_out_and_holds_up_nobody_else() {
    let template = template();
    let orders = orders(&template, &run(&[1, 2]));
    let mut memory = prepared(&template);
    memory.failed(Key::Task(id(1)), "no".to_owned(), false, (NOW, 0));
    let view = View { orders: &orders, found: &[], memory: &memory, now: NOW };
    let planned = diff(&view);
    assert_eq!(planned.steps.iter().map(ToString::to_string).collect::<Vec<_>>(), ["create shop.web.2.1"]);
    assert_eq!(planned.wake_at, Some(NOW.plus(Millis(1000))));
    let later = View { now: NOW.plus(Millis(1000)), ..view };
    assert_eq!(diff(&later).steps.len(), 2);
}

#[test]
fn a_container_that_could_not_be_started_is_made_anew() {
    let template = template();
    let orders = orders(&template, &run(&[1]));
    let mut memory = prepared(&template);
    let earlier = Timestamp(NOW.0 - 5000);
    memory.failed(Key::Task(id(1)), "network gone".to_owned(), false, (earlier, 0));
    let containers = [exited(1, &template, 0, 50)];
    assert_eq!(steps(&orders, &containers, &memory), ["remove shop.web.1.1", "create shop.web.1.1"]);
    memory.failed(Key::Task(id(1)), "engine gone".to_owned(), true, (earlier, 0));
    assert_eq!(steps(&orders, &containers, &memory), ["start shop.web.1.1"]);
}

#[test]
fn an_image_that_was_built_here_is_never_asked_of_a_registry() {
    let mut template = template();
    template.container.image_id = Some("sha256:abc".to_owned());
    template.container.pull_policy = PullPolicy::Always;
    let orders = orders(&template, &run(&[1]));
    assert_eq!(
        steps(&orders, &[], &Memory::default()),
        ["ensure network shop_default", "fetch image sha256:abc never"]
    );
}

#[test]
fn our_networks_go_with_the_last_task_and_never_before() {
    let template = template();
    let network = |key: &str| FoundNetwork {
        engine_name: format!("shop_{key}"),
        project: shop(),
        key: NetworkName::parse(key).unwrap(),
    };
    let memory = Memory { networks: vec![network("default"), network("old")], ..prepared(&template) };
    let going = orders(&template, &[(1, stop())]);
    assert_eq!(
        steps(&going, &[running(1, &template)], &memory),
        ["stop shop.web.1.1 with SIGTERM, 10s", "remove shop.web.1.1"]
    );
    assert_eq!(steps(&going, &[], &memory), ["remove network shop_default", "remove network shop_old"]);
    let staying = orders(&template, &run(&[1]));
    assert_eq!(steps(&staying, &[running(1, &template)], &memory), ["remove network shop_old"]);
    let untold = Orders::none(node(), CLUSTER.to_owned());
    assert!(steps(&untold, &[], &memory).is_empty());
}

#[test]
fn an_assignment_that_lacks_something_is_no_orders() {
    let template = with_volume(template());
    let good = assignment(1, &template, &run(&[1]));
    assert!(Orders::new(good.clone()).is_ok());
    let mut twice = good.clone();
    twice.tasks.push(twice.tasks[0].clone());
    assert_eq!(Orders::new(twice), Err(Flaw::Twice(id(1))));
    let mut bare = good.clone();
    bare.templates.clear();
    assert_eq!(Orders::new(bare.clone()), Err(Flaw::Template(id(1))));
    bare.tasks[0].desired = stop();
    assert!(Orders::new(bare).is_ok(), "what stops needs nothing");
    let mut homeless = good;
    homeless.projects.clear();
    let error = Orders::new(homeless).unwrap_err().to_string();
    assert_eq!(error, "network `default` of task `shop.web.1.1` is missing");
}

#[test]
fn older_foreign_and_emptying_orders_are_refused() {
    let template = template();
    let ours = orders(&template, &run(&[1]));
    assert!(ours.superseded_by(&assignment(5, &template, &run(&[1, 2]))).is_ok());
    assert!(ours.superseded_by(&assignment(6, &template, &[])).is_ok());
    assert!(ours.superseded_by(&assignment(4, &template, &run(&[1]))).is_err());
    assert!(ours.superseded_by(&assignment(5, &template, &[])).is_err(), "no newer, and nothing left");
    let mut foreign = assignment(9, &template, &[]);
    foreign.cluster = "fresh".to_owned();
    assert!(ours.superseded_by(&foreign).is_err());
    assert!(Orders::none(node(), CLUSTER.to_owned()).superseded_by(&foreign).is_err());
    assert!(Orders::none(node(), String::new()).superseded_by(&foreign).is_ok());
    foreign.cluster = CLUSTER.to_owned();
    foreign.epoch = 0;
    foreign.generation = Revision(99);
    assert!(ours.superseded_by(&foreign).is_err(), "an older epoch");
}

#[test]
fn a_store_that_has_forgotten_something_is_not_obeyed_however_far_it_has_counted_on() {
    let template = template();
    let by = |at, found, generation, numbers: &[u32]| {
        let run_of_plane = Run { at: Timestamp(at), found: Revision(found) };
        Assignment { run: Some(run_of_plane), ..assignment(generation, &template, &run(numbers)) }
    };
    let ours = Orders::new(by(10, 3, 5, &[1, 2])).unwrap();
    assert!(ours.superseded_by(&by(10, 3, 6, &[1])).is_ok(), "the same run goes on");
    assert!(ours.superseded_by(&by(20, 5, 6, &[1])).is_ok(), "the next run knows all that was told");
    let forgetful = by(20, 3, 6, &[1]);
    let refusal = ours.superseded_by(&forgetful).unwrap_err().to_string();
    assert!(refusal.contains("began with commit 3, and this node already follows 5"), "{refusal}");
    let restored = Assignment { epoch: 2, ..forgetful };
    assert!(ours.superseded_by(&restored).is_ok(), "a restore is meant");
    let of_before = Assignment { run: None, ..by(0, 0, 5, &[1]) };
    assert!(
        Orders::new(of_before).unwrap().superseded_by(&by(20, 5, 6, &[])).is_ok(),
        "told by an older version"
    );
}

#[test]
fn the_table_has_every_route_and_only_backends_that_serve() {
    let template = template();
    let orders = orders(
        &template,
        &[(1, tug_model::task::Desired::Run), (2, tug_model::task::Desired::Run), (3, drain())],
    );
    let serving: Vec<Serving> =
        [1, 3].iter().map(|n| Serving { task: id(*n), address: running(*n, &template).address() }).collect();
    let table = routes(&orders, &serving);
    assert_eq!(table.len(), 1);
    let here = Location::Here(SocketAddr::from(([10, 0, 0, 1], 80)));
    assert_eq!(table[0].backends, [Backend { task: id(1), location: here }]);
    assert_eq!(routes(&orders, &[])[0].backends, []);
}

#[test]
fn tasks_of_other_nodes_are_backends_when_their_agents_can_be_reached() {
    let template = template();
    let told = assignment(1, &template, &run(&[2]));
    let mut endpoints = endpoints_of(&told, port());
    let (known, unknown) = (NodeId::parse("n2").unwrap(), NodeId::parse("n3").unwrap());
    let web = Arc::make_mut(&mut endpoints.services[0]);
    let there = |address: Option<&str>, numbers: &[u32]| NodeEndpoints {
        address: address.map(str::to_owned),
        tasks: numbers.iter().map(|number| id(*number)).collect(),
    };
    web.nodes.insert(known.clone(), there(Some("192.0.2.2:7444"), &[1, 4]));
    web.nodes.insert(unknown, there(None, &[3]));
    let orders = Orders::new(told).unwrap().with(Arc::new(endpoints));
    assert_eq!(peers(&orders), [(known.clone(), "192.0.2.2:7444".to_owned())].into());
    let table = routes(&orders, &[Serving { task: id(2), address: running(2, &template).address() }]);
    let there = |n| Backend { task: id(n), location: Location::There { node: known.clone(), port: 80 } };
    let here = Location::Here(SocketAddr::from(([10, 0, 0, 2], 80)));
    assert_eq!(table[0].backends, [there(1), Backend { task: id(2), location: here }, there(4)]);
}

#[test]
fn a_task_in_the_nodes_own_network_is_reached_there() {
    let mut template = template();
    template.container.network_mode = NetworkMode::Host;
    let orders = orders(&template, &run(&[1]));
    let table = routes(&orders, &[Serving { task: id(1), address: None }]);
    let here = Location::Here(SocketAddr::from(([127, 0, 0, 1], 80)));
    assert_eq!(table[0].backends[0].location, here);
}

fn doing() -> Doing {
    Doing { busy: false, pulling: None, health: Health::Healthy, last_words: "boom".to_owned() }
}

#[test]
fn phases_say_what_is_seen_and_what_is_waited_for() {
    let template = template();
    let both = orders(&template, &[(1, tug_model::task::Desired::Run), (2, stop())]);
    let mut memory = prepared(&template);
    let show = |memory: &Memory, containers: &[Found], task: u32, doing: &Doing| {
        let view = View { orders: &both, found: containers, memory, now: NOW };
        phase(&view, &id(task), doing).map(|phase| phase.to_string())
    };
    assert_eq!(show(&memory, &[], 1, &doing()).unwrap(), "pending");
    assert_eq!(show(&memory, &[], 1, &Doing { busy: true, ..doing() }).unwrap(), "creating");
    let pulling = Doing { pulling: Some("1 of 2".to_owned()), ..doing() };
    assert_eq!(show(&memory, &[], 1, &pulling).unwrap(), "pulling 1 of 2");
    assert_eq!(show(&memory, &[running(1, &template)], 1, &doing()).unwrap(), "healthy");
    assert_eq!(show(&memory, &[], 2, &doing()), None, "nothing is left of it");
    assert_eq!(show(&memory, &[running(2, &template)], 2, &doing()).unwrap(), "stopping");
    let wanted = ImageWanted::of(&template.container);
    memory.failed(Key::Image(wanted), "pull image `web:1`: no such tag".to_owned(), false, (NOW, 0));
    let shown = show(&memory, &[], 1, &doing()).unwrap();
    assert!(shown.starts_with("pull image `web:1`: no such tag, next try in "), "{shown}");
}

#[test]
fn the_phase_of_a_crashed_task_carries_its_last_words() {
    let template = template();
    let both = orders(&template, &run(&[1]));
    let containers = [exited(1, &template, 3, NOW.0)];
    let mut history = History::default();
    history.observe(Some(&State::Running { started_at: Timestamp(NOW.0 - 50) }), &template.restart, NOW);
    history.observe(Some(&containers[0].state), &template.restart, NOW);
    let memory = Memory { histories: BTreeMap::from([(id(1), history)]), ..prepared(&template) };
    let view = View { orders: &both, found: &containers, memory: &memory, now: NOW };
    let exit = Exit { code: 3, out_of_memory: false, last_words: "boom".to_owned() };
    assert_eq!(
        phase(&view, &id(1), &doing()),
        Some(Phase::Waiting { failure: Failure::Exited { exit }, retry_in: Restart::FIRST_WAIT })
    );
    assert_eq!(diff(&view).wake_at, Some(NOW.plus(Restart::FIRST_WAIT)));
    assert!(diff(&view).steps.is_empty());
}

#[test]
fn a_job_that_completed_is_not_run_again_though_its_container_is_gone() {
    let mut template = template();
    template.restart.condition = RestartOn::Failure;
    let orders = orders(&template, &run(&[1]));
    let mut history = History::default();
    history.observe(Some(&exited(1, &template, 0, 50).state), &template.restart, NOW);
    history.observe(None, &template.restart, NOW);
    let memory = Memory { histories: BTreeMap::from([(id(1), history)]), ..prepared(&template) };
    assert!(steps(&orders, &[], &memory).is_empty());
    let view = View { orders: &orders, found: &[], memory: &memory, now: NOW };
    assert!(phase(&view, &id(1), &doing()).unwrap().has_succeeded());
}
