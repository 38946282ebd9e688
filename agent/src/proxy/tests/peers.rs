//! Tasks on other nodes, through the agents there: what holds for connections to tasks of this node holds for them.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tug_api::client::call;
use tug_api::tls::{Credentials, NODE_SUFFIX, SERVER_NAME, client_config, key_of_pem, node_name};
use tug_api::transport::{Channel, TlsServer};
use tug_model::assignment::Hints;
use tug_model::{NodeId, TaskId};

use super::cluster::{Authority, Node, node_id};
use super::world::{Habit, PORT, Server, ask, get, own_address, task, until};

const POST: &str = "POST / HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

/// Three nodes, with the tasks on them.
struct Cluster {
    authority: Authority,
    nodes: Vec<Node>,
    tasks: Vec<(TaskId, NodeId, SocketAddr)>,
}

impl Cluster {
    /// Node `n` of three has the servers whose number says so; all route to all.
    async fn of(servers: &[(usize, SocketAddr)]) -> Self {
        let authority = Authority::new();
        let mut nodes = Vec::new();
        for number in 1..=3 {
            nodes.push(Node::start(&authority, &format!("n{number}")).await);
        }
        let tasks = (0..).zip(servers).map(|(number, (node, at))| (task(number), node_id(*node), *at));
        let mut cluster = Self { authority, nodes, tasks: tasks.collect() };
        for number in 1..=3 {
            cluster.route(number, |_| true).await;
        }
        cluster
    }

    /// A client at the first node and a listener on the second, which is all there is.
    async fn pair() -> (Self, TcpListener) {
        let listener = TcpListener::bind((own_address(), PORT)).await.unwrap();
        let cluster = Self::of(&[(2, listener.local_addr().unwrap())]).await;
        (cluster, listener)
    }

    fn node(&self, number: usize) -> &Node {
        &self.nodes[number - 1]
    }

    /// From now on node `number` routes to these tasks.
    async fn route(&mut self, number: usize, wanted: impl Fn(&TaskId) -> bool) {
        let peers = [1, 2, 3].map(|number| self.node(number).peer);
        let tasks: Vec<_> = self.tasks.iter().filter(|(task, ..)| wanted(task)).cloned().collect();
        self.nodes[number - 1].route(&tasks, &peers).await;
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.node(1).place).await.unwrap()
    }

    /// How the agent of node `number` is reached by whoever trusts this authority.
    fn server(&self, number: usize, config: Arc<rustls::ClientConfig>) -> TlsServer {
        let name = node_name(&node_id(number)).unwrap();
        TlsServer { addresses: vec![self.node(number).peer.to_string()], name, config }
    }
}

