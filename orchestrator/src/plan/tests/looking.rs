//! How things stand, and why.

use std::sync::Arc;

use tug_model::report::ClosedPort;

use super::draw::{NOW, draw, node_id, project_name, service_name};
use crate::plan::{View, World, plan, status, why};

fn view(world: World) -> View {
    let plan = Arc::new(plan(&world, NOW));
    View { world, plan, at: NOW }
}

fn said(view: &View) -> String {
    let mut lines = Vec::new();
    for project in status::all(view) {
        let number = project.number.map_or_else(|| "gone".into(), |number| format!("version {number}"));
        lines.push(format!(
            "{}: {number}, revision {}, settled {}",
            project.name, project.revision, project.settled
        ));
        for service in project.services {
            let (name, state) = (&service.name, service.state.as_str());
            lines.push(format!(
                "{name} {state} {}/{} updated {}",
                service.ready, service.wanted, service.updated
            ));
            lines.extend(service.reasons.iter().map(|reason| format!("- {reason}")));
        }
    }
    lines.join("\n")
}

#[track_caller]
fn check(drawing: &str, expected: &str) {
    let trimmed =
        |text: &str| text.lines().map(str::trim).filter(|l| !l.is_empty()).collect::<Vec<_>>().join("\n");
    let actual = said(&view(draw(drawing)));
    let expected = trimmed(expected);
    assert!(trimmed(&actual) == expected, "planned:\n<<<\n{actual}\n>>>\nexpected:\n{expected}\n");
}

#[test]
fn all_as_wanted() {
    check(
        "
        node n1
        service shop/web x2 port=80:80
        task shop.web.1.5 n1 v1 healthy
        task shop.web.2.5 n1 v1 healthy
        ",
        "
        shop: version 1, revision 4, settled true
        web ready 2/2 updated 2
        ",
    );
}

#[test]
fn on_the_way() {
    check(
        "
        node n1
        service shop/web x3
        task shop.web.1.5 n1 v1 healthy
        task shop.web.2.5 n1 v1 starting
        task shop.web.3.5 n1 v1 unseen
        ",
        "
        shop: version 1, revision 4, settled false
        web progressing 1/3 updated 1
        - shop.web.2.5 on node n1: starting
        - shop.web.3.5: node n1 says nothing about it yet
        ",
    );
}

/// How the tasks of a drawn world stand, as far as that is known.
fn unknown(drawing: &str) -> Vec<String> {
    let projects = status::all(&view(draw(drawing))).into_iter();
    let tasks = projects.flat_map(|project| project.services).flat_map(|service| service.tasks);
    let since = |at: Option<tug_model::Timestamp>| at.map_or_else(|| "?".to_owned(), |at| at.to_string());
    tasks
        .map(|task| {
            format!("{} {} {}", task.id, task.unknown.unwrap_or_else(|| "known".into()), since(task.since))
        })
        .collect()
}

#[test]
fn of_tasks_on_a_node_that_is_not_there_nobody_knows_how_they_stand() {
    let drawing = "
        since 5000
        node n1 lost=98000 word=97000
        node n2 lost=20000 word=19000
        node n3 enginedown=1000
        node n4 awaited
        node n5
        node n6
        service shop/web x6
        task shop.web.1.5 n1 v1 healthy
        task shop.web.2.5 n2 v1 healthy stop=8
        task shop.web.3.5 n3 v1 healthy
        task shop.web.4.5 n4 v1 unseen
        task shop.web.5.5 n5 v1 unseen
        task shop.web.6.5 n3 v1 healthy stop=8
        task shop.web.6.6 n0 v1 unseen
        ";
    let told = unknown(drawing);
    let known: Vec<&str> = told.iter().map(|line| line.rsplit_once(' ').unwrap().0).collect();
    assert_eq!(
        known,
        [
            "shop.web.1.5 node n1 is away",
            "shop.web.2.5 node n2 is dead",
            "shop.web.3.5 known",
            "shop.web.4.5 node n4 is dead",
            "shop.web.5.5 known",
            "shop.web.6.6 node n0 was removed",
            "shop.web.6.5 the Docker Engine of node n3 does not answer",
        ]
    );
    assert!(told[0].ends_with(&tug_model::Timestamp(97_000).to_string()), "since its last word: {}", told[0]);
}

#[test]
fn what_a_silent_node_is_to_stop_is_not_said_to_be_stopping() {
    check(
        "
        since 5000
        node n1 lost=20000
        node n2
        node n3
        service shop/web
        task shop.web.1.5 n1 v1 healthy stop=8
        task shop.web.1.8 n2 v1 starting
        ",
        "
        shop: version 1, revision 4, settled false
        web progressing 0/1 updated 0
        - shop.web.1.8 on node n2: starting
        - shop.web.1.5 is to be stopped, and node n1 is dead
        ",
    );
}

