//! What must be true of other services before a task is created.

use super::check;

#[test]
fn nothing_is_created_before_its_dependency_is_healthy() {
    check(
        "
        node n1
        service shop/db
        service shop/web x2 after=db:healthy
        task shop.db.1.5 n1 v1 starting
        ",
        "
        - shop.web.1: waiting for db to be healthy
        - shop.web.2: waiting for db to be healthy
        ",
    );
}

#[test]
fn a_healthy_dependency_lets_it_be_created() {
    check(
        "
        node n1
        service shop/db
        service shop/web after=db:healthy
        task shop.db.1.5 n1 v1 healthy
        ",
        "
        create shop.web.1 on n1: 0 of 1 running
        ",
    );
}

#[test]
fn every_slot_of_it_must_be_healthy() {
    check(
        "
        node n1
        service shop/db x2
        service shop/web after=db:healthy
        task shop.db.1.5 n1 v1 healthy
        task shop.db.2.5 n1 v1 starting
        ",
        "
        - shop.web.1: waiting for db to be healthy
        ",
    );
}

#[test]
fn one_started_task_is_started() {
    check(
        "
        node n1
        service shop/db x2
        service shop/web after=db:started
        task shop.db.1.5 n1 v1 starting
        task shop.db.2.5 n1 v1 pending
        ",
        "
        create shop.web.1 on n1: 0 of 1 running
        ",
    );
}

#[test]
fn started_is_not_before_it_started() {
    check(
        "
        node n1
        service shop/db
        service shop/web after=db:started
        task shop.db.1.5 n1 v1 creating
        ",
        "
        - shop.web.1: waiting for db to be started
        ",
    );
}

#[test]
fn a_migration_must_have_completed() {
    check(
        "
        node n1
        service shop/migrate restart=never
        service shop/web after=migrate:completed
        task shop.migrate.1.5 n1 v1 healthy
        ",
        "
        - shop.web.1: waiting for migrate to complete
        ",
    );
}

#[test]
fn a_completed_migration_lets_it_be_created() {
    check(
        "
        node n1
        service shop/migrate restart=never
        service shop/web after=migrate:completed
        task shop.migrate.1.5 n1 v1 exit0
        ",
        "
        create shop.web.1 on n1: 0 of 1 running
        ",
    );
}

#[test]
fn a_failed_migration_is_said_to_have_failed() {
    check(
        "
        node n1
        service shop/migrate restart=never
        service shop/web after=migrate:completed
        task shop.migrate.1.5 n1 v1 exit1
        ",
        "
        - shop.web.1: migrate failed: exited with code 1
        ",
    );
}

#[test]
fn what_runs_goes_on_when_its_dependency_fails() {
    check(
        "
        node n1
        service shop/db
        service shop/web after=db:healthy
        task shop.db.1.5 n1 v1 waiting r=9
        task shop.web.1.5 n1 v1 unhealthy
        ",
        "
        
        ",
    );
}

#[test]
fn a_missing_dependency_is_said() {
    check(
        "
        node n1
        service shop/web after=db:healthy
        ",
        "
        - shop.web.1: it depends on db, which is not part of the project
        ",
    );
}

#[test]
fn a_missing_optional_dependency_is_no_matter() {
    check(
        "
        node n1
        service shop/web optional=db:healthy
        ",
        "
        create shop.web.1 on n1: 0 of 1 running
        ",
    );
}

#[test]
fn an_optional_dependency_is_waited_for_while_there_is_hope() {
    check(
        "
        node n1
        service shop/db
        service shop/web optional=db:healthy
        task shop.db.1.5 n1 v1 starting
        ",
        "
        - shop.web.1: waiting for db to be healthy
        ",
    );
}

#[test]
fn an_optional_dependency_that_failed_is_no_matter() {
    check(
        "
        node n1
        service shop/db restart=never
        service shop/web optional=db:healthy
        task shop.db.1.5 n1 v1 exit1
        ",
        "
        create shop.web.1 on n1: 0 of 1 running
        ",
    );
}

#[test]
fn a_dependency_without_replicas_is_said() {
    check(
        "
        node n1
        service shop/db x0
        service shop/web after=db:started
        ",
        "
        - shop.web.1: it depends on db, which has no replicas
        ",
    );
}

#[test]
fn a_whole_chain_waits() {
    check(
        "
        node n1
        service shop/a after=b:healthy
        service shop/b after=c:started
        service shop/c
        ",
        "
        create shop.c.1 on n1: 0 of 1 running
        - shop.a.1: waiting for b to be healthy
        - shop.b.1: waiting for c to be started
        ",
    );
}

#[test]
fn what_this_pass_takes_away_does_not_count() {
    check(
        "
        node n1
        service shop/zdb v2 volume
        service shop/web after=zdb:healthy
        task shop.zdb.1.5 n1 v1 healthy
        ",
        "
        stop shop.zdb.1.5: its service has changed, and its successor needs its place
        - shop.web.1: waiting for zdb to be healthy
        - shop.zdb.1: waiting for shop.zdb.1.5 to stop
        ",
    );
}

#[test]
fn a_circle_waits_for_itself_and_says_so() {
    check(
        "
        node n1
        service shop/a after=b:started
        service shop/b after=a:started
        ",
        "
        - shop.a.1: waiting for b to be started
        - shop.b.1: waiting for a to be started
        ",
    );
}
