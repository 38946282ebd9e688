//! The whole agent over an engine in memory, on a paused clock.

mod conversations;
mod engine;
pub(crate) mod fake;
mod images;
mod leases;
mod routing;
mod takeover;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tug_api::client::CallError;
use tug_api::node::{EndpointsLine, NodeClient};
use tug_api::transport::Channel;
use tug_api::{Clock, Code};
use tug_model::assignment::Assignment;
use tug_model::endpoints::Endpoints;
use tug_model::report::{Failure, Health, Phase, Report, TaskReport};
use tug_model::spec::service::Port;
use tug_model::task::{Desired, Template};
use tug_model::{Millis, Timestamp};

use self::fake::{Behaviour, Engine};
use crate::app::{Agent, Config, Handle};
use crate::plan::tests::sample::{
    CLUSTER, assignment, drain, endpoints_of, id, node, port, probed, run, running, stop, template,
};
use crate::runtime::State;

/// A machine: what outlives its agents.
struct Machine {
    state: tempfile::TempDir,
    engine: Engine,
    clock: Clock,
}

/// An agent that runs, and what the orchestrator sees of it.
struct Running {
    handle: Handle,
    client: NodeClient,
    stop: CancellationToken,
    agent: JoinHandle<()>,
}

impl Machine {
    fn new() -> Self {
        let clock = Clock::starting_at(Timestamp(1_000_000_000_000));
        let engine = Engine::new(clock);
        engine.has_image("web:1", Behaviour::default());
        Self { state: tempfile::tempdir().unwrap(), engine, clock }
    }

    fn config(&self) -> Config {
        Config {
            state_dir: self.state.path().to_owned(),
            private: self.state.path().to_owned(),
            node: Some(node()),
            hostname: "testhost".to_owned(),
            labels: BTreeMap::new(),
            runtime: Arc::new(self.engine.clone()),
            prober: Arc::new(self.engine.clone()),
            clock: self.clock,
            server: None,
            balancer: None,
            peer: None,
            guard: None,
            concurrency: 4,
            seed: 1,
        }
    }

    async fn agent(&self) -> Running {
        self.agent_of(self.config()).await
    }

    async fn agent_of(&self, config: Config) -> Running {
        let (agent, handle) = Agent::open(config).await.unwrap();
        let stop = CancellationToken::new();
        let client = NodeClient::new(Channel::service(handle.router.clone()));
        let agent = tokio::spawn(agent.run(stop.clone()));
        Running { handle, client, stop, agent }
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        Path::join(self.state.path(), name)
    }

    fn running(&self) -> usize {
        self.engine.containers().iter().filter(|c| matches!(c.state, State::Running { .. })).count()
    }
}

impl Running {
    /// Tells it the assignment, and what belongs to it of `shop/web` published as port 8080.
    async fn assign(&self, assignment: &Assignment) {
        self.publish(assignment, port()).await;
    }

    async fn publish(&self, assignment: &Assignment, port: Port) {
        self.client.assign(assignment).await.unwrap();
        let Endpoints { stamp, services } = endpoints_of(assignment, port);
        let lines = services.iter().map(|service| EndpointsLine::new(service)).collect();
        self.client.tell_endpoints(&stamp, lines).await.unwrap();
    }

    /// The first report for which `holds`; it must come within an hour.
    async fn until(&self, what: &str, mut holds: impl FnMut(&Report) -> bool) -> Report {
        let mut reports = self.client.reports().await.unwrap();
        let mut last = None;
        let wait = async {
            while let Some(report) = reports.next().await {
                let report = report.unwrap();
                if holds(&report) {
                    return report;
                }
                last = Some(report);
            }
            panic!("the reports ended")
        };
        let found = tokio::time::timeout(Duration::from_secs(3600), wait).await;
        found.unwrap_or_else(|_| panic!("never {what}: {last:#?}"))
    }

    async fn until_healthy(&self, tasks: usize) -> Report {
        self.until("healthy", |report| {
            report.tasks.len() == tasks && report.tasks.iter().all(|task| task.phase.is_healthy())
        })
        .await
    }

    async fn until_gone(&self) -> Report {
        self.until("gone", |report| report.tasks.is_empty()).await
    }

    fn backends(&self) -> usize {
        self.handle.tables.borrow().routes.iter().map(|route| route.backends.len()).sum()
    }

