//! Killing, stopping or upgrading our own parts stops no container and fails no request.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tug_model::report::Phase;
use tug_model::status::ProjectStatus;
use tug_tests::docker;
use tug_tests::load::Load;
use tug_tests::tug::{PATIENCE, Tug, service};

use crate::Web;

/// Every container of the node, with the moment it was started.
async fn starts(tug: &Tug) -> Result<BTreeMap<String, String>> {
    let engine = docker::connect()?;
    let mut starts = BTreeMap::new();
    for container in docker::containers(&format!("tug.node={}", tug.node())).await? {
        let id = container.id.unwrap_or_default();
        let state = engine.inspect_container(&id, None).await?.state.unwrap_or_default();
        starts.insert(id, state.started_at.unwrap_or_default());
    }
    Ok(starts)
}

/// Waits until the node reports and each of its tasks is known to serve.
async fn adopted(web: &mut Web) -> Result<()> {
    web.tug.until_connected().await?;
    let all_serve = |status: &ProjectStatus| {
        let tasks = &service(status, "web").tasks;
        status.settled && tasks.iter().all(|task| task.phase.as_ref().is_some_and(Phase::is_healthy))
    };
    web.tug.until(&web.project, "everything to be adopted", all_serve).await.map(drop)
}

/// Waits until the orchestrator knows that the node's agent is gone.
async fn missed(tug: &Tug) -> Result<()> {
    let client = tug.client();
    let gone = async {
        while client.nodes().await.is_ok_and(|nodes| nodes.iter().any(|node| node.connected)) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.context("a killed agent still counts as connected")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_orchestrators_death_fails_no_request_and_restarts_nothing() -> Result<()> {
    let mut web = Web::start("server", 3).await?;
    let before = starts(&web.tug).await?;
    let load = Load::start(web.port, "/api/hello", 4);
    for _ in 0..3 {
        load.more(50).await?;
        web.tug.end_server(Signal::KILL).await?;
        load.more(200).await?;
        web.tug.start_server()?;
        adopted(&mut web).await?;
    }
    let outcome = load.finish().await;
    assert_eq!(outcome.failures, Vec::<String>::new(), "of {} requests", outcome.total());
    assert_eq!(starts(&web.tug).await?, before, "no container was restarted");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_orchestrator_the_agent_heals_and_balances_also_after_its_own_restart() -> Result<()> {
    let mut web = Web::start("alone", 3).await?;
    let status = web.tug.until_settled(&web.project).await?;
    let victims: Vec<String> = service(&status, "web").tasks.iter().map(|task| task.id.to_string()).collect();
    web.tug.end_server(Signal::KILL).await?;
    let load = Load::start(web.port, "/", 2);
    docker::kill(&victims[0]).await?;
    docker::until_running(&victims[0]).await?;
    web.tug.end_agent(Signal::KILL).await?;
    docker::kill(&victims[1]).await?;
    web.tug.start_agent()?;
    docker::until_running(&victims[1]).await?;
    load.more(300).await?;
    let outcome = load.finish().await;
    assert_eq!(outcome.answers.len(), 3, "all three answer: {:?}", outcome.answers);
    web.tug.start_server()?;
    web.tug.until_settled(&web.project).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agents_death_restarts_nothing_and_fails_only_what_was_in_flight() -> Result<()> {
    let mut web = Web::start("agent", 3).await?;
    let before = starts(&web.tug).await?;
    let clients = 4;
    let load = Load::start(web.port, "/api/hello", clients);
    let rounds = 3;
    for _ in 0..rounds {
        load.more(50).await?;
        web.tug.end_agent(Signal::KILL).await?;
        web.tug.start_agent()?;
        load.more(50).await?;
        adopted(&mut web).await?;
    }
    let outcome = load.finish().await;
    assert!(outcome.failures.len() <= rounds * clients, "only what was in flight: {:?}", outcome.failures);
    let refused = outcome.failures.iter().filter(|failure| failure.starts_with("connect")).count();
    assert_eq!(refused, 0, "new connections wait for the next agent: {:?}", outcome.failures);
    assert_eq!(starts(&web.tug).await?, before, "no container was restarted");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn upgrading_the_agent_fails_no_request() -> Result<()> {
    let mut web = Web::start("upgrade", 3).await?;
    let before = starts(&web.tug).await?;
    let load = Load::start(web.port, "/api/hello", 4);
    for _ in 0..5 {
        load.more(50).await?;
        web.tug.replace_agent().await?;
        load.more(50).await?;
        adopted(&mut web).await?;
    }
    let outcome = load.finish().await;
    assert_eq!(outcome.failures, Vec::<String>::new(), "of {} requests", outcome.total());
    assert_eq!(starts(&web.tug).await?, before, "no container was restarted");
    Ok(())
}

/// What dies in a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victims {
    Server,
    Agent,
    Both,
}

/// Kills them, starts them again at once, and says how long after that everything was adopted.
async fn adoption(web: &mut Web, victims: Victims) -> Result<Duration> {
    if victims != Victims::Agent {
        web.tug.end_server(Signal::KILL).await?;
    }
    if victims != Victims::Server {
        web.tug.end_agent(Signal::KILL).await?;
    }
    if victims == Victims::Agent {
        missed(&web.tug).await?;
    }
    let start = Instant::now();
    if victims != Victims::Agent {
        web.tug.start_server()?;
    }
    if victims != Victims::Server {
        web.tug.start_agent()?;
    }
    adopted(web).await?;
    Ok(start.elapsed())
}

/// Time on this machine is shared with whatever else runs on it, which can only make a round slower: one slow round of
/// three is no failure.
#[tokio::test(flavor = "multi_thread")]
async fn thirty_containers_are_adopted_within_three_seconds_of_a_kill_and_none_is_restarted() -> Result<()> {
    const ALLOWED: Duration = Duration::from_secs(3);
    let mut web = Web::start("adopt", 30).await?;
    let before = starts(&web.tug).await?;
    assert_eq!(before.len(), 30);
    for victims in [Victims::Server, Victims::Agent, Victims::Both] {
        let mut rounds = Vec::new();
        for _ in 0..3 {
            rounds.push(adoption(&mut web, victims).await?);
        }
        println!("30 containers, {victims:?} killed and started again: adopted after {rounds:?}");
        rounds.sort_unstable();
        ensure!(rounds[1] <= ALLOWED, "{victims:?}: {rounds:?}\n{}", web.tug.logs());
    }
    assert_eq!(starts(&web.tug).await?, before, "no container was restarted");
    Ok(())
}

/// A request whose answer comes a line at a time: the lines.
async fn download(port: u16, lines: u32, began: oneshot::Sender<()>) -> Result<Vec<String>> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let request = format!("GET /stream?lines={lines}&ms=50 HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut stream = BufReader::new(stream).lines();
    while !stream.next_line().await?.context("no head")?.is_empty() {}
    let mut received = vec![stream.next_line().await?.context("no first line")?];
    // Whoever waits for it has failed if it is not there any more.
    let _ = began.send(());
    while let Some(line) = stream.next_line().await? {
        received.push(line);
    }
    Ok(received)
}

/// A connection that rests for so long between two requests: both answers.
async fn resting(port: u16, rest: Duration, began: oneshot::Sender<()>) -> Result<[String; 2]> {
    let mut stream = BufReader::new(TcpStream::connect(("127.0.0.1", port)).await?);
    let first = ask_on(&mut stream).await?;
    let _ = began.send(());
    tokio::time::sleep(rest).await;
    Ok([first, ask_on(&mut stream).await?])
}

/// One request of several on one connection: the line that it is answered by.
async fn ask_on(stream: &mut BufReader<TcpStream>) -> Result<String> {
    stream.get_mut().write_all(b"GET /api/hello HTTP/1.1\r\nHost: localhost\r\n\r\n").await?;
    let mut line = String::new();
    while !line.ends_with("}\n") {
        line.clear();
        ensure!(stream.read_line(&mut line).await? > 0, "the connection was closed");
    }
    Ok(line)
}

/// Both last longer than an agent would wait for its connections that nobody relieves.
#[tokio::test(flavor = "multi_thread")]
async fn upgrading_the_agent_ends_no_connection() -> Result<()> {
    let mut web = Web::start("long", 3).await?;
    let lines = 280;
    let (began, is_under_way) = oneshot::channel();
    let download = tokio::spawn(download(web.port, lines, began));
    let (began, rests) = oneshot::channel();
    let resting = tokio::spawn(resting(web.port, Duration::from_secs(6), began));
    is_under_way.await?;
    rests.await?;
    let load = Load::start(web.port, "/api/hello", 2);
    load.more(20).await?;
    let start = Instant::now();
    web.tug.replace_agent().await?;
    let took = start.elapsed();
    let received = download.await??;
    let expected: Vec<String> = (1..=lines).map(|line| format!("line {line}")).collect();
    assert_eq!(received, expected);
    let [first, second] = resting.await??;
    assert_eq!(first, second, "one connection, one replica");
    load.more(20).await?;
    let outcome = load.finish().await;
    assert_eq!(outcome.failures, Vec::<String>::new(), "of {} requests", outcome.total());
    println!("{} requests beside two connections; the old agent ended after {took:?}", outcome.total());
    ensure!(took > Duration::from_secs(10), "the old agent stayed for the download: {took:?}");
    adopted(&mut web).await
}
