//! A project's whole life, in this process and over the socket.

mod cluster;

use std::time::Duration;

use axum::body::Body;
use futures_util::{Stream, StreamExt};
use http::Request;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tug_api::client::{CallError, Client, EventQuery, Guard, WatchQuery};
use tug_api::lines::LineError;
use tug_api::transport::Channel;
use tug_api::user::{ApplyRequest, LogQuery, RestartRequest, ScaleRequest, WatchItem};
use tug_api::{ApiError, Code};
use tug_model::status::ProjectStatus;
use tug_model::{NodeId, ProjectName, Revision, ServiceName, Timestamp};

use super::*;
use crate::nodes::fake::FakeAgent;

/// The longest that any state is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

fn shop() -> ProjectName {
    ProjectName::parse("shop").unwrap()
}

fn web() -> ServiceName {
    ServiceName::parse("web").unwrap()
}

fn request(image: &str, replicas: u32) -> ApplyRequest {
    let spec = json!({
        "name": "shop",
        "services": {
            "web": {
                "container": { "image": image },
                "deploy": { "mode": { "replicated": replicas } },
                "ports": [{ "target": 80, "published": 8080 }],
            },
        },
    });
    ApplyRequest { spec: serde_json::from_value(spec).unwrap(), source: Vec::new() }
}

/// The next status for which `is_so`, on a watch that began at `since`.
async fn seen(client: &Client, since: Revision, is_so: impl Fn(&ProjectStatus) -> bool) -> ProjectStatus {
    let query = WatchQuery { since: Some(since), project: Some(shop()) };
    let mut items = client.watch(&query).await.unwrap();
    let found = async {
        loop {
            match items.next().await.expect("the watch ended").unwrap() {
                WatchItem::Status(status) if is_so(&status) => return status,
                WatchItem::Status(_)
                | WatchItem::Event(_)
                | WatchItem::Gone { .. }
                | WatchItem::Bookmark { .. } => {}
            }
        }
    };
    timeout(PATIENCE, found).await.expect("the project did not get there")
}

async fn gone(items: &mut (impl Stream<Item = Result<WatchItem, LineError>> + Unpin)) {
    let found = async {
        while !matches!(items.next().await.expect("the watch ended").unwrap(), WatchItem::Gone { .. }) {}
    };
    timeout(PATIENCE, found).await.expect("the project did not go");
}

fn ids(status: &ProjectStatus) -> Vec<String> {
    status.services.iter().flat_map(|it| &it.tasks).map(|task| task.id.to_string()).collect()
}

/// A user's day: apply, look, scale, restart, look inside, remove.
#[expect(clippy::cognitive_complexity, reason = "one step after another, and what is so after each")]
async fn whole_life(client: &Client, agent: &FakeAgent) {
    let accepted = client.apply(&request("hello:1", 3), &Guard::default()).await.unwrap();
    let settled = seen(client, accepted.revision, |it| it.settled).await;
    let service = settled.services.first().unwrap();
    assert_eq!((service.wanted, service.ready, ids(&settled).len()), (3, 3, 3));
    let endpoints = agent.endpoints().services.pop().unwrap();
    let tasks: usize = endpoints.nodes.values().map(|node| node.tasks.len()).sum();
    assert_eq!((endpoints.ports[0].published, tasks), (Some(8080), 3));

    let scale = ScaleRequest { replicas: [(web(), 5)].into() };
    let accepted = client.scale(&shop(), &scale, &Guard::default()).await.unwrap();
    let scaled = seen(client, accepted.revision, |it| it.settled && ids(it).len() == 5).await;
    assert!(ids(&settled).iter().all(|id| ids(&scaled).contains(id)), "what ran still runs");

    let all = RestartRequest { services: Vec::new() };
    let accepted = client.restart(&shop(), &all, &Guard::default()).await.unwrap();
    let is_new = |it: &ProjectStatus| it.settled && !ids(it).iter().any(|id| ids(&scaled).contains(id));
    let restarted = seen(client, accepted.revision, is_new).await;
    assert_eq!(ids(&restarted).len(), 5);

    look_inside(client, agent, &restarted).await;

    let query = WatchQuery { since: None, project: Some(shop()) };
    let mut watching = client.watch(&query).await.unwrap();
    let accepted = client.remove(&shop(), &Guard::default()).await.unwrap();
    gone(&mut watching).await;
    assert_eq!(agent.told().tasks, []);
    let query = WatchQuery { since: Some(accepted.revision), project: Some(shop()) };
    gone(&mut client.watch(&query).await.unwrap()).await;
    let Err(CallError::Api(error)) = client.status(&shop()).await else { panic!("it is still there") };
    assert_eq!(error.code, Code::NotFound);
    let events = client.events(&EventQuery { project: Some(shop()), ..EventQuery::default() }).await.unwrap();
    assert!(events.iter().any(|event| event.message == "scaled: web 3 → 5"), "{events:#?}");
}

