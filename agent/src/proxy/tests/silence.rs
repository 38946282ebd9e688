//! Nodes that say nothing any more, although nothing has been closed.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use super::cluster::{Authority, Node, node_id};
use super::world::{Habit, Server, get, task};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_node_is_given_up_within_three_seconds_and_costs_nobody_a_request() {
    let authority = Authority::new();
    let (echo, web) = (Server::start(Habit::Echo).await, Server::start(Habit::Web).await);
    let mut nodes = Vec::new();
    for number in 1..=3 {
        nodes.push(Node::start(&authority, &format!("n{number}")).await);
    }
    let peers = [nodes[0].peer, nodes[1].peer, nodes[2].peer];
    let tasks = [(task(0), node_id(2), echo.address), (task(1), node_id(1), web.address)];
    nodes[1].route(&tasks, &peers).await;
    nodes[0].route(&tasks[..1], &peers).await;
    let mut client = TcpStream::connect(nodes[0].place).await.unwrap();
    // What is silent because nothing is said is not given up.
    for _ in 0..2 {
        client.write_all(b"a").await.unwrap();
        assert_eq!(client.read_u8().await.unwrap(), b'a');
        sleep(Duration::from_secs(4)).await;
    }
    nodes[0].route(&tasks, &peers).await;
    let frozen = nodes[1].freeze();
    let start = Instant::now();
    let lost = tokio::spawn(async move {
        let error = client.read_u8().await.unwrap_err();
        (error.kind(), start.elapsed())
    });
    let mut longest = Duration::ZERO;
    while start.elapsed() < Duration::from_secs(5) {
        let asked = Instant::now();
        assert_eq!(get(nodes[0].place).await.unwrap(), web.address.to_string());
        longest = longest.max(asked.elapsed());
        sleep(Duration::from_millis(20)).await;
    }
    let (kind, after) = lost.await.unwrap();
    assert_eq!(kind, io::ErrorKind::ConnectionReset);
    assert!(after < Duration::from_millis(3500), "{after:?}");
    assert!(longest < Duration::from_millis(600), "{longest:?}");
    drop(frozen);
}
