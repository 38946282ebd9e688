//! A cluster at rest, with services that can serve, and the questions that stories ask about it.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tug_model::task::Desired;
use tug_model::{ProjectName, ServiceName, Slot, TaskId};

use crate::sim::action::{Action, ControlAction, NodeAction, Request};
use crate::sim::cluster::Cluster;
use crate::sim::{draw, invariant};

/// How long anything that is to be made takes at most: fetched, made, started, probed.
pub(super) const A_START: u64 = 6_000;
/// So long a node may be silent without anything being moved.
pub(super) const PATIENCE: u64 = 2_500;
/// After so long its tasks are moved: four seconds after its last word, if nobody is in doubt.
pub(super) const MOVED: u64 = 5_000;
/// The same if it did not fall silent but closed its connection, or takes no orders.
pub(super) const MISSED: u64 = 11_000;
/// An engine that tells of nothing is looked at so often.
pub(super) const LISTED: u64 = 5_000;
/// Duplicates end in so much time after everything is whole again: it is dialled within two seconds.
pub(super) const TIDY: u64 = 10_000;
const STEP: u64 = 250;

/// A container that runs: where, of which task, and how often it was started.
pub(super) type Running = BTreeSet<(String, TaskId, u64)>;

/// Where a story takes place.
#[derive(Debug)]
pub(super) struct Scene {
    pub(super) cluster: Cluster,
    pub(super) dice: fastrand::Rng,
    pub(super) trace: Vec<String>,
    /// Replicas that are wanted, by service; the global one apart.
    pub(super) wanted: BTreeMap<ServiceName, u32>,
    /// Of a slot, at most so many containers may run at once on all machines together.
    pub(super) copies: usize,
}

// === impl Scene ===

impl Scene {
    /// A cluster of so many nodes with two replicated services, one of them of several replicas, and a global one.
    pub(super) async fn open(seed: u64, nodes: usize) -> Result<Self> {
        let cluster = Cluster::start(seed, nodes).await?;
        let dice = fastrand::Rng::with_seed(seed);
        let (trace, wanted) = (Vec::new(), BTreeMap::new());
        let mut scene = Self { cluster, dice, trace, wanted, copies: 2 };
        let (web, api) = (scene.dice.u32(2..7), scene.dice.u32(1..3));
        scene.wanted = BTreeMap::from([(service("web")?, web), (service("api")?, api)]);
        scene.apply("good:1").await?;
        scene.all_serve(60_000).await?;
        scene.pass(2_000).await?;
        Ok(scene)
    }

    /// The project, with `image` for its services.
    pub(super) async fn apply(&mut self, image: &str) -> Result<()> {
        let replicated = |count: u32| draw::plain(image, &json!({"replicated": count}));
        let mut services: serde_json::Map<_, _> =
            self.wanted.iter().map(|(name, count)| (name.to_string(), replicated(*count))).collect();
        services.insert("every".to_owned(), draw::plain("good:1", &json!("global")));
        let spec = draw::whole(&project()?, &services.into());
        self.act(Action::Ask(Request::Apply(Box::new(spec)))).await
    }

    /// Something happens.
    pub(super) async fn act(&mut self, action: Action) -> Result<()> {
        self.trace.push(format!("{} {action}", self.cluster.now()));
        self.cluster.perform(&action).await.with_context(|| action.to_string())
    }

    pub(super) async fn on(&mut self, node: usize, action: NodeAction) -> Result<()> {
        self.act(Action::Node(node, action)).await
    }

    pub(super) async fn control(&mut self, action: ControlAction) -> Result<()> {
        self.act(Action::Control(action)).await
    }

    /// One of the machines, by the dice.
    pub(super) fn any_node(&mut self) -> usize {
        let count = self.cluster.nodes.len();
        self.dice.usize(0..count)
    }

    /// Time passes, and nothing happens that must not.
    pub(super) async fn pass(&mut self, millis: u64) -> Result<()> {
        for _ in 0..millis / STEP {
            self.cluster.pass(STEP).await?;
            self.no_slot_runs_too_often()?;
        }
        invariant::check(&mut self.cluster).await
    }

