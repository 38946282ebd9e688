//! The holder as a process of its own, with agents that behave and others that do not.

use std::fs;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags,
    SocketType, connect, sendmsg, socket_with,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep};
use tug_api::Clock;
use tug_model::{Millis, NodeId, TaskId};

use super::message::{self, Answer, LONGEST, Question, Received, VERSION};
use super::{Client, HolderConfig, Place};

/// A holder in a directory of its own, killed when dropped.
struct Holder {
    child: Child,
    directory: tempfile::TempDir,
}

fn program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let program = test.ancestors().nth(2).unwrap().join("examples/balance");
    assert!(program.exists(), "{program:?} is missing: run `cargo build -p tug-agent --examples` first");
    program
}

fn start(socket: &Path, alone: Duration) -> Child {
    Command::new(program())
        .args([Path::new("hold"), socket])
        .arg(alone.as_millis().to_string())
        .stdin(Stdio::null())
        .spawn()
        .unwrap()
}

async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition().await {
        assert!(Instant::now() < deadline, "not in time: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

fn listener() -> (Place, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (Place { host_ip: Some(address.ip()), port: address.port() }, listener)
}

// === impl Holder ===

impl Holder {
    async fn start(alone: Duration) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let child = start(&directory.path().join("s"), alone);
        let holder = Self { child, directory };
        until("it listens", async || matches!(Client::find(&holder.config()).await, Ok(Some(_)))).await;
        holder
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("s")
    }

    fn config(&self) -> HolderConfig {
        HolderConfig { executable: PathBuf::new(), arguments: Vec::new(), socket: self.socket() }
    }

    async fn client(&self) -> Client {
        Client::find(&self.config()).await.unwrap().expect("it listens")
    }

    /// A connection that says what it likes; it waits for its answers.
    fn raw(&self) -> OwnedFd {
        let socket =
            socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        connect(&socket, &SocketAddrUnix::new(self.socket()).unwrap()).unwrap();
        socket
    }

    fn open_files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    async fn ended(&mut self) {
        let child = &mut self.child;
        until("it ends", async || child.try_wait().unwrap().is_some_and(|status| status.success())).await;
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn ask(socket: &OwnedFd, question: &Question, descriptor: Option<BorrowedFd<'_>>) -> Answer {
    message::send(socket, question, descriptor).unwrap();
    match message::receive(socket).unwrap() {
        Received::Message(answer, _) => answer,
        other @ (Received::Nonsense | Received::End) => panic!("{other:?}"),
    }
}

fn send_raw(socket: &OwnedFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) {
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(64))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(descriptors.is_empty() || control.push(SendAncillaryMessage::ScmRights(descriptors)));
    sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL).unwrap();
}

/// Whether the holder has closed the connection without an answer.
fn is_cut_off(socket: &OwnedFd) -> bool {
    matches!(message::receive::<Answer>(socket), Ok(Received::End) | Err(Errno::CONNRESET))
}

#[tokio::test]
async fn sockets_outlive_who_gave_them_and_are_given_back() {
    let holder = Holder::start(Duration::from_secs(60)).await;
    let mut given: Vec<(Place, TcpListener)> = (0..300).map(|_| listener()).collect();
    let mut client = holder.client().await;
    for (place, socket) in &given {
        client.keep(*place, socket.as_fd()).await.unwrap();
    }
    let mut places: Vec<Place> = given.iter().map(|(place, _)| *place).collect();
    places.sort();
    given.clear();
    drop(client);
    let kept = holder.client().await.kept().await.unwrap();
    assert_eq!(kept.iter().map(|(place, _)| *place).collect::<Vec<_>>(), places);
    for (place, socket) in kept {
        let socket = TcpListener::from(socket);
        assert_eq!(socket.local_addr().unwrap().port(), place.port);
        let connected = std::net::TcpStream::connect(socket.local_addr().unwrap()).unwrap();
        drop(connected);
        socket.accept().unwrap();
    }
}

#[tokio::test]
async fn a_forgotten_socket_is_closed() {
    let holder = Holder::start(Duration::from_secs(60)).await;
    let (place, socket) = listener();
    let mut client = holder.client().await;
    client.keep(place, socket.as_fd()).await.unwrap();
    client.keep(place, socket.as_fd()).await.unwrap();
    assert_eq!(client.kept().await.unwrap().len(), 1);
    drop(socket);
    let address = (place.host_ip.unwrap(), place.port);
    std::net::TcpStream::connect(address).unwrap();
    client.forget(place).await.unwrap();
    client.forget(place).await.unwrap();
    assert!(client.kept().await.unwrap().is_empty());
    std::net::TcpStream::connect(address).unwrap_err();
}

#[tokio::test]
async fn a_released_holder_ends_and_cleans_up() {
    let mut holder = Holder::start(Duration::from_secs(60)).await;
    let mut client = holder.client().await;
    client.release().await.unwrap();
    client.closed().await;
    holder.ended().await;
    assert!(!holder.socket().exists());
    assert!(Client::find(&holder.config()).await.unwrap().is_none());
}

#[tokio::test]
async fn a_holder_that_nobody_needs_ends() {
    let mut holder = Holder::start(Duration::from_millis(300)).await;
    let client = holder.client().await;
    sleep(Duration::from_millis(900)).await;
    assert!(holder.child.try_wait().unwrap().is_none(), "it has an agent");
    drop(client);
    holder.ended().await;
}

#[tokio::test]
async fn a_holder_whose_socket_was_removed_ends() {
    let mut holder = Holder::start(Duration::from_secs(60)).await;
    let _client = holder.client().await;
    fs::remove_file(holder.socket()).unwrap();
    holder.ended().await;
}

#[tokio::test]
async fn what_is_due_is_ended_also_when_no_agent_is_there_any_more() {
    let mut holder = Holder::start(Duration::from_millis(300)).await;
    let path = holder.directory.path().join("engine");
    let engine = tokio::net::UnixListener::bind(&path).unwrap();
    let clock = Clock::system();
    let mut client = holder.client().await;
    let (node, task) = (NodeId::parse("n1").unwrap(), TaskId::parse("shop.db.1.5").unwrap());
    client.charge(&path, &node, task.clone(), clock.uptime()).await.unwrap();
    answer(&engine, "500 Internal Server Error", "{}").await;
    let until = Millis(clock.uptime().0 + 1_000);
    client.charge(&path, &node, task, until).await.unwrap();
    drop(client);
    let request = answer(&engine, "200 OK", "[]").await;
    assert!(clock.uptime() >= until, "it asks no sooner than it must");
    assert!(request.starts_with("GET ") && request.contains("/containers/json?"), "{request}");
    holder.ended().await;
}

/// Answers one request to an Engine.
async fn answer(engine: &tokio::net::UnixListener, status: &str, body: &str) -> String {
    let (mut connection, _) = engine.accept().await.unwrap();
    let mut request = String::new();
    while !request.contains("\r\n\r\n") {
        let mut bytes = [0; 1024];
        let count = connection.read(&mut bytes).await.unwrap();
        request.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
    }
    let head =
        format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}", body.len());
    connection.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).await.unwrap();
    request
}

