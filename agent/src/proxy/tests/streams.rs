//! Bytes both ways: whole, in order, to the end; and how connections end when the balancer does.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::world::{Habit, PORT, Server, World, is_open, own_address, until};
use crate::proxy::{Config, Leave, Timing};

/// Bytes that show whether any of them is lost, doubled or out of order.
fn pattern(length: u32) -> Vec<u8> {
    (0..length).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect()
}

fn config(rest: Duration, drain: Duration) -> Config {
    Config { timing: Timing { hurried: Leave { rest, drain }, ..Timing::default() }, ..Config::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_megabytes_go_both_ways_at_once() {
    let server = Server::start(Habit::Echo).await;
    let world = World::over(&[&server]).await;
    let (mut read, mut write) = world.connect().await.into_split();
    let sent = pattern(10 << 20);
    let expected = sent.clone();
    let writing = tokio::spawn(async move {
        write.write_all(&sent).await.unwrap();
        write.shutdown().await.unwrap();
    });
    let mut received = Vec::new();
    read.read_to_end(&mut received).await.unwrap();
    writing.await.unwrap();
    assert!(received == expected);
    until("it is over", async || world.open_connections() == 0).await;
}

#[tokio::test]
async fn what_was_said_before_the_answer_and_was_too_much_to_remember_arrives_whole() {
    let server = Server::start(Habit::Echo).await;
    let world = World::over(&[&server]).await;
    let (mut read, mut write) = world.connect().await.into_split();
    let mut sent = b"GET /".to_vec();
    sent.extend(pattern(300_000));
    let expected = sent.clone();
    let writing = tokio::spawn(async move {
        write.write_all(&sent).await.unwrap();
        write
    });
    let mut received = vec![0; expected.len()];
    read.read_exact(&mut received).await.unwrap();
    assert!(received == expected);
    drop(writing.await.unwrap());
}

#[tokio::test]
async fn each_side_may_end_before_the_other() {
    let listener = TcpListener::bind((own_address(), PORT)).await.unwrap();
    let world = World::with(Config::default(), &[listener.local_addr().unwrap()]).await;
    for client_first in [true, false] {
        let mut client = world.connect().await;
        let (mut server, _) = listener.accept().await.unwrap();
        let (first, second) =
            if client_first { (&mut client, &mut server) } else { (&mut server, &mut client) };
        first.write_all(b"all I have to say").await.unwrap();
        first.shutdown().await.unwrap();
        let mut heard = String::new();
        second.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "all I have to say");
        second.write_all(b"and my answer").await.unwrap();
        second.shutdown().await.unwrap();
        heard.clear();
        first.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "and my answer");
    }
}

#[tokio::test]
async fn a_server_may_speak_first() {
    let server = Server::start(Habit::Greet).await;
    let world = World::over(&[&server]).await;
    let mut greeted = [0; 6];
    world.connect().await.read_exact(&mut greeted).await.unwrap();
    assert_eq!(&greeted, b"hello\n");
}

