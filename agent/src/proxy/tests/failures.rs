//! What fails behind the balancer, and what a client sees of it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::world::{Habit, PORT, Server, World, get, is_open, own_address, route, task, until};
use crate::proxy::{Config, Timing};
use crate::route::Table;

const GET: &str = "GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

fn nobody() -> SocketAddr {
    SocketAddr::new(own_address(), PORT)
}

fn impatient() -> Config {
    Config {
        timing: Timing { patience: Duration::from_millis(400), ..Timing::default() },
        ..Config::default()
    }
}

/// An address that neither accepts nor refuses: the queue of its listener is full.
struct BlackHole {
    address: SocketAddr,
    _listener: tokio::net::TcpListener,
    _queue: JoinSet<io::Result<TcpStream>>,
}

impl BlackHole {
    async fn open() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(nobody()).unwrap();
        let listener = socket.listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        let mut queue = JoinSet::new();
        let is_full = async || timeout(Duration::from_millis(100), TcpStream::connect(address)).await;
        while let Ok(stream) = is_full().await {
            queue.spawn(async move {
                sleep(Duration::from_secs(600)).await;
                stream
            });
        }
        Self { address, _listener: listener, _queue: queue }
    }
}

/// Opens new connections from several tasks all the time until told to stop; returns how many requests were answered
/// and what went wrong with the others.
struct Load {
    answered: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    clients: JoinSet<Vec<io::Error>>,
}

impl Load {
    fn on(place: SocketAddr) -> Self {
        let (answered, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let mut clients = JoinSet::new();
        for _ in 0..8 {
            let (answered, stop) = (Arc::clone(&answered), Arc::clone(&stop));
            clients.spawn(async move {
                let mut errors = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    match get(place).await {
                        Ok(_) => drop(answered.fetch_add(1, Ordering::Relaxed)),
                        Err(error) => errors.push(error),
                    }
                }
                errors
            });
        }
        Self { answered, stop, clients }
    }

    /// Waits for `count` more answers.
    async fn pass(&self, count: usize) {
        let goal = self.answered.load(Ordering::Relaxed) + count;
        until("requests are answered", async || self.answered.load(Ordering::Relaxed) >= goal).await;
    }

    async fn end(self) -> Vec<io::Error> {
        self.stop.store(true, Ordering::Relaxed);
        self.clients.join_all().await.into_iter().flatten().collect()
    }
}

#[tokio::test]
async fn a_refusing_backend_is_passed_over() {
    let server = Server::start(Habit::Web).await;
    let world = World::with(Config::default(), &[nobody(), server.address, nobody()]).await;
    for _ in 0..20 {
        assert_eq!(world.get().await.unwrap(), server.address.to_string());
        assert!(world.ask(POST).await.unwrap().contains("200 OK"));
    }
}

