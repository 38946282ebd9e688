//! A new template.

use super::check;

#[test]
fn the_new_one_comes_first_and_the_old_one_stays() {
    check(
        "
        node n1
        service shop/web x3 v2
        task shop.web.1.5 n1 v1 healthy
        task shop.web.2.5 n1 v1 healthy
        task shop.web.3.5 n1 v1 healthy
        ",
        "
        create shop.web.1 on n1: replaces shop.web.1.5, which stays until then
        - shop.web.1: shop.web.1.5 stays until its successor is healthy
        - shop.web.2: its turn comes after the one being replaced
        - shop.web.3: its turn comes after the one being replaced
        ",
    );
}

#[test]
fn while_the_new_one_starts_nothing_else_happens() {
    check(
        "
        node n1
        service shop/web x2 v2
        task shop.web.1.5 n1 v1 healthy
        task shop.web.1.9 n1 v2 starting
        task shop.web.2.5 n1 v1 healthy
        ",
        "
        - shop.web.1: waiting for shop.web.1.9 to be healthy
        - shop.web.2: waiting for shop.web.1.9 to be healthy
        ",
    );
}

#[test]
fn a_healthy_successor_lets_the_old_one_go_and_the_next_begins() {
    check(
        "
        node n1
        service shop/web x2 v2 port=8080:80
        task shop.web.1.5 n1 v1 healthy c=4
        task shop.web.1.9 n1 v2 healthy
        task shop.web.2.5 n1 v1 healthy
        ",
        "
        drain shop.web.1.5: shop.web.1.9 has taken its place
        create shop.web.2 on n1: replaces shop.web.2.5, which stays until then
        - shop.web.2: shop.web.2.5 stays until its successor is healthy
        ",
    );
}

#[test]
fn a_failing_successor_holds_everything() {
    check(
        "
        node n1
        service shop/web x2 v2
        task shop.web.1.5 n1 v1 healthy
        task shop.web.1.9 n1 v2 waiting r=5
        task shop.web.2.5 n1 v1 healthy
        ",
        "
        - shop.web.1: the new version fails, so the old one stays: shop.web.1.9 exited with code 1
        - shop.web.2: the new version fails, so the old one stays: shop.web.1.9 exited with code 1
        ",
    );
}

#[test]
fn a_fixed_version_takes_the_place_of_a_failing_one() {
    check(
        "
        node n1
        service shop/web x2 v3
        task shop.web.1.5 n1 v1 healthy
        task shop.web.1.9 n1 v2 waiting r=5
        task shop.web.2.5 n1 v1 healthy
        ",
        "
        stop shop.web.1.9: superseded by a newer version; shop.web.1.5 stays meanwhile
        create shop.web.1 on n1: replaces shop.web.1.5, which stays until then
        - shop.web.1: shop.web.1.5 stays until its successor is healthy
        - shop.web.2: its turn comes after the one being replaced
        ",
    );
}

#[test]
fn going_back_only_removes_the_failing_one() {
    check(
        "
        node n1
        service shop/web x2 v1
        task shop.web.1.5 n1 v1 healthy
        task shop.web.1.9 n1 v2 waiting r=5
        task shop.web.2.5 n1 v1 healthy
        ",
        "
        stop shop.web.1.9: shop.web.1.5 has taken its place
        ",
    );
}

#[test]
fn what_does_not_serve_is_replaced_at_once() {
    check(
        "
        node n1
        service shop/web x3 v2
        task shop.web.1.5 n1 v1 waiting r=7
        task shop.web.2.5 n1 v1 healthy
        task shop.web.3.5 n1 v1 starting
        ",
        "
        stop shop.web.1.5: its service has changed, and it does not serve
        create shop.web.1 on n1: replaces shop.web.1.5
        stop shop.web.3.5: its service has changed, and it does not serve
        create shop.web.3 on n1: replaces shop.web.3.5
        - shop.web.2: its turn comes after the one being replaced
        ",
    );
}

#[test]
fn a_healthy_version_superseded_halfway_keeps_one_per_slot() {
    check(
        "
        node n1
        service shop/web x2 v3
        task shop.web.1.5 n1 v1 healthy
        task shop.web.1.9 n1 v2 healthy
        task shop.web.2.5 n1 v1 healthy
        ",
        "
        stop shop.web.1.5: superseded by a newer version; shop.web.1.9 stays meanwhile
        create shop.web.1 on n1: replaces shop.web.1.9, which stays until then
        - shop.web.1: shop.web.1.9 stays until its successor is healthy
        - shop.web.2: its turn comes after the one being replaced
        ",
    );
}

