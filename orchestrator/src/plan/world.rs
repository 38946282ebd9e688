//! Everything the planner looks at, as one value: what is wanted, what was decided, and what the agents say.
//!
//! A world is made of ordered maps that share their structure, so a clone costs nothing and two passes over the same
//! world see the same things in the same order.

use std::collections::BTreeSet;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use tug_model::lease::OVER_AFTER;
use tug_model::name::{NodeId, ProjectName, ServiceName, TaskId};
use tug_model::node::Node;
use tug_model::project::StoredProject;
use tug_model::quantity::{Millis, Revision, Timestamp};
use tug_model::report::{Engine, Report};
use tug_model::spec::service::Service;
use tug_model::task::{Desired, Task, Template, TemplateHash};

use super::decision::{Change, Decision, Plan};

/// A node whose connection was lost so often within [`FLAPPING_WITHIN`] is not to be relied on.
pub const FLAPPING_LOSSES: usize = 3;
/// See [`FLAPPING_LOSSES`].
pub const FLAPPING_WITHIN: Millis = Millis::from_secs(10 * 60);

/// The state of the store at one revision, and what was observed when it was read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct World {
    /// The commit that this is the state after.
    pub revision: Revision,
    /// What is wanted.
    pub projects: OrdMap<ProjectName, Arc<StoredProject>>,
    /// What was decided.
    pub tasks: OrdMap<TaskId, Arc<Task>>,
    /// What the tasks are made of.
    pub templates: OrdMap<TemplateHash, Arc<Template>>,
    /// The machines.
    pub nodes: OrdMap<NodeId, Arc<Node>>,
    /// Where local volumes have their data, by their names in the Engine.
    pub homes: OrdMap<String, OrdSet<NodeId>>,
    /// What the agents say.
    pub observed: Arc<Observed>,
    /// Since when somebody has been looking without a break: the orchestrator has run, and was not suspended. A silence is
    /// counted from here at the earliest.
    pub since: Timestamp,
    /// When what is concluded.
    pub timing: Timing,
    /// How often the store went back in time, counted from 1.
    pub epoch: u64,
}

/// An agent reports every second: one that has not for so long may be on its way to be lost.
pub(super) const HUSH: Millis = Millis::from_secs(2);

/// How long what must last before something is concluded from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// A node that was not heard of since the orchestrator started counts as dead after so long: its tasks are replaced
    /// elsewhere. What must not run twice is replaced no sooner than that, however its node went.
    pub lost_after: Millis,
    /// A node whose connection was closed so long ago counts as dead. It is alive enough to close a connection, so it is
    /// given the time to start its agent again.
    pub closed_after: Millis,
    /// A node that fell silent counts as dead so long after its last word.
    pub silent_after: Millis,
    /// A node whose Engine has not answered for so long is emptied; `None`: its tasks are left to come back with it.
    pub engine_after: Option<Millis>,
    /// The same for an Engine that ends what it runs when it starts again: successors shall serve before that.
    pub doomed_after: Option<Millis>,
}

/// What the agents say, each for its own node. Nothing of it is kept on disk.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Observed {
    /// By node; a node that has said nothing since the orchestrator started may be missing.
    pub nodes: OrdMap<NodeId, Arc<NodeObserved>>,
    /// The newest store revision of which it is known whom it concerns.
    pub level: Revision,
    /// When each node was last given a lease, whether it got it or not. It outlives the node's removal.
    pub leased: OrdMap<NodeId, Timestamp>,
}

/// What is known of one node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeObserved {
    /// Its agent is connected and reports. While it is not, nothing is concluded from what it said last.
    pub connected: bool,
    /// The session that said so; 0: none has.
    pub session: u64,
    /// Its newest report; `None`: none since the orchestrator started.
    pub report: Option<Arc<Report>>,
    /// When that came. It may have been confirmed since: then it is as old as it says, and the time since it came.
    pub received_at: Timestamp,
    /// When that was last confirmed.
    pub confirmed_at: Timestamp,
    /// When its connection was last lost; `None`: never since the orchestrator started.
    pub lost_at: Option<Timestamp>,
    /// Every time within [`FLAPPING_WITHIN`] of the last that it was lost, oldest first.
    pub losses: Vec<Timestamp>,
    /// When it said its last word before its connection was lost by silence; `None`: the connection was closed.
    pub silent_since: Option<Timestamp>,
    /// When it was connected the last time.
    pub back_at: Option<Timestamp>,
    /// Why its agent does not take its newest assignment; `None`: it does, as far as is known.
    pub deaf: Option<Deaf>,
    /// The newest store revision that the agent is known to act and route by: what it reports as followed says the same as
    /// the assignment and the endpoints of that revision.
    pub acked: Revision,
    /// The same holds for every revision since, up to [`Observed::level`]: none of them concerns the node.
    pub is_level: bool,
}

