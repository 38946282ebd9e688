//! What there is to tell each node, kept up by the differences between one state of the store and the next: a commit
//! about one node costs no look at the others, and wakes only the session that it concerns.
//!
//! Nothing here knows what an agent was told: a session asks what is newer than what it has told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use imbl::ordmap::DiffItem;
use imbl::{OrdMap, OrdSet};
use tug_api::node::EndpointsLine;
use tug_model::endpoints::{Known, Stamp};
use tug_model::name::{NodeId, ProjectName, TaskId};
use tug_model::project::{ServiceRef, StoredProject};
use tug_model::spec::service::Port;
use tug_model::task::Task;
use tug_model::{Revision, node};

use super::Shared;
use crate::plan;
use crate::store::State;
use crate::world::world;

/// So many services that have ceased to publish anything are remembered.
const MOST_GONE: usize = 1_000;

/// What there is to tell, as of one state.
#[derive(Debug, Default)]
pub(super) struct Board {
    state: Arc<State>,
    nodes: BTreeMap<NodeId, NodeTasks>,
    services: BTreeMap<ServiceRef, Published>,
    /// The services, by when their endpoints changed last.
    by_change: BTreeMap<Revision, BTreeSet<ServiceRef>>,
    /// Who knows the endpoints as of a commit before this one may know some that are gone and not remembered.
    gone_before: Revision,
}

/// The tasks of one node.
#[derive(Debug, Default)]
struct NodeTasks {
    ids: OrdSet<TaskId>,
    /// The commit that last changed something about them.
    changed: Revision,
}

/// A service with published ports, or one that had some.
#[derive(Debug, Default)]
struct Published {
    /// None: it has ceased to publish anything.
    ports: Vec<Port>,
    /// Those that may be given connections.
    tasks: BTreeSet<TaskId>,
    changed: Revision,
    /// The version and the text of its endpoints, once somebody has asked for them.
    written: Option<(String, EndpointsLine)>,
}

/// Whom a commit concerns.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Touched {
    /// The nodes whose assignment says something new.
    pub(super) nodes: BTreeSet<NodeId>,
    /// Endpoints have changed: that concerns every node.
    pub(super) endpoints: bool,
}

/// Keeps the board at the newest state until the sessions end, and wakes those that it concerns.
pub(super) async fn keep(shared: Arc<Shared>) {
    let mut states = shared.store.watch();
    loop {
        let state = Arc::clone(&states.borrow_and_update());
        let touched = shared.board().follow(&state);
        shared.touched(&touched, state.revision);
        match shared.closing.run_until_cancelled(states.changed()).await {
            Some(Ok(())) => {}
            Some(Err(_)) | None => return,
        }
    }
}

// === impl Board ===

impl Board {
    /// Takes in a state.
    pub(super) fn follow(&mut self, state: &Arc<State>) -> Touched {
        let before = std::mem::replace(&mut self.state, Arc::clone(state));
        let mut touched = Touched::default();
        if !before.projects.ptr_eq(&state.projects) {
            self.follow_projects(&before.projects, state, &mut touched);
        }
        if !before.nodes.ptr_eq(&state.nodes) {
            self.follow_nodes(&before.nodes, &mut touched);
        }
        if !before.tasks.ptr_eq(&state.tasks) {
            for item in before.tasks.diff(&state.tasks) {
                let (old, new) = match item {
                    DiffItem::Add(_, new) => (None, Some(new)),
                    DiffItem::Remove(_, old) => (Some(old), None),
                    DiffItem::Update { old: (_, old), new: (_, new) } => (Some(old), Some(new)),
                };
                self.follow_task(old.map(AsRef::as_ref), new.map(AsRef::as_ref), &mut touched);
            }
        }
        touched
    }

    /// The newest commit that is taken in.
    pub(super) fn revision(&self) -> Revision {
        self.state.revision
    }

    /// Where endpoints that are asked for now come from.
    pub(super) fn stamp(&self) -> Stamp {
        let State { cluster, epoch, revision, .. } = &*self.state;
        Stamp { cluster: cluster.clone(), epoch: *epoch, generation: *revision, run: None }
    }

