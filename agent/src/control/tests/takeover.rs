//! One agent after another on one folder, as in an upgrade.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tug_model::spec::container::NetworkMode;

use super::*;
use crate::proxy;

#[tokio::test(start_paused = true)]
async fn a_second_agent_is_refused_while_the_first_runs() {
    let machine = Machine::new();
    let first = machine.agent().await;
    let began = tokio::time::Instant::now();
    let error = Agent::open(machine.config()).await.map(drop).unwrap_err();
    assert!(error.is_locked(), "{error:?}");
    let waited = began.elapsed();
    assert!(waited >= Duration::from_secs(5) && waited < Duration::from_secs(6), "{waited:?}");
    first.end().await;
    machine.agent().await.end().await;
}

#[tokio::test(start_paused = true)]
async fn the_next_agent_waits_for_the_end_of_the_one_before() {
    let machine = Machine::new();
    let first = machine.agent().await;
    let next = tokio::spawn(Agent::open(machine.config()));
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(!next.is_finished());
    first.end().await;
    let (agent, _handle) = next.await.unwrap().unwrap();
    let stop = CancellationToken::new();
    stop.cancel();
    agent.run(stop).await;
}

/// A task in the node's own network.
fn on_host() -> Assignment {
    let mut template = template();
    template.container.network_mode = NetworkMode::Host;
    told(1, &template, &[1])
}

#[tokio::test]
async fn while_the_agent_before_drains_a_report_says_that_connections_are_uncounted() {
    let machine = Machine::new();
    let config = || Config { balancer: Some(proxy::Config::default()), ..machine.config() };
    let listener = TcpListener::bind((IpAddr::V4(Ipv4Addr::LOCALHOST), 0)).await.unwrap();
    let place = SocketAddr::new(proxy::tests::own_address(), 7080);
    let first = machine.agent_of(config()).await;
    let target = listener.local_addr().unwrap().port();
    let port = Port { target, published: Some(place.port()), host_ip: Some(place.ip()), ..port() };
    first.publish(&on_host(), port).await;
    let report = first.until("followed", |report| report.following.endpoints.0 == 1).await;
    assert!(!report.uncounted, "nobody was there before");
    let mut client = TcpStream::connect(place).await.unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    first.until("counted", |report| task(report, 1).connections == 1).await;

    first.stop.cancel();
    let next = machine.agent_of(config()).await;
    let report = next.until("followed", |report| report.following.endpoints.0 == 1).await;
    assert_eq!((report.uncounted, task(&report, 1).connections), (true, 0));
    // At rest for longer than an agent would wait that nobody has relieved.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert!(!first.agent.is_finished());
    client.write_all(b"ping").await.unwrap();
    server.read_exact(&mut [0; 4]).await.unwrap();
    drop((client, server));
    first.agent.await.unwrap();
    next.until("all counted", |report| !report.uncounted).await;
    next.end().await;
}