#[expect(clippy::cognitive_complexity, reason = "one question after another")]
async fn look_inside(client: &Client, agent: &FakeAgent, status: &ProjectStatus) {
    let tasks: Vec<_> = status.services.iter().flat_map(|it| &it.tasks).map(|task| task.id.clone()).collect();
    for (number, task) in (0..).zip(&tasks) {
        agent.write(task, 100 + number, "early");
        agent.write(task, 200 - number, "late");
    }
    let query = LogQuery { names: "shop/web".into(), ..LogQuery::default() };
    let records: Vec<_> = client.logs(&query).await.unwrap().map(Result::unwrap).collect().await;
    let times: Vec<u64> = records.iter().map(|record| record.at.0).collect();
    assert_eq!(times, [100, 101, 102, 103, 104, 196, 197, 198, 199, 200], "in the order of time");

    let answer = client.exec(&shop(), &web(), Some(2), Body::from("both ways")).await.unwrap();
    assert_eq!(axum::body::to_bytes(answer.into_body(), 1 << 20).await.unwrap(), "both ways");
    let Err(CallError::Api(ApiError { code, .. })) =
        client.exec(&shop(), &web(), Some(9), Body::empty()).await
    else {
        panic!("there is no slot 9")
    };
    assert_eq!(code, Code::NotFound);

    let used = client.top().await.unwrap();
    assert_eq!(used.iter().map(|line| line.task.clone()).collect::<Vec<_>>(), tasks);
    let nodes = client.nodes().await.unwrap();
    assert!(
        matches!(&*nodes, [node] if node.connected && node.tasks == 5 && node.refusal.is_none()),
        "{nodes:?}"
    );
    let why = client.why(&shop(), &web()).await.unwrap();
    assert_eq!((why.status.ready, why.explanations.len()), (5, 0));
    assert_eq!(client.project(&shop()).await.unwrap().number, 3);
    let preview = client.plan(&request("hello:2", 5)).await.unwrap();
    assert_eq!(preview.base, status.revision);
}

async fn simulated() -> (Handle, CancellationToken, tokio::task::JoinHandle<Result<(), Error>>) {
    let disk = MemoryDisk::new();
    let config = Config::simulated(&disk, "c1", Clock::starting_at(Timestamp(1_000_000)));
    let (orchestrator, handle) = Orchestrator::open(config).await.unwrap();
    let stop = CancellationToken::new();
    let running = tokio::spawn(orchestrator.run(stop.clone()));
    (handle, stop, running)
}

#[tokio::test(start_paused = true)]
async fn a_projects_life_in_process() {
    let (handle, stop, running) = simulated().await;
    let agent = FakeAgent::new("n1");
    handle.nodes.register(NodeId::parse("n1").unwrap(), agent.channel());
    whole_life(&Client::new(Channel::service(handle.router.clone())), &agent).await;
    stop.cancel();
    running.await.unwrap().unwrap();
}

