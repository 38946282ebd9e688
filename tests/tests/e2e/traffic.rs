//! Requests are spread evenly, and none fails while replicas die, come and go.

use anyhow::Result;
use tokio::time::Instant;
use tug_tests::docker;
use tug_tests::load::{Load, get};
use tug_tests::tug::service;

use crate::{Web, number};

/// How many replicas the service is scaled to; `TUG_TEST_REPLICAS` asks for another number.
const REPLICAS: usize = 10;
/// So many requests for each of them.
const SHARE: usize = 100;

#[tokio::test(flavor = "multi_thread")]
async fn a_scaled_service_spreads_its_requests_evenly_and_shrinks_again() -> Result<()> {
    let replicas = number("TUG_TEST_REPLICAS").unwrap_or(REPLICAS);
    let web = Web::start("spread", 1).await?;
    let start = Instant::now();
    web.tug.ok(&["scale", &format!("{}={replicas}", web.service())]).await?;
    let grown = start.elapsed();

    let load = Load::start(web.port, "/api/hello", 4);
    load.more(replicas * SHARE).await?;
    let outcome = load.finish().await;
    let total = outcome.total();
    assert_eq!(outcome.failures, Vec::<String>::new(), "of {total} requests");
    assert_eq!(outcome.answers.len(), replicas, "{:?}", outcome.answers);
    let counts = || outcome.answers.values().copied();
    let percent_of_fair = |count: usize| count * replicas * 100 / total;
    let (least, most) = (counts().min().unwrap_or(0), counts().max().unwrap_or(0));

    let start = Instant::now();
    web.tug.ok(&["scale", &format!("{}=1", web.service())]).await?;
    let left = web.tug.until_settled(&web.project).await?;
    println!(
        "1 → {replicas} in {grown:?}, {replicas} → 1 in {:?}; {total} requests, each replica {least} to {most}",
        start.elapsed()
    );
    assert_eq!(service(&left, "web").tasks.len(), 1, "{left:#?}");
    for count in [least, most] {
        assert!((90..=110).contains(&percent_of_fair(count)), "a replica had {count} of {total}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_replica_fails_no_request_and_is_replaced() -> Result<()> {
    let web = Web::start("kill", 3).await?;
    let load = Load::start(web.port, "/api/hello", 4);
    for round in 0..5_u32 {
        load.more(100).await?;
        let status = web.tug.until_settled(&web.project).await?;
        let victim = &service(&status, "web").tasks[round as usize % 3];
        docker::kill(victim.id.as_str()).await?;
        web.tug
            .until(&web.project, "the killed replica to be back", |status| {
                let tasks = &service(status, "web").tasks;
                status.settled && tasks.iter().map(|task| task.restarts).sum::<u32>() == round + 1
            })
            .await?;
    }
    let outcome = load.finish().await;
    assert_eq!(outcome.failures, Vec::<String>::new(), "of {} requests", outcome.total());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_file_replaces_one_replica_at_a_time_without_a_failed_request() -> Result<()> {
    let web = Web::start("change", 3).await?;
    let load = Load::start(web.port, "/version", 4);
    load.more(50).await?;
    for version in ["2", "3"] {
        web.tug.apply(&web.manifest(3, version)).await?;
        assert_eq!(get(web.port, "/version").await?, version);
    }
    web.tug.ok(&["restart", &web.service()]).await?;
    load.more(50).await?;
    let outcome = load.finish().await;
    assert_eq!(outcome.failures, Vec::<String>::new(), "of {} requests", outcome.total());
    let seen: Vec<&str> = outcome.answers.keys().map(String::as_str).collect();
    assert_eq!(seen, ["1", "2", "3"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_never_serves_replaces_nothing() -> Result<()> {
    let web = Web::start("bad", 2).await?;
    let load = Load::start(web.port, "/version", 2);
    let bad = web.manifest(2, "2").replace("/healthz", "/no-such-path");
    let path = web.tug.write("bad.yaml", &bad)?;
    let arguments = ["apply", "--yes", "--timeout", "5s", "--file", &path.to_string_lossy()];
    let output = web.tug.run(&arguments).await?;
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    let outcome = load.finish().await;
    assert_eq!(outcome.failures, Vec::<String>::new());
    let old = outcome.answers.keys().all(|version| version == "1");
    assert!(old, "only the old version answers: {:?}", outcome.answers);
    Ok(())
}
