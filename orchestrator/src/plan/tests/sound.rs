//! The invariants bite: a plan that is wrong in one way is found to be.

use super::draw::{NOW, draw, project_name, service_name};
use crate::plan::{Change, Decision, Plan, World, check as broken, plan};
use tug_model::quantity::Timestamp;
use tug_model::task::Template;
use tug_model::{Slot, TaskId};

fn create(world: &World, service: &str, slot: u32, node: &str) -> Change {
    let (project, service) = (project_name("shop"), service_name(service));
    let template = Template::of(&world.projects[&project].spec, world.service(&project, &service).unwrap());
    Change::Create(crate::plan::Create {
        project,
        service,
        slot: Slot(slot),
        node: super::draw::node_id(node),
        hash: template.hash(),
        template: template.into(),
    })
}

fn stop(id: &str) -> Change {
    Change::Stop(TaskId::parse(id).unwrap())
}

fn drain(id: &str) -> Change {
    Change::Drain(TaskId::parse(id).unwrap())
}

/// Plans `changes` in a drawn world and expects exactly one thing to be wrong with that.
#[track_caller]
fn check(drawing: &str, changes: impl Fn(&World) -> Vec<Change>, expected: &str) {
    let world = draw(drawing);
    let mut wrong = Plan { decisions: vec![], ..plan(&world, NOW) };
    wrong.decisions =
        changes(&world).into_iter().map(|change| Decision { change, why: "test".into() }).collect();
    let found = broken(&world, &wrong, NOW);
    assert!(found.iter().any(|found| found.contains(expected)), "{found:?}");
}

const TWO: &str = "
    node n1
    service shop/web x2 v2 port=80:80
    task shop.web.1.5 n1 v1 healthy
    task shop.web.2.5 n1 v1 healthy";

#[test]
fn a_task_is_decided_about_once() {
    check(TWO, |_| vec![drain("shop.web.1.5"), stop("shop.web.1.5")], "already");
    check(TWO, |_| vec![stop("shop.web.9.9")], "about nothing");
    check(TWO, |w| vec![create(w, "web", 1, "n1"), create(w, "web", 1, "n1")], "already");
}

#[test]
fn a_task_moves_only_forward() {
    let stopping = "node n1\nservice shop/web x0\ntask shop.web.1.5 n1 v1 stopping stop=9";
    check(stopping, |_| vec![drain("shop.web.1.5")], "moves back");
    check(
        TWO,
        |_| vec![Change::Forget(TaskId::parse("shop.web.1.5").unwrap())],
        "forgotten before it was stopped",
    );
}

#[test]
fn what_serves_is_not_taken_away() {
    check(TWO, |_| vec![drain("shop.web.1.5")], "what served is lost: shop.web.1.5");
    check(TWO, |w| vec![drain("shop.web.1.5"), create(w, "web", 1, "n1")], "what served is lost");
    let database = "
        node n1
        service shop/db x2 v2 volume
        task shop.db.1.9 n1 v2 starting
        task shop.db.2.5 n1 v1 healthy";
    check(database, |_| vec![stop("shop.db.2.5")], "what served is lost");
}

#[test]
fn no_more_than_one_too_many() {
    check(TWO, |w| vec![create(w, "web", 1, "n1"), create(w, "web", 2, "n1")], "runs 2 tasks too many");
    check(TWO, |w| vec![create(w, "web", 3, "n1")], "runs in a slot that is not wanted");
    let database = "node n1\nservice shop/db v2 volume\ntask shop.db.1.5 n1 v1 stopping stop=9";
    check(database, |w| vec![create(w, "db", 1, "n1")], "starts beside a task that it clashes with");
    let disobedient = "
        since 5000
        node n1 deaf=80000 follows=6
        node n2
        service shop/db volume
        task shop.db.1.6 n1 v1 unseen";
    let replace = |w: &World| vec![stop("shop.db.1.6"), create(w, "db", 1, "n2")];
    check(disobedient, replace, "starts beside a task that it clashes with");
    let named = disobedient.replace("follows=6", "follows=5").replace("unseen", "pending");
    check(&named, replace, "starts beside a task that it clashes with");
}

#[test]
fn every_gap_has_a_reason() {
    check("node n1\nservice shop/web x2", |w| vec![create(w, "web", 2, "n1")], "shop.web.1 has neither");
}

#[test]
fn tasks_are_placed_where_they_may_be() {
    check("node n1 lost\nservice shop/web", |w| vec![create(w, "web", 1, "n1")], "which is not there");
    check("node n1 enginedown\nservice shop/web", |w| vec![create(w, "web", 1, "n1")], "which is not there");
    let choosy = "node n1\nservice shop/web only=node.id==n2";
    check(choosy, |w| vec![create(w, "web", 1, "n1")], "does not suit");
    let large = "node n1 mem=100\nservice shop/web mem=101";
    check(large, |w| vec![create(w, "web", 1, "n1")], "no room");
    let many = "node n1\nservice shop/web x2 max=1";
    check(many, |w| vec![create(w, "web", 1, "n1"), create(w, "web", 2, "n1")], "no room");
    let port = "node n1\nservice shop/web x2 host=80:80";
    check(port, |w| vec![create(w, "web", 1, "n1"), create(w, "web", 2, "n1")], "host port");
}

#[test]
fn the_next_look_is_later() {
    let world = draw("node n1");
    let plan = Plan { wake_at: Some(Timestamp(NOW.0)), ..Plan::default() };
    assert_eq!(broken(&world, &plan, NOW), ["the plan is to be made again at once"]);
}

#[test]
fn nothing_exclusive_is_created_beside_what_may_run() {
    let silent = "
        since 5000
        node n1 lost=87000 leased=86900
        node n2
        service shop/db exclusive
        task shop.db.1.5 n1 v1 healthy";
    let replace = |w: &World| vec![stop("shop.db.1.5"), create(w, "db", 1, "n2")];
    check(silent, replace, "which may run");
    check(&silent.replace("leased=86900", "leased=86000 enginedown=1"), replace, "which may run");
    check(&silent.replace("since 5000", "since 86001"), replace, "which may run");
    let removed = silent.replace("node n1 lost=87000 leased=86900", "leased n1 86900");
    check(&removed, replace, "which may run");
    let forget = |_: &World| vec![Change::Forget(TaskId::parse("shop.db.1.5").unwrap())];
    check(&removed.replace("v1 healthy", "v1 unseen stop=9"), forget, "which may run");
    let gone = silent.replace("leased=86900", "leased=86000");
    let world = draw(&gone);
    let sound = plan(&world, NOW);
    assert!(!sound.decisions.is_empty() && broken(&world, &sound, NOW).is_empty());
}
