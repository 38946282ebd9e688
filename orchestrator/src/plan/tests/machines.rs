//! Several machines: what is done when some of them are away, and when so many are that nothing is done.

use super::check;

#[test]
fn a_dead_node_is_replaced() {
    check(
        "
        since 5000
        node n1 lost=93000
        node n2
        service shop/web x2 port=8080:80
        task shop.web.1.5 n1 v1 healthy
        task shop.web.2.5 n2 v1 healthy
        ",
        "
        stop shop.web.1.5: node n1 has been silent for 7s
        create shop.web.1 on n2: replaces shop.web.1.5
        look again at 103000
        ",
    );
}

#[test]
fn a_silence_that_has_not_lasted_moves_nothing() {
    check(
        "
        since 5000
        node n1 lost=93001
        node n2
        service shop/web x1
        task shop.web.1.5 n1 v1 healthy
        ",
        "
        look again at 100001
        ",
    );
}

#[test]
fn a_node_that_was_not_heard_of_since_we_started_has_one_grace() {
    let drawing = |since| {
        format!(
            "
            since {since}
            node n1 awaited
            node n2
            service shop/web x1
            task shop.web.1.5 n1 v1 unseen
            "
        )
    };
    check(&drawing(90_001), "look again at 100001");
    check(
        &drawing(90_000),
        "
        stop shop.web.1.5: node n1 has been silent for 10s
        create shop.web.1 on n2: replaces shop.web.1.5
        ",
    );
}

#[test]
fn after_we_stood_still_every_silence_counts_anew() {
    check(
        "
        since 99000
        node n1 lost=50000
        node n2
        service shop/web x1
        task shop.web.1.5 n1 v1 healthy
        ",
        "
        look again at 106000
        ",
    );
}

#[test]
fn a_task_without_another_place_waits_for_its_node() {
    check(
        "
        since 5000
        node n1 lost=80000
        node n2 mem=100
        service shop/web x1 mem=200
        task shop.web.1.5 n1 v1 healthy
        ",
        "
        - shop.web.1: node n1: not connected; node n2: 100.0 MiB short of memory
        ",
    );
}

#[test]
fn what_was_to_be_there_only_once_is_created_at_once_elsewhere() {
    check(
        "
        since 5000
        node n1 lost=80000
        node n2
        service shop/dns host=53:53
        task shop.dns.1.5 n1 v1 healthy
        ",
        "
        stop shop.dns.1.5: node n1 has been silent for 20s
        create shop.dns.1 on n2: replaces shop.dns.1.5
        ",
    );
}

#[test]
fn a_volume_keeps_its_task_where_its_data_is() {
    check(
        "
        since 5000
        node n1 lost=80000
        node n2
        home shop_kept n1
        service shop/db kept
        task shop.db.1.5 n1 v1 healthy
        ",
        "
        - shop.db.1: node n1: not connected; node n2: the data of volume shop_kept is on node n1
        ",
    );
}

#[test]
fn the_first_use_of_a_volume_is_written_down() {
    check(
        "
        node n1
        node n2
        service shop/db kept
        task shop.db.1.5 n2 v1 healthy
        ",
        "
        settle shop_kept on n2: shop_kept is used on node n2
        ",
    );
}

#[test]
fn replicas_that_share_a_volume_are_together_from_the_beginning() {
    check(
        "
        node n1
        node n2
        service shop/db x2 kept
        ",
        "
        create shop.db.1 on n1: 0 of 2 running
        create shop.db.2 on n1: 1 of 2 running
        ",
    );
}

#[test]
fn a_global_service_has_a_volume_on_each_node() {
    check(
        "
        node n1
        node n2
        home shop_kept n1
        service shop/db global kept
        task shop.db.1.5 n1 v1 healthy
        ",
        "
        create shop.db.2 on n2: 1 of 2 running
        ",
    );
}

#[test]
fn a_service_that_is_applied_again_finds_its_data() {
    check(
        "
        node n1
        node n2
        home shop_kept n2
        service shop/db kept
        ",
        "
        create shop.db.1 on n2: 0 of 1 running
        ",
    );
}

#[test]
fn half_of_the_nodes_at_once_move_nothing() {
    check(
        "
        since 5000
        node n1 lost=80000
        node n2 lost=81000
        node n3
        node n4
        service shop/web x2
        task shop.web.1.5 n1 v1 healthy
        task shop.web.2.5 n2 v1 healthy
        ",
        "
        - shop.web.1: 2 of 4 nodes went away at once, so nothing is moved until one of them is back
        - shop.web.2: 2 of 4 nodes went away at once, so nothing is moved until one of them is back
        brake: 2 of 4 nodes went away at once, so nothing is moved until one of them is back
        ",
    );
}

