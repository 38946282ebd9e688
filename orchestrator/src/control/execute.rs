//! Carrying decisions out: one change of the store for each, and a record of it for people. What is decided, and
//! whether, is none of this file's business.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tug_model::event::{Event, EventKind};
use tug_model::name::{ProjectName, ServiceName, TaskId};
use tug_model::task::{Desired, Task};
use tug_model::{Revision, Timestamp};

use super::observe::{About, event};
use crate::plan::{self, Decision, World};
use crate::store::{Change, State};

/// So many decisions of a commit are recorded for each service; of the rest only the number is.
const MOST_RECORDS: usize = 20;

/// Decisions that are committed together.
#[derive(Debug, Clone)]
pub(super) struct Batch {
    world: World,
    decisions: Vec<Decision>,
    events: Vec<Arc<Event>>,
    now: Timestamp,
}

/// A project or a node that decisions are about is not any more what it was when they were made.
#[derive(Debug)]
pub(super) struct Overtaken;

/// What happened, as changes.
pub(super) fn records(events: Vec<Arc<Event>>) -> Vec<Change> {
    events.into_iter().map(Change::Record).collect()
}

// === impl Batch ===

impl Batch {
    pub(super) fn new(
        world: World,
        decisions: Vec<Decision>,
        events: Vec<Arc<Event>>,
        now: Timestamp,
    ) -> Self {
        Self { world, decisions, events, now }
    }

    pub(super) fn len(&self) -> usize {
        self.decisions.len()
    }

    pub(super) fn now(&self) -> Timestamp {
        self.now
    }

    /// The changes of commit `revision`, as long as all that the decisions are about is in `state` as it was.
    ///
    /// What became of other projects meanwhile is as if it came after these decisions: only we decide about tasks, and about
    /// those of one project by nothing else than that project, the tasks and the nodes.
    pub(super) fn changes(self, revision: Revision, state: &State) -> Result<Vec<Change>, Overtaken> {
        if self.is_overtaken(state) { Err(Overtaken) } else { Ok(self.changes_of(revision)) }
    }

    fn is_overtaken(&self, state: &State) -> bool {
        let is_another = |name: &ProjectName| {
            let (then, now) = (self.world.projects.get(name), state.projects.get(name));
            then.map(Arc::as_ptr) != now.map(Arc::as_ptr)
        };
        let projects: BTreeSet<&ProjectName> =
            self.decisions.iter().filter_map(|decision| self.project(decision)).collect();
        !self.world.nodes.ptr_eq(&state.nodes) || projects.into_iter().any(is_another)
    }

    /// Whose decision it is.
    fn project<'a>(&'a self, decision: &'a Decision) -> Option<&'a ProjectName> {
        match &decision.change {
            plan::Change::Create(create) => Some(&create.project),
            plan::Change::Drain(id) | plan::Change::Stop(id) | plan::Change::Forget(id) => {
                self.world.tasks.get(id).map(|task| &task.project)
            }
            plan::Change::Settle { .. } => None,
        }
    }

    fn changes_of(self, revision: Revision) -> Vec<Change> {
        let mut changes = Vec::with_capacity(self.decisions.len() * 2 + self.events.len());
        let mut templates = BTreeSet::new();
        let mut journal = Journal::new(self.now);
        for Decision { change, why } in &self.decisions {
            match change {
                plan::Change::Create(create) => {
                    if !self.world.templates.contains_key(&create.hash) && templates.insert(&create.hash) {
                        let (hash, template) = (create.hash.clone(), Arc::clone(&create.template));
                        changes.push(Change::PutTemplate { hash, template });
                    }
                    let task = create.task(revision, self.now);
                    journal.note(&task, &format!("created on node {}: {why}", task.node));
                    changes.push(Change::PutTask(Arc::new(task)));
                }
                plan::Change::Drain(id) => {
                    let desired = Desired::Drain { since: revision, at: self.now };
                    changes.extend(self.moved(id, desired, &mut journal, why));
                }
                plan::Change::Stop(id) => {
                    let desired = Desired::Stop { since: revision };
                    changes.extend(self.moved(id, desired, &mut journal, why));
                }
                plan::Change::Forget(id) => changes.push(Change::RemoveTask(id.clone())),
                plan::Change::Settle { volume, node } => {
                    changes.push(Change::PutHome { volume: volume.clone(), node: node.clone() });
                }
            }
        }
        changes.extend(records(self.events));
        changes.extend(records(journal.close()));
        changes
    }

