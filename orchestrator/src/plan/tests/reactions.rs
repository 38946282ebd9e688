//! How soon machines are given up: by how they went, and by what it costs to be wrong.

use super::check;

#[test]
fn who_fell_silent_is_given_up_sooner_than_who_said_goodbye() {
    let drawing = |word| {
        format!(
            "
            since 5000
            node n1 vanished={word}
            node n2
            node n3
            service shop/web x2
            task shop.web.1.5 n1 v1 healthy
            task shop.web.2.5 n2 v1 healthy
            "
        )
    };
    check(&drawing(96_001), "look again at 100001");
    check(
        &drawing(96_000),
        "
        stop shop.web.1.5: node n1 has been silent for 4s
        create shop.web.1 on n3: replaces shop.web.1.5
        look again at 106000
        ",
    );
}

#[test]
fn what_must_not_run_twice_is_given_the_whole_time() {
    let drawing = |went: &str| {
        format!(
            "
            since 5000
            node n1 {went}
            node n2
            node n3
            service shop/dns x1 host=53:53
            task shop.dns.1.5 n1 v1 healthy
            "
        )
    };
    for went in ["vanished", "lost"] {
        check(
            &drawing(&format!("{went}=90001")),
            "
            - shop.dns.1: node n1 is away; two of dns at once would clash, so it is given the time to come back
            look again at 100001
            ",
        );
        check(
            &drawing(&format!("{went}=90000")),
            "
            stop shop.dns.1.5: node n1 has been silent for 10s
            create shop.dns.1 on n2: replaces shop.dns.1.5
            ",
        );
    }
}

/// Their last words came at different moments of the same second: one is missed already, the other will be.
#[test]
fn who_has_not_spoken_for_long_may_have_gone_with_the_one_that_is_lost() {
    let drawing = |word| {
        format!(
            "
            since 5000
            node n1 vanished=96000
            node n2 word={word}
            node n3
            service shop/web x1
            task shop.web.1.5 n1 v1 healthy
            "
        )
    };
    check(
        &drawing(97_000),
        "
        - shop.web.1: 1 of 3 nodes went away at once, so nothing is moved until one of them is back
        brake: 1 of 3 nodes went away at once, so nothing is moved until one of them is back
        look again at 101000
        ",
    );
    check(
        &drawing(99_000),
        "
        stop shop.web.1.5: node n1 has been silent for 4s
        create shop.web.1 on n2: replaces shop.web.1.5
        look again at 106000
        ",
    );
}

/// Nothing was concluded while two of three were away. The other one is on its way back as well.
#[test]
fn of_many_that_went_together_the_last_ones_have_time_after_the_first_is_back() {
    let drawing = |back| {
        format!(
            "
            since 5000
            node n1
            node n2 vanished=60000 back={back}
            node n3 vanished=60500
            service shop/web x1
            task shop.web.1.5 n3 v1 healthy
            "
        )
    };
    check(&drawing(90_001), "look again at 100001");
    check(
        &drawing(90_000),
        "
        stop shop.web.1.5: node n3 has been silent for 10s
        create shop.web.1 on n1: replaces shop.web.1.5
        ",
    );
}

/// Without `live-restore` everything that it runs ends when it starts again.
#[test]
fn what_a_dead_engine_will_end_has_successors_before_all_at_once() {
    let drawing = |age| {
        format!(
            "
            since 5000
            node n1 enginegone={age}
            node n2
            node n3
            service shop/web x4
            task shop.web.1.5 n1 v1 healthy
            task shop.web.2.5 n1 v1 healthy
            task shop.web.3.5 n2 v1 healthy
            task shop.web.4.5 n3 v1 healthy
            "
        )
    };
    check(&drawing(1_999), "look again at 100001");
    check(
        &drawing(2_000),
        "
        create shop.web.1 on n2: replaces shop.web.1.5: the Docker Engine of node n1 does not answer
        create shop.web.2 on n3: replaces shop.web.2.5: the Docker Engine of node n1 does not answer
        - shop.web.1: shop.web.1.5 stays until its successor is healthy
        - shop.web.2: shop.web.2.5 stays until its successor is healthy
        ",
    );
    check(
        "
        since 5000
        node n1 enginegone=5000
        node n2
        node n3
        service shop/web x2
        task shop.web.1.5 n1 v1 healthy
        task shop.web.1.6 n3 v1 healthy
        task shop.web.2.5 n1 v1 healthy
        task shop.web.2.6 n3 v1 starting
        ",
        "
        stop shop.web.1.5: shop.web.1.6 has taken its place
        - shop.web.2: waiting for shop.web.2.6 to be healthy
        ",
    );
}

/// It came back in time: what it ran goes on, and what was made meanwhile takes its place in its own time.
#[test]
fn an_engine_that_is_back_keeps_what_it_runs_until_the_successors_serve() {
    check(
        "
        since 5000
        node n1
        node n2
        node n3
        service shop/web x2
        task shop.web.1.5 n1 v1 healthy
        task shop.web.1.6 n3 v1 starting
        task shop.web.2.5 n1 v1 healthy
        task shop.web.2.6 n3 v1 starting
        ",
        "
        - shop.web.1: waiting for shop.web.1.6 to be healthy
        - shop.web.2: waiting for shop.web.1.6 to be healthy
        ",
    );
}

#[test]
fn a_node_that_has_just_come_back_is_filled_when_it_has_stayed() {
    let world = |back: &str| {
        format!(
            "
            node n1
            node n2 lost=50000 back={back}
            service shop/web x4
            task shop.web.1.5 n1 v1 healthy
            task shop.web.2.5 n1 v1 healthy
            task shop.web.3.5 n1 v1 healthy
            task shop.web.4.5 n1 v1 healthy
            "
        )
    };
    check(&world("90000"), "look again at 105000");
    check(
        &world("85000"),
        "
        create shop.web.1 on n2: spreads web: takes the place of shop.web.1.5, which stays until then
        ",
    );
}
