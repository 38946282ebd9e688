//! The loop over a store in memory, on a paused clock, with agents that are drawn: what it commits, and what it does not.

mod observing;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tug_api::Clock;
use tug_model::event::EventKind;
use tug_model::task::Desired;
use tug_model::{ProjectName, Revision, TaskId};

use super::{Batch, Control, Handle};
use crate::plan::tests::draw::{NOW, draw, tasks_on};
use crate::plan::{self, Observed, Timing, World, assignment};
use crate::store::{self, Change, MemoryDisk, State, Store};

/// A store, the loop over it, and one obedient agent.
struct Bench {
    store: Store,
    disk: MemoryDisk,
    observed: watch::Sender<Arc<Observed>>,
    handle: Handle,
    stop: CancellationToken,
    running: Vec<JoinHandle<()>>,
}

impl Bench {
    async fn new(config: impl Fn(store::Config) -> store::Config) -> Self {
        Self::on(MemoryDisk::new(), config).await
    }

    /// Another one on the same disk, after the end of this.
    async fn restarted(self) -> Self {
        let disk = self.disk.clone();
        self.end().await;
        Self::on(disk, |config| config).await
    }

    async fn on(disk: MemoryDisk, config: impl Fn(store::Config) -> store::Config) -> Self {
        let (store, writer) = store::open(config(store::Config::memory(&disk, "c"))).await.unwrap();
        let observed = watch::Sender::default();
        let (control, handle) =
            Control::new(store.clone(), observed.subscribe(), Clock::starting_at(NOW), Timing::default());
        let stop = CancellationToken::new();
        let running =
            vec![tokio::spawn(writer.run(stop.child_token())), tokio::spawn(control.run(stop.clone()))];
        Self { store, disk, observed, handle, stop, running }
    }

    async fn commit(&self, changes: Vec<Change>) -> Revision {
        self.store.commit(NOW, |_, _| changes).await.unwrap()
    }

    /// The projects and nodes of a drawing are wanted and there; what its agents say is said.
    async fn want(&self, drawing: &str) {
        let World { projects, nodes, .. } = draw(drawing);
        let mut changes: Vec<Change> = nodes.values().cloned().map(Change::PutNode).collect();
        changes.extend(projects.values().cloned().map(Change::PutProject));
        self.commit(changes).await;
    }

    fn say(&self, drawing: &str) {
        self.observed.send_replace(draw(drawing).observed);
    }

    /// Waits until the store is so, with the node saying of each of its tasks what `phase` says.
    async fn until(&self, phase: &str, is_so: impl Fn(&State) -> bool) -> Arc<State> {
        let mut states = self.store.watch();
        let reached = async {
            loop {
                let state = Arc::clone(&states.borrow_and_update());
                self.say(&report(&state, phase));
                if is_so(&state) {
                    return state;
                }
                states.changed().await.unwrap();
            }
        };
        timeout(Duration::from_secs(60), reached).await.expect("not within a minute")
    }

    fn tasks(&self) -> Vec<String> {
        let state = self.store.snapshot();
        state.tasks.values().map(|task| format!("{} {}", task.id, short(task.desired))).collect()
    }

    fn events(&self) -> Vec<String> {
        let state = self.store.snapshot();
        let named = |id: &Option<TaskId>| id.as_ref().map_or_else(String::new, |id| format!("{id} "));
        let events = state.events.values();
        events
            .map(|event| format!("{}: {}{}", event.kind.as_str(), named(&event.task), event.message))
            .collect()
    }

    async fn end(self) {
        self.stop.cancel();
        for running in self.running {
            running.await.unwrap();
        }
    }
}

/// What an agent that follows the newest assignment of node n1 says.
fn report(state: &State, phase: &str) -> String {
    let mut lines = vec![format!("node n1 acked={0} follows={0}", state.revision)];
    let world = super::world(state, &Arc::default());
    let node = tug_model::NodeId::parse("n1").unwrap();
    let told = assignment(&world, "c", 1, &node, tasks_on(&world, &node));
    for task in told.tasks.iter().filter(|task| !matches!(task.desired, Desired::Stop { .. })) {
        lines.push(format!("task {} n1 v1 {phase}", task.id));
    }
    lines.join("\n")
}