    fn moved(&self, id: &TaskId, desired: Desired, journal: &mut Journal, why: &str) -> Option<Change> {
        let mut task = Task::clone(self.world.tasks.get(id)?);
        task.desired = desired;
        let what = if matches!(desired, Desired::Drain { .. }) { "leaves the routes" } else { "is stopped" };
        journal.note(&task, &format!("{what}: {why}"));
        Some(Change::PutTask(Arc::new(task)))
    }

    /// So many of those that make room on a full disk and take nothing away that a new task was to replace; `None`: there
    /// are none.
    pub(super) fn shrinking(mut self, most: usize) -> Option<Self> {
        let Self { world, decisions, .. } = &mut self;
        let makes_room = |decision: &Decision| match &decision.change {
            plan::Change::Create(_) => false,
            plan::Change::Forget(_) | plan::Change::Settle { .. } => true,
            plan::Change::Drain(id) | plan::Change::Stop(id) => {
                world.tasks.get(id).is_some_and(|task| is_dispensable(world, task))
            }
        };
        *decisions = std::mem::take(decisions).into_iter().filter(makes_room).take(most).collect();
        self.events.clear();
        let is_note = |decision: &Decision| matches!(decision.change, plan::Change::Settle { .. });
        (!self.decisions.iter().all(is_note)).then_some(self)
    }
}

/// Whether a task may go although no other can be created: it is on its way out already, its service is not wanted, or
/// another task of its slot runs.
fn is_dispensable(world: &World, task: &Task) -> bool {
    let is_sibling = |other: &Task| {
        other.id != task.id
            && other.slot == task.slot
            && other.desired == Desired::Run
            && other.service == task.service
            && other.project == task.project
    };
    task.desired != Desired::Run
        || !is_wanted(world, task)
        || world.tasks.values().any(|other| is_sibling(other))
}

fn is_wanted(world: &World, task: &Task) -> bool {
    use tug_model::spec::deploy::Mode;
    match world.service(&task.project, &task.service).map(|service| service.deploy.mode) {
        None => false,
        Some(Mode::Replicated(count)) => task.slot.0 <= count,
        Some(Mode::Global) => true,
    }
}

/// The records of a commit.
struct Journal {
    now: Timestamp,
    events: Vec<Arc<Event>>,
    counts: BTreeMap<(ProjectName, ServiceName), usize>,
}

// === impl Journal ===

impl Journal {
    fn new(now: Timestamp) -> Self {
        Self { now, events: Vec::new(), counts: BTreeMap::new() }
    }

    fn note(&mut self, task: &Task, message: &str) {
        let count = self.counts.entry((task.project.clone(), task.service.clone())).or_default();
        *count += 1;
        if *count <= MOST_RECORDS {
            let noted = event(EventKind::Planned, self.now, message.to_owned());
            self.events.push(Arc::new(noted.of_task(task)));
        }
    }

    fn close(mut self) -> Vec<Arc<Event>> {
        for ((project, service), count) in self.counts {
            if let Some(more @ 1..) = count.checked_sub(MOST_RECORDS) {
                let were = if more == 1 { "was" } else { "were" };
                let message = format!("{more} more of its tasks {were} decided about at the same time");
                let mut rest = event(EventKind::Planned, self.now, message);
                rest.project = Some(project);
                rest.service = Some(service);
                self.events.push(Arc::new(rest));
            }
        }
        self.events
    }
}
