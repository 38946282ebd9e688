//! Sessions with agents that answer, lag, refuse and fall silent.

use tug_model::lease::Leased;
use tug_model::node::{KeyId, Node};
use tug_model::project::StoredProject;
use tug_model::task::{Desired, Task};
use tug_model::{ProjectName, ServiceName, Slot, TaskId};

use super::fake::FakeAgent;
use super::*;
use crate::plan::Grant;
use crate::store::{self, Change, MemoryDisk, State};

struct Bench {
    store: Store,
    nodes: Nodes,
    observed: watch::Receiver<Arc<Observed>>,
    agent: FakeAgent,
    stop: CancellationToken,
    running: Vec<tokio::task::JoinHandle<()>>,
}

impl Bench {
    async fn new() -> Self {
        let disk = MemoryDisk::new();
        let (store, writer) = store::open(store::Config::memory(&disk, "c1")).await.unwrap();
        let clock = Clock::starting_at(Timestamp(1_000_000));
        let (nodes, publisher) = Nodes::new(store.clone(), clock);
        let stop = CancellationToken::new();
        let writing = tokio::spawn(writer.run(stop.clone()));
        let publishing = tokio::spawn(publisher.run(stop.clone()));
        let written = tokio::spawn(async move {
            writing.await.unwrap();
        });
        let observed = nodes.observed();
        let running = vec![written, publishing];
        Self { store, nodes, observed, agent: FakeAgent::new("n1"), stop, running }
    }

    fn connect(&self) {
        self.nodes.register(node(), self.agent.channel());
    }

    async fn commit(&self, changes: Vec<Change>) -> Revision {
        self.store.commit(Timestamp(1), move |_, _| changes).await.unwrap()
    }

    async fn until(&mut self, is_so: impl Fn(&NodeObserved) -> bool) -> Arc<NodeObserved> {
        let seen = self.observed.wait_for(|it| it.nodes.get(&node()).is_some_and(|node| is_so(node)));
        let seen = tokio::time::timeout(Duration::from_secs(60), seen).await.expect("not within a minute");
        Arc::clone(seen.unwrap().nodes.get(&node()).unwrap())
    }

    async fn acked(&mut self, revision: Revision) {
        let is_so = |it: &Observed| it.nodes.get(&node()).is_some_and(|seen| it.acked(seen) >= revision);
        let seen = self.observed.wait_for(|it| is_so(it));
        tokio::time::timeout(Duration::from_secs(60), seen).await.expect("not within a minute").unwrap();
    }

    async fn end(self) {
        self.stop.cancel();
        for running in self.running {
            running.await.unwrap();
        }
    }
}

fn node() -> NodeId {
    NodeId::parse("n1").unwrap()
}

fn task(slot: u32) -> Change {
    let template = template();
    let (project, service) = (ProjectName::parse("shop").unwrap(), ServiceName::parse("web").unwrap());
    let task = Task {
        id: Task::id_for(&project, &service, Slot(slot), Revision(1)),
        project,
        service,
        slot: Slot(slot),
        node: node(),
        template: template.hash(),
        desired: Desired::Run,
        created_at: Timestamp(1),
        exclusive: None,
    };
    Change::PutTask(Arc::new(task))
}

fn template() -> tug_model::task::Template {
    let project =
        serde_json::json!({ "name": "shop", "services": { "web": { "container": { "image": "hello" } } } });
    let project: tug_model::spec::Project = serde_json::from_value(project).unwrap();
    tug_model::task::Template::of(&project, &project.services["web"])
}

fn with_template(slot: u32) -> Vec<Change> {
    vec![Change::template(template()), task(slot)]
}

/// A commit that no assignment has anything to do with.
fn note() -> Vec<Change> {
    let other = NodeId::parse("n2").unwrap();
    let info = serde_json::json!({
        "hostname": "x", "os": "linux", "arch": "amd64", "capacity": { "cpus": 1, "memory": 1 },
        "engine_version": "1", "agent_version": "1",
    });
    let info = serde_json::from_value(info).unwrap();
    vec![Change::PutNode(Arc::new(Node::new(other, info, Timestamp(1))))]
}

fn ids(agent: &FakeAgent) -> Vec<TaskId> {
    agent.told().tasks.into_iter().map(|task| task.id).collect()
}

