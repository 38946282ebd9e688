//! What the agents observe, told as events: a task became healthy, failed, completed; a node came or went.
//!
//! Nothing here decides anything. Each task has a mark, the last thing that was told about it, and an event is made when
//! what is observed differs from it: so a passing phase is told by nobody, and a crash loop is told once for every run
//! that failed. Of an Engine that is down, what was told before a restart of ours is read from the events that are kept.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use tug_model::event::{Event, EventKind};
use tug_model::name::{NodeId, TaskId};
use tug_model::report::{Engine, Failure, Health, Phase, TaskReport};
use tug_model::task::{Desired, Task};
use tug_model::{Millis, Revision, Timestamp};

use crate::plan::{NodeObserved, Observed, World};

/// A task that becomes healthy and unhealthy in turn is told of at most so often.
const CALM: Millis = Millis::from_secs(2);
/// So many events wait to be recorded at most; then the oldest go.
const MOST_PENDING: usize = 1_000;
/// So much of what a container said last becomes part of an event.
const LONGEST_WORDS: usize = 200;

/// So much of what an agent says becomes the text of an event, in characters.
const LONGEST_TEXT: usize = 2_000;

/// What is told of a node's Engine; the first with its reason.
const ENGINE_DOWN: &str = "its Docker Engine does not answer";
const ENGINE_UP: &str = "its Docker Engine answers again";

/// Compares what is observed with what was told.
#[derive(Debug, Default)]
pub(super) struct Observer {
    seen: Option<Arc<Observed>>,
    nodes: BTreeMap<NodeId, NodeMark>,
    /// Nodes whose Engine was said to be down before we started, and of which nothing was heard since.
    were_down: BTreeSet<NodeId>,
    tasks: BTreeMap<TaskId, (Mark, Timestamp)>,
    /// The tasks that there were when it looked last: of no others is there a mark.
    known: OrdMap<TaskId, Arc<Task>>,
    pending: Vec<Arc<Event>>,
    /// Something was held back to be told later.
    unsettled: bool,
    /// The brake was said to be on.
    braked: bool,
}

/// What was last told about a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct NodeMark {
    connected: bool,
    engine_up: bool,
}

/// What was last told about a task.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Mark {
    Healthy,
    Unhealthy,
    /// The run after so many restarts failed.
    Failed(u32),
    Completed,
    Ended,
}

/// An event about nothing in particular.
pub(super) fn event(kind: EventKind, at: Timestamp, message: String) -> Event {
    let (project, service, task, node) = (None, None, None, None);
    Event { revision: Revision(0), at, kind, project, service, task, node, message }
}

/// Saying whom an event is about.
pub(super) trait About {
    /// The same, about a task.
    fn of_task(self, task: &Task) -> Self;
}

impl About for Event {
    fn of_task(mut self, task: &Task) -> Self {
        self.project = Some(task.project.clone());
        self.service = Some(task.service.clone());
        self.task = Some(task.id.clone());
        self.node = Some(task.node.clone());
        self
    }
}

// === impl Observer ===