#[tokio::test]
async fn a_black_hole_costs_a_client_a_quarter_of_a_second_and_then_nobody() {
    let (hole, server) = (BlackHole::open().await, Server::start(Habit::Web).await);
    let world = World::with(Config::default(), &[hole.address, server.address]).await;
    let start = Instant::now();
    for _ in 0..10 {
        assert_eq!(world.get().await.unwrap(), server.address.to_string());
    }
    assert!(start.elapsed() < Duration::from_millis(900), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_read_that_got_no_answer_is_asked_again_elsewhere() {
    for habit in [Habit::HangUp, Habit::Break] {
        let (bad, good) = (Server::start(habit).await, Server::start(Habit::Web).await);
        let world = World::over(&[&bad, &good]).await;
        let (before, mut asked) = (bad.accepted(), 0);
        while bad.accepted() == before {
            assert_eq!(world.get().await.unwrap(), good.address.to_string(), "{habit:?}");
            asked += 1;
            assert!(asked < 100, "the bad one was never asked");
        }
    }
}

#[tokio::test]
async fn a_write_that_got_no_answer_is_not_asked_again() {
    for (habit, kind) in
        [(Habit::HangUp, io::ErrorKind::UnexpectedEof), (Habit::Break, io::ErrorKind::ConnectionReset)]
    {
        let bad = [Server::start(habit).await, Server::start(habit).await];
        let world = World::over(&[&bad[0], &bad[1]]).await;
        for said in [POST.to_owned(), format!("{GET}{POST}"), "GET key\r\n\r\n".to_owned()] {
            let before = bad[0].accepted() + bad[1].accepted();
            assert_eq!(world.ask(&said).await.unwrap_err().kind(), kind, "{said}");
            assert_eq!(bad[0].accepted() + bad[1].accepted(), before + 1, "{said}");
        }
    }
}

#[tokio::test]
async fn a_write_that_was_not_sent_yet_goes_elsewhere() {
    let (bad, good) = (Server::start(Habit::BreakAtOnce).await, Server::start(Habit::Web).await);
    let world = World::over(&[&bad, &good]).await;
    for _ in 0..10 {
        let mut client = world.connect().await;
        // Said only when the bad backend has broken the connection, if it was picked.
        until("the good one has it", async || world.handle.connections().contains_key(&task(1))).await;
        client.write_all(POST.as_bytes()).await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.contains("200 OK"), "{answer}");
    }
    assert!(bad.accepted() > 0);
}

#[tokio::test]
async fn a_request_that_kills_its_servers_is_asked_three_times_at_most() {
    let bad = [
        Server::start(Habit::Break).await,
        Server::start(Habit::Break).await,
        Server::start(Habit::Break).await,
        Server::start(Habit::Break).await,
        Server::start(Habit::Break).await,
    ];
    let world = World::over(&bad.each_ref()).await;
    let accepted = || bad.iter().map(Server::accepted).sum::<usize>();
    let before = accepted();
    assert_eq!(world.ask(GET).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(accepted(), before + 3);
}

#[tokio::test]
async fn an_answer_that_has_begun_is_never_begun_again() {
    let greeting = Server::start(Habit::Greet).await;
    let world = World::over(&[&greeting]).await;
    let mut client = world.connect().await;
    let mut greeted = [0; 6];
    client.read_exact(&mut greeted).await.unwrap();
    client.write_all(GET.as_bytes()).await.unwrap();
    greeting.kill().await;
    let other = Server::start(Habit::Web).await;
    world.set_servers(&[other.address]);
    let mut rest = Vec::new();
    // What was echoed before the end may come; another backend's answer may not.
    let _ = client.read_to_end(&mut rest).await;
    assert!(!String::from_utf8_lossy(&rest).contains("200 OK"));
    assert_eq!(other.accepted(), 0);
}

#[tokio::test]
async fn a_client_waits_for_a_backend_that_is_coming_up() {
    let server = Server::start(Habit::Web).await;
    for without in [&[][..], &[nobody()][..]] {
        let world = World::with(Config::default(), without).await;
        let asking = {
            let place = world.place;
            tokio::spawn(async move { get(place).await })
        };
        sleep(Duration::from_millis(300)).await;
        assert!(!asking.is_finished());
        world.set_servers(&[server.address]);
        assert_eq!(asking.await.unwrap().unwrap(), server.address.to_string());
    }
}

#[tokio::test]
async fn a_client_without_a_backend_is_told_in_time() {
    for without in [&[][..], &[nobody(), nobody()][..]] {
        let world = World::with(impatient(), without).await;
        let start = Instant::now();
        assert_eq!(world.get().await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        assert!((Duration::from_millis(300)..Duration::from_secs(2)).contains(&start.elapsed()));
        assert_eq!(world.open_connections(), 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_servers_fail_no_request_under_load() {
    let mut servers = vec![
        Server::start(Habit::SlowWeb(Duration::from_millis(3))).await,
        Server::start(Habit::SlowWeb(Duration::from_millis(3))).await,
        Server::start(Habit::SlowWeb(Duration::from_millis(3))).await,
    ];
    let addresses: Vec<_> = servers.iter().map(|server| server.address).collect();
    let world = World::with(Config::default(), &addresses).await;
    let load = Load::on(world.place);
    for _ in 0..10 {
        load.pass(100).await;
        let killed = servers.remove(0);
        let address = killed.address;
        killed.kill().await;
        load.pass(100).await;
        servers.push(Server::start_at(address, Habit::SlowWeb(Duration::from_millis(3))).await);
    }
    let errors = load.end().await;
    assert!(errors.is_empty(), "{errors:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_that_change_fail_no_request_under_load() {
    let servers =
        [Server::start(Habit::Web).await, Server::start(Habit::Web).await, Server::start(Habit::Web).await];
    let world = World::over(&servers.each_ref()).await;
    let load = Load::on(world.place);
    for round in 0..60 {
        let subset: Vec<_> = servers
            .iter()
            .enumerate()
            .filter(|(n, _)| (round >> n) & 1 == 1)
            .map(|(_, s)| s.address)
            .collect();
        world.set_servers(&subset);
        if !subset.is_empty() {
            load.pass(30).await;
        }
    }
    world.set_servers(&servers.each_ref().map(|server| server.address));
    let errors = load.end().await;
    assert!(errors.is_empty(), "{errors:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_thousand_requests_are_spread_evenly_over_fifty_servers() {
    let mut servers = Vec::new();
    for _ in 0..50 {
        servers.push(Server::start(Habit::Web).await);
    }
    let world = World::over(&servers.iter().collect::<Vec<_>>()).await;
    let before: Vec<usize> = servers.iter().map(Server::accepted).collect();
    let mut clients = JoinSet::new();
    for _ in 0..10 {
        let place = world.place;
        clients.spawn(async move {
            for _ in 0..500 {
                get(place).await.unwrap();
            }
        });
    }
    clients.join_all().await;
    let given: Vec<usize> =
        servers.iter().zip(before).map(|(server, before)| server.accepted() - before).collect();
    assert_eq!(given.iter().sum::<usize>(), 5000);
    assert!(given.iter().all(|count| (90..=110).contains(count)), "{given:?}");
}

#[tokio::test]
async fn a_route_that_goes_leaves_its_connections() {
    let server = Server::start(Habit::Echo).await;
    let world = World::over(&[&server]).await;
    let mut client = world.connect().await;
    client.write_all(b"one").await.unwrap();
    let mut echoed = [0; 3];
    client.read_exact(&mut echoed).await.unwrap();
    let mut changed = world.handle.changed();
    changed.mark_unchanged();
    world.set_table(Table::default());
    until("the port is closed", async || !is_open(world.place)).await;
    client.write_all(b"two").await.unwrap();
    client.read_exact(&mut echoed).await.unwrap();
    assert_eq!(&echoed, b"two");
    assert_eq!(world.open_connections(), 1);
    drop(client);
    changed.changed().await.unwrap();
    until("it is counted no more", async || world.open_connections() == 0).await;
    world.set_table(Table {
        number: 1,
        routes: vec![route(world.place, &[server.address])],
        ..Table::default()
    });
    until("the port is open again", async || is_open(world.place)).await;
}