#[tokio::test]
async fn there_is_one_holder_in_a_directory() {
    let holder = Holder::start(Duration::from_secs(60)).await;
    let (place, socket) = listener();
    let mut client = holder.client().await;
    client.keep(place, socket.as_fd()).await.unwrap();
    let second = start(&holder.socket(), Duration::from_secs(60)).wait().unwrap();
    assert!(second.success());
    assert_eq!(client.kept().await.unwrap().len(), 1);
    assert_eq!(holder.client().await.kept().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_socket_that_was_left_behind_is_no_obstacle() {
    let mut holder = Holder::start(Duration::from_secs(60)).await;
    holder.child.kill().unwrap();
    holder.child.wait().unwrap();
    assert!(holder.socket().exists());
    assert!(Client::find(&holder.config()).await.unwrap().is_none());
    holder.child = start(&holder.socket(), Duration::from_secs(60));
    until("it listens", async || matches!(Client::find(&holder.config()).await, Ok(Some(_)))).await;
}

#[tokio::test]
async fn an_agent_starts_a_holder_where_none_runs() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("s");
    let arguments = vec!["hold".into(), socket.clone().into(), "300".into()];
    let config = HolderConfig { executable: program(), arguments, socket: socket.clone() };
    let mut client = Client::find_or_start(&config).await.unwrap();
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    client.release().await.unwrap();
    until("it ends", async || !socket.exists()).await;
    let silent = HolderConfig { executable: "/bin/true".into(), ..config.clone() };
    let error = Client::find_or_start(&silent).await.unwrap_err();
    assert!(error.to_string().contains("does not listen"), "{error}");
    let missing = HolderConfig { executable: "/nonexistent/tug".into(), ..config };
    let error = Client::find_or_start(&missing).await.unwrap_err();
    assert!(error.to_string().contains("/nonexistent/tug"), "{error}");
}

#[tokio::test]
async fn what_is_no_listening_socket_is_refused() {
    let holder = Holder::start(Duration::from_secs(60)).await;
    let socket = holder.raw();
    let (place, listening) = listener();
    let keep = Question::Keep { place };
    let refused = |answer: Answer| matches!(answer, Answer::Refused { .. });
    assert!(refused(ask(&socket, &keep, Some(listening.as_fd()))), "nobody said hello");
    assert!(refused(ask(&socket, &Question::Release {}, None)), "nobody said hello");
    assert!(refused(ask(&socket, &Question::Hello { version: VERSION + 1 }, None)));
    assert_eq!(ask(&socket, &Question::Hello { version: VERSION }, None), Answer::Done {});
    let file = fs::File::open("/dev/null").unwrap();
    let datagrams = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let connected = std::net::TcpStream::connect(listening.local_addr().unwrap()).unwrap();
    let unix = std::os::unix::net::UnixListener::bind(holder.directory.path().join("other")).unwrap();
    let (_, other_port) = listener();
    assert!(refused(ask(&socket, &keep, None)));
    for wrong in [file.as_fd(), datagrams.as_fd(), connected.as_fd(), unix.as_fd(), other_port.as_fd()] {
        assert!(refused(ask(&socket, &keep, Some(wrong))));
    }
    assert_eq!(ask(&socket, &keep, Some(listening.as_fd())), Answer::Done {});
    assert_eq!(ask(&socket, &Question::Get { number: 0 }, None), Answer::Kept { place });
    assert_eq!(ask(&socket, &Question::Get { number: usize::MAX }, None), Answer::Done {});
}

#[tokio::test]
async fn nonsense_ends_the_connection_and_nothing_else() {
    let holder = Holder::start(Duration::from_secs(60)).await;
    let (place, listening) = listener();
    let mut client = holder.client().await;
    client.keep(place, listening.as_fd()).await.unwrap();
    let before = holder.open_files();
    let long = vec![b' '; LONGEST + 1];
    let hello = serde_json::to_vec(&Question::Hello { version: VERSION }).unwrap();
    let deep = "[".repeat(LONGEST);
    let packets: [&[u8]; 7] = [
        b"\0",
        b"{}",
        b"{\"ask\":\"dance\"}",
        b"{\"ask\":\"hello\",\"version\":1,\"x\":1}",
        b"{\"ask\":\"get\",\"number\":-1}",
        &long,
        deep.as_bytes(),
    ];
    for packet in packets {
        let socket = holder.raw();
        send_raw(&socket, packet, &[]);
        assert!(is_cut_off(&socket), "{}", String::from_utf8_lossy(packet));
    }
    for count in [2, 50] {
        let socket = holder.raw();
        send_raw(&socket, &hello, &vec![listening.as_fd(); count]);
        assert!(is_cut_off(&socket), "{count} descriptors");
    }
    assert_eq!(client.kept().await.unwrap().len(), 1);
    until("nothing stays open", async || holder.open_files() == before).await;
}

#[tokio::test]
async fn who_does_not_read_its_answers_holds_up_nobody() {
    let holder = Holder::start(Duration::from_secs(60)).await;
    let deaf = holder.raw();
    let hello = serde_json::to_vec(&Question::Hello { version: VERSION }).unwrap();
    for _ in 0..2000 {
        let sent =
            sendmsg(&deaf, &[IoSlice::new(&hello)], &mut SendAncillaryBuffer::default(), SendFlags::NOSIGNAL);
        if sent.is_err() {
            break;
        }
    }
    assert!(holder.client().await.kept().await.unwrap().is_empty());
}

#[tokio::test]
async fn too_many_agents_are_not_let_in() {
    let holder = Holder::start(Duration::from_secs(60)).await;
    let crowd: Vec<OwnedFd> = (0..30).map(|_| holder.raw()).collect();
    until("some are turned away", async || holder.open_files() < 20).await;
    assert!(crowd.iter().skip(10).all(is_cut_off));
    drop(crowd);
    until("there is room again", async || matches!(Client::find(&holder.config()).await, Ok(Some(_)))).await;
}
