//! Replicas over machines: where a new one has its share, and when it is worth moving one.

use super::check;

#[test]
fn a_new_node_takes_over_one_replica_at_a_time() {
    check(
        "
        node n1
        node n2
        service shop/web x4
        task shop.web.1.5 n1 v1 healthy
        task shop.web.2.5 n1 v1 healthy
        task shop.web.3.5 n1 v1 healthy
        task shop.web.4.5 n1 v1 healthy
        ",
        "
        create shop.web.1 on n2: spreads web: takes the place of shop.web.1.5, which stays until then
        ",
    );
    check(
        "
        node n1
        node n2
        service shop/web x2
        task shop.web.1.5 n1 v1 healthy
        task shop.web.1.6 n2 v1 starting
        task shop.web.2.5 n1 v1 healthy
        ",
        "
        - shop.web.1: waiting for shop.web.1.6 to be healthy
        ",
    );
    check(
        "
        node n1
        node n2
        service shop/web x2
        task shop.web.1.5 n1 v1 healthy
        task shop.web.1.6 n2 v1 healthy
        task shop.web.2.5 n1 v1 healthy
        ",
        "
        stop shop.web.1.5: shop.web.1.6 has taken its place
        ",
    );
}

#[test]
fn one_more_here_than_there_moves_nothing() {
    check(
        "
        node n1
        node n2
        service shop/web x3
        task shop.web.1.5 n1 v1 healthy
        task shop.web.2.5 n1 v1 healthy
        task shop.web.3.5 n2 v1 healthy
        ",
        "",
    );
}

#[test]
fn replicas_are_spread_over_zones_before_nodes() {
    check(
        "
        node n1 label:zone=a
        node n2 label:zone=a
        node n3 label:zone=b
        service shop/web x4 spread=node.labels.zone
        ",
        "
        create shop.web.1 on n1: 0 of 4 running
        create shop.web.2 on n3: 1 of 4 running
        create shop.web.3 on n2: 2 of 4 running
        create shop.web.4 on n3: 3 of 4 running
        ",
    );
}

#[test]
fn a_service_changes_without_losing_its_spread() {
    check(
        "
        node n1
        node n2
        node n3
        service shop/web x3 v2
        task shop.web.1.9 n1 v2 healthy
        task shop.web.2.5 n2 v1 healthy
        task shop.web.3.5 n3 v1 healthy
        ",
        "
        create shop.web.2 on n2: replaces shop.web.2.5, which stays until then
        - shop.web.2: shop.web.2.5 stays until its successor is healthy
        - shop.web.3: its turn comes after the one being replaced
        ",
    );
}

#[test]
fn a_label_that_changed_moves_what_no_longer_belongs_there() {
    check(
        "
        node n1 label:disk=hdd
        node n2 label:disk=ssd
        service shop/web only=node.labels.disk==ssd
        task shop.web.1.5 n1 v1 healthy
        ",
        "
        create shop.web.1 on n2: replaces shop.web.1.5, which stays until then: it is to be on another node than n1
        - shop.web.1: shop.web.1.5 stays until its successor is healthy
        ",
    );
}