impl Observer {
    /// One that knows what was told before, the oldest first.
    pub(super) fn after<'a>(told: impl Iterator<Item = &'a Event>) -> Self {
        let mut observer = Self::default();
        for event in told.filter(|event| event.kind == EventKind::Node) {
            let Some(node) = &event.node else { continue };
            if event.message.starts_with(ENGINE_DOWN) {
                observer.were_down.insert(node.clone());
            } else if event.message == ENGINE_UP {
                observer.were_down.remove(node);
            }
        }
        observer
    }

    /// Takes note of what is to be told.
    pub(super) fn look(&mut self, world: &World, now: Timestamp) {
        let same = self.seen.as_ref().is_some_and(|seen| Arc::ptr_eq(seen, &world.observed));
        if same && !self.unsettled {
            return;
        }
        self.unsettled = false;
        for (id, observed) in &world.observed.nodes {
            let earlier = self.seen.as_ref().and_then(|seen| seen.nodes.get(id));
            let unchanged = earlier.is_some_and(|earlier| Arc::ptr_eq(earlier, observed));
            if !unchanged || same {
                self.look_at(world, id, observed, now);
            }
        }
        for item in self.known.diff(&world.tasks) {
            if let DiffItem::Remove(id, _) = item {
                self.tasks.remove(id);
            }
        }
        self.known = world.tasks.clone();
        self.seen = Some(Arc::clone(&world.observed));
    }

    /// Takes note of whether the planner moves what it would move otherwise.
    pub(super) fn look_at_brake(&mut self, brake: Option<&str>, now: Timestamp) {
        match brake {
            Some(reason) if !self.braked => {
                tracing::warn!(reason, "the planner holds still");
                self.tell(now, reason.to_owned());
            }
            None if self.braked => {
                self.tell(now, "enough nodes are back: what has to move is moved".to_owned());
            }
            Some(_) | None => {}
        }
        self.braked = brake.is_some();
    }

    /// Takes note that the control plane stood still for so long.
    pub(super) fn stood_still(&mut self, gap: Millis, now: Timestamp) {
        self.tell(now, format!("the control plane stood still for {gap}: every silence counts from now"));
    }

    /// An event about the nodes as a whole.
    fn tell(&mut self, now: Timestamp, message: String) {
        self.pending.push(Arc::new(event(EventKind::Node, now, message)));
    }

    /// What waits to be recorded.
    pub(super) fn pending(&self) -> Vec<Arc<Event>> {
        self.pending.clone()
    }

    /// It is recorded, or never will be.
    pub(super) fn clear(&mut self) {
        self.pending.clear();
    }

    fn look_at(&mut self, world: &World, id: &NodeId, observed: &NodeObserved, now: Timestamp) {
        let Some(report) = &observed.report else { return };
        let first = !self.nodes.contains_key(id);
        self.look_at_node(id, observed.connected, &report.engine, now);
        if !observed.connected {
            return;
        }
        for seen in &report.tasks {
            // What a node says of another one's task is not believed.
            if let Some(task) = world.tasks.get(&seen.id).filter(|task| task.node == *id) {
                self.look_at_task(task, seen, first, now);
            }
        }
    }

    fn look_at_node(&mut self, id: &NodeId, connected: bool, engine: &Engine, now: Timestamp) {
        let mark = NodeMark { connected, engine_up: *engine == Engine::Up };
        let told = self.nodes.insert(id.clone(), mark);
        let was_up = told.map_or_else(|| !self.were_down.remove(id), |told| told.engine_up);
        let mut tell = |message: String| {
            let mut event = event(EventKind::Node, now, shortened(message));
            event.node = Some(id.clone());
            self.pending.push(Arc::new(event));
        };
        if told.map(|told| told.connected) != Some(connected) {
            tell(
                if connected { "its agent is connected" } else { "its agent is not connected any more" }
                    .to_owned(),
            );
        }
        match engine {
            Engine::Down { reason, .. } if was_up => tell(format!("{ENGINE_DOWN}: {reason}")),
            Engine::Up if !was_up => tell(ENGINE_UP.to_owned()),
            Engine::Down { .. } | Engine::Up => {}
        }
    }

    /// `first`: it is the node's first word since we started, so what stands there was told before, if ever.
    fn look_at_task(&mut self, task: &Task, seen: &TaskReport, first: bool, now: Timestamp) {
        let Some((mark, kind, message)) = telling(seen, task.desired) else { return };
        if let Some((told, at)) = self.tasks.get(&task.id) {
            if *told == mark {
                return;
            }
            let flickers = matches!(mark, Mark::Healthy | Mark::Unhealthy);
            if flickers && now.since(*at) < CALM && matches!(told, Mark::Healthy | Mark::Unhealthy) {
                self.unsettled = true;
                return;
            }
        }
        self.tasks.insert(task.id.clone(), (mark, now));
        if !first {
            self.pending.push(Arc::new(event(kind, now, shortened(message)).of_task(task)));
            let surplus = self.pending.len().saturating_sub(MOST_PENDING);
            self.pending.drain(..surplus);
        }
    }
}

/// What there is to tell about a task; `None`: nothing that lasts.
fn telling(seen: &TaskReport, desired: Desired) -> Option<(Mark, EventKind, String)> {
    let told = |mark, kind, message: &str| Some((mark, kind, message.to_owned()));
    match &seen.phase {
        Phase::Running { health: Health::Healthy, .. } => {
            told(Mark::Healthy, EventKind::Healthy, "is healthy")
        }
        Phase::Running { health: Health::Unhealthy { reason }, .. } => {
            told(Mark::Unhealthy, EventKind::Unhealthy, &format!("is unhealthy: {reason}"))
        }
        Phase::Waiting { failure, retry_in } => {
            let message = format!("{}, next try in {retry_in}", with_words(failure));
            Some((Mark::Failed(seen.restarts), EventKind::Failed, message))
        }
        Phase::Exited { exit } if exit.code == 0 => {
            told(Mark::Completed, EventKind::Completed, "ran to its end")
        }
        // A task that was asked to go ends with whatever code its signal gives.
        Phase::Exited { exit } if desired == Desired::Run => {
            let failure = Failure::Exited { exit: exit.clone() };
            let message = format!("{}, and is not started again", with_words(&failure));
            Some((Mark::Ended, EventKind::Failed, message))
        }
        Phase::Exited { .. }
        | Phase::Pending
        | Phase::Pulling { .. }
        | Phase::Creating
        | Phase::Running { health: Health::Starting, .. }
        | Phase::Stopping => None,
    }
}

/// The beginning of a text that may have no end.
fn shortened(mut message: String) -> String {
    if let Some((end, _)) = message.char_indices().nth(LONGEST_TEXT) {
        message.truncate(end);
    }
    message
}

/// The failure, with the last line that the container wrote.
fn with_words(failure: &Failure) -> String {
    let Failure::Exited { exit } = failure else { return failure.to_string() };
    match exit.last_words.lines().rev().map(str::trim).find(|line| !line.is_empty()) {
        Some(line) => {
            let words: String = line.chars().take(LONGEST_WORDS).collect();
            format!("{failure} (`{words}`)")
        }
        None => failure.to_string(),
    }
}
