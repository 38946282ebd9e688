//! As many tasks as are wanted.

use super::check;

#[test]
fn a_first_deploy_creates_every_replica() {
    check(
        "
        node n1
        service shop/web x3
        ",
        "
        create shop.web.1 on n1: 0 of 3 running
        create shop.web.2 on n1: 1 of 3 running
        create shop.web.3 on n1: 2 of 3 running
        ",
    );
}

#[test]
fn what_is_as_wanted_stays() {
    check(
        "
        node n1
        service shop/web x2
        task shop.web.1.5 n1 v1 healthy
        task shop.web.2.5 n1 v1 healthy
        ",
        "
        
        ",
    );
}

#[test]
fn scaling_up_creates_only_what_is_missing() {
    check(
        "
        node n1
        service shop/web x4
        task shop.web.1.5 n1 v1 healthy
        task shop.web.3.5 n1 v1 starting
        ",
        "
        create shop.web.2 on n1: 2 of 4 running
        create shop.web.4 on n1: 3 of 4 running
        ",
    );
}

#[test]
fn scaling_down_takes_the_highest_slots_first() {
    check(
        "
        node n1
        service shop/web x1
        task shop.web.1.5 n1 v1 healthy
        task shop.web.2.5 n1 v1 healthy
        task shop.web.10.5 n1 v1 healthy
        ",
        "
        stop shop.web.10.5: only 1 replica is wanted
        stop shop.web.2.5: only 1 replica is wanted
        ",
    );
}

#[test]
fn scaling_to_zero_takes_all() {
    check(
        "
        node n1
        service shop/web x0 port=8080:80
        task shop.web.1.5 n1 v1 healthy
        task shop.web.2.5 n1 v1 starting
        ",
        "
        stop shop.web.2.5: no replica is wanted
        drain shop.web.1.5: no replica is wanted
        ",
    );
}

#[test]
fn a_crashed_task_is_its_agents_business() {
    check(
        "
        node n1
        service shop/web x1
        task shop.web.1.5 n1 v1 waiting r=9
        ",
        "
        
        ",
    );
}

#[test]
fn a_service_that_left_the_project_goes() {
    check(
        "
        node n1
        service shop/web
        task shop.web.1.5 n1 v1 healthy
        task shop.old.1.4 n1 v1 healthy
        ",
        "
        stop shop.old.1.4: old is no longer part of shop
        ",
    );
}

#[test]
fn a_removed_project_goes_whole() {
    check(
        "
        node n1
        was shop/web port=8080:80
        task shop.web.1.5 n1 v1 healthy
        task shop.web.2.5 n1 v1 waiting
        ",
        "
        stop shop.web.2.5: shop is removed
        drain shop.web.1.5: shop is removed
        ",
    );
}

#[test]
fn a_slot_that_drains_is_filled_anew() {
    check(
        "
        node n1
        service shop/web port=8080:80
        task shop.web.1.5 n1 v1 healthy drain=9@99000 c=1
        ",
        "
        create shop.web.1 on n1: 0 of 1 running
        look again at 109000
        ",
    );
}

#[test]
fn without_a_node_there_is_a_reason() {
    check(
        "
        service shop/web x2
        ",
        "
        - shop.web.1: there is no node yet
        - shop.web.2: there is no node yet
        ",
    );
}

#[test]
fn a_lost_node_keeps_its_tasks() {
    check(
        "
        node n1 lost
        node n2
        service shop/web x2
        task shop.web.1.5 n1 v1 healthy
        task shop.web.2.5 n2 v1 healthy
        ",
        "
        look again at 107000
        ",
    );
}

#[test]
fn a_global_service_has_one_task_on_every_node() {
    check(
        "
        node n1
        node n2
        node n3
        service shop/logs global
        task shop.logs.1.5 n2 v1 healthy
        ",
        "
        create shop.logs.2 on n1: 1 of 3 running
        create shop.logs.3 on n3: 2 of 3 running
        ",
    );
}

#[test]
fn a_global_service_leaves_out_what_does_not_suit() {
    check(
        "
        node n1
        node n2 role=worker
        service shop/logs global only=node.role==worker
        task shop.logs.1.5 n1 v1 healthy
        ",
        "
        stop shop.logs.1.5: one is wanted on every node that suits it
        create shop.logs.2 on n2: 0 of 1 running
        ",
    );
}

#[test]
fn a_global_service_waits_for_nodes_that_are_away() {
    check(
        "
        node n1 lost
        node n2
        service shop/logs global
        ",
        "
        create shop.logs.2 on n2: 0 of 2 running
        - shop.logs.1: node n1: not connected
        ",
    );
}

#[test]
fn going_from_many_on_one_node_to_global() {
    check(
        "
        node n1
        node n2
        service shop/web global
        task shop.web.1.5 n1 v1 healthy
        task shop.web.2.5 n1 v1 healthy
        ",
        "
        stop shop.web.2.5: one is wanted on every node that suits it
        create shop.web.3 on n2: 1 of 2 running
        ",
    );
}

#[test]
fn a_task_on_a_node_that_is_forgotten_is_no_loss_to_wait_for() {
    check(
        "
        node n1
        service shop/web x1
        task shop.web.1.9 n1 v1 healthy
        task shop.web.2.5 n9 v1 unseen stop=8
        ",
        "
        forget shop.web.2.5: it has gone
        ",
    );
}

#[test]
fn what_would_clash_is_looked_at_again_when_a_node_that_is_to_stop_it_counts_as_dead() {
    let drawing = "
        since 5000
        node n1 lost=95000
        node n2
        service shop/dns host=53:53
        task shop.dns.1.6 n1 v1 unseen stop=9";
    check(
        drawing,
        "
        - shop.dns.1: waiting for shop.dns.1.6 to stop
        look again at 102000
        ",
    );
    check(&drawing.replace("95000", "90000"), "create shop.dns.1 on n2: 0 of 1 running");
}
