//! The board of differences says the same as a look at everything, and says it only to whom it concerns.

use proptest::prelude::*;
use tug_model::spec::Project;
use tug_model::task::{Desired, Template};
use tug_model::{Slot, Timestamp};

use super::*;
use crate::store::Change;

/// One change of a small cluster.
#[derive(Debug, Clone)]
enum Step {
    /// The two services are wanted, with these ports.
    Want {
        web: Option<u16>,
        api: Option<u16>,
    },
    Forget,
    Task {
        service: &'static str,
        slot: u32,
        node: u8,
        desired: Desired,
    },
    Remove {
        service: &'static str,
        slot: u32,
    },
    Node {
        node: u8,
        address: Option<&'static str>,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let port = || proptest::option::of(8000_u16..8003);
    let service = || prop_oneof![Just("web"), Just("api")];
    let desired = prop_oneof![
        3 => Just(Desired::Run),
        1 => Just(Desired::Drain { since: Revision(1), at: Timestamp(1) }),
        1 => Just(Desired::Stop { since: Revision(1) }),
    ];
    let address = proptest::option::of(prop_oneof![Just("192.0.2.1:1"), Just("192.0.2.2:1")]);
    prop_oneof![
        2 => (port(), port()).prop_map(|(web, api)| Step::Want { web, api }),
        1 => Just(Step::Forget),
        6 => (service(), 1_u32..4, 1_u8..4, desired)
            .prop_map(|(service, slot, node, desired)| Step::Task { service, slot, node, desired }),
        2 => (service(), 1_u32..4).prop_map(|(service, slot)| Step::Remove { service, slot }),
        2 => (1_u8..4, address).prop_map(|(node, address)| Step::Node { node, address }),
    ]
}

fn project(name: &str, web: Option<u16>, api: Option<u16>) -> Project {
    let service = |published: Option<u16>| {
        let port = |number: u16| serde_json::json!({ "target": 80, "published": number, "protocol": "tcp", "mode": "ingress" });
        let ports: Vec<_> = published.map(port).into_iter().collect();
        serde_json::json!({ "container": { "image": "hello" }, "ports": ports })
    };
    let spec = serde_json::json!({ "name": name, "services": { "web": service(web), "api": service(api) } });
    serde_json::from_value(spec).unwrap()
}

fn stored(spec: Project) -> Change {
    let (number, revision, accepted_at) = (1, Revision(1), Timestamp(1));
    Change::PutProject(Arc::new(StoredProject { spec, source: Vec::new(), number, revision, accepted_at }))
}

fn service_ref(service: &str) -> ServiceRef {
    ServiceRef { project: ProjectName::parse("shop").unwrap(), service: service.parse().unwrap() }
}

fn node_id(number: u8) -> NodeId {
    NodeId::parse(&format!("n{number}")).unwrap()
}

fn task_id(service: &str, slot: u32) -> TaskId {
    let ServiceRef { project, service } = service_ref(service);
    Task::id_for(&project, &service, Slot(slot), Revision(1))
}

fn change(step: &Step) -> Change {
    match step {
        Step::Want { web, api } => stored(project("shop", *web, *api)),
        Step::Forget => Change::RemoveProject(service_ref("web").project),
        Step::Task { service, slot, node, desired } => {
            let spec = project("shop", None, None);
            let ServiceRef { project, service: name } = service_ref(service);
            Change::PutTask(Arc::new(Task {
                id: task_id(service, *slot),
                project,
                template: Template::of(&spec, &spec.services[&name]).hash(),
                service: name,
                slot: Slot(*slot),
                node: node_id(*node),
                desired: *desired,
                created_at: Timestamp(1),
                exclusive: None,
            }))
        }
        Step::Remove { service, slot } => Change::RemoveTask(task_id(service, *slot)),
        Step::Node { node, address } => {
            let info = serde_json::json!({
                "hostname": "x", "os": "linux", "arch": "amd64", "capacity": { "cpus": 1, "memory": 1 },
                "engine_version": "1", "agent_version": "1", "address": address,
            });
            let info = serde_json::from_value(info).unwrap();
            Change::PutNode(Arc::new(node::Node::new(node_id(*node), info, Timestamp(1))))
        }
    }
}

/// The tasks of a node, found by a look at all.
fn tasks_of(state: &State, node: &NodeId) -> Vec<Arc<Task>> {
    state.tasks.values().filter(|task| task.node == *node).cloned().collect()
}

/// All endpoints, computed from everything.
fn endpoints(state: &State) -> Vec<EndpointsLine> {
    let world = world(state, &Arc::default());
    let all = ["api", "web"].map(service_ref).into_iter().map(|service| {
        let tasks = state.tasks.values().map(AsRef::as_ref).filter(|task| task.service_ref() == service);
        plan::endpoints(&world, &service, tasks)
    });
    let published = all.filter(|endpoints| !endpoints.ports.is_empty());
    published.map(|endpoints| EndpointsLine::new(&endpoints)).collect()
}

proptest! {
    #[test]
    fn the_board_says_what_a_look_at_everything_says(
        commits in prop::collection::vec(prop::collection::vec(step(), 1..4), 1..20)
    ) {
        let mut board = Board::default();
        let mut state = Arc::new(State::new("c", 1));
        board.follow(&state);
        for steps in commits {
            let before = Arc::clone(&state);
            let (known, revision) = (endpoints(&before), before.revision);
            let mut next = State::clone(&before);
            next.apply(revision.next(), &steps.iter().map(change).collect::<Vec<_>>());
            state = Arc::new(next);
            let touched = board.follow(&state);

            for node in (1..4).map(node_id) {
                let is_new = tasks_of(&before, &node) != tasks_of(&state, &node);
                prop_assert_eq!(touched.nodes.contains(&node), is_new, "{}", node);
                prop_assert_eq!(board.tasks(&node, Some(revision)).is_some(), is_new);
                let (_, ids) = board.tasks(&node, None).unwrap();
                let all: OrdSet<TaskId> = tasks_of(&state, &node).iter().map(|task| task.id.clone()).collect();
                prop_assert_eq!(ids, all);
            }
            let wanted = endpoints(&state);
            prop_assert_eq!(&board.endpoints_beside(&Known::default()), &wanted);
            prop_assert!(touched.endpoints || known == wanted);
            let news = board.endpoints_since(revision).unwrap();
            prop_assert_eq!(news.is_empty(), !touched.endpoints);
            prop_assert!(wanted.iter().all(|line| known.contains(line) || news.contains(line)));
            prop_assert_eq!(board.endpoints_since(state.revision), Some(Vec::new()));
        }
    }
}

#[test]
fn what_was_published_long_ago_is_forgotten_and_then_the_agent_is_asked() {
    let mut board = Board::default();
    let mut state = State::new("c", 1);
    board.follow(&Arc::new(state.clone()));
    for round in 0..=MOST_GONE {
        let spec = project(&format!("p{round}"), Some(8000), None);
        let gone = Change::RemoveProject(spec.name.clone());
        for change in [stored(spec), gone] {
            state.apply(state.revision.next(), &[change]);
            board.follow(&Arc::new(state.clone()));
        }
    }
    assert_eq!(board.endpoints_since(Revision(1)), None);
    assert_eq!(board.endpoints_since(state.revision), Some(Vec::new()));
    assert!(board.services.is_empty() && board.by_change.is_empty());
    let version = "0123456789abcdef".to_owned();
    let known = Known { generation: Revision(2), versions: vec![(service_ref("web"), version)] };
    assert_eq!(
        board.endpoints_beside(&known).len(),
        1,
        "who knows a service that is gone is told that it is"
    );
}
