//! What is told of what the agents observe.

use std::sync::Arc;

use tug_model::Timestamp;
use tug_model::report::{Health, Phase, Report};
use tug_model::task::Task;

use super::super::observe::Observer;
use crate::plan::tests::draw::{NOW, draw, node_id};
use crate::plan::{NodeObserved, Observed};

/// What is told of one drawing after the other, a second apart, the first of which was there when we started.
#[track_caller]
fn check(first: &str, then: &[&str], expected: &[&str]) {
    check_paced(first, then, expected, 1_000);
}

#[track_caller]
fn check_paced(first: &str, then: &[&str], expected: &[&str], pace: u64) {
    let mut observer = Observer::default();
    let mut told = Vec::new();
    for (number, drawing) in std::iter::once(&first).chain(then).enumerate() {
        let now = Timestamp(NOW.0 + pace * number as u64);
        observer.look(&draw(drawing), now);
        for event in observer.pending() {
            let about = event
                .task
                .as_ref()
                .map_or_else(|| event.node.as_ref().unwrap().to_string(), ToString::to_string);
            told.push(format!(
                "{} {}: {about} {}",
                (event.at.0 - NOW.0) / pace,
                event.kind.as_str(),
                event.message
            ));
        }
        observer.clear();
    }
    assert_eq!(told, expected);
}

const NOTHING: &str = "node n1";
const CONNECTED: &str = "0 node: n1 its agent is connected";

#[test]
fn a_life_is_told() {
    check(
        NOTHING,
        &[
            "node n1\ntask shop.web.1.5 n1 v1 creating",
            "node n1\ntask shop.web.1.5 n1 v1 starting",
            "node n1\ntask shop.web.1.5 n1 v1 healthy",
            "node n1\ntask shop.web.1.5 n1 v1 healthy",
            "node n1\ntask shop.web.1.5 n1 v1 unhealthy",
            "node n1\ntask shop.web.1.5 n1 v1 unhealthy",
            "node n1\ntask shop.web.1.5 n1 v1 waiting",
            "node n1\ntask shop.web.1.5 n1 v1 stopping stop=9",
            "node n1",
        ],
        &[
            CONNECTED,
            "3 healthy: shop.web.1.5 is healthy",
            "5 unhealthy: shop.web.1.5 is unhealthy: connection refused",
            "7 failed: shop.web.1.5 exited with code 1 (`no such table`), next try in 4s",
        ],
    );
}

#[test]
fn a_job_is_told() {
    check(
        NOTHING,
        &["node n1\ntask shop.job.1.5 n1 v1 exit0\ntask shop.job.2.5 n1 v1 exit1"],
        &[
            CONNECTED,
            "1 completed: shop.job.1.5 ran to its end",
            "1 failed: shop.job.2.5 exited with code 1 (`no such table`), and is not started again",
        ],
    );
}

#[test]
fn what_ends_because_it_was_asked_to_has_not_failed() {
    check(NOTHING, &["node n1\ntask shop.web.1.5 n1 v1 exit1 stop=9"], &[CONNECTED]);
}

#[test]
fn a_crash_loop_is_told_once_for_each_run() {
    check(
        NOTHING,
        &[
            "node n1\ntask shop.web.1.5 n1 v1 waiting r=0",
            "node n1\ntask shop.web.1.5 n1 v1 waiting r=0",
            "node n1\ntask shop.web.1.5 n1 v1 starting r=1",
            "node n1\ntask shop.web.1.5 n1 v1 waiting r=1",
            "node n1\ntask shop.web.1.5 n1 v1 waiting r=1",
        ],
        &[
            CONNECTED,
            "1 failed: shop.web.1.5 exited with code 1 (`no such table`), next try in 4s",
            "4 failed: shop.web.1.5 exited with code 1 (`no such table`), next try in 4s",
        ],
    );
}

#[test]
fn what_stood_before_we_started_is_no_news() {
    let before = "node n1\ntask shop.web.1.5 n1 v1 healthy\ntask shop.api.1.5 n1 v1 waiting r=2";
    check(
        before,
        &[before, "node n1\ntask shop.web.1.5 n1 v1 unhealthy\ntask shop.api.1.5 n1 v1 waiting r=3"],
        &[
            CONNECTED,
            "2 failed: shop.api.1.5 exited with code 1 (`no such table`), next try in 4s",
            "2 unhealthy: shop.web.1.5 is unhealthy: connection refused",
        ],
    );
}

#[test]
fn flickering_is_told_seldom_and_its_end_is_never_missed() {
    let (well, ill) =
        ("node n1\ntask shop.web.1.5 n1 v1 healthy", "node n1\ntask shop.web.1.5 n1 v1 unhealthy");
    check_paced(
        NOTHING,
        &[well, ill, well, ill, well, ill, ill, ill, ill],
        &[
            "0 node: n1 its agent is connected",
            "1 healthy: shop.web.1.5 is healthy",
            "6 unhealthy: shop.web.1.5 is unhealthy: connection refused",
        ],
        400,
    );
}

#[test]
fn a_node_comes_and_goes_and_its_engine_too() {
    check(
        "node n1 awaited",
        &[
            "node n1",
            "node n1 enginedown",
            "node n1 enginedown",
            "node n1",
            "node n1 lost",
            "node n1 lost",
            "node n1",
        ],
        &[
            "1 node: n1 its agent is connected",
            "2 node: n1 its Docker Engine does not answer: refused",
            "4 node: n1 its Docker Engine answers again",
            "5 node: n1 its agent is not connected any more",
            "7 node: n1 its agent is connected",
        ],
    );
}

#[test]
fn containers_that_no_record_names_are_not_told_of() {
    let mut world = draw("node n1\ntask shop.web.1.5 n1 v1 healthy");
    let mut observer = Observer::default();
    observer.look(&draw(NOTHING), NOW);
    observer.clear();
    world.tasks.clear();
    observer.look(&world, NOW);
    assert_eq!(observer.pending(), vec![]);
}

#[test]
fn what_a_node_says_of_another_ones_task_is_not_told() {
    let mut world = draw("node n1\nnode n2\ntask shop.web.1.5 n1 v1 exit1");
    let mut observer = Observer::default();
    observer.look(&draw("node n1\nnode n2"), NOW);
    observer.clear();
    let moved = world.tasks.values().map(|task| Task { node: node_id("n2"), ..Task::clone(task) });
    world.tasks = moved.map(|task| (task.id.clone(), Arc::new(task))).collect();
    observer.look(&world, NOW);
    assert_eq!(observer.pending(), vec![]);
}

#[test]
fn of_an_agents_endless_words_the_beginning_is_told() {
    let mut world = draw("node n1\ntask shop.web.1.5 n1 v1 unhealthy");
    let mut seen = Observed::clone(&world.observed);
    let mut node = NodeObserved::clone(&seen.nodes[&node_id("n1")]);
    let mut report = Report::clone(node.report.as_ref().unwrap());
    report.tasks[0].phase =
        Phase::Running { health: Health::Unhealthy { reason: "x".repeat(1 << 20) }, address: None };
    node.report = Some(Arc::new(report));
    seen.nodes.insert(node_id("n1"), Arc::new(node));
    world.observed = Arc::new(seen);
    let mut observer = Observer::default();
    observer.look(&draw(NOTHING), NOW);
    observer.clear();
    observer.look(&world, NOW);
    assert_eq!(observer.pending()[0].message.len(), 2_000);
}
