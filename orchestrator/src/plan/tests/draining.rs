//! How a task goes.

use super::check;

#[test]
fn a_serving_task_drains() {
    check(
        "
        node n1
        service shop/web x0 port=8080:80
        task shop.web.1.5 n1 v1 healthy c=2
        ",
        "
        drain shop.web.1.5: no replica is wanted
        ",
    );
}

#[test]
fn a_task_that_nobody_reaches_stops_at_once() {
    check(
        "
        node n1
        service shop/web x0
        task shop.web.1.5 n1 v1 healthy
        ",
        "
        stop shop.web.1.5: no replica is wanted
        ",
    );
}

#[test]
fn an_unhealthy_task_with_open_connections_drains() {
    check(
        "
        node n1
        service shop/web x0 port=8080:80
        task shop.web.1.5 n1 v1 unhealthy c=1
        ",
        "
        drain shop.web.1.5: no replica is wanted
        ",
    );
}

#[test]
fn an_unhealthy_task_without_connections_stops() {
    check(
        "
        node n1
        service shop/web x0 port=8080:80
        task shop.web.1.5 n1 v1 unhealthy
        ",
        "
        stop shop.web.1.5: no replica is wanted
        ",
    );
}

#[test]
fn a_task_on_a_lost_node_stops() {
    check(
        "
        node n1 lost
        service shop/web x0 port=8080:80
        task shop.web.1.5 n1 v1 healthy
        ",
        "
        stop shop.web.1.5: no replica is wanted
        ",
    );
}

#[test]
fn a_task_on_a_node_that_was_not_heard_of_yet_drains() {
    check(
        "
        node n1 awaited
        service shop/web x0 port=8080:80
        task shop.web.1.5 n1 v1 unseen
        ",
        "
        drain shop.web.1.5: no replica is wanted
        ",
    );
}

#[test]
fn every_node_must_have_said_that_it_routes_without_it() {
    check(
        "
        node n1
        node n2 acked=8
        service shop/web x0 port=8080:80
        task shop.web.1.5 n1 v1 healthy drain=9@99000
        ",
        "
        look again at 139000
        ",
    );
}

#[test]
fn a_lost_node_need_not_say_it() {
    check(
        "
        node n1
        node n2 acked=8 lost
        service shop/web x0 port=8080:80
        task shop.web.1.5 n1 v1 healthy drain=9@99000
        ",
        "
        stop shop.web.1.5: no connection is left
        ",
    );
}

#[test]
fn open_connections_have_their_grace() {
    check(
        "
        node n1
        service shop/web x0 port=8080:80 grace=5000
        task shop.web.1.5 n1 v1 healthy drain=9@99000 c=3
        ",
        "
        look again at 104000
        ",
    );
}

#[test]
fn the_grace_ends() {
    check(
        "
        node n1
        service shop/web x0 port=8080:80 grace=5000
        task shop.web.1.5 n1 v1 healthy drain=9@95000 c=3
        ",
        "
        stop shop.web.1.5: the grace of its connections has passed
        ",
    );
}

#[test]
fn connections_that_nobody_counts_have_their_grace() {
    check(
        "
        node n1 uncounted
        service shop/web x0 port=8080:80 grace=5000
        task shop.web.1.5 n1 v1 healthy drain=9@99000
        ",
        "
        look again at 104000
        ",
    );
    check(
        "
        node n1 uncounted
        service shop/web x0 port=8080:80 grace=5000
        task shop.web.1.5 n1 v1 healthy drain=9@95000
        ",
        "
        stop shop.web.1.5: the grace of its connections has passed
        ",
    );
}

#[test]
fn a_task_may_have_connections_that_nobody_counts_only_while_it_runs() {
    check(
        "
        node n1 uncounted
        service shop/web x0 port=8080:80
        task shop.web.1.5 n1 v1 unhealthy
        ",
        "
        drain shop.web.1.5: no replica is wanted
        ",
    );
    check(
        "
        node n1 uncounted
        service shop/web x0 port=8080:80
        task shop.web.1.5 n1 v1 waiting
        ",
        "
        stop shop.web.1.5: no replica is wanted
        ",
    );
    check(
        "
        node n1 uncounted
        service shop/web x0 port=8080:80 grace=5000
        task shop.web.1.5 n1 v1 exit0 drain=9@99000
        ",
        "
        stop shop.web.1.5: no connection is left
        ",
    );
}

#[test]
fn a_drained_task_stops() {
    check(
        "
        node n1
        service shop/web x0 port=8080:80
        task shop.web.1.5 n1 v1 healthy drain=9@99000
        ",
        "
        stop shop.web.1.5: no connection is left
        ",
    );
}

#[test]
fn a_node_that_never_says_it_is_not_waited_for() {
    check(
        "
        node n1
        node n2 acked=8
        service shop/web x0 port=8080:80 grace=5000
        task shop.web.1.5 n1 v1 healthy drain=9@65000
        ",
        "
        stop shop.web.1.5: a node has not said for too long that it routes without it
        ",
    );
}

#[test]
fn a_draining_task_on_a_lost_node_stops() {
    check(
        "
        node n1 lost
        service shop/web x0 port=8080:80
        task shop.web.1.5 n1 v1 healthy drain=9@99000 c=3
        ",
        "
        stop shop.web.1.5: its node is not connected
        ",
    );
}

#[test]
fn a_draining_task_waits_for_its_node_after_a_restart_of_ours() {
    check(
        "
        node n1 awaited
        service shop/web x0 port=8080:80
        task shop.web.1.5 n1 v1 unseen drain=9@99000
        ",
        "
        look again at 139000
        ",
    );
}

#[test]
fn a_stopped_task_that_is_still_there_is_not_forgotten() {
    check(
        "
        node n1
        task shop.web.1.5 n1 v1 stopping stop=9
        ",
        "
        
        ",
    );
}

#[test]
fn a_stopped_task_that_has_gone_is_forgotten() {
    check(
        "
        node n1
        task shop.web.1.5 n1 v1 unseen stop=9
        ",
        "
        forget shop.web.1.5: it has gone
        ",
    );
}

#[test]
fn silence_from_before_the_stop_does_not_count() {
    check(
        "
        node n1 acked=8 follows=8
        task shop.web.1.5 n1 v1 unseen stop=9
        ",
        "
        
        ",
    );
}

#[test]
fn an_older_report_does_not_count_whatever_was_acknowledged_since() {
    check(
        "
        node n1 follows=8
        task shop.web.1.5 n1 v1 unseen stop=9
        ",
        "
        
        ",
    );
}

#[test]
fn a_stopped_task_of_a_lost_node_is_kept() {
    check(
        "
        node n1 lost acked=0
        task shop.web.1.5 n1 v1 unseen stop=9
        ",
        "
        
        ",
    );
}

#[test]
fn an_older_count_of_connections_is_not_believed() {
    check(
        "
        node n1 follows=8
        service shop/web x0 port=8080:80
        task shop.web.1.5 n1 v1 healthy drain=9@99000
        ",
        "
        look again at 139000
        ",
    );
}
