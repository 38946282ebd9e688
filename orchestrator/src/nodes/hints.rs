//! Telling the agents which backends on other nodes do not serve: each sees only its own tasks.
//!
//! Hints make failing over cheaper, nothing more: an agent that has none, or wrong ones, asks a backend in vain and then
//! another. So they may come late, and are about no more tasks than fit into a small message.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tug_api::error::chain;
use tug_api::node::HintsText;
use tug_model::assignment::Hints;
use tug_model::name::{NodeId, ProjectName, ServiceName, TaskId};
use tug_model::project::StoredProject;
use tug_model::task::Task;

use super::Shared;
use super::session::Session;
use crate::plan::{self, NodeObserved, Observed};
use crate::store::State;

/// At most one message to each agent in this time, and in a large cluster in up to [`SLOWEST_PACE`]: so that all messages
/// together are at most [`RATE`] bytes a second.
const PACE: Duration = Duration::from_millis(250);
const SLOWEST_PACE: Duration = Duration::from_secs(2);
const RATE: usize = 16 << 20;
/// So many tasks are hinted at; of more, the first.
const MOST: usize = 500;
/// A node that has said nothing since this control plane began is not silent before this has passed.
const SETTLE: Duration = Duration::from_secs(10);
/// How long an agent has to take a hint.
const TAKE: Duration = Duration::from_secs(5);
/// The wait after the first failure; it doubles up to [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Who is behind published ports, and who of them does not serve. Kept up by differences: a change of one node costs no
/// look at the others.
#[derive(Debug, Default)]
struct Overview {
    projects: OrdMap<ProjectName, Arc<StoredProject>>,
    tasks: OrdMap<TaskId, Arc<Task>>,
    published: BTreeSet<(ProjectName, ServiceName)>,
    nodes: BTreeMap<NodeId, Backends>,
}

/// Those of one node.
#[derive(Debug, Default)]
struct Backends {
    tasks: BTreeSet<TaskId>,
    /// What `unready` was read from; `None`: something has changed.
    seen: Option<Arc<NodeObserved>>,
    unready: Vec<TaskId>,
}

/// Keeps the hints until the sessions end.
pub(super) async fn keep(shared: Arc<Shared>) {
    let (mut states, mut observed) = (shared.store.watch(), shared.published.subscribe());
    let (mut overview, settles) = (Overview::default(), Instant::now() + SETTLE);
    loop {
        let is_settled = Instant::now() >= settles;
        overview.follow(&states.borrow_and_update());
        let (hints, agents) = {
            let observed = observed.borrow_and_update();
            (HintsText::new(&overview.hints(&observed, is_settled)), observed.nodes.len())
        };
        let pace = pace(hints.size(), agents);
        shared.hints.send_if_modified(|current| {
            let is_new = **current != hints;
            if is_new {
                *current = Arc::new(hints);
            }
            is_new
        });
        let news = async {
            sleep(pace).await;
            tokio::select! {
                biased;
                Ok(()) = states.changed() => {}
                Ok(()) = observed.changed() => {}
                () = sleep_until(settles), if !is_settled => {}
                else => std::future::pending().await,
            }
        };
        if shared.closing.run_until_cancelled(news).await.is_none() {
            return;
        }
    }
}

/// How long to wait after a message of `size` bytes to each of `agents`.
pub(super) fn pace(size: usize, agents: usize) -> Duration {
    let millis = size.saturating_mul(agents).saturating_mul(1_000) / RATE;
    let millis = u64::try_from(millis).unwrap_or(u64::MAX);
    Duration::from_millis(millis).clamp(PACE, SLOWEST_PACE)
}

// === impl Session ===

impl Session {
    /// Passes the hints on, whenever they are new. Does not end by itself.
    pub(super) async fn hint(&self) {
        let mut hints = self.shared.hints.subscribe();
        let mut wait = FIRST_WAIT;
        loop {
            let newest = Arc::clone(&hints.borrow_and_update());
            let reason = match timeout(TAKE, self.client.hint(HintsText::clone(&newest))).await {
                Ok(Ok(())) => {
                    wait = FIRST_WAIT;
                    if hints.changed().await.is_err() {
                        std::future::pending::<()>().await;
                    }
                    continue;
                }
                Ok(Err(error)) => chain(&error),
                Err(_) => "no answer in time".to_owned(),
            };
            tracing::debug!(node = %self.node, reason, "an agent does not take hints");
            sleep(wait).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }
}

// === impl Overview ===

impl Overview {
    /// Takes in what is decided.
    fn follow(&mut self, state: &State) {
        if !self.projects.ptr_eq(&state.projects) {
            self.projects = state.projects.clone();
            let published = published(&self.projects);
            if self.published != published {
                *self = Self { published, projects: state.projects.clone(), ..Self::default() };
            }
        }
        let before = std::mem::replace(&mut self.tasks, state.tasks.clone());
        if before.ptr_eq(&self.tasks) {
            return;
        }
        for change in before.diff(&state.tasks) {
            match change {
                DiffItem::Add(_, task) => self.put(task),
                DiffItem::Remove(_, task) => self.remove(task),
                DiffItem::Update { old: (_, old), new: (_, new) } => {
                    self.remove(old);
                    self.put(new);
                }
            }
        }
    }

    fn put(&mut self, task: &Task) {
        let service = (task.project.clone(), task.service.clone());
        if task.desired.is_routed() && self.published.contains(&service) {
            let backends = self.nodes.entry(task.node.clone()).or_default();
            backends.tasks.insert(task.id.clone());
            backends.seen = None;
        }
    }

    fn remove(&mut self, task: &Task) {
        let Some(backends) = self.nodes.get_mut(&task.node) else { return };
        backends.tasks.remove(&task.id);
        backends.seen = None;
        if backends.tasks.is_empty() {
            self.nodes.remove(&task.node);
        }
    }

    fn hints(&mut self, observed: &Observed, is_settled: bool) -> Hints {
        let mut hints = Hints::default();
        for (node, backends) in &mut self.nodes {
            match observed.nodes.get(node) {
                Some(seen) if seen.is_heard() => {
                    backends.look(seen);
                    let room = MOST.saturating_sub(hints.unready.len());
                    hints.unready.extend(backends.unready.iter().take(room).cloned());
                }
                Some(seen) if seen.lost_at.is_none() && !is_settled => {}
                None if !is_settled => {}
                Some(_) | None => {
                    hints.away.insert(node.clone());
                }
            }
        }
        hints
    }
}

// === impl Backends ===

impl Backends {
    fn look(&mut self, seen: &Arc<NodeObserved>) {
        if self.seen.as_ref().is_some_and(|before| Arc::ptr_eq(before, seen)) {
            return;
        }
        let reports = seen.report.as_ref().map(|report| report.tasks.as_slice()).unwrap_or_default();
        let is_healthy = |task: &TaskId| {
            let at = reports.binary_search_by(|report| report.id.cmp(task));
            at.ok().and_then(|at| reports.get(at)).is_some_and(|report| report.phase.is_healthy())
        };
        self.unready = self.tasks.iter().filter(|task| !is_healthy(task)).cloned().collect();
        self.seen = Some(Arc::clone(seen));
    }
}

/// The services with a port that every node opens.
fn published(projects: &OrdMap<ProjectName, Arc<StoredProject>>) -> BTreeSet<(ProjectName, ServiceName)> {
    let mut published = BTreeSet::new();
    for (project, stored) in projects {
        for (name, service) in &stored.spec.services {
            if plan::published(service).next().is_some() {
                published.insert((project.clone(), name.clone()));
            }
        }
    }
    published
}

#[cfg(test)]
mod tests;