#[tokio::test]
async fn a_broken_connection_is_broken_on_the_other_side() {
    let listener = TcpListener::bind((own_address(), PORT)).await.unwrap();
    let world = World::with(Config::default(), &[listener.local_addr().unwrap()]).await;
    for client_breaks in [true, false] {
        let mut client = world.connect().await;
        let (mut server, _) = listener.accept().await.unwrap();
        server.write_all(b"some").await.unwrap();
        client.read_exact(&mut [0; 4]).await.unwrap();
        let (breaking, mut other) = if client_breaks { (client, server) } else { (server, client) };
        breaking.set_zero_linger().unwrap();
        drop(breaking);
        let error = other.read_to_end(&mut Vec::new()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_connections_at_once() {
    let servers = [Server::start(Habit::Echo).await, Server::start(Habit::Echo).await];
    let world = World::over(&servers.each_ref()).await;
    let mut clients = JoinSet::new();
    for number in 0..2000_u32 {
        let place = world.place;
        clients.spawn(async move {
            let mut client = tokio::net::TcpStream::connect(place).await.unwrap();
            client.write_all(&number.to_be_bytes()).await.unwrap();
            assert_eq!(client.read_u32().await.unwrap(), number);
            client
        });
    }
    let mut open = clients.join_all().await;
    let counts: Vec<u32> = world.handle.connections().into_values().collect();
    assert_eq!(counts, [1000, 1000]);
    for client in &mut open {
        client.write_all(&7_u32.to_be_bytes()).await.unwrap();
        assert_eq!(client.read_u32().await.unwrap(), 7);
    }
    drop(open);
    until("all are over", async || world.open_connections() == 0).await;
}

#[tokio::test]
async fn more_than_the_limit_wait_their_turn() {
    let server = Server::start(Habit::Echo).await;
    let world = World::with(Config { connections: 1, ..Config::default() }, &[server.address]).await;
    let (mut first, mut second) = (world.connect().await, world.connect().await);
    first.write_all(b"a").await.unwrap();
    assert_eq!(first.read_u8().await.unwrap(), b'a');
    second.write_all(b"b").await.unwrap();
    timeout(Duration::from_millis(200), second.read_u8()).await.unwrap_err();
    drop(first);
    assert_eq!(second.read_u8().await.unwrap(), b'b');
}

#[tokio::test]
async fn a_request_under_way_is_answered_after_the_stop() {
    let server = Server::start(Habit::SlowWeb(Duration::from_millis(700))).await;
    let world =
        World::with(config(Duration::from_millis(100), Duration::from_secs(20)), &[server.address]).await;
    let mut client = world.connect().await;
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    until("it is on its way", async || world.open_connections() == 1).await;
    let place = world.place;
    let ending = tokio::spawn(world.end());
    until("the port is closed", async || !is_open(place)).await;
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains("200 OK"), "{answer}");
    ending.await.unwrap();
}

#[tokio::test]
async fn a_connection_at_rest_does_not_hold_up_the_end() {
    let server = Server::start(Habit::Web).await;
    let world =
        World::with(config(Duration::from_millis(100), Duration::from_secs(20)), &[server.address]).await;
    let mut client = world.connect().await;
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let _ = client.read_u8().await.unwrap();
    let start = Instant::now();
    world.end().await;
    assert!(start.elapsed() < Duration::from_secs(10));
    let mut rest = String::new();
    client.read_to_string(&mut rest).await.unwrap();
    assert!(rest.ends_with(&server.address.to_string()));
}

#[tokio::test]
async fn when_another_has_taken_over_a_connection_may_take_its_time() {
    let server = Server::start(Habit::Echo).await;
    let world =
        World::with(config(Duration::from_millis(100), Duration::from_millis(300)), &[server.address]).await;
    let (mut talking, mut resting) = (world.connect().await, world.connect().await);
    for client in [&mut talking, &mut resting] {
        client.write_all(b"a").await.unwrap();
        assert_eq!(client.read_u8().await.unwrap(), b'a');
    }
    let (place, handle) = (world.place, world.handle.clone());
    let ending = tokio::spawn(world.end());
    until("the port is closed", async || !is_open(place)).await;
    handle.relieve();
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(900) {
        talking.write_all(b"b").await.unwrap();
        assert_eq!(talking.read_u8().await.unwrap(), b'b');
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    resting.write_all(b"c").await.unwrap();
    assert_eq!(resting.read_u8().await.unwrap(), b'c');
    drop(talking);
    drop(resting);
    ending.await.unwrap();
}

#[tokio::test]
async fn an_endless_connection_ends_with_the_time_to_drain() {
    let server = Server::start(Habit::SlowWeb(Duration::from_secs(600))).await;
    let world =
        World::with(config(Duration::from_millis(100), Duration::from_millis(500)), &[server.address]).await;
    let mut client = world.connect().await;
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    until("it is on its way", async || world.open_connections() == 1).await;
    let start = Instant::now();
    world.end().await;
    assert!((Duration::from_millis(400)..Duration::from_secs(5)).contains(&start.elapsed()));
    assert_eq!(client.read_u8().await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}