    async fn end(self) {
        self.stop.cancel();
        self.agent.await.unwrap();
    }
}

fn task(report: &Report, number: u32) -> &TaskReport {
    report.tasks.iter().find(|task| task.id == id(number)).unwrap()
}

fn told(generation: u64, template: &Template, numbers: &[u32]) -> Assignment {
    assignment(generation, template, &run(numbers))
}

#[tokio::test(start_paused = true)]
async fn an_assignment_is_made_true_and_taken_back() {
    let machine = Machine::new();
    let agent = machine.agent().await;
    let numbers: Vec<u32> = (1..=20).collect();
    agent.assign(&told(1, &probed(template()), &numbers)).await;
    let report = agent.until_healthy(20).await;
    assert_eq!(report.following.generation.0, 1);
    assert_eq!(report.info.arch, "amd64");
    assert_eq!(agent.backends(), 20);
    assert_eq!(machine.engine.log_of("network").len(), 1, "once for all");
    assert_eq!(machine.engine.most_at_once(), 4);
    let last = *machine.engine.log_of("create").last().unwrap();
    assert!(last < Duration::from_millis(1300), "four at a time, 300 ms each, no pauses: {last:?}");

    agent.assign(&assignment(2, &template(), &[])).await;
    agent.until_gone().await;
    assert!(machine.engine.containers().is_empty());
    agent.until("the network gone", |_| machine.engine.networks_there() == 0).await;
    agent.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_killed_task_leaves_the_routes_at_once_and_is_started_again_at_once() {
    let machine = Machine::new();
    let agent = machine.agent().await;
    agent.assign(&told(1, &probed(template()), &[1, 2])).await;
    agent.until_healthy(2).await;
    tokio::time::sleep(Duration::from_secs(15)).await;

    let mut tables = agent.handle.tables.clone();
    tables.mark_unchanged();
    let killed = tokio::time::Instant::now();
    machine.engine.somebody_kills("shop.web.1.1");
    tables.changed().await.unwrap();
    assert!(killed.elapsed() <= Duration::from_millis(1), "before any list");
    assert_eq!(agent.backends(), 1);
    let report = agent
        .until("restarted", |report| task(report, 1).restarts == 1 && task(report, 1).phase.is_healthy())
        .await;
    assert_eq!(task(&report, 2).restarts, 0);
    assert!(killed.elapsed() < Duration::from_millis(500), "{:?}", killed.elapsed());
    assert_eq!(agent.backends(), 2);
    agent.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_new_agent_adopts_and_stopping_one_stops_nothing() {
    let machine = Machine::new();
    let agent = machine.agent().await;
    agent.assign(&told(1, &probed(template()), &[1, 2, 3])).await;
    agent.until_healthy(3).await;
    let before = machine.engine.containers();
    let log = machine.engine.log().len();
    agent.end().await;
    assert_eq!(machine.engine.containers(), before);
    tokio::time::sleep(Duration::from_secs(60)).await;

    let agent = machine.agent().await;
    let mut reports = agent.client.reports().await.unwrap();
    let first = reports.next().await.unwrap().unwrap();
    assert!(
        first.tasks.iter().all(|task| task.phase.is_healthy()),
        "no task is shown as starting: {first:#?}"
    );
    assert_eq!((first.tasks.len(), first.following.generation.0), (3, 1));
    let ages: Vec<_> = first.tasks.iter().map(|task| task.age).collect();
    assert!(
        ages.iter().all(|age| *age >= Millis::from_secs(60)),
        "they are no younger than they were: {ages:?}"
    );
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(machine.engine.containers(), before);
    assert_eq!(machine.engine.log().len(), log, "nothing was done to anything");
    agent.end().await;
}

#[tokio::test(start_paused = true)]
async fn with_the_orchestrator_away_a_new_agent_restarts_from_its_own_disk() {
    let machine = Machine::new();
    let agent = machine.agent().await;
    agent.assign(&told(1, &template(), &[1, 2])).await;
    agent.until_healthy(2).await;
    agent.end().await;
    machine.engine.somebody_kills("shop.web.1.1");
    machine.engine.somebody_removes("shop.web.2.1");

    let agent = machine.agent().await;
    let report = agent.until_healthy(2).await;
    assert_eq!(report.tasks.iter().map(|task| task.restarts).collect::<Vec<_>>(), [1, 1]);
    assert_eq!(agent.backends(), 2, "it routes by the endpoints on its disk");
    agent.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_crash_loop_backs_off_to_five_minutes_and_says_what_the_container_said() {
    let machine = Machine::new();
    machine.engine.has_image(
        "web:1",
        Behaviour { crashes: Some((Duration::from_millis(50), 3)), ..Behaviour::default() },
    );
    let agent = machine.agent().await;
    agent.assign(&told(1, &template(), &[1])).await;
    let report = agent
        .until("waiting long", |report| {
            matches!(&task(report, 1).phase, Phase::Waiting { failure: Failure::Exited { exit }, retry_in }
                if retry_in.0 > 290_000 && !exit.last_words.is_empty())
        })
        .await;
    let Phase::Waiting { failure: Failure::Exited { exit }, .. } = &task(&report, 1).phase else { panic!() };
    assert_eq!((exit.code, exit.last_words.as_str()), (3, "starting\npanic: no luck"));
    tokio::time::sleep(Duration::from_secs(1200)).await;
    let starts = machine.engine.log_of("start");
    let waits: Vec<u64> = starts.windows(2).map(|pair| pair[1].saturating_sub(pair[0]).as_secs()).collect();
    assert_eq!((&waits[..3], &waits[5..9]), (&[0, 0, 0][..], &[3, 6, 13, 26][..]), "{waits:?}");
    assert!(waits.iter().all(|wait| *wait <= 301), "{waits:?}");
    assert_eq!(waits.last(), Some(&300), "{waits:?}");
    agent.end().await;
}

#[tokio::test(start_paused = true)]
async fn what_somebody_does_by_hand_is_undone() {
    let machine = Machine::new();
    let agent = machine.agent().await;
    agent.assign(&told(1, &template(), &[1, 2])).await;
    agent.until_healthy(2).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    machine.engine.somebody_removes("shop.web.1.1");
    machine.engine.somebody_pauses("shop.web.2.1");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let report = agent.until_healthy(2).await;
    assert_eq!(task(&report, 1).restarts, 1);
    assert_eq!(machine.running(), 2);
    agent.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_task_has_its_grace_to_stop_and_holds_up_nobody() {
    let machine = Machine::new();
    machine.engine.has_image("web:1", Behaviour { is_stubborn: true, ..Behaviour::default() });
    let agent = machine.agent().await;
    agent.assign(&told(1, &template(), &[1])).await;
    agent.until_healthy(1).await;
    let asked = tokio::time::Instant::now();
    let next = assignment(2, &template(), &[(1, stop()), (2, Desired::Run)]);
    agent.assign(&next).await;
    agent
        .until("the new one healthy", |report| {
            report.tasks.iter().any(|t| t.id == id(2) && t.phase.is_healthy())
        })
        .await;
    assert!(asked.elapsed() < Duration::from_secs(1));
    let report = agent.until("the old one gone", |report| report.tasks.len() == 1).await;
    assert_eq!(report.tasks[0].id, id(2));
    let took = asked.elapsed().as_secs_f64();
    assert!((10.0..10.5).contains(&took), "{took}");
    agent.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_drained_task_runs_on_out_of_the_routes() {
    let machine = Machine::new();
    let agent = machine.agent().await;
    agent.assign(&told(1, &template(), &[1, 2])).await;
    agent.until_healthy(2).await;
    agent.assign(&assignment(2, &template(), &[(1, drain()), (2, Desired::Run)])).await;
    agent.until("following", |report| report.following.endpoints.0 == 2).await;
    assert_eq!(agent.backends(), 1, "what is reported as followed is what is routed by");
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(machine.running(), 2);
    agent.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_empty_older_or_foreign_control_plane_stops_nothing() {
    let machine = Machine::new();
    let agent = machine.agent().await;
    agent.assign(&told(5, &template(), &[1, 2])).await;
    agent.until_healthy(2).await;
    let mut foreign = assignment(9, &template(), &[]);
    foreign.cluster = "fresh".to_owned();
    let mut misled = told(9, &template(), &[1]);
    misled.node = tug_model::NodeId::parse("n2").unwrap();
    for refused in [foreign, told(4, &template(), &[1]), assignment(5, &template(), &[]), misled] {
        let Err(CallError::Api(error)) = agent.client.assign(&refused).await else { panic!("{refused:?}") };
        assert_eq!(error.code, Code::Conflict, "{error}");
    }
    let mut flawed = told(9, &template(), &[1, 2]);
    flawed.templates.clear();
    let Err(CallError::Api(error)) = agent.client.assign(&flawed).await else { panic!() };
    assert_eq!(error.code, Code::Invalid);
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(machine.running(), 2);
    agent.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_damaged_ledger_is_rebuilt_from_labels_and_stops_nothing() {
    for file in ["assignment.json", "restarts.json"] {
        let machine = Machine::new();
        let agent = machine.agent().await;
        agent.assign(&told(5, &template(), &[1, 2])).await;
        agent.until_healthy(2).await;
        agent.end().await;
        let mut bytes = std::fs::read(machine.file(file)).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(machine.file(file), bytes).unwrap();

        let agent = machine.agent().await;
        let report = agent.until_healthy(2).await;
        assert_eq!(report.following.cluster, CLUSTER, "{file}");
        let mut foreign = assignment(9, &template(), &[]);
        foreign.cluster = "fresh".to_owned();
        assert!(agent.client.assign(&foreign).await.is_err(), "the containers say whose node this is");
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert_eq!(machine.running(), 2);
        assert_eq!(machine.engine.log_of("start").len(), 2, "nothing was started again");
        agent.assign(&told(6, &template(), &[1])).await;
        agent.until_healthy(1).await;
        agent.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn foreign_containers_are_neither_touched_nor_reported() {
    let machine = Machine::new();
    let mut foreign = running(7, &template());
    foreign.identity.cluster = "other".to_owned();
    machine.engine.put(foreign.clone());
    let agent = machine.agent().await;
    // The node belongs to the other cluster, as far as anybody knows: first it must be told otherwise.
    let Err(CallError::Api(error)) = agent
        .client
        .assign(&{
            agent.until("looked", |_| true).await;
            told(1, &template(), &[1])
        })
        .await
    else {
        panic!()
    };
    assert_eq!(error.code, Code::Conflict);
    agent.end().await;

    let machine = Machine::new();
    let agent = machine.agent().await;
    agent.assign(&told(1, &template(), &[1])).await;
    agent.until_healthy(1).await;
    machine.engine.put(foreign.clone());
    tokio::time::sleep(Duration::from_secs(30)).await;
    let report = agent.until("a report", |_| true).await;
    assert_eq!(report.tasks.len(), 1);
    agent.assign(&assignment(2, &template(), &[])).await;
    agent.until_gone().await;
    assert_eq!(machine.engine.containers(), [foreign]);
    agent.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_network_that_somebody_else_uses_is_tried_ever_more_rarely() {
    let machine = Machine::new();
    let agent = machine.agent().await;
    agent.assign(&told(1, &template(), &[1])).await;
    agent.until_healthy(1).await;
    let mut foreign = running(7, &template());
    foreign.identity.cluster = "other".to_owned();
    foreign.identity.project = tug_model::ProjectName::parse("elsewhere").unwrap();
    machine.engine.put(foreign);
    agent.assign(&assignment(2, &template(), &[])).await;
    agent.until_gone().await;
    tokio::time::sleep(Duration::from_secs(120)).await;
    let tries = machine.engine.log_of("remove network").len();
    assert!((6..=8).contains(&tries), "{tries}");
    agent.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_task_counts_as_soon_as_it_listens_and_no_sooner() {
    let machine = Machine::new();
    machine.engine.has_image("web:1", Behaviour { warm_up: Duration::from_secs(2), ..Behaviour::default() });
    let agent = machine.agent().await;
    agent.assign(&told(1, &probed(template()), &[1])).await;
    let report = agent
        .until("starting", |report| {
            report.tasks.iter().any(|t| matches!(t.phase, Phase::Running { health: Health::Starting, .. }))
        })
        .await;
    assert_eq!((report.tasks.len(), agent.backends()), (1, 0));
    let began = tokio::time::Instant::now();
    agent.until_healthy(1).await;
    let took = began.elapsed().as_secs_f64();
    assert!((1.8..2.6).contains(&took), "{took}");
    agent.end().await;
}
