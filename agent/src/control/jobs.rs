//! The operations that are under way: how many, and on what.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;
use tug_model::TaskId;

use super::work::{self, Done, Tools};
use crate::plan::{Key, Orders, Step};

/// The operations that are under way. Dropping it drops them.
#[derive(Debug)]
pub(super) struct Jobs {
    running: JoinSet<Done>,
    busy: BTreeMap<Key, Lane>,
    concurrency: usize,
    /// When what has no lease was last stopped, by task.
    halted: BTreeMap<TaskId, Instant>,
}

/// Operations that wait for different things do not wait for each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lane {
    /// The engine's processors.
    Engine,
    /// Processes that have been asked to end.
    Stop,
    /// A registry.
    Fetch,
    /// Nothing: these have no lease any more.
    Halt,
}

/// So many containers are asked to stop at once, and so many images fetched.
const MOST_STOPS: usize = 64;
const MOST_FETCHES: usize = 8;
/// What was stopped and seems to run on is stopped again after so long.
const HALT_AGAIN: Duration = Duration::from_millis(500);

// === impl Jobs ===

impl Jobs {
    /// None, and at most so many for the engine at once.
    pub(super) fn new(concurrency: usize) -> Self {
        Self { running: JoinSet::new(), busy: BTreeMap::new(), concurrency, halted: BTreeMap::new() }
    }

    /// Begins those of `steps` whose key is not busy, while there is room; the others are planned again after the next
    /// end. A task is left alone until it `is_settled`.
    pub(super) fn begin(
        &mut self,
        tools: &Arc<Tools>,
        orders: &Arc<Orders>,
        steps: Vec<Step>,
        is_settled: impl Fn(&TaskId) -> bool,
    ) {
        let mut lists: Vec<(Key, Vec<Step>)> = Vec::new();
        for step in steps {
            let key = step.key();
            match lists.iter_mut().rev().find(|(other, _)| *other == key) {
                Some((_, list)) => list.push(step),
                None => lists.push((key, vec![step])),
            }
        }
        for (key, list) in lists {
            // They are begun elsewhere, and wait for nothing.
            if matches!(list.first(), Some(Step::Halt { .. })) {
                continue;
            }
            let lane = lane(&key, &list);
            let blocked = matches!(&key, Key::Task(task) if !is_settled(task));
            if blocked || self.busy.contains_key(&key) || !self.has_room(lane) {
                continue;
            }
            self.busy.insert(key.clone(), lane);
            self.running.spawn(work::take(Arc::clone(tools), Arc::clone(orders), key, list));
        }
    }

    /// Begins to stop what has no lease any more, whatever else is under way: an operation on a task without a lease ends by
    /// itself, at once.
    pub(super) fn halt(&mut self, tools: &Arc<Tools>, orders: &Arc<Orders>, steps: Vec<Step>) {
        let now = Instant::now();
        self.halted.retain(|_, at| now < *at + HALT_AGAIN);
        for step in steps {
            let (key, Step::Halt { task, .. }) = (step.key(), &step) else { continue };
            if self.busy.contains_key(&key) || self.halted.contains_key(task) {
                continue;
            }
            self.halted.insert(task.clone(), now);
            self.busy.insert(key.clone(), Lane::Halt);
            self.running.spawn(work::take(Arc::clone(tools), Arc::clone(orders), key, vec![step]));
        }
    }

    /// Begins a look at the engine, which waits for nothing.
    pub(super) fn look(&mut self, look: impl Future<Output = Done> + Send + 'static) {
        self.running.spawn(look);
    }

    /// Begins to read last words.
    pub(super) fn words(&mut self, words: impl Future<Output = Done> + Send + 'static) {
        self.running.spawn(words);
    }

    /// The next operation that ends; never while none is under way. Dropping it loses nothing.
    pub(super) async fn ended(&mut self) -> Done {
        match self.running.join_next().await {
            Some(Ok(done)) => {
                if let Done::Steps(outcome) = &done {
                    self.busy.remove(&outcome.key);
                }
                done
            }
            Some(Err(error)) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => std::future::pending().await,
            },
            None => std::future::pending().await,
        }
    }

    /// Whether an operation on `task` is under way.
    pub(super) fn is_busy(&self, task: &TaskId) -> bool {
        self.busy.contains_key(&Key::Task(task.clone()))
    }

    /// Whether any container is being worked on.
    pub(super) fn is_quiet(&self) -> bool {
        self.busy.is_empty()
    }

    fn has_room(&self, lane: Lane) -> bool {
        let most = match lane {
            Lane::Engine => self.concurrency,
            Lane::Stop => MOST_STOPS,
            Lane::Fetch => MOST_FETCHES,
            Lane::Halt => usize::MAX,
        };
        self.busy.values().filter(|other| **other == lane).count() < most
    }
}

fn lane(key: &Key, steps: &[Step]) -> Lane {
    match key {
        Key::Image(_) => Lane::Fetch,
        Key::Task(_) if steps.iter().any(|step| matches!(step, Step::Stop { .. })) => Lane::Stop,
        Key::Task(_) | Key::Network(_) | Key::Volume(_) => Lane::Engine,
    }
}