#[test]
fn a_job_that_is_done_is_complete() {
    check(
        "
        node n1
        service shop/job restart=never
        task shop.job.1.5 n1 v1 exit0
        ",
        "
        shop: version 1, revision 4, settled true
        job completed 1/1 updated 1
        ",
    );
}

#[test]
fn a_job_that_failed_is_failing() {
    check(
        "
        node n1
        service shop/job restart=never
        task shop.job.1.5 n1 v1 exit1
        ",
        "
        shop: version 1, revision 4, settled false
        job failing 0/1 updated 0
        - shop.job.1.5 on node n1: exited with code 1
        ",
    );
}

#[test]
fn a_crash_loop_is_failing_after_three_tries() {
    check(
        "
        node n1
        service shop/web
        service shop/api
        task shop.web.1.5 n1 v1 waiting r=3
        task shop.api.1.5 n1 v1 waiting r=2
        ",
        "
        shop: version 1, revision 4, settled false
        api progressing 0/1 updated 0
        - shop.api.1.5 on node n1: exited with code 1, next try in 4s
        web failing 0/1 updated 0
        - shop.web.1.5 on node n1: exited with code 1, next try in 4s
        ",
    );
}

#[test]
fn an_image_that_is_not_there_is_failing() {
    check(
        "
        node n1
        service shop/web
        task shop.web.1.5 n1 v1 refused r=3
        ",
        "
        shop: version 1, revision 4, settled false
        web failing 0/1 updated 0
        - shop.web.1.5 on node n1: pull image `v2`: not found, next try in 4s
        ",
    );
}

#[test]
fn an_old_version_that_fails_does_not_make_the_new_one_fail() {
    check(
        "
        node n1
        service shop/web v2
        task shop.web.1.5 n1 v1 waiting r=9
        task shop.web.1.9 n1 v2 starting
        ",
        "
        shop: version 1, revision 4, settled false
        web progressing 0/1 updated 0
        - web.1: waiting for shop.web.1.9 to be healthy
        - shop.web.1.9 on node n1: starting
        ",
    );
}

#[test]
fn an_update_counts_both_versions_once() {
    check(
        "
        node n1
        service shop/web x2 v2
        task shop.web.1.5 n1 v1 healthy
        task shop.web.1.9 n1 v2 healthy
        task shop.web.2.5 n1 v1 healthy
        ",
        "
        shop: version 1, revision 4, settled false
        web progressing 2/2 updated 1
        - web.2: shop.web.2.5 stays until its successor is healthy
        ",
    );
}

#[test]
fn what_drains_is_not_settled() {
    check(
        "
        node n1
        service shop/web port=80:80
        task shop.web.1.5 n1 v1 healthy
        task shop.web.2.5 n1 v1 healthy drain=9@99000 c=2
        ",
        "
        shop: version 1, revision 4, settled false
        web progressing 1/1 updated 1
        - shop.web.2.5 is draining: 2 connections are open
        ",
    );
}

#[test]
fn many_slots_share_a_reason() {
    check(
        "
        node n1 mem=250
        service shop/web x9 mem=100
        task shop.web.1.5 n1 v1 healthy
        task shop.web.5.5 n1 v1 healthy
        ",
        "
        shop: version 1, revision 4, settled false
        web progressing 2/9 updated 2
        - web.2 to 4 and 6 to 9: node n1: 50.0 MiB short of memory
        ",
    );
}

#[test]
fn a_removed_service_stays_until_its_last_task_has_gone() {
    check(
        "
        node n1
        service shop/web
        was shop/old
        task shop.web.1.5 n1 v1 healthy
        task shop.old.1.5 n1 v1 stopping stop=9
        ",
        "
        shop: version 1, revision 4, settled false
        old removing 0/0 updated 0
        - shop.old.1.5 is stopping
        web ready 1/1 updated 1
        ",
    );
}

#[test]
fn a_removed_project_stays_until_its_last_task_has_gone() {
    check(
        "
        node n1
        task shop.old.1.5 n1 v1 stopping stop=9
        task shop.old.2.5 n1 v1 healthy drain=8@99000 c=1
        ",
        "
        shop: gone, revision 9, settled false
        old removing 0/0 updated 0
        - shop.old.1.5 is stopping
        - shop.old.2.5 is draining: 1 connection is open
        ",
    );
}

#[test]
fn no_replicas_are_all_that_is_wanted() {
    check(
        "
        node n1
        service shop/web x0
        ",
        "
        shop: version 1, revision 4, settled true
        web ready 0/0 updated 0
        ",
    );
}