/// An agent that reports and does not take its assignment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deaf {
    /// Since when.
    pub since: Timestamp,
    /// What it answers, or that it does not.
    pub reason: String,
}

// === impl Timing ===

impl Default for Timing {
    fn default() -> Self {
        Self {
            lost_after: Millis::from_secs(10),
            closed_after: Millis::from_secs(7),
            silent_after: Millis::from_secs(4),
            engine_after: Some(Millis::from_secs(30)),
            doomed_after: Some(Millis::from_secs(2)),
        }
    }
}

// === impl Observed ===

impl Observed {
    /// The newest store revision that the agent of a node acts and routes by.
    pub fn acked(&self, node: &NodeObserved) -> Revision {
        if node.is_level { node.acked.max(self.level) } else { node.acked }
    }
}

// === impl NodeObserved ===

impl NodeObserved {
    /// Its agent is connected and has said something: what it says is believed.
    pub fn is_heard(&self) -> bool {
        self.connected && self.report.is_some()
    }

    /// When it spoke last, if only to say that nothing has changed.
    pub fn spoke_at(&self) -> Timestamp {
        self.received_at.max(self.confirmed_at)
    }

    /// How its Engine stands at `now`, as far as it has said. A report is as old as it is: what it says to last has lasted
    /// since, too.
    pub fn engine(&self, now: Timestamp) -> Option<Engine> {
        let mut engine = self.report.as_ref()?.engine.clone();
        if let Engine::Down { age, .. } = &mut engine {
            age.0 = age.0.saturating_add(now.since(self.received_at).0);
        }
        Some(engine)
    }

    /// Notes that the connection is lost.
    pub fn lose(&mut self, now: Timestamp) {
        self.connected = false;
        (self.acked, self.is_level) = (Revision(0), false);
        self.deaf = None;
        self.lost_at = Some(now);
        self.silent_since =
            Some(self.spoke_at()).filter(|at| self.report.is_some() && now.since(*at) >= HUSH);
        self.losses.retain(|earlier| now.since(*earlier) <= FLAPPING_WITHIN);
        if self.losses.len() >= FLAPPING_LOSSES {
            self.losses.remove(0);
        }
        self.losses.push(now);
    }
}

// === impl World ===

impl World {
    /// The service as it is wanted; `None` when it is not.
    pub fn service(&self, project: &ProjectName, service: &ServiceName) -> Option<&Service> {
        self.projects.get(project)?.spec.services.get(service)
    }

    /// When nothing runs any more under the leases that a node has been given, unless it is given another one. Who gave
    /// leases out before us, we do not know.
    pub fn leases_end(&self, node: &NodeId) -> Timestamp {
        let last = self.observed.leased.get(node).copied().unwrap_or_default();
        last.max(self.since).plus(OVER_AFTER)
    }

    /// The world after a plan for it was committed at `now`: the store's next revision, nothing new observed.
    #[must_use]
    pub fn after(&self, plan: &Plan, now: Timestamp) -> Self {
        let mut next = self.clone();
        if plan.decisions.is_empty() {
            return next;
        }
        next.revision = self.revision.next();
        for decision in &plan.decisions {
            next.make(decision, self.revision.next(), now);
        }
        let used: BTreeSet<&TemplateHash> = next.tasks.values().map(|task| &task.template).collect();
        next.templates = next
            .templates
            .iter()
            .filter(|(hash, _)| used.contains(hash))
            .map(|(hash, template)| (hash.clone(), Arc::clone(template)))
            .collect();
        next
    }

    fn make(&mut self, decision: &Decision, revision: Revision, now: Timestamp) {
        match &decision.change {
            Change::Create(create) => {
                let task = create.task(revision, now);
                self.templates.insert(create.hash.clone(), Arc::clone(&create.template));
                self.tasks.insert(task.id.clone(), Arc::new(task));
            }
            Change::Drain(id) => self.put_desired(id, Desired::Drain { since: revision, at: now }),
            Change::Stop(id) => self.put_desired(id, Desired::Stop { since: revision }),
            Change::Forget(id) => {
                self.tasks.remove(id);
            }
            Change::Settle { volume, node } => {
                self.homes.entry(volume.clone()).or_default().insert(node.clone());
            }
        }
    }

    fn put_desired(&mut self, id: &TaskId, desired: Desired) {
        if let Some(task) = self.tasks.get_mut(id) {
            Arc::make_mut(task).desired = desired;
        }
    }
}