    /// The state, and the tasks of `node`, if an agent that was told them as of `told` does not know all of it.
    pub(super) fn tasks(
        &self,
        node: &NodeId,
        told: Option<Revision>,
    ) -> Option<(Arc<State>, OrdSet<TaskId>)> {
        let ours = self.nodes.get(node);
        let changed = ours.map_or(Revision(0), |ours| ours.changed);
        let is_new = told.is_none_or(|told| told < changed);
        is_new.then(|| (Arc::clone(&self.state), ours.map(|ours| ours.ids.clone()).unwrap_or_default()))
    }

    /// The endpoints that have changed after `told`; `None`: it can not be said any more what has.
    pub(super) fn endpoints_since(&mut self, told: Revision) -> Option<Vec<EndpointsLine>> {
        if told < self.gone_before {
            return None;
        }
        let changed: Vec<ServiceRef> =
            self.by_change.range(told.next()..).flat_map(|(_, services)| services).cloned().collect();
        Some(changed.iter().filter_map(|service| Some(self.written(service)?.1)).collect())
    }

    /// The endpoints that an agent lacks which knows `known`.
    pub(super) fn endpoints_beside(&mut self, known: &Known) -> Vec<EndpointsLine> {
        let mut known: BTreeMap<&ServiceRef, &str> =
            known.versions.iter().map(|(service, version)| (service, version.as_str())).collect();
        let published = self.services.iter().filter(|(_, published)| !published.ports.is_empty());
        let published: Vec<ServiceRef> = published.map(|(service, _)| service.clone()).collect();
        let mut lacking = Vec::new();
        for service in &published {
            let theirs = known.remove(service);
            let Some((version, line)) = self.written(service) else { continue };
            if theirs != Some(version.as_str()) {
                lacking.push(line);
            }
        }
        let world = world(&self.state, &Arc::default());
        let gone = known.into_keys().map(|service| EndpointsLine::new(&plan::endpoints(&world, service, [])));
        lacking.extend(gone);
        lacking
    }

    /// The version of the endpoints of a service, and how they are sent.
    fn written(&mut self, service: &ServiceRef) -> Option<(String, EndpointsLine)> {
        let published = self.services.get_mut(service)?;
        if published.written.is_none() {
            let tasks = published.tasks.iter().filter_map(|id| self.state.tasks.get(id)).map(AsRef::as_ref);
            let endpoints = plan::endpoints(&world(&self.state, &Arc::default()), service, tasks);
            let line = EndpointsLine::new(&endpoints);
            published.written = Some((endpoints.version, line));
        }
        published.written.clone()
    }

    fn follow_task(&mut self, old: Option<&Task>, new: Option<&Task>, touched: &mut Touched) {
        let revision = self.state.revision;
        for (task, is_there) in [(old, false), (new, true)] {
            let Some(task) = task else { continue };
            let ours = self.nodes.entry(task.node.clone()).or_default();
            if is_there {
                ours.ids.insert(task.id.clone());
            } else {
                ours.ids.remove(&task.id);
            }
            ours.changed = revision;
            touched.nodes.insert(task.node.clone());
        }
        let place = |task: &Task| task.desired.is_routed().then(|| (task.service_ref(), task.node.clone()));
        let (before, after) = (old.and_then(place), new.and_then(place));
        if before == after {
            return;
        }
        for (task, place, is_there) in [(old, before, false), (new, after, true)] {
            let (Some(task), Some((service, _))) = (task, place) else { continue };
            let Some(published) = self.services.get_mut(&service) else { continue };
            if is_there {
                published.tasks.insert(task.id.clone());
            } else {
                published.tasks.remove(&task.id);
            }
            self.touch(&service, touched);
        }
    }

