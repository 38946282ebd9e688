//! How machines are said to stand, and what keeps one from being empty.

use std::sync::Arc;

use tug_api::user::NodeState;
use tug_model::Millis;
use tug_model::report::Engine;

use super::draw::{NOW, draw, node_id};
use crate::plan::machine::{Machines, Stand};
use crate::plan::{View, plan};

fn stand(drawing: &str, node: &str) -> Stand {
    let world = draw(drawing);
    let plan = Arc::new(plan(&world, NOW));
    let view = View { world, plan, at: NOW };
    Machines::new(&view, NOW).stand(&node_id(node)).unwrap()
}

fn leaving(drawing: &str) -> Vec<String> {
    let of = stand(drawing, "n1").leaving;
    let line = |(_, it): &(_, tug_api::user::Leaving)| {
        format!("{}{}: {}", it.task, if it.is_stuck { " (stuck)" } else { "" }, it.waits_for)
    };
    of.iter().map(line).collect()
}

#[test]
fn what_leaves_says_what_it_waits_for() {
    let drawing = "
        node n1 drain=90000
        node n2
        service shop/web x3
        task shop.web.1.5 n1 v1 healthy
        task shop.web.1.9 n2 v1 starting
        task shop.web.2.5 n1 v1 healthy
        task shop.web.3.5 n1 v1 healthy drain=9@95000 c=2
        task shop.web.3.9 n2 v1 healthy
        ";
    assert_eq!(
        leaving(drawing),
        [
            "shop.web.1.5: its successor on n2 is starting",
            "shop.web.2.5: waiting for shop.web.1.9 to be healthy",
            "shop.web.3.5: out of the routes; its connections end",
        ]
    );
    assert_eq!(stand(drawing, "n1").state, NodeState::Draining);
    assert_eq!(stand(drawing, "n2").leaving, []);
}

#[test]
fn of_two_machines_with_one_address_each_is_told_of_the_other() {
    let drawing = "
        since 5000
        node n1 at=10.0.0.1:7702
        node n2 at=10.0.0.1:7702 lost=60000
        node n3 at=10.0.0.3:7702
        node n4
        node n5
        ";
    let said = |node, other| {
        let told = format!("node {other} has the same address, 10.0.0.1:7702: ");
        stand(drawing, node).reasons.iter().any(|reason| reason.starts_with(&told))
    };
    assert!(said("n1", "n2") && said("n2", "n1"), "{:?} {:?}", stand(drawing, "n1"), stand(drawing, "n2"));
    for other in ["n3", "n4", "n5"] {
        assert_eq!(stand(drawing, other).reasons, Vec::<String>::new(), "{other}");
    }
}

#[test]
fn what_nobody_can_stop_is_stuck() {
    for node in ["node n1 drain=90000 lost=60000", "node n1 drain=90000 enginedown=40000"] {
        let drawing = format!(
            "
            since 5000
            {node}
            node n2
            node n3
            service shop/web
            task shop.web.1.5 n1 v1 healthy stop=8
            task shop.web.1.8 n2 v1 healthy
            "
        );
        assert_eq!(
            leaving(&drawing),
            ["shop.web.1.5 (stuck): nobody can stop it: its node's agent, or its Engine, does not answer"],
            "{node}"
        );
    }
}

#[test]
fn what_has_nowhere_to_go_is_told_from_what_is_on_its_way() {
    let drawing = "
        node n1 drain=90000
        node n2 mem=100
        home shop_kept n1
        service shop/db kept
        service shop/web mem=200
        task shop.db.1.5 n1 v1 healthy
        task shop.web.1.5 n1 v1 healthy
        ";
    assert_eq!(
        leaving(drawing),
        [
            "shop.db.1.5 (stuck): node n1: is being drained; node n2: the data of volume shop_kept is on node n1",
            "shop.web.1.5 (stuck): its successor has no place while it stays; node n1: is being drained; \
             node n2: 100.0 MiB short of memory",
        ]
    );
    let n1 = stand(drawing, "n1");
    assert_eq!((n1.tasks, n1.reserved.memory.0), (2, 200 << 20));
}

#[test]
fn an_engine_is_down_for_longer_than_the_last_whole_report_says() {
    let world = draw("node n1 enginedown=5000 word=90000\nnode n2\nnode n3 silent");
    let engine = |node: &str| world.observed.nodes[&node_id(node)].engine(NOW);
    let Some(Engine::Down { age, .. }) = engine("n1") else { panic!("{:?}", engine("n1")) };
    assert_eq!(age, Millis(15_000), "5 s when it was said, 10 s ago");
    assert_eq!((engine("n2"), engine("n3")), (Some(Engine::Up), None));
}

#[test]
fn an_empty_node_is_drained_and_one_with_nothing_to_leave_is_ready() {
    let drawing = "
        node n1 drain=90000
        node n2
        service shop/web
        task shop.web.1.9 n2 v1 healthy
        ";
    assert_eq!(
        (stand(drawing, "n1").state, stand(drawing, "n2").state),
        (NodeState::Drained, NodeState::Ready)
    );
}
