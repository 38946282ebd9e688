//! Nodes that report and take no orders, and what two of would clash: what they may have begun is waited for, what they never
//! began is not.

use super::check;
use super::draw::{NOW, draw};
use crate::plan::plan;

/// A node that reports and takes no orders, and a task of a service of which two would clash that it was told of.
const DISOBEDIENT: &str = "
    since 5000
    node n1 deaf=80000 follows=5
    node n2
    service shop/dns host=53:53
    task shop.dns.1.6 n1 v1 unseen";

#[test]
fn what_would_clash_is_replaced_when_a_node_that_takes_no_orders_never_began_it() {
    check(
        DISOBEDIENT,
        "
        stop shop.dns.1.6: node n1 does not take its assignment (timed out)
        create shop.dns.1 on n2: replaces shop.dns.1.6
        ",
    );
    check(&format!("{DISOBEDIENT} stop=9"), "create shop.dns.1 on n2: 0 of 1 running");
    let soon = DISOBEDIENT.replace("deaf=80000", "deaf=90001");
    check(&soon, "look again at 100001");
    check(
        &format!("{soon} stop=9"),
        "
        - shop.dns.1: waiting for shop.dns.1.6 to stop
        look again at 100001
        ",
    );
}

#[test]
fn what_would_clash_waits_for_a_node_that_takes_no_orders_and_may_have_begun_it() {
    let it_says_so = DISOBEDIENT.replace("unseen", "starting");
    let it_was_told = DISOBEDIENT.replace("follows=5", "follows=6");
    let its_engine_is_away = DISOBEDIENT.replace("follows=5", "follows=5 enginedown=29999");
    for drawing in [it_says_so, it_was_told, its_engine_is_away] {
        let first = plan(&draw(&drawing), NOW);
        assert_eq!(first.decisions, [], "{drawing}");
        let stopping = plan(&draw(&format!("{drawing} stop=9")), NOW).to_string();
        assert!(stopping.contains("- shop.dns.1: waiting for shop.dns.1.6 to stop"), "{drawing}: {stopping}");
        assert!(!stopping.contains("create"), "{drawing}: {stopping}");
    }
}
