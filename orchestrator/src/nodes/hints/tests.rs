//! What an agent hears of the backends on other nodes.

use tug_model::project::StoredProject;
use tug_model::task::{Desired, Template};
use tug_model::{Revision, Slot, Timestamp};

use super::*;
use crate::nodes::Nodes;
use crate::nodes::fake::FakeAgent;
use crate::store::{self, Change, MemoryDisk, Store};
use tokio::sync::watch::Receiver;
use tokio_util::sync::CancellationToken;
use tug_api::Clock;

/// Two connected agents, and a task of a published service on the first.
struct Bench {
    store: Store,
    nodes: Nodes,
    agents: [FakeAgent; 2],
    stop: CancellationToken,
    running: Vec<tokio::task::JoinHandle<()>>,
}

impl Bench {
    async fn new() -> Self {
        let disk = MemoryDisk::new();
        let (store, writer) = store::open(store::Config::memory(&disk, "c1")).await.unwrap();
        let (nodes, publisher) = Nodes::new(store.clone(), Clock::starting_at(Timestamp(1_000_000)));
        let stop = CancellationToken::new();
        let (stop_writer, stop_publisher) = (stop.clone(), stop.clone());
        let running =
            vec![tokio::spawn(writer.run(stop_writer)), tokio::spawn(publisher.run(stop_publisher))];
        let agents = ["n1", "n2"].map(FakeAgent::new);
        let bench = Self { store, nodes, agents, stop, running };
        bench.connect(0);
        bench.connect(1);
        bench.deploy().await;
        bench
    }

    fn connect(&self, at: usize) {
        let agent = &self.agents[at];
        self.nodes.register(node(at), agent.channel());
    }

    async fn deploy(&self) {
        let spec = serde_json::json!({ "name": "shop", "services": { "web": {
            "container": { "image": "hello" },
            "ports": [{ "target": 80, "published": 8080, "protocol": "tcp", "mode": "ingress" }],
        } } });
        let spec: tug_model::spec::Project = serde_json::from_value(spec).unwrap();
        let template = Template::of(&spec, &spec.services["web"]);
        let task = Task {
            id: task(),
            project: spec.name.clone(),
            service: ServiceName::parse("web").unwrap(),
            slot: Slot(1),
            node: node(0),
            template: template.hash(),
            desired: Desired::Run,
            created_at: Timestamp(1),
            exclusive: None,
        };
        let project = StoredProject {
            spec,
            source: Vec::new(),
            number: 1,
            revision: Revision(1),
            accepted_at: Timestamp(1),
        };
        let changes = vec![
            Change::PutProject(Arc::new(project)),
            Change::template(template),
            Change::PutTask(Arc::new(task)),
        ];
        self.store.commit(Timestamp(1), move |_, _| changes).await.unwrap();
    }

    /// Waits until the second agent was last sent `hints`.
    async fn heard(&self, is_so: impl Fn(&Hints) -> bool) {
        let mut heard: Receiver<Vec<Hints>> = self.agents[1].hints();
        let heard = heard.wait_for(|all| all.last().is_some_and(&is_so));
        timeout(Duration::from_secs(60), heard).await.expect("not within a minute").unwrap();
    }

    async fn end(self) {
        self.stop.cancel();
        for running in self.running {
            running.await.unwrap();
        }
    }
}

fn node(at: usize) -> NodeId {
    NodeId::parse(&format!("n{}", at + 1)).unwrap()
}

fn task() -> TaskId {
    let (project, service) = (ProjectName::parse("shop").unwrap(), ServiceName::parse("web").unwrap());
    Task::id_for(&project, &service, Slot(1), Revision(1))
}

fn is_empty(hints: &Hints) -> bool {
    *hints == Hints::default()
}

#[tokio::test(start_paused = true)]
async fn a_task_that_does_not_serve_is_hinted_at_until_it_does() {
    let bench = Bench::new().await;
    bench.heard(is_empty).await;
    bench.agents[0].behave(|it| it.is_sick = true);
    bench.heard(|hints| hints.unready.contains(&task()) && hints.away.is_empty()).await;
    bench.agents[0].behave(|it| it.is_sick = false);
    bench.heard(is_empty).await;
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_silent_node_leaves_the_routes_of_the_others_within_four_seconds_and_comes_back() {
    let bench = Bench::new().await;
    bench.heard(is_empty).await;
    // Past the time in which nothing is concluded from a silence.
    sleep(SETTLE).await;
    let start = Instant::now();
    bench.agents[0].behave(|it| it.is_silent = true);
    bench.heard(|hints| hints.away.contains(&node(0))).await;
    assert!(start.elapsed() <= Duration::from_secs(4), "{:?}", start.elapsed());
    bench.agents[0].behave(|it| it.is_silent = false);
    bench.connect(0);
    bench.heard(is_empty).await;
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_at_first_is_given_time() {
    let bench = Bench::new().await;
    bench.agents[0].behave(|it| it.is_silent = true);
    let sent = bench.agents[1].hints();
    sleep(SETTLE / 4).await;
    assert!(sent.borrow().iter().all(|hints| hints.away.is_empty()));
    bench.end().await;
}
