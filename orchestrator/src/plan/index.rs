//! The tasks of a world by service, each beside what its node says about it: joined once per pass.

use std::collections::{BTreeMap, BTreeSet};

use tug_model::name::{NodeId, ProjectName, ServiceName, TaskId};
use tug_model::quantity::{Revision, Slot};
use tug_model::report::{Failure, Phase, TaskReport};
use tug_model::task::{Desired, Task, Template, TemplateHash};

use super::World;
use super::decision::Obstacle;
use super::fleet::{Fleet, Machine};
use super::wanted::Wanted;

/// A service, named from outside its project.
pub(super) type Key<'w> = (&'w ProjectName, &'w ServiceName);

/// The tasks of a world by service, sorted by slot, then age, then id.
#[derive(Debug)]
pub(super) struct Index<'w> {
    services: BTreeMap<Key<'w>, Vec<Seen<'w>>>,
}

/// A task, and what a connected node says about it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen<'w> {
    /// What was decided.
    pub(super) task: &'w Task,
    /// What it is made of; `None`: that is not known.
    pub(super) template: Option<&'w Template>,
    /// The place of its node among those of the world; `None`: the node was removed.
    pub(super) at: Option<usize>,
    /// What its node says; `None` when the node is not connected, has not reported yet, or does not name the task.
    pub(super) report: Option<&'w TaskReport>,
    /// What is concluded about its node.
    pub(super) node: Machine,
    /// Whether the node may have connections to it that it does not count.
    pub(super) uncounted: bool,
    /// The revision whose assignment the node followed when it said that.
    pub(super) follows: Revision,
}

/// What may be concluded about a task, the better the greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    /// It is known not to serve: nothing is lost when it goes.
    Idle,
    /// It ran to its end with exit code 0.
    Completed,
    /// Nobody says anything: nothing is concluded, so it is not touched without need.
    Unknown,
    /// It serves.
    Serving,
}

/// The tasks of one slot of a wanted service.
#[derive(Debug, Default)]
pub(super) struct SlotTasks<'w> {
    /// The newest of those that run by the newest template where they may stay.
    pub(super) current: Vec<Seen<'w>>,
    /// Those that are to be replaced: they run by another template, where they are not to stay, or are older.
    pub(super) outdated: Vec<Seen<'w>>,
    /// Those on their way out.
    pub(super) leaving: Vec<Seen<'w>>,
    /// This pass creates a task for the slot, or the slot waits for something to be able to.
    pub(super) pending: bool,
}

/// The templates of a world: a task is mostly made of the same one as the task before it.
struct Templates<'w> {
    world: &'w World,
    last: Option<(&'w TemplateHash, Option<&'w Template>)>,
}

/// What is known of one node.
struct Known<'w> {
    at: Option<usize>,
    machine: Machine,
    follows: Revision,
    uncounted: bool,
    /// While it is connected: what it said before is not believed.
    tasks: BTreeMap<&'w TaskId, &'w TaskReport>,
}

// === impl Index ===

impl<'w> Index<'w> {
    pub(super) fn new(world: &'w World, fleet: &Fleet<'w>) -> Self {
        let mut known: BTreeMap<&NodeId, Known<'w>> = BTreeMap::new();
        let mut templates = Templates { world, last: None };
        let mut services: BTreeMap<Key<'w>, Vec<Seen<'w>>> = BTreeMap::new();
        // Most tasks follow one of their own service.
        let mut alike: Vec<Seen<'w>> = Vec::new();
        let key = |seen: &Seen<'w>| (&seen.task.project, &seen.task.service);
        for task in world.tasks.values() {
            let node = known.entry(&task.node).or_insert_with(|| Known::new(world, fleet, &task.node));
            let seen = Seen {
                task,
                template: templates.get(&task.template),
                at: node.at,
                report: node.tasks.get(&task.id).copied(),
                node: node.machine,
                uncounted: node.uncounted,
                follows: node.follows,
            };
            if let Some(last) = alike.last().map(key).filter(|last| *last != key(&seen)) {
                services.entry(last).or_default().append(&mut alike);
            }
            alike.push(seen);
        }
        if let Some(last) = alike.last().map(key) {
            services.entry(last).or_default().append(&mut alike);
        }
        for tasks in services.values_mut() {
            tasks.sort_by(|one, other| {
                let (one, other) = (one.task, other.task);
                let by_age = || (one.made_by(), &one.id).cmp(&(other.made_by(), &other.id));
                one.slot.cmp(&other.slot).then_with(by_age)
            });
        }
        Self { services }
    }

