//! A balancer, servers behind it and clients in front of it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tug_model::spec::service::{Port, PortMode, Protocol};
use tug_model::{ProjectName, ServiceName, TaskId};

use crate::proxy::{Balancer, BalancerHandle, Config};
use crate::route::{Backend, Location, Table, TableRoute};

/// The port of every test; the address is the test's own.
pub(super) const PORT: u16 = 7080;

pub(super) struct World {
    pub(super) place: SocketAddr,
    pub(super) handle: BalancerHandle,
    pub(super) stop: CancellationToken,
    table: watch::Sender<Arc<Table>>,
    running: JoinHandle<()>,
}

/// A server, ended when dropped: its listener and all its connections are closed at once.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    /// How many connections it has accepted.
    pub(super) accepted: Arc<AtomicUsize>,
    running: JoinHandle<()>,
}

/// What a server does with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Habit {
    /// Answers each HTTP request with its own address.
    Web,
    /// The same, this long after the request.
    SlowWeb(Duration),
    /// Sends back what it gets.
    Echo,
    /// Reads a request and closes without an answer.
    HangUp,
    /// Reads a request and breaks the connection.
    Break,
    /// Breaks the connection at once.
    BreakAtOnce,
    /// Says something first, then echoes.
    Greet,
}

/// An address of 127.0.0.0/8 that no other test of any process has: its ports are ours alone.
pub(crate) fn own_address() -> IpAddr {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let number = (std::process::id() << 8) + NEXT.fetch_add(1, Ordering::Relaxed);
    let [_, b, c, d] = number.to_be_bytes();
    Ipv4Addr::new(127, 64 + b % 128, c, d).into()
}

pub(super) fn task(number: usize) -> TaskId {
    TaskId::parse(&format!("test.web.{number}.1")).unwrap()
}

pub(super) fn route(place: SocketAddr, servers: &[SocketAddr]) -> TableRoute {
    let backends = servers
        .iter()
        .enumerate()
        .map(|(number, address)| Backend { task: task(number), location: Location::Here(*address) });
    TableRoute {
        project: ProjectName::parse("test").unwrap(),
        service: ServiceName::parse("web").unwrap(),
        port: Port {
            target: 80,
            published: Some(place.port()),
            host_ip: Some(place.ip()),
            protocol: Protocol::Tcp,
            mode: PortMode::Ingress,
            app_protocol: None,
        },
        backends: backends.collect(),
    }
}

/// Whether anybody listens at `place`: found out without a connection, which would be counted.
pub(super) fn is_open(place: SocketAddr) -> bool {
    let socket = if place.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.unwrap();
    // With this option only a listener is in the way, and we are in nobody's.
    socket.set_reuseaddr(true).unwrap();
    socket.bind(place).is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
}

/// Waits until `condition` holds.
pub(super) async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition().await {
        assert!(Instant::now() < deadline, "not in time: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

// === impl World ===

impl World {
    /// A balancer over `servers` that listens already.
    pub(super) async fn over(servers: &[&Server]) -> Self {
        Self::with(Config::default(), &servers.iter().map(|server| server.address).collect::<Vec<_>>()).await
    }

    pub(super) async fn with(config: Config, servers: &[SocketAddr]) -> Self {
        let place = SocketAddr::new(own_address(), PORT);
        let world = Self::of(
            config,
            place,
            Table { number: 1, routes: vec![route(place, servers)], ..Table::default() },
        );
        until("the port is open", async || is_open(place)).await;
        world
    }

    pub(super) fn of(config: Config, place: SocketAddr, table: Table) -> Self {
        let (table, follow) = watch::channel(Arc::new(table));
        let (balancer, handle) = Balancer::new(config, follow, None);
        let stop = CancellationToken::new();
        let running = tokio::spawn(balancer.run(stop.clone()));
        Self { place, handle, stop, table, running }
    }

    pub(super) fn set_servers(&self, servers: &[SocketAddr]) {
        self.set_table(Table { number: 1, routes: vec![route(self.place, servers)], ..Table::default() });
    }

    pub(super) fn set_table(&self, table: Table) {
        self.table.send_replace(Arc::new(table));
    }

    pub(super) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.place).await.expect("the balancer listens")
    }

    /// Sends `request` over a connection of its own, and returns all that comes back.
    pub(super) async fn ask(&self, request: &str) -> io::Result<String> {
        ask(self.place, request).await
    }

    /// Who answered a GET.
    pub(super) async fn get(&self) -> io::Result<String> {
        get(self.place).await
    }

    pub(super) fn open_connections(&self) -> u32 {
        self.handle.connections().values().sum()
    }

    /// Stops it, and returns when it has ended.
    pub(super) async fn end(self) {
        self.stop.cancel();
        self.running.await.unwrap();
    }
}

