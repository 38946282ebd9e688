//! The materialised state: values in ordered maps, cheap to clone, the same for everybody who reads it.
//!
//! [`State::apply`] is the only way it changes. It is pure: the same changes lead to the same state, now, in a
//! simulation and when the journal is read again.

use std::ops::Bound;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use tug_model::event::Event;
use tug_model::node::Node;
use tug_model::project::StoredProject;
use tug_model::task::{Task, Template, TemplateHash};
use tug_model::token::Token;
use tug_model::{Millis, NodeId, ProjectName, Revision, TaskId, Timestamp};

use super::change::{Change, Remembered};

/// Everything that is known and kept. Observations are not among it: the agents report them again.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct State {
    /// The cluster's id, made once when its store was made.
    pub cluster: String,
    /// Raised whenever the store went back in time (a restore).
    pub epoch: u64,
    /// The newest commit; 0 is a store without any.
    pub revision: Revision,
    /// What is wanted.
    pub projects: OrdMap<ProjectName, Arc<StoredProject>>,
    /// What was decided.
    pub tasks: OrdMap<TaskId, Arc<Task>>,
    /// What the tasks are made of.
    pub templates: OrdMap<TemplateHash, Arc<Template>>,
    /// The machines.
    pub nodes: OrdMap<NodeId, Arc<Node>>,
    /// What proves who somebody is who has no certificate, by id.
    pub tokens: OrdMap<String, Arc<Token>>,
    /// The nodes that have data of local volumes, by the volumes' names in the Engine.
    pub homes: OrdMap<String, OrdSet<NodeId>>,
    /// What happened: by commit, and by place in it.
    pub events: OrdMap<(Revision, u32), Arc<Event>>,
    /// The answers to requests with an idempotency key, by that key.
    pub idempotency: OrdMap<String, Arc<Remembered>>,
    /// How many tasks are made of each template.
    uses: OrdMap<TemplateHash, usize>,
    /// The keys of `idempotency`, oldest first.
    by_age: OrdSet<(Timestamp, String)>,
}

impl State {
    /// So many events are kept.
    pub const MOST_EVENTS: usize = 5_000;
    /// So many answers are kept.
    pub const MOST_REMEMBERED: usize = 10_000;
    /// Answers are kept for so long.
    pub const REMEMBERED_FOR: Millis = Millis::from_secs(24 * 60 * 60);

    /// The state of a new store.
    pub fn new(cluster: impl Into<String>, epoch: u64) -> Self {
        Self { cluster: cluster.into(), epoch, ..Self::default() }
    }

    /// The tasks of a project: ids begin with its name.
    pub fn tasks_of(&self, project: &ProjectName) -> impl Iterator<Item = &Arc<Task>> {
        let prefix = format!("{project}.");
        let from = self.tasks.range::<_, str>((Bound::Included(prefix.as_str()), Bound::Unbounded));
        from.take_while(move |(id, _)| id.as_str().starts_with(&prefix)).map(|(_, task)| task)
    }

    /// Makes the changes of commit `revision`.
    pub fn apply(&mut self, revision: Revision, changes: &[Change]) {
        let mut orphans = Vec::new();
        for change in changes {
            self.make(revision, change, &mut orphans);
        }
        for hash in orphans {
            if !self.uses.contains_key(&hash) {
                self.templates.remove(&hash);
            }
        }
        self.revision = revision;
    }

    fn make(&mut self, revision: Revision, change: &Change, orphans: &mut Vec<TemplateHash>) {
        match change {
            Change::PutProject(project) => {
                self.projects.insert(project.spec.name.clone(), Arc::clone(project));
            }
            Change::RemoveProject(name) => {
                self.projects.remove(name);
            }
            Change::PutTask(task) => {
                if let Some(old) = self.put_task(Arc::clone(task)) {
                    self.release(&old.template, orphans);
                }
            }
            Change::RemoveTask(id) => {
                if let Some(old) = self.tasks.remove(id) {
                    self.release(&old.template, orphans);
                }
            }
            Change::PutTemplate { hash, template } => self.put_template(hash.clone(), Arc::clone(template)),
            Change::PutNode(node) => self.put_node(Arc::clone(node)),
            Change::RemoveNode(id) => {
                self.nodes.remove(id);
                self.leave_home(id);
            }
            Change::PutHome { volume, node } => self.put_home(volume.clone(), node.clone()),
            Change::RemoveHome { volume, node } => self.remove_home(volume, node),
            Change::PutToken(token) => self.put_token(Arc::clone(token)),
            Change::RemoveToken(id) => {
                self.tokens.remove(id);
            }
            Change::Record(event) => self.record(revision, Arc::clone(event)),
            Change::Remember(remembered) => self.remember(remembered),
        }
    }