#[test]
fn who_went_long_before_does_not_hold_the_brake() {
    check(
        "
        since 5000
        node n1 lost=20000
        node n2 lost=80000
        node n3
        service shop/web x1
        task shop.web.1.5 n2 v1 healthy
        ",
        "
        stop shop.web.1.5: node n2 has been silent for 20s
        create shop.web.1 on n3: replaces shop.web.1.5
        ",
    );
}

#[test]
fn whoever_drains_a_silent_node_knows_that_it_is_gone() {
    check(
        "
        since 5000
        node n1 lost=80000 drain=95000
        node n2 lost=81000
        node n3
        service shop/web x1
        task shop.web.1.5 n1 v1 healthy
        ",
        "
        stop shop.web.1.5: node n1 has been silent for 20s
        create shop.web.1 on n3: replaces shop.web.1.5
        brake: 1 of 3 nodes went away at once, so nothing is moved until one of them is back
        ",
    );
}

#[test]
fn the_tasks_of_a_node_that_was_removed_are_replaced() {
    check(
        "
        node n2
        service shop/web x1
        task shop.web.1.5 n1 v1 unseen
        ",
        "
        stop shop.web.1.5: node n1 was removed
        create shop.web.1 on n2: replaces shop.web.1.5
        ",
    );
}

/// The machine came back after it had been removed, and still ends what was replaced then.
#[test]
fn what_would_clash_with_one_that_still_leaves_waits_for_it() {
    check(
        "
        node n2
        service shop/db x1 volume
        task shop.db.1.5 n2 v1 stopping stop=8
        task shop.db.1.8 n1 v1 unseen
        ",
        "
        - shop.db.1: waiting for shop.db.1.5 to stop
        ",
    );
}

#[test]
fn a_job_that_ended_is_not_run_again_and_one_of_which_nobody_knows_neither() {
    let world = "
        since 5000
        node n1 lost=80000
        node n2 awaited
        node n3
        node n4
        node n5
        service shop/a restart=never
        service shop/b restart=never
        service shop/c restart=never
        task shop.a.1.5 n1 v1 exit0
        task shop.b.1.5 n1 v1 healthy
        task shop.c.1.5 n2 v1 unseen
    ";
    check(
        world,
        "
        stop shop.b.1.5: node n1 has been silent for 20s
        create shop.b.1 on n3: replaces shop.b.1.5
        - shop.c.1: nobody knows whether shop.c.1.5 ran to its end on node n2; `tug node rm n2` gives it up
        ",
    );
}

#[test]
fn an_engine_that_is_down_for_long_has_its_tasks_replaced_before_they_go() {
    let drawing = |age| {
        format!(
            "
            since 5000
            node n1 enginedown={age}
            node n2
            service shop/web x2
            task shop.web.1.5 n1 v1 healthy
            task shop.web.2.5 n1 v1 waiting
            "
        )
    };
    check(&drawing(29_999), "look again at 100001");
    check(
        &drawing(30_000),
        "
        stop shop.web.2.5: the Docker Engine of node n1 does not answer, and it does not serve
        create shop.web.2 on n2: replaces shop.web.2.5
        - shop.web.1: its turn comes after the one being replaced
        ",
    );
}

#[test]
fn what_cannot_be_stopped_first_stays_as_long_as_it_serves() {
    check(
        "
        since 5000
        node n1 enginedown=40000
        node n2
        service shop/dns host=53:53
        service shop/ntp host=123:123
        task shop.dns.1.5 n1 v1 healthy
        task shop.ntp.1.5 n1 v1 waiting
        ",
        "
        stop shop.ntp.1.5: the Docker Engine of node n1 does not answer, and it does not serve
        create shop.ntp.1 on n2: replaces shop.ntp.1.5
        ",
    );
}

#[test]
fn a_node_that_does_not_take_its_assignment_gets_nothing_and_loses_what_it_never_began() {
    check(
        "
        since 5000
        node n1 deaf=80000
        node n2
        service shop/web x3
        task shop.web.1.5 n1 v1 healthy
        task shop.web.2.6 n1 v1 unseen
        ",
        "
        stop shop.web.2.6: node n1 does not take its assignment (timed out)
        create shop.web.2 on n2: replaces shop.web.2.6
        create shop.web.3 on n2: 2 of 3 running
        ",
    );
}

#[test]
fn a_flapping_node_gets_nothing_that_another_can_take() {
    check(
        "
        since 5000
        node n1 losses=30000,60000,90000
        node n2
        service shop/web x2
        task shop.web.1.5 n2 v1 healthy
        ",
        "
        create shop.web.2 on n2: 1 of 2 running
        ",
    );
    check(
        "
        node n1 losses=30000,60000,90000
        service shop/web
        ",
        "
        create shop.web.1 on n1: 0 of 1 running
        ",
    );
}
