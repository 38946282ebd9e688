//! A node that somebody wants empty.

use super::check;

#[test]
fn the_replacement_comes_first() {
    check(
        "
        node n1 drain=90000
        node n2
        service shop/web x2
        task shop.web.1.5 n1 v1 healthy
        task shop.web.2.5 n1 v1 healthy
        ",
        "
        create shop.web.1 on n2: replaces shop.web.1.5, which stays until then: node n1 is being drained
        - shop.web.1: shop.web.1.5 stays until its successor is healthy
        - shop.web.2: its turn comes after the one being replaced
        ",
    );
    check(
        "
        node n1 drain=90000
        node n2
        service shop/web x2
        task shop.web.1.5 n1 v1 healthy
        task shop.web.1.9 n2 v1 healthy
        task shop.web.2.5 n1 v1 healthy
        ",
        "
        stop shop.web.1.5: shop.web.1.9 has taken its place
        create shop.web.2 on n2: replaces shop.web.2.5, which stays until then: node n1 is being drained
        - shop.web.2: shop.web.2.5 stays until its successor is healthy
        ",
    );
}

#[test]
fn a_replica_that_crashes_elsewhere_holds_nothing_up() {
    check(
        "
        node n1 drain=90000
        node n2
        service shop/web x2
        task shop.web.1.5 n1 v1 healthy
        task shop.web.2.5 n2 v1 waiting r=5
        ",
        "
        create shop.web.1 on n2: replaces shop.web.1.5, which stays until then: node n1 is being drained
        - shop.web.1: shop.web.1.5 stays until its successor is healthy
        ",
    );
}

#[test]
fn what_has_no_other_place_says_so_and_stays() {
    check(
        "
        node n1 drain=90000
        node n2 mem=100
        home shop_kept n1
        service shop/db kept
        service shop/web mem=200
        task shop.db.1.5 n1 v1 healthy
        task shop.web.1.5 n1 v1 healthy
        ",
        "
        - shop.db.1: node n1: is being drained; node n2: the data of volume shop_kept is on node n1
        - shop.web.1: its successor has no place while it stays; node n1: is being drained; node n2: 100.0 MiB short of memory
        ",
    );
}

#[test]
fn what_would_clash_goes_first() {
    check(
        "
        node n1 drain=90000
        node n2
        service shop/dns host=53:53
        task shop.dns.1.5 n1 v1 healthy
        ",
        "
        drain shop.dns.1.5: node n1 is being drained, and its successor needs its place
        - shop.dns.1: waiting for shop.dns.1.5 to stop
        ",
    );
}

#[test]
fn a_deadline_ends_what_is_left() {
    let drawing = |at| {
        format!(
            "
            since 5000
            node n1 drain={at}+10000
            node n2
            home shop_kept n1
            service shop/db kept
            service shop/web
            task shop.db.1.5 n1 v1 healthy
            task shop.web.1.5 n1 v1 healthy
            task shop.web.1.9 n2 v1 starting
            "
        )
    };
    check(
        &drawing(90_001),
        "
        - shop.db.1: node n1: is being drained; node n2: the data of volume shop_kept is on node n1
        - shop.web.1: waiting for shop.web.1.9 to be healthy
        look again at 100001
        ",
    );
    check(
        &drawing(90_000),
        "
        stop shop.db.1.5: the deadline for draining node n1 has passed
        stop shop.web.1.5: the deadline for draining node n1 has passed
        - shop.db.1: waiting for shop.db.1.5 to stop
        ",
    );
}

#[test]
fn a_deadline_that_a_wrong_clock_set_counts_from_our_start() {
    check(
        "
        since 80000
        node n1 drain=900000+10000
        node n2
        service shop/web
        task shop.web.1.5 n1 v1 healthy
        ",
        "
        stop shop.web.1.5: the deadline for draining node n1 has passed
        create shop.web.1 on n2: replaces shop.web.1.5
        ",
    );
}

#[test]
fn a_global_service_leaves_it() {
    check(
        "
        node n1 drain=90000
        node n2
        service shop/logs global
        task shop.logs.1.5 n1 v1 healthy
        task shop.logs.2.5 n2 v1 healthy
        ",
        "
        stop shop.logs.1.5: one is wanted on every node that suits it
        ",
    );
}

#[test]
fn what_has_run_to_its_end_is_not_run_again() {
    check(
        "
        node n1 drain=90000
        node n2
        service shop/job restart=never
        task shop.job.1.5 n1 v1 exit0
        ",
        "",
    );
}

#[test]
fn which_task_is_the_newer_one_does_not_depend_on_a_clock_that_went_back() {
    check(
        "
        node n1
        node n2
        service shop/web x1
        task shop.web.1.50 n1 v1 healthy at=900000000
        task shop.web.1.51 n2 v1 healthy at=1000
        ",
        "
        stop shop.web.1.50: shop.web.1.51 has taken its place
        ",
    );
}