    /// Puts a task and returns the one that it replaces.
    pub(super) fn put_task(&mut self, task: Arc<Task>) -> Option<Arc<Task>> {
        *self.uses.entry(task.template.clone()).or_insert(0) += 1;
        self.tasks.insert(task.id.clone(), task)
    }

    pub(super) fn put_template(&mut self, hash: TemplateHash, template: Arc<Template>) {
        self.templates.insert(hash, template);
    }

    pub(super) fn put_node(&mut self, node: Arc<Node>) {
        self.nodes.insert(node.id.clone(), node);
    }

    pub(super) fn put_token(&mut self, token: Arc<Token>) {
        self.tokens.insert(token.id.clone(), token);
    }

    pub(super) fn put_home(&mut self, volume: String, node: NodeId) {
        self.homes.entry(volume).or_default().insert(node);
    }

    /// What is on a node that has gone for good is lost to us.
    fn leave_home(&mut self, node: &NodeId) {
        let volumes: Vec<String> = self.homes.keys().cloned().collect();
        for volume in volumes {
            self.remove_home(&volume, node);
        }
    }

    fn remove_home(&mut self, volume: &str, node: &NodeId) {
        let Some(nodes) = self.homes.get_mut(volume) else { return };
        nodes.remove(node);
        if nodes.is_empty() {
            self.homes.remove(volume);
        }
    }

    pub(super) fn put_project(&mut self, project: Arc<StoredProject>) {
        self.projects.insert(project.spec.name.clone(), project);
    }

    pub(super) fn put_event(&mut self, revision: Revision, number: u32, event: Arc<Event>) {
        self.events.insert((revision, number), event);
    }

    pub(super) fn put_remembered(&mut self, remembered: &Arc<Remembered>) {
        let key = remembered.key.clone();
        self.by_age.insert((remembered.at, key.clone()));
        if let Some(old) = self.idempotency.insert(key.clone(), Arc::clone(remembered))
            && old.at != remembered.at
        {
            self.by_age.remove(&(old.at, key));
        }
    }

    fn release(&mut self, hash: &TemplateHash, orphans: &mut Vec<TemplateHash>) {
        let left = self.uses.get(hash).copied().unwrap_or(0).saturating_sub(1);
        if left == 0 {
            self.uses.remove(hash);
            orphans.push(hash.clone());
        } else {
            self.uses.insert(hash.clone(), left);
        }
    }

    fn record(&mut self, revision: Revision, event: Arc<Event>) {
        let number = match self.events.get_max() {
            Some(((newest, number), _)) if *newest == revision => number.saturating_add(1),
            Some(_) | None => 0,
        };
        self.put_event(revision, number, event);
        while self.events.len() > Self::MOST_EVENTS {
            let Some((oldest, _)) = self.events.get_min() else { break };
            let oldest = *oldest;
            self.events.remove(&oldest);
        }
    }

    fn remember(&mut self, remembered: &Arc<Remembered>) {
        let now = remembered.at;
        self.put_remembered(remembered);
        while let Some((at, key)) = self.by_age.get_min() {
            let expired = now.since(*at) > Self::REMEMBERED_FOR;
            if !expired && self.by_age.len() <= Self::MOST_REMEMBERED {
                break;
            }
            let oldest = (*at, key.clone());
            self.idempotency.remove(&oldest.1);
            self.by_age.remove(&oldest);
        }
    }
}
