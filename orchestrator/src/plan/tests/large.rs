//! Ten thousand tasks, planned in one pass. There is no clock here; what grows with the square of the tasks would be
//! felt by everybody who runs the tests.

use super::draw::draw;
use super::fleet::Fleet;
use crate::plan::{Change, View, status};

fn nodes() -> String {
    let lines: Vec<String> = (1..=20).map(|number| format!("node n{number} mem=1000000\n")).collect();
    lines.concat()
}

#[test]
fn a_hundred_services_of_a_hundred_replicas() {
    let service = |n| format!("service shop/s{n} x100 port={}:80 mem=1\n", 8000 + n);
    let services = (0..100).map(service).collect::<Vec<String>>().concat();
    let mut fleet = Fleet::new(draw(&(nodes() + &services)));
    for node in fleet.nodes() {
        fleet.report(&node);
    }
    let plan = fleet.step();
    assert_eq!(plan.decisions.len(), 10_000);
    for node in fleet.nodes() {
        fleet.follow(&node);
        fleet.thrive(&node);
        fleet.report(&node);
    }
    let rest = fleet.step();
    assert!(rest.decisions.is_empty() && rest.obstacles.is_empty());
    let on_first = fleet.world.tasks.values().filter(|task| task.node.as_str() == "n1").count();
    assert_eq!(on_first, 500, "spread evenly");
    let view = View { world: fleet.world, plan: rest.into(), at: fleet.now };
    let [status] = &status::all(&view)[..] else { panic!() };
    assert!(status.settled);
}

#[test]
fn one_service_that_has_no_place_and_one_that_shrinks() {
    let drawing = nodes() + "service shop/large x10000 mem=2000000\nservice shop/web x10000";
    let mut fleet = Fleet::new(draw(&drawing));
    for node in fleet.nodes() {
        fleet.report(&node);
    }
    let plan = fleet.step();
    assert_eq!(plan.decisions.len(), 10_000);
    let reasons: Vec<_> = plan.obstacles.values().flat_map(|slots| slots.values()).collect();
    assert_eq!(reasons.len(), 10_000);
    assert!(reasons.iter().all(|obstacle| obstacle.reasons.len() == 20), "one for each node");
    fleet.world.projects = draw("service shop/web x1").projects;
    let plan = fleet.step();
    let gone = plan.decisions.iter().filter(|it| matches!(it.change, Change::Drain(_) | Change::Stop(_)));
    assert_eq!(gone.count(), 9_999);
}