/// Dials as an agent does.
async fn dial(socket: &std::path::Path, agent: &FakeAgent, stop: CancellationToken) {
    let mut stream = tokio::net::UnixStream::connect(socket).await.unwrap();
    let head =
        "GET /v1/link?node=n1 HTTP/1.1\r\nhost: tug\r\nconnection: upgrade\r\nupgrade: tug-link\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.unwrap());
    }
    assert!(answer.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&answer));
    let router = agent.router();
    tokio::spawn(async move { tug_api::serve::connection(stream, router, stop).await });
}

#[tokio::test]
async fn a_projects_life_over_the_socket() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("run/tug.sock");
    let config = Config::daemon(folder.path().join("state"), &socket).unwrap();
    let stop = CancellationToken::new();
    let serving = tokio::spawn(serve(config.clone(), stop.clone()));
    let client = Client::new(Channel::unix(&socket));
    let ready = async {
        while client.info().await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, ready).await.expect("it does not serve");
    let error = serve(config.clone(), stop.clone()).await.unwrap_err();
    assert!(matches!(&error, Error::Store(OpenError::Locked { .. })), "a second one: {error:?}");

    let agent = FakeAgent::new("n1");
    let hang_up = CancellationToken::new();
    dial(&socket, &agent, hang_up.clone()).await;
    whole_life(&client, &agent).await;

    let mut watching = client.watch(&WatchQuery::default()).await.unwrap();
    let stopped = std::time::Duration::from_secs(4);
    stop.cancel();
    timeout(stopped, serving).await.expect("an open watch holds it up").unwrap().unwrap();
    while let Some(Ok(_)) = watching.next().await {}
    assert!(!socket.exists(), "the socket is left behind");

    let stop = CancellationToken::new();
    let serving = tokio::spawn(serve(config, stop.clone()));
    timeout(PATIENCE, async {
        while client.info().await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("it does not come back");
    let nodes = client.nodes().await.unwrap();
    assert_eq!(nodes.len(), 1, "it remembers");
    stop.cancel();
    serving.await.unwrap().unwrap();
    hang_up.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_watch_goes_on_where_another_one_stopped() {
    let (handle, stop, running) = simulated().await;
    let client = Client::new(Channel::service(handle.router.clone()));
    let mut ends = Vec::new();
    for replicas in 1..=5 {
        ends.push(client.apply(&request("hello:1", replicas), &Guard::default()).await.unwrap().revision);
    }
    let mut messages = Vec::new();
    let mut since = Revision(0);
    // Each watch reads up to its first bookmark; none of the events comes twice or never.
    for _ in 0..3 {
        let mut items =
            client.watch(&WatchQuery { since: Some(since), project: Some(shop()) }).await.unwrap();
        loop {
            match items.next().await.unwrap().unwrap() {
                WatchItem::Event(event) => messages.push(event.message),
                WatchItem::Bookmark { revision } => {
                    since = revision;
                    break;
                }
                WatchItem::Status(_) | WatchItem::Gone { .. } => {}
            }
        }
        client.apply(&request("hello:2", 5), &Guard::default()).await.unwrap();
    }
    let accepted = messages.iter().filter(|message| message.contains("accepted")).count();
    assert_eq!(accepted, 6, "{messages:#?}");
    stop.cancel();
    running.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn streams_are_limited_and_end_with_the_orchestrator() {
    let (handle, stop, running) = simulated().await;
    let client = Client::new(Channel::service(handle.router.clone()));
    let mut open = Vec::new();
    let refused = loop {
        match client.watch(&WatchQuery::default()).await {
            Ok(items) => open.push(items),
            Err(CallError::Api(error)) => break error,
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!((refused.code, open.len()), (Code::TooMany, 64));
    drop(open.pop());
    let mut last = client.watch(&WatchQuery::default()).await.unwrap();
    stop.cancel();
    running.await.unwrap().unwrap();
    let ended = async { while last.next().await.is_some() {} };
    timeout(PATIENCE, ended).await.expect("the watch goes on");
    let late = Request::get("/readyz").body(Body::empty()).unwrap();
    let channel = Channel::service(handle.router);
    assert!(matches!(tug_api::client::call(&channel, late).await, Err(CallError::Api(_))));
}
