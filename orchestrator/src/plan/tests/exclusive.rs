//! Exclusive services: nothing is created beside what may run, and it is said what is waited for.

use tug_model::lease::{LASTS, OVER_AFTER};
use tug_model::{Millis, Timestamp};

use super::check;
use super::draw::{NOW, draw, node_id};
use crate::plan::{grants, plan, why};

/// A node that went silent 13 seconds ago, with the end of its lease to come.
const SILENT: &str = "
    since 5000
    node n1 lost=87000 leased=86900
    node n2
    service shop/db x1 exclusive
    task shop.db.1.5 n1 v1 healthy";

#[test]
fn a_silent_node_is_given_the_time_to_stop_what_it_has() {
    check(
        SILENT,
        "- shop.db.1: node n1 may still run shop.db.1.5: its lease ends in 900ms\nlook again at 100900",
    );
    check(
        &SILENT.replace("leased=86900", "leased=86000"),
        "
        stop shop.db.1.5: node n1 has been silent for 13s
        create shop.db.1 on n2: replaces shop.db.1.5
        ",
    );
}

#[test]
fn what_is_waited_for_is_said_before_the_node_counts_as_dead() {
    let mut view = crate::plan::View { at: NOW, ..Default::default() };
    view.world = draw(&SILENT.replace("lost=87000 leased=86900", "lost=98000 leased=95000"));
    view.plan = plan(&view.world, NOW).into();
    let project = super::draw::project_name("shop");
    let said = why::service(&view, &project, &super::draw::service_name("db"));
    assert!(said.iter().any(|said| said.contains("its lease ends in 9s")), "{said:?}");
}

#[test]
fn a_control_plane_that_has_just_begun_waits_for_leases_that_another_one_gave() {
    let drawing = SILENT.replace("since 5000", "since 88000").replace(" leased=86900", "");
    let world = draw(&drawing.replace("lost=87000", "awaited"));
    assert_eq!(world.leases_end(&node_id("n1")), Timestamp(102_000));
    for now in (88_000..102_000).step_by(100).map(Timestamp) {
        let plan = plan(&world, now);
        assert!(plan.decisions.is_empty(), "{now}: {plan}");
    }
    let then = plan(&world, Timestamp(102_000)).to_string();
    assert!(then.contains("create shop.db.1 on n2"), "{then}");
}

#[test]
fn a_store_that_went_back_may_have_forgotten_what_runs() {
    check(
        "
        since 90000
        epoch 2
        node n1
        service shop/db exclusive
        service shop/web
        ",
        "
        create shop.web.1 on n1: 0 of 1 running
        - shop.db.1: the control plane went back to an earlier state: for another 4s something may run that it forgot
        look again at 104000
        ",
    );
}

#[test]
fn the_old_task_goes_first_and_is_waited_for() {
    let drawing = "
        node n1
        node n2
        service shop/db v2 exclusive
        task shop.db.1.5 n1 v1 healthy";
    check(
        drawing,
        "
        stop shop.db.1.5: its service has changed, and its successor needs its place
        - shop.db.1: waiting for shop.db.1.5 to stop
        ",
    );
    let stopping = drawing.replace("healthy", "stopping stop=9");
    check(&stopping, "- shop.db.1: waiting for shop.db.1.5 to stop");
    check(
        &drawing.replace("healthy", "unseen stop=9"),
        "
        forget shop.db.1.5: it has gone
        - shop.db.1: waiting for shop.db.1.5 to stop
        ",
    );
    // A node whose Engine hangs can stop nothing, however long it takes.
    let hung = stopping.replace("node n1", "since 5000\nnode n1 enginedown=40000");
    check(&hung, "- shop.db.1: waiting for shop.db.1.5 to stop");
    let waiting = stopping
        .replace("stopping stop=9", "waiting")
        .replace("node n1", "since 5000\nnode n1 enginedown=40000");
    check(
        &waiting,
        "
        stop shop.db.1.5: its service has changed, and its successor needs its place
        - shop.db.1: waiting for shop.db.1.5 to stop
        ",
    );
}

#[test]
fn a_silent_node_whose_engine_was_down_may_never_have_stopped_it() {
    let hung = SILENT.replace("leased=86900", "leased=20000 enginedown=9000");
    check(
        &hung,
        "- shop.db.1: node n1 may still run shop.db.1.5: its Docker Engine did not answer when it was last heard of; if \
         you know that it does not, `tug node rm n1 --force` says so",
    );
    // That word is taken, once every lease has ended.
    let removed = hung.replace("node n1 lost=87000 leased=20000 enginedown=9000", "leased n1 20000");
    check(
        &removed,
        "
        stop shop.db.1.5: node n1 was removed
        create shop.db.1 on n2: replaces shop.db.1.5
        ",
    );
    let just_removed = removed.replace("leased n1 20000", "leased n1 99000");
    check(
        &just_removed,
        "- shop.db.1: node n1 may still run shop.db.1.5: its lease ends in 13s\nlook again at 113000",
    );
    let leaving = just_removed.replace("healthy", "unseen stop=9");
    check(
        &leaving,
        "- shop.db.1: node n1 may still run shop.db.1.5: its lease ends in 13s\nlook again at 113000",
    );
}

#[test]
fn what_was_started_without_a_lease_is_waited_for_without_end() {
    let drawing = "
        since 5000
        node n1 lost=20000
        node n2
        service shop/db v2 exclusive
        task shop.db.1.5 n1 v1 healthy lease=none";
    check(
        drawing,
        "- shop.db.1: node n1 may still run shop.db.1.5: it was started without a lease; if you know that it does not, \
         `tug node rm n1 --force` says so",
    );
}

#[test]
fn an_agent_that_knows_no_leases_is_given_none_of_it() {
    check(
        "
        node n1 older
        service shop/db exclusive
        service shop/web
        ",
        "
        create shop.web.1 on n1: 0 of 1 running
        - shop.db.1: node n1: its agent is of a version that knows no `x-exclusive`
        ",
    );
}

#[test]
fn the_data_of_an_exclusive_service_keeps_it_where_it_is() {
    check(
        "
        since 5000
        home shop_kept n1
        node n1 lost=20000 leased=19000
        node n2
        service shop/db exclusive kept
        task shop.db.1.5 n1 v1 healthy
        ",
        "- shop.db.1: node n1: not connected; node n2: the data of volume shop_kept is on node n1",
    );
}

#[test]
fn leases_are_for_what_is_exclusive_on_nodes_that_are_heard() {
    let world = draw(
        "
        node n1
        node n2 lost
        service shop/db exclusive
        service shop/other exclusive
        service shop/web
        task shop.db.1.5 n1 v1 healthy
        task shop.db.1.4 n1 v1 stopping stop=9
        task shop.other.1.5 n2 v1 healthy
        task shop.web.1.5 n1 v1 healthy
        ",
    );
    let grants = grants(&world);
    let named = |node: &str| {
        let grant = grants.0.get(&node_id(node));
        let tasks = grant.into_iter().flat_map(|grant| &grant.tasks);
        tasks.map(|task| (task.id.to_string(), task.may_start)).collect::<Vec<_>>()
    };
    assert_eq!(named("n1"), [("shop.db.1.4".to_owned(), false), ("shop.db.1.5".to_owned(), true)]);
    assert_eq!(named("n2"), []);
    assert!(
        OVER_AFTER > LASTS && LASTS > Millis::from_secs(3),
        "a silent node is lost before its lease ends"
    );
}
