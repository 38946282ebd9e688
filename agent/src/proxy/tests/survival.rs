//! The death of a balancer's process, and its replacement by another, as a client sees them.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::world::{Habit, PORT, Server, get, is_open, own_address, until};
use crate::holder::{self, HolderConfig};

/// The example that is a balancer in a process of its own.
fn program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let program = test.ancestors().nth(2).unwrap().join("examples/balance");
    assert!(program.exists(), "{program:?} is missing: run `cargo build -p tug-agent --examples` first");
    program
}

/// A balancer in a process group of its own, killed when dropped.
struct Process(Child);

impl Process {
    fn start(directory: &Path, place: SocketAddr, server: &Server) -> Self {
        use std::os::unix::process::CommandExt;
        let child = Command::new(program())
            .args([Path::new("run"), &directory.join("holder.sock")])
            .args([place.to_string(), server.address.to_string()])
            .stdin(Stdio::null())
            .process_group(0)
            .spawn();
        Self(child.unwrap())
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.0)
    }

    /// As the system does to everything of a group: nothing may survive by luck.
    fn kill_group(mut self) {
        rustix::process::kill_process_group(self.pid(), Signal::KILL).unwrap();
        self.0.wait().unwrap();
    }

    async fn ended(&mut self) {
        while self.0.try_wait().unwrap().is_none() {
            sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Ends the holder with the directory: it looks whether its socket is there.
struct Directory(tempfile::TempDir);

impl Directory {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Where the holder is. It starts none.
    fn config(&self) -> HolderConfig {
        let socket = self.path().join("holder.sock");
        HolderConfig { executable: PathBuf::new(), arguments: Vec::new(), socket }
    }

    /// How many sockets the holder has.
    async fn held(&self) -> usize {
        match holder::Client::find(&self.config()).await {
            Ok(Some(mut client)) => client.kept().await.map_or(0, |kept| kept.len()),
            Ok(None) | Err(_) => 0,
        }
    }

    fn has_holder(&self) -> bool {
        self.path().join("holder.sock").exists()
    }
}

/// A client that opens new connections all the time.
struct Client {
    answered: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    running: JoinHandle<Vec<io::Error>>,
}

impl Client {
    fn on(place: SocketAddr) -> Self {
        let (answered, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let running = {
            let (answered, stop) = (Arc::clone(&answered), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut errors = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    match timeout(Duration::from_secs(20), get(place)).await {
                        Ok(Ok(_)) => drop(answered.fetch_add(1, Ordering::Relaxed)),
                        Ok(Err(error)) => errors.push(error),
                        Err(_) => errors.push(io::ErrorKind::TimedOut.into()),
                    }
                }
                errors
            })
        };
        Self { answered, stop, running }
    }

    async fn pass(&self, count: usize) {
        let goal = self.answered.load(Ordering::Relaxed) + count;
        until("requests are answered", async || self.answered.load(Ordering::Relaxed) >= goal).await;
    }

    async fn end(self) -> Vec<io::Error> {
        self.stop.store(true, Ordering::Relaxed);
        self.running.await.unwrap()
    }
}

async fn open(place: SocketAddr, directory: &Directory) {
    until("the port is open", async || is_open(place)).await;
    until("the socket is held", async || directory.held().await == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_kill_of_a_balancer_refuses_nobody_and_loses_only_what_was_in_flight() {
    let (directory, server) = (Directory::new(), Server::start(Habit::Web).await);
    let place = SocketAddr::new(own_address(), PORT);
    let mut balancer = Process::start(directory.path(), place, &server);
    open(place, &directory).await;
    let clients = [Client::on(place), Client::on(place), Client::on(place)];
    for _ in 0..5 {
        clients[0].pass(50).await;
        balancer.kill_group();
        // Connected to by the system alone.
        let waiting = TcpStream::connect(place).await.unwrap();
        balancer = Process::start(directory.path(), place, &server);
        drop(waiting);
        clients[0].pass(50).await;
    }
    for client in clients {
        let errors = client.end().await;
        let refused = errors.iter().filter(|error| error.kind() == io::ErrorKind::ConnectionRefused).count();
        assert_eq!(refused, 0);
        assert!(errors.len() <= 5, "one kill breaks one request of a client at most: {errors:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_made_while_no_balancer_runs_are_answered_by_the_next() {
    let (directory, server) = (Directory::new(), Server::start(Habit::Web).await);
    let place = SocketAddr::new(own_address(), PORT);
    let balancer = Process::start(directory.path(), place, &server);
    open(place, &directory).await;
    balancer.kill_group();
    let waiting: Vec<_> = (0..50).map(|_| tokio::spawn(get(place))).collect();
    sleep(Duration::from_millis(300)).await;
    assert!(waiting.iter().all(|asking| !asking.is_finished()));
    let _balancer = Process::start(directory.path(), place, &server);
    for asking in waiting {
        assert_eq!(asking.await.unwrap().unwrap(), server.address.to_string());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_balancer_replaced_by_another_fails_no_request() {
    let (directory, server) =
        (Directory::new(), Server::start(Habit::SlowWeb(Duration::from_millis(5))).await);
    let place = SocketAddr::new(own_address(), PORT);
    let mut balancer = Process::start(directory.path(), place, &server);
    open(place, &directory).await;
    let clients = [Client::on(place), Client::on(place), Client::on(place)];
    for overlaps in [true, false, true, false] {
        clients[0].pass(50).await;
        let next = overlaps.then(|| Process::start(directory.path(), place, &server));
        kill_process(balancer.pid(), Signal::TERM).unwrap();
        balancer.ended().await;
        balancer = next.unwrap_or_else(|| Process::start(directory.path(), place, &server));
        clients[0].pass(50).await;
    }
    for client in clients {
        let errors = client.end().await;
        assert!(errors.is_empty(), "{errors:?}");
    }
}

#[tokio::test]
async fn a_balancer_that_goes_for_good_takes_its_holder_along() {
    let (directory, server) = (Directory::new(), Server::start(Habit::Web).await);
    let place = SocketAddr::new(own_address(), PORT);
    let mut balancer = Process::start(directory.path(), place, &server);
    open(place, &directory).await;
    kill_process(balancer.pid(), Signal::INT).unwrap();
    balancer.ended().await;
    until("the holder is gone", async || !directory.has_holder()).await;
    let error = TcpStream::connect(place).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn a_holder_that_was_killed_is_replaced() {
    let (directory, server) = (Directory::new(), Server::start(Habit::Web).await);
    let place = SocketAddr::new(own_address(), PORT);
    let balancer = Process::start(directory.path(), place, &server);
    open(place, &directory).await;
    // Told to end by somebody else: as good as killed, and no id to look for.
    let mut client = holder::Client::find(&directory.config()).await.unwrap().unwrap();
    client.release().await.unwrap();
    until("another has the socket", async || directory.held().await == 1).await;
    balancer.kill_group();
    TcpStream::connect(place).await.unwrap();
}