    fn follow_nodes(&mut self, before: &OrdMap<NodeId, Arc<node::Node>>, touched: &mut Touched) {
        let state = Arc::clone(&self.state);
        for item in before.diff(&state.nodes) {
            let (id, old, new) = match item {
                DiffItem::Add(id, new) => (id, None, Some(new)),
                DiffItem::Remove(id, old) => (id, Some(old), None),
                DiffItem::Update { old: (id, old), new: (_, new) } => (id, Some(old), Some(new)),
            };
            let address = |node: Option<&Arc<node::Node>>| node.and_then(|node| node.info.address.clone());
            if address(old) != address(new) {
                let tasks = self.nodes.get(id).map(|ours| ours.ids.clone()).unwrap_or_default();
                let services = tasks.iter().filter_map(|task| Some(state.tasks.get(task)?.service_ref()));
                for service in services.collect::<BTreeSet<_>>() {
                    self.touch(&service, touched);
                }
            }
        }
        // Nobody is told about a node that is not there and has nothing.
        self.nodes.retain(|id, ours| !ours.ids.is_empty() || state.nodes.contains_key(id));
    }

    fn follow_projects(
        &mut self,
        before: &OrdMap<ProjectName, Arc<StoredProject>>,
        state: &State,
        touched: &mut Touched,
    ) {
        let mut changed = BTreeMap::new();
        for item in before.diff(&state.projects) {
            let (old, new) = match item {
                DiffItem::Add(_, new) => (None, Some(new)),
                DiffItem::Remove(_, old) => (Some(old), None),
                DiffItem::Update { old: (_, old), new: (_, new) } => (Some(old), Some(new)),
            };
            let (old, new) = (ports(old), ports(new));
            for service in old.keys().chain(new.keys()) {
                if old.get(service) != new.get(service) {
                    changed.insert(service.clone(), new.get(service).cloned().unwrap_or_default());
                }
            }
        }
        self.publish(changed, touched);
    }

    /// These services publish these ports from now on.
    fn publish(&mut self, changed: BTreeMap<ServiceRef, Vec<Port>>, touched: &mut Touched) {
        let mut begun = BTreeSet::new();
        for (service, ports) in changed {
            let published = self.services.entry(service.clone()).or_default();
            if published.ports.is_empty() {
                begun.insert(service.clone());
            }
            published.ports = ports;
            self.touch(&service, touched);
        }
        self.forget_gone();
        if begun.is_empty() {
            return;
        }
        // What is new itself is found once more by the difference of the tasks.
        for task in self.state.tasks.values().filter(|task| task.desired.is_routed()) {
            let service = task.service_ref();
            if begun.contains(&service)
                && let Some(published) = self.services.get_mut(&service)
            {
                published.tasks.insert(task.id.clone());
            }
        }
    }

    /// The endpoints of a service are others now.
    fn touch(&mut self, service: &ServiceRef, touched: &mut Touched) {
        let Some(published) = self.services.get_mut(service) else { return };
        if let Some(together) = self.by_change.get_mut(&published.changed) {
            together.remove(service);
            if together.is_empty() {
                self.by_change.remove(&published.changed);
            }
        }
        published.changed = self.state.revision;
        published.written = None;
        self.by_change.entry(published.changed).or_default().insert(service.clone());
        touched.endpoints = true;
    }

    fn forget_gone(&mut self) {
        let gone = self.services.values().filter(|published| published.ports.is_empty()).count();
        if gone <= MOST_GONE {
            return;
        }
        let is_gone = |published: &Published| published.ports.is_empty();
        let newest = self.services.values().filter(|it| is_gone(it)).map(|it| it.changed).max();
        self.gone_before = newest.unwrap_or_default();
        self.services.retain(|_, published| !is_gone(published));
        let services = &self.services;
        self.by_change.retain(|_, together| {
            together.retain(|service| services.contains_key(service));
            !together.is_empty()
        });
    }
}

/// The ports that the services of a project publish, of those that publish any.
fn ports(stored: Option<&Arc<StoredProject>>) -> BTreeMap<ServiceRef, Vec<Port>> {
    let mut all = BTreeMap::new();
    for (name, service) in stored.iter().flat_map(|stored| &stored.spec.services) {
        let ports: Vec<Port> = plan::published(service).cloned().collect();
        if let (Some(stored), false) = (stored, ports.is_empty()) {
            all.insert(ServiceRef { project: stored.spec.name.clone(), service: name.clone() }, ports);
        }
    }
    all
}

#[cfg(test)]
mod tests;
