//! Which ports are open, and what is said of those that are not.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tug_model::spec::service::{PortMode, Protocol};

use super::world::{Habit, PORT, Server, World, get, is_open, own_address, route, until};
use crate::proxy::Config;
use crate::route::Table;

fn reason(world: &World) -> String {
    let mut ports = world.handle.closed_ports();
    let closed = ports.pop().expect("one port is closed");
    assert!(ports.is_empty());
    format!("{}: {}", closed.port, closed.reason)
}

#[tokio::test]
async fn a_port_in_use_says_by_whom_and_is_opened_when_it_is_free() {
    let server = Server::start(Habit::Web).await;
    let place = SocketAddr::new(own_address(), PORT);
    let other = TcpListener::bind(place).await.unwrap();
    let world = World::of(
        Config::default(),
        place,
        Table { number: 1, routes: vec![route(place, &[server.address])], ..Table::default() },
    );
    let mut changed = world.handle.changed();
    changed.wait_for(|_| !world.handle.closed_ports().is_empty()).await.unwrap();
    let reason = reason(&world);
    assert!(
        reason.starts_with(&format!("{PORT}: port {PORT} is in use by process {} (", std::process::id())),
        "{reason}"
    );
    drop(other);
    changed.wait_for(|_| world.handle.closed_ports().is_empty()).await.unwrap();
    assert_eq!(world.get().await.unwrap(), server.address.to_string());
}

#[tokio::test]
async fn the_balancer_says_by_which_table_it_routes() {
    let place = SocketAddr::new(own_address(), PORT);
    let world = World::of(
        Config::default(),
        place,
        Table { number: 7, routes: vec![route(place, &[])], ..Table::default() },
    );
    let handle = world.handle.clone();
    assert_eq!(handle.applied(), 0, "it has not looked yet");
    let mut changed = handle.changed();
    changed.wait_for(|_| handle.applied() == 7).await.unwrap();
    world.set_table(Table { number: 8, routes: Vec::new(), ..Table::default() });
    changed.wait_for(|_| handle.applied() == 8).await.unwrap();
    world.end().await;
    assert_eq!(handle.applied(), u64::MAX, "nobody routes any more");
}

#[tokio::test]
async fn a_closed_port_that_is_no_longer_wanted_is_forgotten() {
    let place = SocketAddr::new(own_address(), PORT);
    let _other = TcpListener::bind(place).await.unwrap();
    let world = World::of(
        Config::default(),
        place,
        Table { number: 1, routes: vec![route(place, &[])], ..Table::default() },
    );
    until("it is closed", async || !world.handle.closed_ports().is_empty()).await;
    world.set_table(Table::default());
    until("it is forgotten", async || world.handle.closed_ports().is_empty()).await;
}

#[tokio::test]
async fn an_address_that_the_node_does_not_have_is_named() {
    let place: SocketAddr = ([192, 0, 2, 1], PORT).into();
    let world = World::of(
        Config::default(),
        place,
        Table { number: 1, routes: vec![route(place, &[])], ..Table::default() },
    );
    until("it is closed", async || !world.handle.closed_ports().is_empty()).await;
    assert!(reason(&world).contains("this node has no address 192.0.2.1"), "{}", reason(&world));
}

#[tokio::test]
async fn two_services_on_one_port_are_told_apart() {
    let place = SocketAddr::new(own_address(), PORT);
    let (first, mut second) = (route(place, &[]), route(place, &[]));
    second.service = tug_model::ServiceName::parse("api").unwrap();
    let world = World::of(
        Config::default(),
        place,
        Table { number: 1, routes: vec![first, second], ..Table::default() },
    );
    until("one is closed", async || !world.handle.closed_ports().is_empty()).await;
    let reason = reason(&world);
    assert!(reason.contains("of test/api is already published by test/web"), "{reason}");
    until("one is open", async || is_open(place)).await;
}

#[tokio::test]
async fn without_an_address_a_port_is_open_on_all_of_them() {
    let server = Server::start(Habit::Web).await;
    // Freed just so, and outside of what other tests take: they have addresses of their own.
    let port = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await.unwrap().local_addr().unwrap().port();
    let place = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut everywhere = route(place, &[server.address]);
    everywhere.port.host_ip = None;
    let world = World::of(
        Config::default(),
        place,
        Table { number: 1, routes: vec![everywhere], ..Table::default() },
    );
    until("it is open", async || is_open(place)).await;
    assert_eq!(world.get().await.unwrap(), server.address.to_string());
    if TcpListener::bind("[::1]:0").await.is_ok() {
        let place = SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, port));
        assert_eq!(get(place).await.unwrap(), server.address.to_string());
    }
}

#[tokio::test]
async fn what_is_not_ours_to_open_is_left_alone() {
    let place = SocketAddr::new(own_address(), PORT);
    let (mut udp, mut host, mut unpublished) = (route(place, &[]), route(place, &[]), route(place, &[]));
    udp.port.protocol = Protocol::Udp;
    host.port.mode = PortMode::Host;
    unpublished.port.published = None;
    let own = SocketAddr::new(own_address(), PORT);
    let table =
        Table { number: 1, routes: vec![udp, host, unpublished, route(own, &[])], ..Table::default() };
    let world = World::of(Config::default(), own, table);
    until("ours is open", async || is_open(own)).await;
    assert!(TcpStream::connect(place).await.is_err());
    assert!(world.handle.closed_ports().is_empty());
}

#[tokio::test]
async fn a_balancer_that_was_never_run_says_nothing() {
    let (_table, follow) = tokio::sync::watch::channel(std::sync::Arc::default());
    let (balancer, handle) = crate::proxy::Balancer::new(Config::default(), follow, None);
    drop(balancer);
    assert!(handle.connections().is_empty() && handle.closed_ports().is_empty());
    let waited = tokio::time::timeout(Duration::from_millis(20), async {
        let mut changed = handle.changed();
        changed.changed().await
    });
    assert!(waited.await.is_err(), "it neither changes nor ends");
}