fn short(desired: Desired) -> &'static str {
    match desired {
        Desired::Run => "run",
        Desired::Drain { .. } => "drain",
        Desired::Stop { .. } => "stop",
    }
}

fn all_run(state: &State, count: usize) -> bool {
    state.tasks.len() == count && state.tasks.values().all(|task| task.desired == Desired::Run)
}

/// Lets everything happen that happens by itself within a second.
async fn settle() {
    tokio::time::sleep(Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_wanted_is_decided_in_one_commit_and_told() {
    let bench = Bench::new(|config| config).await;
    bench.say("node n1");
    bench.want("node n1\nservice shop/web x2 port=80:80").await;
    bench.until("creating", |state| all_run(state, 2)).await;
    assert_eq!(bench.tasks(), ["shop.web.1.2 run", "shop.web.2.2 run"]);
    settle().await;
    assert_eq!(
        bench.events(),
        [
            "node: its agent is connected",
            "planned: shop.web.1.2 created on node n1: 0 of 2 running",
            "planned: shop.web.2.2 created on node n1: 1 of 2 running",
        ]
    );
    let view = bench.handle.view().borrow().clone();
    assert_eq!(view.world.tasks.len(), 2, "what is decided is seen");
    assert!(bench.handle.levels().borrow().passes > 0);
    assert_eq!(bench.handle.levels().borrow().decisions, 2);
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_goes_and_comes_is_told_of_once_also_when_we_restart_meanwhile() {
    let mut bench = Bench::new(|config| config).await;
    bench.want("node n1").await;
    for drawing in ["node n1", "node n1 enginedown", "node n1 enginedown"] {
        bench.say(drawing);
        settle().await;
    }
    for drawing in ["node n1 enginedown", "node n1", "node n1"] {
        bench = bench.restarted().await;
        bench.say(drawing);
        settle().await;
    }
    let (down, up) =
        ("node: its Docker Engine does not answer: refused", "node: its Docker Engine answers again");
    let events = bench.events();
    let of_engine: Vec<&str> =
        events.iter().map(String::as_str).filter(|event| event.contains("Engine")).collect();
    assert_eq!(of_engine, [down, up], "{events:?}");
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_pass_with_nothing_to_do_writes_nothing() {
    let bench = Bench::new(|config| config).await;
    bench.say("node n1");
    bench.want("node n1\nservice shop/web x2").await;
    bench.until("healthy", |state| all_run(state, 2)).await;
    settle().await;
    let (revision, passes) = (bench.store.snapshot().revision, bench.handle.levels().borrow().passes);
    for _ in 0..20 {
        bench.say(&report(&bench.store.snapshot(), "healthy"));
        settle().await;
    }
    assert_eq!(bench.store.snapshot().revision, revision);
    assert!(bench.handle.levels().borrow().passes >= passes + 20, "it looked each time");
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_task_goes_by_drain_and_stop_and_is_forgotten() {
    let bench = Bench::new(|config| config).await;
    bench.say("node n1");
    bench.want("node n1\nservice shop/web x2 port=80:80").await;
    bench.until("healthy", |state| all_run(state, 2)).await;
    settle().await;
    bench.want("node n1\nservice shop/web x1 port=80:80").await;
    bench.until("healthy", |state| all_run(state, 1)).await;
    settle().await;
    let events = bench.events();
    let of_second: Vec<&String> = events.iter().filter(|event| event.contains("shop.web.2.")).collect();
    assert_eq!(
        of_second,
        [
            "planned: shop.web.2.2 created on node n1: 1 of 2 running",
            "healthy: shop.web.2.2 is healthy",
            "planned: shop.web.2.2 leaves the routes: only 1 replica is wanted",
            "planned: shop.web.2.2 is stopped: no connection is left",
        ]
    );
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_silent_world_is_looked_at_when_the_plan_said_so() {
    let bench = Bench::new(|config| config).await;
    bench.say("node n1");
    bench.want("node n1\nservice shop/web x1 port=80:80 grace=5000").await;
    bench.until("healthy", |state| all_run(state, 1)).await;
    settle().await;
    bench.commit(vec![Change::RemoveProject(ProjectName::parse("shop").unwrap())]).await;
    let draining =
        |state: &State| state.tasks.values().all(|task| matches!(task.desired, Desired::Drain { .. }));
    let mut states = bench.store.watch();
    states.wait_for(|state| draining(state)).await.unwrap();
    let revision = bench.store.snapshot().revision;
    let [id] = &bench.store.snapshot().tasks.keys().cloned().collect::<Vec<_>>()[..] else { panic!() };
    bench.say(&format!("node n1 acked={revision} follows={revision}\ntask {id} n1 v1 healthy c=1"));
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(draining(&bench.store.snapshot()), "its connection has its grace");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(bench.tasks(), [format!("{id} stop")]);
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn other_writers_are_no_obstacle() {
    let bench = Bench::new(|config| config).await;
    bench.say("node n1");
    let noisy = bench.store.clone();
    let stop = bench.stop.clone();
    let writer = tokio::spawn(async move {
        let mut count = 0_u64;
        while !stop.is_cancelled() {
            let event = super::observe::event(EventKind::Project, NOW, format!("noise {count}"));
            let change = vec![Change::Record(event.into())];
            noisy.commit(NOW, |_, _| change).await.unwrap();
            count += 1;
            tokio::time::sleep(Duration::from_millis(count % 3)).await;
            if count == 500 {
                break;
            }
        }
    });
    bench.want("node n1\nservice shop/web x5").await;
    let state = bench.until("healthy", |state| all_run(state, 5)).await;
    assert!(
        state.tasks.values().all(|task| task.id.as_str().starts_with(&format!("shop.web.{}.", task.slot)))
    );
    writer.await.unwrap();
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_huge_plan_is_carried_out_in_parts() {
    let bench = Bench::new(|config| config).await;
    bench.say("node n1");
    bench.want("node n1\nservice shop/web x9000").await;
    let state = bench.until("creating", |state| all_run(state, 9000)).await;
    let commits: std::collections::BTreeSet<&str> =
        state.tasks.keys().map(|id| id.as_str().rsplit('.').next().unwrap()).collect();
    assert_eq!(commits.len(), 9);
    let planned = bench.events().iter().filter(|event| event.starts_with("planned")).count();
    assert_eq!(planned, 9 * 21, "many decisions of one kind are summed up");
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn on_a_full_disk_what_makes_room_is_carried_out_and_the_rest_later() {
    let bench = Bench::new(|config| store::Config { ballast_bytes: 64 << 10, ..config }).await;
    bench.say("node n1");
    let wanted = "node n1\nnode n2\nservice shop/web\nservice shop/late only=node.id==n2\nservice blog/web";
    bench.want(wanted).await;
    bench.until("healthy", |state| all_run(state, 2)).await;
    settle().await;
    bench.disk.limit(Some(bench.disk.used()));
    let fill = async |bytes: usize| {
        let event = super::observe::event(EventKind::Project, NOW, "x".repeat(bytes));
        bench.store.commit(NOW, |_, _| vec![Change::Record(event.into())]).await
    };
    assert_eq!(fill(100 << 10).await, Err(store::CommitError::Full));
    assert!(fill(40 << 10).await.is_ok(), "it takes a part of what was kept back");

    // What is to be stopped and what is to be created come into one plan.
    bench
        .observed
        .send_replace(draw(&format!("{}\nnode n2", report(&bench.store.snapshot(), "healthy"))).observed);
    bench.commit(vec![Change::RemoveProject(ProjectName::parse("blog").unwrap())]).await;
    let mut states = bench.store.watch();
    let stopped = |state: &Arc<State>| {
        let mut blog = state.tasks.values().filter(|task| task.project.as_str() == "blog");
        blog.all(|task| task.desired != Desired::Run)
    };
    states.wait_for(stopped).await.unwrap();
    settle().await;
    assert!(!bench.tasks().iter().any(|task| task.starts_with("shop.late")), "{:?}", bench.tasks());
    assert!(bench.tasks().iter().any(|task| task.starts_with("shop.web")), "{:?}", bench.tasks());

    bench.disk.limit(None);
    bench
        .observed
        .send_replace(draw(&format!("{}\nnode n2", report(&bench.store.snapshot(), "healthy"))).observed);
    let created = |state: &Arc<State>| state.tasks.keys().any(|id| id.as_str().starts_with("shop.late.1."));
    timeout(Duration::from_secs(60), states.wait_for(created)).await.expect("there is room again").unwrap();
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn it_ends_when_it_is_asked_to_and_when_the_store_ends() {
    let bench = Bench::new(|config| config).await;
    bench.end().await;

    let disk = MemoryDisk::new();
    let (store, writer) = store::open(store::Config::memory(&disk, "c")).await.unwrap();
    let observed = watch::Sender::new(draw("node n1").observed);
    let (control, handle) =
        Control::new(store.clone(), observed.subscribe(), Clock::starting_at(NOW), Timing::default());
    let closed = CancellationToken::new();
    closed.cancel();
    writer.run(closed).await;
    control.run(CancellationToken::new()).await;
    assert!(handle.view().has_changed().is_err(), "nobody publishes any more");
}

#[test]
fn decisions_are_carried_out_as_long_as_what_they_are_about_is_as_it_was() {
    let World { projects, nodes, observed, .. } =
        draw("node n1\nnode n2\nservice shop/web x2\nservice blog/web");
    let mut state = State::new("c", 1);
    let mut changes: Vec<Change> = nodes.values().cloned().map(Change::PutNode).collect();
    changes.extend(projects.values().cloned().map(Change::PutProject));
    state.apply(Revision(1), &changes);
    let world = super::world(&state, &observed);
    let mut decisions = plan::plan(&world, NOW).decisions;
    decisions.retain(|decision| decision.to_string().contains("shop"));
    assert_eq!(decisions.len(), 2);
    let made_after = |change: Change| {
        let mut state = state.clone();
        state.apply(Revision(2), &[change]);
        Batch::new(world.clone(), decisions.clone(), Vec::new(), NOW).changes(Revision(3), &state).is_ok()
    };
    let put = |drawing: &str, name: &str| {
        let stored = draw(drawing).projects.remove(&ProjectName::parse(name).unwrap()).unwrap();
        made_after(Change::PutProject(stored))
    };
    let removed = |name: &str| made_after(Change::RemoveProject(ProjectName::parse(name).unwrap()));
    assert!(put("service blog/web x9", "blog"), "another project has a new version");
    assert!(put("service third/web", "third"), "there is one more");
    assert!(removed("blog"), "another project is removed");
    assert!(!put("service shop/web x1", "shop"), "the project has a new version");
    assert!(!removed("shop"), "the project is removed");
    let node = draw("node n2 drain=90000").nodes.values().next().cloned().unwrap();
    assert!(!made_after(Change::PutNode(node)), "a node is another one");
    assert!(!made_after(Change::RemoveNode(tug_model::NodeId::parse("n2").unwrap())), "a node is removed");
}

#[test]
fn what_makes_room_is_found_behind_what_does_not() {
    let world = draw(
        "node n1\nservice shop/web x3\ntask blog.web.1.5 n1 v1 healthy\ntask blog.web.2.5 n1 v1 healthy",
    );
    let decisions = plan::plan(&world, NOW).decisions;
    let creates = decisions.iter().take_while(|it| matches!(it.change, plan::Change::Create(_))).count();
    assert_eq!((creates, decisions.len()), (3, 5), "the tasks of the project that is not wanted go last");
    let batch = |decisions: &[plan::Decision]| Batch::new(world.clone(), decisions.to_vec(), Vec::new(), NOW);
    assert_eq!(batch(&decisions).shrinking(1).map(|batch| batch.len()), Some(1));
    assert_eq!(batch(&decisions).shrinking(9).map(|batch| batch.len()), Some(2));
    assert!(batch(&decisions[..3]).shrinking(9).is_none());
}