#[test]
fn a_volume_makes_the_old_one_go_first() {
    check(
        "
        node n1
        service shop/db x1 v2 volume
        task shop.db.1.5 n1 v1 healthy
        ",
        "
        stop shop.db.1.5: its service has changed, and its successor needs its place
        - shop.db.1: waiting for shop.db.1.5 to stop
        ",
    );
}

#[test]
fn stop_first_waits_until_the_old_one_has_gone() {
    check(
        "
        node n1
        service shop/db x1 v2 volume
        task shop.db.1.5 n1 v1 stopping stop=9
        ",
        "
        - shop.db.1: waiting for shop.db.1.5 to stop
        ",
    );
}

#[test]
fn stop_first_creates_when_the_old_one_has_gone() {
    check(
        "
        node n1
        service shop/db x1 v2 volume
        task shop.db.1.5 n1 v1 unseen stop=9
        ",
        "
        forget shop.db.1.5: it has gone
        - shop.db.1: waiting for shop.db.1.5 to stop
        ",
    );
}

#[test]
fn stop_first_takes_one_replica_at_a_time() {
    check(
        "
        node n1
        service shop/db x3 v2 volume
        task shop.db.1.9 n1 v2 starting
        task shop.db.2.5 n1 v1 healthy
        task shop.db.3.5 n1 v1 healthy
        ",
        "
        - shop.db.2: waiting for shop.db.1.9 to be healthy
        - shop.db.3: waiting for shop.db.1.9 to be healthy
        ",
    );
}

#[test]
fn stop_first_goes_on_when_the_new_one_serves() {
    check(
        "
        node n1
        service shop/db x3 v2 volume
        task shop.db.1.9 n1 v2 healthy
        task shop.db.2.5 n1 v1 healthy
        task shop.db.3.5 n1 v1 healthy
        ",
        "
        stop shop.db.2.5: its service has changed, and its successor needs its place
        - shop.db.2: waiting for shop.db.2.5 to stop
        - shop.db.3: its turn comes after the one being replaced
        ",
    );
}

#[test]
fn stop_first_never_stops_for_a_version_that_has_no_place() {
    check(
        "
        node n1 mem=100
        service shop/db x1 v2 volume mem=200
        task shop.db.1.5 n1 v1 healthy
        ",
        "
        - shop.db.1: node n1: 100.0 MiB short of memory
        ",
    );
}

#[test]
fn stop_first_waits_for_a_node_that_is_away() {
    check(
        "
        node n1
        node n2 lost
        service shop/db x2 v2 volume
        task shop.db.1.5 n1 v1 healthy
        task shop.db.2.5 n2 v1 healthy
        ",
        "
        - shop.db.1: waiting for node n2 to report shop.db.2.5
        - shop.db.2: waiting for node n2 to report shop.db.2.5
        look again at 107000
        ",
    );
}

#[test]
fn start_first_goes_on_beside_a_node_that_is_away() {
    check(
        "
        node n1
        node n2 lost
        service shop/web x2 v2
        task shop.web.1.5 n1 v1 healthy
        task shop.web.2.5 n2 v1 healthy
        ",
        "
        create shop.web.1 on n1: replaces shop.web.1.5, which stays until then
        - shop.web.1: shop.web.1.5 stays until its successor is healthy
        - shop.web.2: waiting for node n2 to report shop.web.2.5
        look again at 107000
        ",
    );
}

#[test]
fn after_a_restart_of_ours_nothing_is_judged() {
    check(
        "
        node n1 awaited
        service shop/web x2 v2
        task shop.web.1.5 n1 v1 unseen
        task shop.web.1.9 n1 v2 unseen
        task shop.web.2.5 n1 v1 unseen
        ",
        "
        - shop.web.1: waiting for shop.web.1.9 to be healthy
        - shop.web.2: waiting for shop.web.1.9 to be healthy
        look again at 110000
        ",
    );
}

