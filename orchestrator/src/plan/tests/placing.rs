//! Where a task may run.

use super::check;

#[test]
fn replicas_are_spread() {
    check(
        "
        node n1
        node n2
        service shop/web x3
        ",
        "
        create shop.web.1 on n1: 0 of 3 running
        create shop.web.2 on n2: 1 of 3 running
        create shop.web.3 on n1: 2 of 3 running
        ",
    );
}

#[test]
fn each_service_is_spread_before_the_whole() {
    check(
        "
        node n1
        node n2
        service shop/api x2
        service shop/web x2
        task shop.api.1.5 n1 v1 healthy
        task shop.api.2.5 n1 v1 healthy
        task shop.web.1.5 n2 v1 healthy
        ",
        "
        create shop.web.2 on n1: 1 of 2 running
        ",
    );
}

#[test]
fn a_node_that_is_away_gets_nothing() {
    check(
        "
        node n1 lost
        node n2 awaited
        node n3 silent
        service shop/web
        ",
        "
        - shop.web.1: node n1: not connected; node n2: has not reported since the orchestrator started; node n3: has not reported yet
        ",
    );
}

#[test]
fn a_node_without_its_engine_gets_nothing() {
    check(
        "
        node n1 enginedown
        service shop/web
        ",
        "
        - shop.web.1: node n1: its Docker Engine does not answer (refused)
        ",
    );
}

#[test]
fn memory_that_is_short_is_said() {
    check(
        "
        node n1 mem=1000
        service shop/web x3 mem=400
        ",
        "
        create shop.web.1 on n1: 0 of 3 running
        create shop.web.2 on n1: 1 of 3 running
        - shop.web.3: node n1: 200.0 MiB short of memory
        ",
    );
}

#[test]
fn processors_that_are_short_are_said() {
    check(
        "
        node n1 cpu=2
        service shop/web x1 cpu=3
        ",
        "
        - shop.web.1: node n1: 1.000 processors short
        ",
    );
}

#[test]
fn what_stops_keeps_its_room_until_it_has_gone() {
    check(
        "
        node n1 mem=500
        service shop/web mem=300
        task shop.web.2.5 n1 v1 stopping stop=9
        ",
        "
        - shop.web.1: node n1: 100.0 MiB short of memory
        ",
    );
}

#[test]
fn constraints_choose_the_node() {
    check(
        "
        node n1 label:disk=hdd
        node n2 label:disk=ssd
        service shop/db only=node.labels.disk==ssd
        service shop/web only=node.hostname!=n2
        ",
        "
        create shop.db.1 on n2: 0 of 1 running
        create shop.web.1 on n1: 0 of 1 running
        ",
    );
}

#[test]
fn a_constraint_that_nobody_meets_is_said() {
    check(
        "
        node n1
        service shop/db only=node.labels.disk==ssd
        ",
        "
        - shop.db.1: node n1: does not meet node.labels.disk == ssd
        ",
    );
}

#[test]
fn the_only_node_is_a_manager() {
    check(
        "
        node n1
        service shop/a only=node.role==manager
        service shop/b only=node.role==worker
        ",
        "
        create shop.a.1 on n1: 0 of 1 running
        - shop.b.1: node n1: does not meet node.role == worker
        ",
    );
}

#[test]
fn an_attribute_that_does_not_exist_equals_nothing() {
    check(
        "
        node n1
        service shop/a only=node.colour==red
        service shop/b only=node.colour!=red
        ",
        "
        create shop.b.1 on n1: 0 of 1 running
        - shop.a.1: node n1: does not meet node.colour == red
        ",
    );
}

#[test]
fn the_platform_must_be_the_nodes() {
    check(
        "
        node n1
        node n2 arch=arm64
        service shop/a platform=linux/aarch64/v8
        service shop/b platform=linux/x86_64
        service shop/c platform=windows/amd64
        ",
        "
        create shop.a.1 on n2: 0 of 1 running
        create shop.b.1 on n1: 0 of 1 running
        - shop.c.1: node n1: is linux/amd64, not windows/amd64; node n2: is linux/arm64, not windows/amd64
        ",
    );
}

#[test]
fn host_ports_keep_tasks_apart() {
    check(
        "
        node n1
        node n2
        service shop/dns x3 host=53:53
        ",
        "
        create shop.dns.1 on n1: 0 of 3 running
        create shop.dns.2 on n2: 1 of 3 running
        - shop.dns.3: node n1: port 53 is taken by another task; node n2: port 53 is taken by another task
        ",
    );
}

#[test]
fn a_host_port_of_another_service_counts() {
    check(
        "
        node n1
        service shop/a host=80:80
        service shop/b host=80:8080
        task shop.a.1.5 n1 v1 healthy
        ",
        "
        - shop.b.1: node n1: port 80 is taken by another task
        ",
    );
}

#[test]
fn a_limit_per_node_is_kept() {
    check(
        "
        node n1
        node n2
        service shop/web x5 max=2
        ",
        "
        create shop.web.1 on n1: 0 of 5 running
        create shop.web.2 on n2: 1 of 5 running
        create shop.web.3 on n1: 2 of 5 running
        create shop.web.4 on n2: 3 of 5 running
        - shop.web.5: node n1: has 2 replicas already, and max_replicas_per_node is 2; node n2: has 2 replicas already, and max_replicas_per_node is 2
        ",
    );
}

#[test]
fn every_node_says_its_own_reason() {
    check(
        "
        node n1 mem=100
        node n2 lost
        node n3 arch=arm64
        service shop/web mem=280 platform=linux/amd64
        ",
        "
        - shop.web.1: node n1: 180.0 MiB short of memory; node n2: not connected; node n3: is linux/arm64, not linux/amd64
        ",
    );
}
