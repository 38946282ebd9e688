//! The state, thing by thing: what a line of an export and a value in sled are.

use std::sync::Arc;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use serde::{Deserialize, Serialize};
use tug_model::event::Event;
use tug_model::node::Node;
use tug_model::project::StoredProject;
use tug_model::task::{Task, Template, TemplateHash};
use tug_model::token::Token;

use super::change::Remembered;
use super::record::Chain;
use super::state::State;
use tug_model::{NodeId, Revision};

/// One thing that the state holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Entry {
    /// Of [`State::projects`].
    Project(Arc<StoredProject>),
    /// Of [`State::tasks`].
    Task(Arc<Task>),
    /// Of [`State::templates`].
    Template {
        /// Its name.
        hash: TemplateHash,
        /// The template.
        template: Arc<Template>,
    },
    /// Of [`State::nodes`].
    Node(Arc<Node>),
    /// Of [`State::tokens`].
    Token(Arc<Token>),
    /// Of [`State::homes`].
    Home {
        /// The volume's name in the Engine.
        volume: String,
        /// The nodes.
        nodes: Vec<NodeId>,
    },
    /// Of [`State::events`].
    Event {
        /// Its place in its commit.
        number: u32,
        /// The event; its revision is the other half of its key.
        event: Arc<Event>,
    },
    /// Of [`State::idempotency`].
    Remembered(Arc<Remembered>),
}

/// One thing that two states do not have in common.
#[derive(Debug, Clone)]
pub(super) struct Delta {
    /// What the older one has.
    pub(super) old: Option<Entry>,
    /// What the newer one has.
    pub(super) new: Option<Entry>,
}

/// How far a copy of the state goes: the commit, and where in the journal that commit ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    /// The newest commit in the copy.
    pub(super) revision: Revision,
    /// The epoch that it was made in.
    pub(super) epoch: u64,
    /// The file of the journal in which the next record stands, or will stand.
    pub(super) segment: u64,
    /// Where it begins there.
    pub(super) offset: u64,
    /// The hash of the record before it.
    pub(super) chain: Chain,
}

// === impl Entry ===

impl Entry {
    /// What it is called among all entries; sorted by it, equal states are equal texts.
    pub(super) fn key(&self) -> String {
        match self {
            Self::Project(project) => format!("project/{}", project.spec.name),
            Self::Task(task) => format!("task/{}", task.id),
            Self::Template { hash, .. } => format!("template/{hash}"),
            Self::Node(node) => format!("node/{}", node.id),
            Self::Token(token) => format!("token/{}", token.id),
            Self::Home { volume, .. } => format!("home/{volume}"),
            Self::Event { number, event } => format!("event/{:020}/{number:010}", event.revision.0),
            Self::Remembered(remembered) => format!("remembered/{}", remembered.key),
        }
    }

    /// As it is stored.
    pub(super) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("an entry holds nothing that JSON cannot")
    }

    /// Puts it into a state that is being read.
    pub(super) fn put_into(self, state: &mut State) {
        match self {
            Self::Project(project) => state.put_project(project),
            Self::Task(task) => {
                state.put_task(task);
            }
            Self::Template { hash, template } => state.put_template(hash, template),
            Self::Node(node) => state.put_node(node),
            Self::Token(token) => state.put_token(token),
            Self::Home { volume, nodes } => {
                for node in nodes {
                    state.put_home(volume.clone(), node);
                }
            }
            Self::Event { number, event } => state.put_event(event.revision, number, event),
            Self::Remembered(remembered) => state.put_remembered(&remembered),
        }
    }
}

/// Everything in which two states differ; a state and an empty one differ in all that it holds.
pub(super) fn difference(old: &State, new: &State) -> Vec<Delta> {
    let mut deltas = Vec::new();
    compare(&old.events, &new.events, &mut deltas, |(_, number), event| Entry::Event {
        number: *number,
        event: Arc::clone(event),
    });
    compare(&old.nodes, &new.nodes, &mut deltas, |_, node| Entry::Node(Arc::clone(node)));
    compare(&old.homes, &new.homes, &mut deltas, |volume, nodes| Entry::Home {
        volume: volume.clone(),
        nodes: nodes.iter().cloned().collect(),
    });
    compare(&old.projects, &new.projects, &mut deltas, |_, project| Entry::Project(Arc::clone(project)));
    compare(&old.tokens, &new.tokens, &mut deltas, |_, token| Entry::Token(Arc::clone(token)));
    compare(&old.idempotency, &new.idempotency, &mut deltas, |_, it| Entry::Remembered(Arc::clone(it)));
    compare(&old.tasks, &new.tasks, &mut deltas, |_, task| Entry::Task(Arc::clone(task)));
    compare(&old.templates, &new.templates, &mut deltas, |hash, template| Entry::Template {
        hash: hash.clone(),
        template: Arc::clone(template),
    });
    deltas
}

fn compare<K: Ord, V: PartialEq>(
    old: &OrdMap<K, V>,
    new: &OrdMap<K, V>,
    deltas: &mut Vec<Delta>,
    entry: impl Fn(&K, &V) -> Entry,
) {
    for item in old.diff(new) {
        let (before, after) = match item {
            DiffItem::Add(key, value) => (None, Some((key, value))),
            DiffItem::Update { old, new } => (Some(old), Some(new)),
            DiffItem::Remove(key, value) => (Some((key, value)), None),
        };
        let make = |pair: Option<(&K, &V)>| pair.map(|(key, value)| entry(key, value));
        deltas.push(Delta { old: make(before), new: make(after) });
    }
}