/// Sends `request` over a connection of its own, and returns all that comes back. That nothing does is an error.
pub(super) async fn ask(place: SocketAddr, request: &str) -> io::Result<String> {
    let mut client = TcpStream::connect(place).await?;
    client.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    client.read_to_string(&mut answer).await?;
    if answer.is_empty() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(answer) }
}

/// Who answered a GET.
pub(super) async fn get(place: SocketAddr) -> io::Result<String> {
    let answer = ask(place, "GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").await?;
    let (_, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::InvalidData)?;
    Ok(body.to_owned())
}

// === impl Server ===

impl Server {
    pub(super) async fn start(habit: Habit) -> Self {
        Self::start_at(SocketAddr::new(own_address(), PORT), habit).await
    }

    pub(super) async fn start_at(address: SocketAddr, habit: Habit) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(address).unwrap();
        let listener = socket.listen(4096).unwrap();
        let accepted = Arc::new(AtomicUsize::new(0));
        let running = tokio::spawn(serve(listener, habit, Arc::clone(&accepted)));
        tokio::task::yield_now().await;
        Self { address, accepted, running }
    }

    pub(super) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Ends it as a killed process ends: nothing is answered any more.
    pub(super) async fn kill(mut self) {
        self.running.abort();
        let _ = (&mut self.running).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.running.abort();
    }
}

async fn serve(listener: TcpListener, habit: Habit, accepted: Arc<AtomicUsize>) {
    let name = listener.local_addr().unwrap().to_string();
    // Aborted with everything in it when this future is.
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        accepted.fetch_add(1, Ordering::Relaxed);
        let name = name.clone();
        connections.spawn(async move {
            // A client that goes away is no concern of these servers.
            let _ = converse(client, habit, &name).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn converse(mut client: TcpStream, habit: Habit, name: &str) -> io::Result<()> {
    let break_off = |client: TcpStream| client.set_zero_linger();
    match habit {
        Habit::Web => web(client, name, Duration::ZERO).await,
        Habit::SlowWeb(delay) => web(client, name, delay).await,
        Habit::Echo => echo(client).await,
        Habit::HangUp => read_head(&mut client).await.map(drop),
        Habit::Break => {
            read_head(&mut client).await?;
            break_off(client)
        }
        Habit::BreakAtOnce => break_off(client),
        Habit::Greet => {
            client.write_all(b"hello\n").await?;
            echo(client).await
        }
    }
}

async fn web(mut client: TcpStream, name: &str, delay: Duration) -> io::Result<()> {
    while let Some(head) = read_head(&mut client).await? {
        sleep(delay).await;
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len());
        client.write_all(answer.as_bytes()).await?;
        if head.contains("Connection: close") {
            return client.shutdown().await;
        }
    }
    Ok(())
}

async fn echo(mut client: TcpStream) -> io::Result<()> {
    let (mut read, mut write) = client.split();
    tokio::io::copy(&mut read, &mut write).await?;
    write.shutdown().await
}

/// The head of a request, which must come alone; `None` at the end.
async fn read_head(client: &mut TcpStream) -> io::Result<Option<String>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if client.read_buf(&mut head).await? == 0 {
            return Ok(None);
        }
    }
    Ok(Some(String::from_utf8_lossy(&head).into_owned()))
}