/// A request on a connection of its own, by a client that knows from the head how long the answer is. The end of the
/// connection that follows is nothing to it.
async fn fetch(place: SocketAddr) -> io::Result<()> {
    let mut client = TcpStream::connect(place).await?;
    client.write_all(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").await?;
    let mut answer = Vec::new();
    loop {
        if client.read_buf(&mut answer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let text = String::from_utf8_lossy(&answer);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        if head.ends_with(&format!("Content-Length: {}", body.len())) {
            return Ok(());
        }
    }
}

/// Clients that open new connections all the time until told to stop.
struct Load {
    answered: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    clients: JoinSet<Vec<io::Error>>,
}

impl Load {
    fn on(places: &[SocketAddr]) -> Self {
        let (answered, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let mut clients = JoinSet::new();
        for place in places.iter().flat_map(|place| [*place; 4]) {
            let (answered, stop) = (Arc::clone(&answered), Arc::clone(&stop));
            clients.spawn(async move {
                let mut errors = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    match fetch(place).await {
                        Ok(()) => drop(answered.fetch_add(1, Ordering::Relaxed)),
                        Err(error) => errors.push(error),
                    }
                }
                errors
            });
        }
        Self { answered, stop, clients }
    }

    async fn pass(&self, count: usize) {
        let goal = self.answered.load(Ordering::Relaxed) + count;
        until("requests are answered", async || self.answered.load(Ordering::Relaxed) >= goal).await;
    }

    async fn end(self) -> Vec<io::Error> {
        self.stop.store(true, Ordering::Relaxed);
        self.clients.join_all().await.into_iter().flatten().collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_spread_evenly_over_the_tasks_of_three_nodes() {
    let mut servers = Vec::new();
    for _ in 0..6 {
        servers.push(Server::start(Habit::Web).await);
    }
    let placed: Vec<_> = servers.iter().zip([1, 1, 2, 2, 3, 3]).map(|(it, n)| (n, it.address)).collect();
    let cluster = Cluster::of(&placed).await;
    for number in 1..=3 {
        let place = cluster.node(number).place;
        let asked = async |counts: &[usize]| {
            get(place).await.unwrap();
            servers.iter().zip(counts).all(|(server, count)| server.accepted() > *count)
        };
        let counts: Vec<usize> = servers.iter().map(Server::accepted).collect();
        until("it knows the way to every task", async || asked(&counts).await).await;
        let before: Vec<usize> = servers.iter().map(Server::accepted).collect();
        let mut clients = JoinSet::new();
        for _ in 0..4 {
            clients.spawn(async move {
                for _ in 0..150 {
                    get(place).await.unwrap();
                }
            });
        }
        clients.join_all().await;
        let given: Vec<usize> =
            servers.iter().zip(before).map(|(server, before)| server.accepted() - before).collect();
        assert!(given.iter().all(|count| (85..=115).contains(count)), "node {number}: {given:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_node_fails_no_request_of_those_that_may_be_asked_again() {
    let slow = Habit::SlowWeb(Duration::from_millis(3));
    let servers = [Server::start(slow).await, Server::start(slow).await, Server::start(slow).await];
    let placed = [(1, servers[0].address), (2, servers[1].address), (3, servers[2].address)];
    let mut cluster = Cluster::of(&placed).await;
    let load = Load::on(&[cluster.node(1).place, cluster.node(2).place]);
    load.pass(200).await;
    let before = servers[2].accepted();
    assert!(before > 30, "the third node has {before} of 200");
    cluster.nodes[2].kill();
    load.pass(500).await;
    let errors = load.end().await;
    assert!(errors.is_empty(), "{errors:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_is_stopped_ends_no_connection_that_goes_through_it() {
    let slow = Habit::SlowWeb(Duration::from_millis(3));
    let servers = [Server::start(slow).await, Server::start(slow).await];
    let echo = Server::start(Habit::Echo).await;
    let mut cluster =
        Cluster::of(&[(1, servers[0].address), (3, servers[1].address), (3, echo.address)]).await;
    cluster.route(1, |it| *it == task(2)).await;
    let mut client = cluster.connect().await;
    client.write_all(b"a").await.unwrap();
    assert_eq!(client.read_u8().await.unwrap(), b'a');
    cluster.route(1, |it| *it != task(2)).await;
    let load = Load::on(&[cluster.node(1).place]);
    load.pass(100).await;
    let ending = async {
        cluster.nodes[2].end().await;
    };
    let talking = async {
        for _ in 0..20 {
            client.write_all(b"b").await.unwrap();
            assert_eq!(client.read_u8().await.unwrap(), b'b');
            load.pass(20).await;
        }
        client.shutdown().await.unwrap();
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0, "an orderly end");
    };
    tokio::join!(biased; ending, talking);
    let errors = load.end().await;
    assert!(errors.is_empty(), "{errors:?}");
}

#[tokio::test]
async fn each_side_may_end_before_the_other_through_another_agent() {
    let (cluster, listener) = Cluster::pair().await;
    for client_first in [true, false] {
        let mut client = cluster.connect().await;
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
    until("nothing is left", async || {
        cluster.node(1).connections(&task(0)) + cluster.node(2).connections(&task(0)) == 0
    })
    .await;
}

#[tokio::test]
async fn a_broken_connection_is_broken_on_the_other_side_of_another_agent() {
    let (cluster, listener) = Cluster::pair().await;
    for client_breaks in [true, false] {
        let mut client = cluster.connect().await;
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
async fn ten_megabytes_go_both_ways_at_once_through_another_agent() {
    let server = Server::start(Habit::Echo).await;
    let cluster = Cluster::of(&[(2, server.address)]).await;
    let (mut read, mut write) = cluster.connect().await.into_split();
    let sent: Vec<u8> = (0..10_u32 << 20).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    let expected = sent.clone();
    let writing = tokio::spawn(async move {
        write.write_all(&sent).await.unwrap();
        write.shutdown().await.unwrap();
    });
    let mut received = Vec::new();
    read.read_to_end(&mut received).await.unwrap();
    writing.await.unwrap();
    assert!(received == expected);
}

#[tokio::test]
async fn failures_elsewhere_are_hidden_by_the_same_rules() {
    for (habit, kind) in
        [(Habit::HangUp, io::ErrorKind::UnexpectedEof), (Habit::Break, io::ErrorKind::ConnectionReset)]
    {
        let (bad, good) = (Server::start(habit).await, Server::start(Habit::Web).await);
        let cluster = Cluster::of(&[(2, bad.address), (3, good.address)]).await;
        let place = cluster.node(1).place;
        let before = bad.accepted();
        for _ in 0..20 {
            assert_eq!(get(place).await.unwrap(), good.address.to_string(), "{habit:?}");
        }
        assert!(bad.accepted() > before, "the bad one was asked");

        let cluster = Cluster::of(&[(2, bad.address)]).await;
        let before = bad.accepted();
        assert_eq!(ask(cluster.node(1).place, POST).await.unwrap_err().kind(), kind);
        assert_eq!(bad.accepted(), before + 1, "a write is asked once");
    }
}

#[tokio::test]
async fn who_refuses_elsewhere_is_passed_over() {
    let (nobody, good) = (SocketAddr::new(own_address(), PORT), Server::start(Habit::Web).await);
    let cluster = Cluster::of(&[(2, nobody), (3, good.address)]).await;
    for _ in 0..10 {
        assert!(ask(cluster.node(1).place, POST).await.unwrap().contains("200 OK"));
    }
}

#[tokio::test]
async fn a_draining_task_keeps_the_connections_of_other_nodes_and_gets_no_more() {
    let servers = [Server::start(Habit::Echo).await, Server::start(Habit::Echo).await];
    let mut cluster = Cluster::of(&[(2, servers[0].address), (3, servers[1].address)]).await;
    cluster.route(1, |it| *it == task(0)).await;
    let mut client = cluster.connect().await;
    client.write_all(b"a").await.unwrap();
    assert_eq!(client.read_u8().await.unwrap(), b'a');
    assert_eq!(cluster.node(2).connections(&task(0)), 1, "its own agent counts it");
    // Its own agent knows first; the first node still routes to both.
    cluster.route(1, |_| true).await;
    cluster.route(2, |it| *it != task(0)).await;
    let before = servers[0].accepted();
    for _ in 0..10 {
        let mut client = cluster.connect().await;
        client.write_all(b"b").await.unwrap();
        assert_eq!(client.read_u8().await.unwrap(), b'b');
    }
    assert_eq!(servers[0].accepted(), before);
    client.write_all(b"c").await.unwrap();
    assert_eq!(client.read_u8().await.unwrap(), b'c');
    assert_eq!(cluster.node(2).connections(&task(0)), 1);
    let mut changed = cluster.node(2).handle.changed();
    changed.mark_unchanged();
    drop(client);
    timeout(Duration::from_secs(20), changed.changed()).await.expect("its end is told").unwrap();
    assert_eq!(cluster.node(2).connections(&task(0)), 0);
}

#[tokio::test]
async fn who_is_hinted_at_is_asked_last_and_a_connection_refutes_the_hint() {
    let servers = [Server::start(Habit::Web).await, Server::start(Habit::Web).await];
    let cluster = Cluster::of(&[(2, servers[0].address), (3, servers[1].address)]).await;
    let node = cluster.node(1);
    let asked = async |count: usize| {
        let before = servers.each_ref().map(Server::accepted);
        for _ in 0..count {
            get(node.place).await.unwrap();
        }
        [servers[0].accepted() - before[0], servers[1].accepted() - before[1]]
    };
    let is_shared = |asked: [usize; 2]| asked.iter().all(|count| *count >= 3);
    assert!(is_shared(asked(10).await));
    node.handle.set_hints(Hints { unready: [task(0)].into(), ..Hints::default() });
    assert_eq!(asked(10).await, [0, 10]);
    node.handle.set_hints(Hints { away: [node_id(3)].into(), ..Hints::default() });
    assert_eq!(asked(10).await, [10, 0]);
    node.handle.set_hints(Hints { away: [node_id(3)].into(), unready: [task(0)].into() });
    // Both are hinted at: whoever is asked first is no longer.
    let first = asked(4).await;
    assert_eq!(first[0].max(first[1]), 4, "{first:?}");
    node.handle.set_hints(Hints::default());
    assert!(is_shared(asked(10).await));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_connections_than_one_line_carries() {
    let server = Server::start(Habit::Echo).await;
    let cluster = Cluster::of(&[(2, server.address)]).await;
    let mut clients = JoinSet::new();
    for number in 0..600_u32 {
        let place = cluster.node(1).place;
        clients.spawn(async move {
            let mut client = TcpStream::connect(place).await.unwrap();
            client.write_all(&number.to_be_bytes()).await.unwrap();
            assert_eq!(client.read_u32().await.unwrap(), number);
            client
        });
    }
    let open = clients.join_all().await;
    assert_eq!(cluster.node(2).connections(&task(0)), 600);
    drop(open);
    until("all are over", async || cluster.node(2).connections(&task(0)) == 0).await;
}

/// What a `CONNECT` by whoever has this certificate comes to.
async fn knock(cluster: &Cluster, config: Arc<rustls::ClientConfig>, wanted: &str) -> Option<StatusCode> {
    let stream = cluster.server(2, config).dial(&[b"tug-tunnel"]).await.ok()?;
    let (sender, connection) = h2::client::handshake(stream).await.ok()?;
    let connection = tokio::spawn(connection);
    let asked = async {
        let mut sender: h2::client::SendRequest<Bytes> = sender.ready().await.ok()?;
        let request = Request::builder().method(Method::CONNECT).uri(wanted).body(()).unwrap();
        Some(sender.send_request(request, false).ok()?.0.await.ok()?.status())
    };
    let status = asked.await;
    connection.abort();
    status
}

#[tokio::test]
async fn only_nodes_of_the_cluster_are_talked_to_and_only_about_what_is_routed() {
    let server = Server::start(Habit::Web).await;
    let cluster = Cluster::of(&[(2, server.address)]).await;
    let (ours, theirs) = (&cluster.authority, Authority::new());
    let shown = |of: &Authority, name: &str| {
        let member = of.member(&node_id(1), name);
        client_config(ours.pem(), Some(&member.credentials)).unwrap()
    };
    let task = format!("{}:{PORT}", task(0));
    let node = format!("n1{NODE_SUFFIX}");
    assert_eq!(knock(&cluster, shown(ours, &node), &task).await, Some(StatusCode::OK));
    let before = server.accepted();
    assert_eq!(knock(&cluster, shown(&theirs, &node), &task).await, None, "another authority");
    assert_eq!(knock(&cluster, shown(ours, SERVER_NAME), &task).await, None, "no node");
    assert_eq!(knock(&cluster, shown(ours, "n1.example.org"), &task).await, None, "nothing of ours");
    let nobody = client_config(ours.pem(), None).unwrap();
    assert_eq!(knock(&cluster, nobody, &task).await, None, "no certificate");
    for (wanted, status) in [
        (format!("{}:22", super::world::task(0)), StatusCode::SERVICE_UNAVAILABLE),
        (format!("test.web.7.1:{PORT}"), StatusCode::SERVICE_UNAVAILABLE),
        (server.address.to_string(), StatusCode::SERVICE_UNAVAILABLE),
        ("localhost:22".to_owned(), StatusCode::SERVICE_UNAVAILABLE),
        ("[::1]:22".to_owned(), StatusCode::BAD_REQUEST),
    ] {
        assert_eq!(knock(&cluster, shown(ours, &node), &wanted).await, Some(status), "{wanted}");
    }
    assert_eq!(server.accepted(), before);
}

#[tokio::test]
async fn a_node_that_was_removed_is_shut_out_by_its_neighbours() {
    let server = Server::start(Habit::Web).await;
    let cluster = Cluster::of(&[(2, server.address)]).await;
    let (members, task) = (&cluster.node(2).members, format!("{}:{PORT}", task(0)));
    let identity = cluster.authority.identity(&format!("n1{NODE_SUFFIX}"));
    let key = key_of_pem(&identity.certificate_pem).unwrap();
    let shown = Credentials::new(&identity).unwrap();
    let config = || client_config(cluster.authority.pem(), Some(&shown)).unwrap();
    members.tell([(node_id(1), key.clone())].into());
    assert_eq!(knock(&cluster, config(), &task).await, Some(StatusCode::OK));

    let mut open = JoinSet::new();
    for protocol in [&b"tug-tunnel"[..], b"h2"] {
        let stream = cluster.server(2, config()).dial(&[protocol]).await.unwrap();
        let (sender, connection) = h2::client::handshake(stream).await.unwrap();
        let sender = sender.ready().await.unwrap();
        open.spawn(async move {
            // However it ends, it has ended.
            drop(connection.await);
            drop(sender);
        });
    }
    members.tell([(node_id(3), key.clone())].into());
    timeout(Duration::from_secs(5), open.join_all()).await.expect("what was open goes on");
    assert_eq!(knock(&cluster, config(), &task).await, None);

    // The news of who joins may come after its first connection.
    let stream = cluster.server(2, config()).dial(&[b"tug-tunnel"]).await.unwrap();
    members.tell([(node_id(1), key)].into());
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut sender = sender.ready().await.unwrap();
    let request = Request::builder().method(Method::CONNECT).uri(&task).body(()).unwrap();
    let answer = sender.send_request(request, false).unwrap().0.await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    connection.abort();
}

#[tokio::test]
async fn a_node_that_shows_the_name_of_another_is_not_given_its_connections() {
    let (server, trap) = (Server::start(Habit::Web).await, Server::start(Habit::Web).await);
    let mut cluster = Cluster::of(&[(2, server.address)]).await;
    let impostor = cluster.authority.member(&node_id(3), &format!("n3{NODE_SUFFIX}"));
    let mut impostor = Node::of(node_id(2), impostor).await;
    impostor.route(&[(task(0), node_id(2), trap.address)], &[1, 2, 3].map(|n| cluster.node(n).peer)).await;
    let peers = [cluster.node(1).peer, impostor.peer, cluster.node(3).peer];
    let tasks = cluster.tasks.clone();
    cluster.nodes[0].route(&tasks, &peers).await;
    let asked = timeout(Duration::from_secs(1), get(cluster.node(1).place)).await;
    assert!(asked.is_err(), "its client waits for another backend: {asked:?}");
    assert_eq!(trap.accepted(), 0);
}

#[tokio::test]
async fn requests_of_other_agents_are_answered_beside_their_connections() {
    let cluster = Cluster::of(&[]).await;
    let member = cluster.authority.member(&node_id(1), &format!("n1{NODE_SUFFIX}"));
    let config = client_config(cluster.authority.pem(), Some(&member.credentials)).unwrap();
    let channel = Channel::tls(cluster.server(2, config));
    let response = call(&channel, Request::get("/who").body(Body::empty()).unwrap()).await.unwrap();
    let said = axum::body::to_bytes(response.into_body(), 1 << 10).await.unwrap();
    let said = String::from_utf8_lossy(&said);
    assert!(said.starts_with("Node { node: NodeId(\"n1\")"), "{said}");
}