    fn no_slot_runs_too_often(&self) -> Result<()> {
        let mut slots: BTreeMap<(ServiceName, Slot), BTreeSet<TaskId>> = BTreeMap::new();
        for (container, _) in invariant::ours(&self.cluster).filter(|(container, _)| container.is_running()) {
            let Some(identity) = container.identity else { continue };
            slots.entry((identity.service, identity.slot)).or_default().insert(identity.task);
        }
        let crowded = slots.iter().find(|(_, tasks)| tasks.len() > self.copies);
        ensure!(crowded.is_none(), "a slot runs more than {} times: {crowded:?}", self.copies);
        Ok(())
    }

    /// Waits until `holds`, at most so long.
    pub(super) async fn until(
        &mut self,
        millis: u64,
        what: &str,
        holds: impl Fn(&Self) -> bool,
    ) -> Result<()> {
        for _ in 0..=millis / STEP {
            if holds(self) {
                return Ok(());
            }
            self.cluster.pass(STEP).await?;
            self.no_slot_runs_too_often()?;
        }
        let (running, now) = (self.running(), self.cluster.now());
        ensure!(holds(self), "{now}: {what}, which took longer than {millis} ms: {running:?}");
        Ok(())
    }

    /// Waits until as many replicas serve as are wanted, on machines that count.
    pub(super) async fn all_serve(&mut self, millis: u64) -> Result<()> {
        self.until(millis, "every replica serves", Self::is_whole).await
    }

    pub(super) fn is_whole(&self) -> bool {
        self.wanted.iter().all(|(name, wanted)| self.serving(name).len() >= *wanted as usize)
    }

    /// The slots of a service that a container serves, on a machine that the orchestrator hears.
    pub(super) fn serving(&self, service: &ServiceName) -> BTreeSet<Slot> {
        let heard = |id: &tug_model::NodeId| {
            let view = self.cluster.view();
            view.is_none_or(|view| view.world.observed.nodes.get(id).is_some_and(|node| node.connected))
        };
        let nodes = self.cluster.nodes.iter().filter(|node| node.is_on() && heard(&node.id));
        let slots = nodes.flat_map(|node| {
            node.engine.look(|container| {
                let identity = container.identity.as_ref()?;
                (identity.service == *service && container.serves()).then_some(identity.slot)
            })
        });
        slots.collect()
    }

    /// Every container of ours that runs.
    pub(super) fn running(&self) -> Running {
        let nodes = self.cluster.nodes.iter();
        let running = nodes.flat_map(|node| {
            node.engine.look(|container| {
                let task = container.identity.as_ref().filter(|_| container.is_running())?.task.clone();
                Some((node.id.to_string(), task, container.starts))
            })
        });
        running.collect()
    }

    /// The tasks that are decided, and what for.
    pub(super) fn tasks(&self) -> BTreeMap<TaskId, Desired> {
        let state = self.cluster.witness.newest();
        let tasks = state.iter().flat_map(|state| state.tasks.values());
        tasks.map(|task| (task.id.clone(), task.desired)).collect()
    }

    /// Every task is meant to run, has one container, and there is no other.
    pub(super) fn is_tidy(&self) -> bool {
        let tasks = self.tasks();
        let running: Vec<TaskId> = self.running().into_iter().map(|(_, task, _)| task).collect();
        tasks.values().all(|desired| *desired == Desired::Run)
            && running.len() == tasks.len()
            && running.iter().all(|task| tasks.contains_key(task))
    }

    /// So long nothing is decided, and the same containers run.
    pub(super) async fn nothing_moves(&mut self, millis: u64) -> Result<()> {
        let (tasks, running) = (self.tasks(), self.running());
        self.pass(millis).await?;
        self.is_unmoved(&tasks, &running)
    }

    pub(super) fn is_unmoved(&self, tasks: &BTreeMap<TaskId, Desired>, running: &Running) -> Result<()> {
        ensure!(*tasks == self.tasks(), "nothing is to be decided:\n  {tasks:?}\n  {:?}", self.tasks());
        ensure!(*running == self.running(), "nothing is to move:\n  {running:?}\n  {:?}", self.running());
        Ok(())
    }

    pub(super) async fn close(self) {
        self.cluster.stop().await;
    }
}

pub(super) fn project() -> Result<ProjectName> {
    Ok(ProjectName::parse("red")?)
}

fn service(name: &str) -> Result<ServiceName> {
    Ok(ServiceName::parse(name)?)
}