    /// The tasks of one service.
    pub(super) fn of<'a>(&'a self, key: Key<'a>) -> &'a [Seen<'w>] {
        self.services.get(&key).map_or(&[], Vec::as_slice)
    }

    /// Every service that has tasks, with them.
    pub(super) fn services(&self) -> impl Iterator<Item = (Key<'w>, &[Seen<'w>])> {
        self.services.iter().map(|(key, tasks)| (*key, tasks.as_slice()))
    }

    /// The tasks of a wanted service by slot, and those that have no place in it any more. `left` are the tasks that
    /// this pass has already taken out of service.
    pub(super) fn slots(
        &self,
        service: &Wanted<'w>,
        left: &BTreeSet<&'w TaskId>,
    ) -> (BTreeMap<Slot, SlotTasks<'w>>, Vec<Seen<'w>>) {
        let mut slots: BTreeMap<Slot, SlotTasks<'w>> =
            service.slots.keys().map(|slot| (*slot, SlotTasks::default())).collect();
        let mut surplus = Vec::new();
        for seen in self.of(service.key()) {
            let belongs = service.has_place_for(seen.task);
            match slots.get_mut(&seen.task.slot) {
                Some(slot) if belongs => slot.put(*seen, service, left),
                Some(_) | None => surplus.push(*seen),
            }
        }
        slots.values_mut().for_each(SlotTasks::settle);
        (slots, surplus)
    }
}

// === impl Known ===

impl<'w> Known<'w> {
    fn new(world: &'w World, fleet: &Fleet<'w>, node: &NodeId) -> Self {
        let observed = world.observed.nodes.get(node);
        let report = observed.and_then(|observed| observed.report.as_ref());
        let believed = report.filter(|_| observed.is_some_and(|observed| observed.connected));
        let tasks = believed.map(|report| report.tasks.iter().map(|task| (&task.id, task)).collect());
        Self {
            at: fleet.place(node),
            machine: fleet.machine(node),
            follows: report.map(|report| report.following.generation).unwrap_or_default(),
            uncounted: believed.is_some_and(|report| report.uncounted),
            tasks: tasks.unwrap_or_default(),
        }
    }
}

// === impl Templates ===

impl<'w> Templates<'w> {
    fn get(&mut self, hash: &'w TemplateHash) -> Option<&'w Template> {
        if let Some((last, template)) = self.last
            && last == hash
        {
            return template;
        }
        let template = self.world.templates.get(hash).map(AsRef::as_ref);
        self.last = Some((hash, template));
        template
    }
}

// === impl SlotTasks ===

impl<'w> SlotTasks<'w> {
    fn put(&mut self, seen: Seen<'w>, service: &Wanted<'w>, left: &BTreeSet<&'w TaskId>) {
        if !seen.runs() || left.contains(&seen.task.id) {
            self.leaving.push(seen);
        } else if seen.task.template == service.hash && service.may_stay(&seen) {
            self.current.push(seen);
        } else {
            self.outdated.push(seen);
        }
    }

    /// Of two tasks of the newest template the older one is being moved.
    fn settle(&mut self) {
        if let Some(newest) = self.current.pop() {
            self.outdated.append(&mut self.current);
            self.current.push(newest);
        }
    }

    /// A task that was to run leaves in this pass.
    pub(super) fn take_out(&mut self, seen: Seen<'w>) {
        self.current.retain(|other| other.task.id != seen.task.id);
        self.outdated.retain(|other| other.task.id != seen.task.id);
        self.leaving.push(seen);
    }