#[tokio::test(start_paused = true)]
async fn the_first_report_registers_the_node_and_says_when_it_came() {
    let mut bench = Bench::new().await;
    bench.connect();
    let seen = bench.until(|it| it.connected).await;
    assert_eq!(seen.received_at, Timestamp(1_000_000));
    let mut states = bench.store.watch();
    let state = states.wait_for(|state| state.nodes.contains_key(&node())).await.unwrap().clone();
    assert_eq!(state.nodes[&node()].info.engine_version, "28.0.0");
    assert!(state.events.values().any(|event| event.message.starts_with("joined: attic")));

    bench.agent.behave(|it| it.engine_version = Some("29.1".into()));
    let state =
        states.wait_for(|state| state.nodes[&node()].info.engine_version == "29.1").await.unwrap().clone();
    assert!(state.events.values().any(|event| event.message == "the machine changed: Engine 28.0.0 → 29.1"));
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_assignment_is_sent_when_it_says_something_new_and_only_then() {
    let mut bench = Bench::new().await;
    bench.connect();
    let revision = bench.commit(with_template(1)).await;
    bench.acked(revision).await;
    assert_eq!(ids(&bench.agent).len(), 1);
    let sent = bench.agent.puts().len();

    let later = bench.commit(note()).await;
    bench.acked(later).await;
    assert_eq!(
        bench.agent.puts().len(),
        sent,
        "nothing new for this node, and yet it follows the newest commit"
    );

    let newest = bench.commit(vec![task(2)]).await;
    bench.acked(newest).await;
    assert_eq!(ids(&bench.agent).len(), 2);
    assert_eq!(bench.agent.told().generation, newest);
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_failing_agent_is_asked_again_and_slower() {
    let mut bench = Bench::new().await;
    bench.agent.behave(|it| it.fails = true);
    bench.connect();
    bench.until(|it| it.connected).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let tries = bench.agent.puts().len();
    assert!((10..30).contains(&tries), "{tries} tries in a minute");
    bench.agent.behave(|it| it.fails = false);
    let newest = bench.store.snapshot().revision;
    bench.acked(newest).await;
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_kept_shown_and_recorded_once() {
    let mut bench = Bench::new().await;
    bench.agent.behave(|it| it.refuses = Some("another cluster's node".into()));
    bench.connect();
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(bench.nodes.refusal(&node()).as_deref(), Some("another cluster's node"));
    let refusals = |state: &State| {
        let said = "the agent does not obey: another cluster's node";
        state.events.values().filter(|event| event.message == said).count()
    };
    assert_eq!(refusals(&bench.store.snapshot()), 1);
    assert_eq!(bench.until(|it| it.connected).await.acked, Revision(0));

    bench.agent.behave(|it| it.refuses = None);
    let newest = bench.store.snapshot().revision;
    bench.acked(newest).await;
    assert_eq!(bench.nodes.refusal(&node()), None);
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_silent_node_is_not_connected_and_cannot_be_asked() {
    let mut bench = Bench::new().await;
    bench.connect();
    bench.until(|it| it.connected && it.is_level).await;
    assert!(bench.nodes.client(&node()).is_some());
    let started = tokio::time::Instant::now();
    bench.agent.behave(|it| it.is_silent = true);
    let seen = bench.until(|it| !it.connected).await;
    assert!(started.elapsed() <= Duration::from_millis(3_100), "{:?}", started.elapsed());
    assert!(seen.report.is_some(), "what it said last is kept");
    assert!(seen.acked == Revision(0) && !seen.is_level);
    assert!(bench.nodes.client(&node()).is_none());

    bench.agent.behave(|it| it.is_silent = false);
    bench.connect();
    bench.until(|it| it.connected && it.is_level).await;
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_silence_begins_with_the_last_sign_however_old_the_last_report_is() {
    let mut bench = Bench::new().await;
    bench.connect();
    bench.until(|it| it.connected && it.is_level).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    bench.agent.behave(|it| it.is_silent = true);
    let lost = bench.until(|it| !it.connected).await;
    let silent = lost.lost_at.unwrap().since(lost.silent_since.unwrap());
    assert!(silent >= Millis::from_secs(2) && silent <= Millis::from_secs(4), "{silent:?}");
    let old = lost.lost_at.unwrap().since(lost.received_at);
    assert!(old >= Millis::from_secs(60), "the ages in a report count from when it came: {old:?}");
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_newer_session_takes_the_place_of_the_older() {
    let mut bench = Bench::new().await;
    bench.connect();
    bench.until(|it| it.connected && it.is_level).await;
    let other = FakeAgent::new("n1");
    bench.nodes.register(node(), other.channel());
    bench.until(|it| it.connected && it.is_level).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(bench.until(|_| true).await.connected, "the end of the older session is not the node's");
    let before = bench.agent.puts().len();
    let revision = bench.commit(with_template(1)).await;
    bench.acked(revision).await;
    assert_eq!(ids(&other).len(), 1);
    assert_eq!(bench.agent.puts().len(), before);
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_follows_something_else_is_told_again() {
    let mut bench = Bench::new().await;
    bench.connect();
    bench.until(|it| it.is_level).await;
    bench.agent.behave(|it| it.forgets = true);
    let revision = bench.commit(with_template(1)).await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert!(bench.agent.puts().iter().filter(|put| put.generation == revision).count() > 1, "told again");
    assert_eq!(ids(&bench.agent).len(), 0);
    let seen = bench.until(|it| it.connected).await;
    assert!(seen.acked < revision, "it was acknowledged, and yet not followed");
    bench.agent.behave(|it| it.forgets = false);
    bench.acked(revision).await;
    assert_eq!(ids(&bench.agent).len(), 1);
    bench.end().await;
}

/// The project of [`task()`] and another one, with their services published.
fn published(name: &str, port: u16) -> Change {
    let spec = serde_json::json!({ "name": name, "services": { "web": {
        "container": { "image": "hello" },
        "ports": [{ "target": 80, "published": port, "protocol": "tcp", "mode": "ingress" }],
    } } });
    let spec = serde_json::from_value(spec).unwrap();
    let (number, revision, accepted_at) = (1, Revision(1), Timestamp(1));
    Change::PutProject(Arc::new(StoredProject { spec, source: Vec::new(), number, revision, accepted_at }))
}

#[tokio::test(start_paused = true)]
async fn endpoints_are_sent_where_they_have_changed_and_counted_when_they_are_routed_by() {
    let mut bench = Bench::new().await;
    bench.connect();
    bench.commit(vec![published("shop", 8080), published("other", 8081)]).await;
    let revision = bench.commit(with_template(1)).await;
    bench.acked(revision).await;
    assert_eq!(bench.agent.endpoints().services.len(), 2);
    assert_eq!(bench.agent.endpoints().services[1].nodes[&node()].tasks.len(), 1);

    let (sent, puts) = (bench.agent.endpoint_puts().len(), bench.agent.puts().len());
    let revision = bench.commit(vec![task(2)]).await;
    bench.acked(revision).await;
    let news = bench.agent.endpoint_puts().split_off(sent).concat();
    let names: Vec<&str> = news.iter().map(|endpoints| endpoints.project.as_str()).collect();
    assert_eq!((names, bench.agent.puts().len()), (vec!["shop"], puts + 1));

    // Another node's task is none of this one's assignment, and is behind its port.
    let Change::PutTask(elsewhere) = task(3) else { panic!() };
    let other = Task { node: NodeId::parse("n2").unwrap(), ..Task::clone(&elsewhere) };
    let revision = bench.commit(vec![Change::PutTask(Arc::new(other))]).await;
    bench.acked(revision).await;
    assert_eq!(bench.agent.puts().len(), puts + 1);
    assert_eq!(bench.agent.endpoints().services[1].nodes.len(), 2);
    assert_eq!(bench.agent.endpoints().stamp.generation, revision);

    // A new session sends no endpoints that the agent knows.
    let sent = bench.agent.endpoint_puts().len();
    bench.connect();
    bench.until(|it| it.connected && it.is_level).await;
    assert_eq!(bench.agent.endpoint_puts().len(), sent);
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_does_not_route_by_the_newest_endpoints_has_not_acknowledged_them() {
    let mut bench = Bench::new().await;
    bench.connect();
    bench.commit(vec![published("shop", 8080)]).await;
    let first = bench.commit(with_template(1)).await;
    bench.acked(first).await;
    bench.agent.behave(|it| it.lags = true);
    let Change::PutTask(elsewhere) = task(2) else { panic!() };
    let other = Task { node: NodeId::parse("n2").unwrap(), ..Task::clone(&elsewhere) };
    let revision = bench.commit(vec![Change::PutTask(Arc::new(other))]).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(bench.agent.endpoints().stamp.generation, revision, "they are on its disk");
    let observed = Arc::clone(&bench.observed.borrow());
    assert!(observed.acked(&observed.nodes[&node()]) < revision, "and not yet in its routes");
    bench.agent.behave(|it| it.lags = false);
    bench.acked(revision).await;
    bench.end().await;
}

// === Leases ===

fn grants(session: u64, may_start: bool) -> Arc<Grants> {
    let project = ProjectName::parse("shop").unwrap();
    let id = Task::id_for(&project, &ServiceName::parse("web").unwrap(), Slot(1), Revision(1));
    let tasks = vec![Leased { id, may_start }];
    Arc::new(Grants([(node(), Grant { session, tasks })].into()))
}

#[tokio::test(start_paused = true)]
async fn a_report_is_answered_with_a_lease_that_was_noted_before() {
    let mut bench = Bench::new().await;
    let planner = watch::Sender::new(Arc::default());
    bench.nodes.lease_by(planner.subscribe());
    bench.connect();
    let seen = bench.until(|it| it.connected).await;
    assert_eq!(seen.session, 1);
    let mut leases = bench.agent.leases();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(leases.borrow_and_update().is_empty(), "the planner has said nothing about it");

    planner.send_replace(grants(1, true));
    let lease = leases.wait_for(|all| !all.is_empty()).await.unwrap().last().cloned().unwrap();
    assert_eq!((lease.cluster.as_str(), lease.epoch), ("c1", 1));
    assert!(lease.tasks[0].may_start);
    let published = bench.observed.wait_for(|it| it.leased.contains_key(&node())).await.unwrap();
    let leased_at = published.leased[&node()];
    drop(published);
    assert!(leased_at >= Timestamp(1_005_000), "{leased_at}");
    let more = leases.wait_for(|all| all.len() >= 4).await.unwrap().clone();
    assert!(more.is_sorted_by(|a, b| a.uptime < b.uptime), "each answers a report of its own: {more:?}");

    planner.send_replace(grants(1, false));
    leases.wait_for(|all| all.last().is_some_and(|lease| !lease.tasks[0].may_start)).await.unwrap();
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_session_that_the_planner_has_not_heard_of_gives_out_nothing() {
    let mut bench = Bench::new().await;
    let planner = watch::Sender::new(grants(1, true));
    bench.nodes.lease_by(planner.subscribe());
    bench.connect();
    let mut leases = bench.agent.leases();
    leases.wait_for(|all| !all.is_empty()).await.unwrap();
    bench.connect();
    bench.until(|it| it.session == 2).await;
    let leased_at = bench.observed.borrow().leased[&node()];
    leases.borrow_and_update();
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(!leases.has_changed().unwrap(), "the planner still goes by the first session");
    assert_eq!(bench.observed.borrow().leased[&node()], leased_at);
    planner.send_replace(grants(2, true));
    leases.changed().await.unwrap();
    bench.nodes.forget(&node());
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(bench.observed.borrow().leased.contains_key(&node()), "a removed node may still hold one");
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn who_reports_and_takes_no_lease_is_not_connected() {
    let mut bench = Bench::new().await;
    let planner = watch::Sender::new(grants(1, true));
    bench.nodes.lease_by(planner.subscribe());
    bench.agent.behave(|it| it.is_deaf_to_leases = true);
    bench.connect();
    bench.until(|it| it.connected).await;
    let lost = bench.until(|it| !it.connected).await;
    assert!(lost.lost_at >= Some(Timestamp(1_003_000)), "{lost:?}");
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn agents_are_told_who_belongs_to_the_cluster_and_soon_who_does_not_any_more() {
    let bench = Bench::new().await;
    let key = KeyId("ab".repeat(32));
    let [Change::PutNode(other)] = &note()[..] else { panic!("it is a node") };
    let with_key = Node { key: Some(key.clone()), ..Node::clone(other) };
    bench.commit(vec![Change::PutNode(Arc::new(with_key))]).await;
    bench.connect();
    let mut members = bench.agent.members();
    let removal = vec![Change::RemoveNode(other.id.clone())];
    for (changes, expected) in [(Vec::new(), [(other.id.clone(), key)].into()), (removal, BTreeMap::new())] {
        bench.commit(changes).await;
        let told = members.wait_for(|members| *members == expected);
        let told = tokio::time::timeout(Duration::from_secs(5), told).await;
        told.unwrap_or_else(|_| panic!("it is not told {expected:?}")).unwrap();
    }
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn of_an_agent_that_talks_nonsense_nothing_is_kept() {
    let mut bench = Bench::new().await;
    bench.agent.behave(|it| it.engine_version = Some("x".repeat(1 << 20)));
    bench.connect();
    bench.until(|it| it.connected).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(bench.store.snapshot().nodes.is_empty());
    bench.agent.behave(|it| it.engine_version = Some("28.0".to_owned()));
    let mut states = bench.store.watch();
    let kept = states.wait_for(|state| state.nodes.contains_key(&node()));
    tokio::time::timeout(Duration::from_secs(60), kept).await.expect("it is not registered").unwrap();
    bench.end().await;
}