#[test]
fn scaling_and_changing_at_once_proves_the_new_version_first() {
    check(
        "
        node n1
        service shop/web x3 v2
        task shop.web.1.5 n1 v1 healthy
        task shop.web.2.5 n1 v1 healthy
        ",
        "
        create shop.web.3 on n1: 2 of 3 running
        - shop.web.1: waiting for shop.web.3 to be healthy
        - shop.web.2: waiting for shop.web.3 to be healthy
        ",
    );
}

#[test]
fn shrinking_and_changing_at_once() {
    check(
        "
        node n1
        service shop/web x1 v2
        task shop.web.1.5 n1 v1 healthy
        task shop.web.2.5 n1 v1 healthy
        task shop.web.2.9 n1 v2 starting
        ",
        "
        stop shop.web.2.9: only 1 replica is wanted
        stop shop.web.2.5: only 1 replica is wanted
        create shop.web.1 on n1: replaces shop.web.1.5, which stays until then
        - shop.web.1: shop.web.1.5 stays until its successor is healthy
        ",
    );
}

#[test]
fn no_room_for_two_is_said() {
    check(
        "
        node n1 mem=500
        service shop/web x2 v2 mem=200
        task shop.web.1.5 n1 v1 healthy
        task shop.web.2.5 n1 v1 healthy
        ",
        "
        - shop.web.1: its successor has no place while it stays; node n1: 100.0 MiB short of memory
        - shop.web.2: its successor has no place while it stays; node n1: 100.0 MiB short of memory
        ",
    );
}

#[test]
fn no_room_for_two_is_no_matter_when_the_old_one_does_not_serve() {
    check(
        "
        node n1 mem=500
        service shop/web x2 v2 mem=200
        task shop.web.1.5 n1 v1 waiting
        task shop.web.2.5 n1 v1 waiting
        ",
        "
        stop shop.web.1.5: its service has changed, and its successor needs its place
        stop shop.web.2.5: its service has changed, and its successor needs its place
        - shop.web.1: waiting for shop.web.1.5 to stop
        - shop.web.2: waiting for shop.web.2.5 to stop
        ",
    );
}

#[test]
fn a_finished_job_runs_again_when_it_changes() {
    check(
        "
        node n1
        service shop/migrate x1 v2 restart=never
        task shop.migrate.1.5 n1 v1 exit0
        ",
        "
        stop shop.migrate.1.5: its service has changed, and it does not serve
        create shop.migrate.1 on n1: replaces shop.migrate.1.5
        ",
    );
}

#[test]
fn a_replica_without_a_place_does_not_stop_the_others_from_changing() {
    check(
        "
        node n1
        service shop/dns x2 v2 host=53:53
        task shop.dns.1.5 n1 v1 healthy
        ",
        "
        drain shop.dns.1.5: its service has changed, and its successor needs its place
        - shop.dns.1: waiting for shop.dns.1.5 to stop
        - shop.dns.2: node n1: port 53 is taken by another task
        ",
    );
}

#[test]
fn a_limit_per_node_counts_slots_so_a_task_is_replaced_beside_itself() {
    check(
        "
        node n1
        service shop/web x1 v2 max=1
        task shop.web.1.5 n1 v1 healthy
        ",
        "
        create shop.web.1 on n1: replaces shop.web.1.5, which stays until then
        - shop.web.1: shop.web.1.5 stays until its successor is healthy
        ",
    );
}

#[test]
fn a_global_service_changes_node_by_node() {
    check(
        "
        node n1
        node n2
        service shop/logs global v2
        task shop.logs.1.5 n1 v1 healthy
        task shop.logs.2.5 n2 v1 healthy
        ",
        "
        create shop.logs.1 on n1: replaces shop.logs.1.5, which stays until then
        - shop.logs.1: shop.logs.1.5 stays until its successor is healthy
        - shop.logs.2: its turn comes after the one being replaced
        ",
    );
}

#[test]
fn a_changed_service_waits_for_its_dependency_and_keeps_serving() {
    check(
        "
        node n1
        service shop/migrate v2 restart=never
        service shop/web v2 after=migrate:completed
        task shop.migrate.1.5 n1 v1 exit0
        task shop.web.1.5 n1 v1 healthy
        ",
        "
        stop shop.migrate.1.5: its service has changed, and it does not serve
        create shop.migrate.1 on n1: replaces shop.migrate.1.5
        - shop.web.1: waiting for migrate to complete
        ",
    );
}