#[test]
fn a_lost_node_is_said() {
    check(
        "
        node n1 lost
        service shop/web
        task shop.web.1.5 n1 v1 healthy
        ",
        "
        shop: version 1, revision 4, settled false
        web progressing 0/1 updated 0
        - shop.web.1.5: node n1 is not connected
        ",
    );
}

#[test]
fn two_tasks_in_one_slot_are_ready_once() {
    check(
        "
        node n1
        service shop/web v2
        task shop.web.1.5 n1 v1 healthy
        task shop.web.1.9 n1 v2 unhealthy
        ",
        "
        shop: version 1, revision 4, settled false
        web progressing 1/1 updated 0
        - web.1: waiting for shop.web.1.9 to be healthy
        - shop.web.1.9 on node n1: unhealthy: connection refused
        ",
    );
}

#[test]
fn a_port_that_is_closed_is_not_as_wanted() {
    let mut world = draw("node n1\nservice shop/web port=80:80\ntask shop.web.1.5 n1 v1 healthy");
    let mut observed = (*world.observed).clone();
    let node = Arc::make_mut(observed.nodes.get_mut(&node_id("n1")).unwrap());
    let reason = "nginx listens on it".to_owned();
    Arc::make_mut(node.report.as_mut().unwrap()).closed_ports = vec![ClosedPort { port: 80, reason }];
    world.observed = Arc::new(observed);
    assert_eq!(
        said(&view(world)),
        "shop: version 1, revision 4, settled false\n\
         web progressing 1/1 updated 1\n\
         - port 80 is closed on node n1: nginx listens on it"
    );
}

#[test]
fn tasks_are_listed_by_slot_the_newest_first() {
    let world = draw(
        "node n1\nservice shop/web x2 v2\ntask shop.web.1.5 n1 v1 healthy c=3\ntask shop.web.1.9 n1 v2 waiting r=2\n\
         task shop.web.2.5 n1 v1 unseen",
    );
    let status = status::project(&view(world), &project_name("shop")).unwrap();
    let tasks = &status.services[0].tasks;
    let ids: Vec<&str> = tasks.iter().map(|task| task.id.as_str()).collect();
    assert_eq!(ids, ["shop.web.1.9", "shop.web.1.5", "shop.web.2.5"]);
    assert_eq!(tasks.iter().map(|task| task.updated).collect::<Vec<_>>(), [true, false, false]);
    assert_eq!((tasks[0].restarts, tasks[1].connections), (2, 3));
    assert_eq!(tasks[1].since.unwrap().0, NOW.0 - 500, "ages become times");
    assert_eq!((tasks[2].phase.as_ref(), tasks[2].since), (None, None));
}

#[test]
fn there_is_nothing_to_say_about_what_does_not_exist() {
    let view = view(draw("node n1\nservice shop/web"));
    assert_eq!(status::project(&view, &project_name("blog")), None);
    assert_eq!(why::service(&view, &project_name("shop"), &service_name("api")), Vec::<String>::new());
    assert_eq!(status::all(&View::default()), []);
}

#[test]
fn why_says_what_a_failed_container_said() {
    let view = view(draw("node n1\nservice shop/web\ntask shop.web.1.5 n1 v1 waiting r=7"));
    assert_eq!(
        why::service(&view, &project_name("shop"), &service_name("web")),
        [
            "shop.web.1.5 on node n1: exited with code 1, next try in 4s",
            "shop.web.1.5 said last: no such table",
        ]
    );
}

#[test]
fn why_says_that_an_engine_does_not_answer_even_where_all_seems_well() {
    let view = view(draw("node n1 enginedown\nnode n2\nservice shop/web\ntask shop.web.1.5 n1 v1 healthy"));
    assert_eq!(
        why::service(&view, &project_name("shop"), &service_name("web")),
        ["node n1: its Docker Engine does not answer (refused), and its tasks are shown as last seen"]
    );
}

#[test]
fn why_says_what_was_just_decided() {
    let view = view(draw("node n1\nservice shop/web x2\nservice shop/api\ntask shop.web.1.5 n1 v1 healthy"));
    assert_eq!(
        why::service(&view, &project_name("shop"), &service_name("web")),
        ["decided: create shop.web.2 on n1: 1 of 2 running"]
    );
}

#[test]
fn slots_are_named_in_ranges() {
    let name = |slots: &[u32]| {
        let slots: Vec<_> = slots.iter().copied().map(tug_model::Slot).collect();
        status::name_slots(&service_name("web"), &slots)
    };
    assert_eq!(name(&[1]), "web.1");
    assert_eq!(name(&[1, 2]), "web.1 and 2");
    assert_eq!(name(&[1, 3, 4, 5, 9]), "web.1, 3 to 5 and 9");
}