    /// What is on its way out and would clash with a successor.
    pub(super) fn clashing(&self, service: &Wanted<'w>) -> Option<&Seen<'w>> {
        self.leaving.iter().find(|old| old.clashes(service))
    }

    /// How many tasks of the slot are to run.
    pub(super) fn running(&self) -> usize {
        self.current.len() + self.outdated.len()
    }

    /// Whether a task of the newest template serves or is complete.
    pub(super) fn is_updated(&self) -> bool {
        self.current.iter().any(Seen::is_ready)
    }
}

// === impl Seen ===

impl<'w> Seen<'w> {
    /// What its successor waits for.
    pub(super) fn must_stop(&self) -> Obstacle {
        Obstacle::waiting(format!("waiting for {} to stop", self.task.id))
    }

    /// Whether the task is to run.
    pub(super) fn runs(&self) -> bool {
        self.task.desired == Desired::Run
    }

    /// Whether its node has been told of it for long, in vain: it says what it runs, and this is not among it.
    pub(super) fn is_unheeded(&self) -> bool {
        self.node.is_deaf && self.report.is_none()
    }

    /// Whether it may run, and would clash with a successor. Neither what nobody can stop is waited for, nor what was never
    /// begun by a node that takes no orders: the successor will be on another node.
    pub(super) fn clashes(&self, service: &Wanted<'_>) -> bool {
        let was_begun = !self.is_unheeded() || self.follows >= self.task.made_by();
        service.stop_first && !self.node.is_out_of_reach() && was_begun
    }

    /// Where it stands, if that is known.
    pub(super) fn phase(&self) -> Option<&'w Phase> {
        self.report.map(|report| &report.phase)
    }

    pub(super) fn standing(&self) -> Standing {
        match self.phase() {
            None => Standing::Unknown,
            Some(phase) if phase.is_healthy() => Standing::Serving,
            Some(phase) if phase.has_succeeded() => Standing::Completed,
            Some(_) => Standing::Idle,
        }
    }

    /// Whether somebody may be connected to it, as far as its node says. Of a process that does not run there is nothing
    /// that could be uncounted.
    pub(super) fn may_have_connections(&self) -> bool {
        let runs = matches!(self.phase(), Some(Phase::Running { .. }));
        self.report.is_some_and(|report| report.connections > 0) || (self.uncounted && runs)
    }

    /// Whether it serves or is complete: all that is asked of a task.
    pub(super) fn is_ready(&self) -> bool {
        matches!(self.standing(), Standing::Serving | Standing::Completed)
    }

    /// Whether its process has ended for good: there is nothing left to move.
    pub(super) fn has_ended(&self) -> bool {
        matches!(self.phase(), Some(Phase::Exited { .. }))
    }

    /// How it failed, if it will not be started again.
    pub(super) fn failed_for_good(&self) -> Option<String> {
        match self.phase()? {
            phase @ Phase::Exited { exit } if exit.code != 0 => Some(phase.to_string()),
            Phase::Exited { .. }
            | Phase::Pending
            | Phase::Pulling { .. }
            | Phase::Creating
            | Phase::Running { .. }
            | Phase::Waiting { .. }
            | Phase::Stopping => None,
        }
    }

    /// How it fails, if it will not get well without a change: it has ended for good, or it was tried often and waits
    /// for yet another try.
    pub(super) fn keeps_failing(&self) -> Option<String> {
        const RESTARTS: u32 = 3;
        const TRIES: u32 = 2;
        let Phase::Waiting { failure, .. } = self.phase()? else { return self.failed_for_good() };
        let again = match failure {
            Failure::Exited { .. } => self.report?.restarts >= RESTARTS,
            // One refusal may be an engine out of breath; two in a row need a person.
            Failure::Refused { tries, .. } => *tries >= TRIES || self.report?.restarts >= RESTARTS,
        };
        again.then(|| failure.to_string())
    }
}
