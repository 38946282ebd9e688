//! Who looks all the while, four times in a virtual second, and says at once what must not happen: things that could be
//! over when a step is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::{Result, ensure};
use tug_model::spec::deploy::Mode;
use tug_model::task::{Desired, Task};
use tug_model::{NodeId, ProjectName, ServiceName, Slot};
use tug_orchestrator::store::State;

use super::cluster::Cluster;
use super::plane::OURS;
use crate::fake::Container;

/// More commits than this between two looks are made by nobody who has anything to decide.
const MOST_COMMITS: u64 = 60;

/// What was seen so far.
#[derive(Debug, Default)]
pub(super) struct Witness {
    /// The newest that was decided, also while nobody decides.
    state: Option<Arc<State>>,
    /// Where each volume has been used, by its name in the Engine.
    homes: BTreeMap<String, BTreeSet<NodeId>>,
    /// A copy of the store was brought back: what it did not know is not known any more.
    went_back: bool,
}

// === impl Witness ===

impl Witness {
    /// Looks at everything.
    pub(super) fn look(cluster: &mut Cluster) -> Result<()> {
        if let Some(state) = cluster.state() {
            no_slot_has_more_than_two(&state)?;
            cluster.witness.does_not_run_in_circles(&state)?;
            cluster.witness.state = Some(state);
        }
        nothing_that_is_to_run_is_ended(cluster)?;
        nobody_else_runs_anything(cluster)?;
        data_stays_where_it_is(cluster)
    }

    /// What is decided settles: it does not change again and again while nothing else does.
    fn does_not_run_in_circles(&mut self, state: &State) -> Result<()> {
        let before = self.state.as_ref().map_or(state.revision, |before| before.revision);
        let made = state.revision.0.saturating_sub(before.0);
        let is_restored = self.state.as_ref().is_some_and(|before| before.epoch != state.epoch);
        ensure!(made <= MOST_COMMITS || is_restored, "{made} commits in one moment");
        Ok(())
    }

    /// The newest that was decided, also while nobody decides.
    pub(super) fn newest(&self) -> Option<Arc<State>> {
        self.state.clone()
    }

    /// The orchestrator goes: this is the last that it decided.
    pub(super) fn left(&mut self, state: Option<Arc<State>>) {
        self.state = state.or_else(|| self.state.take());
    }

    /// A copy of the store was brought back.
    pub(super) fn went_back(&mut self) {
        self.went_back = true;
    }

    /// A machine was removed from the cluster: its data is given up.
    pub(super) fn removed(&mut self, node: &NodeId) {
        for homes in self.homes.values_mut() {
            homes.remove(node);
        }
        self.homes.retain(|_, homes| !homes.is_empty());
    }
}

/// While one task takes the place of another there are two in a slot, never more.
fn no_slot_has_more_than_two(state: &State) -> Result<()> {
    let mut slots: BTreeMap<(&ProjectName, &ServiceName, Slot), u32> = BTreeMap::new();
    for task in state.tasks.values().filter(|task| task.desired == Desired::Run) {
        let count = slots.entry((&task.project, &task.service, task.slot)).or_default();
        *count += 1;
        ensure!(
            *count <= 2,
            "{}.{}.{} has {count} tasks that are to run",
            task.project,
            task.service,
            task.slot
        );
    }
    Ok(())
}

/// An agent ends no container of a task that is to run or drains, whoever is in charge and whoever is not.
fn nothing_that_is_to_run_is_ended(cluster: &Cluster) -> Result<()> {
    for node in &cluster.nodes {
        for task in node.engine.take_ended() {
            let tasks = cluster.witness.state.as_ref().map(|state| &state.tasks);
            let desired = tasks.and_then(|tasks| tasks.get(&task)).map(|task| task.desired);
            let may_end = matches!(desired, None | Some(Desired::Stop { .. })) || node.removed;
            ensure!(may_end, "{task} on {} was ended while it was meant to be {desired:?}", node.id);
        }
    }
    Ok(())
}

/// Another cluster's control plane gets nothing run on our machines.
fn nobody_else_runs_anything(cluster: &Cluster) -> Result<()> {
    for node in &cluster.nodes {
        let theirs = node.engine.look(|container| {
            let identity = container.identity.as_ref()?;
            (identity.cluster != OURS).then(|| identity.task.clone())
        });
        ensure!(theirs.is_empty(), "another cluster runs {theirs:?} on {}", node.id);
    }
    Ok(())
}

/// What mounts a volume never runs where the volume has no data, when it has some elsewhere.
fn data_stays_where_it_is(cluster: &mut Cluster) -> Result<()> {
    if cluster.witness.went_back {
        return Ok(());
    }
    let Some(state) = cluster.state() else { return Ok(()) };
    for node in cluster.nodes.iter().filter(|node| !node.removed) {
        let used = node.engine.look(|container| {
            let identity = container.identity.as_ref().filter(|_| container.is_running())?;
            let task = state.tasks.get(&identity.task)?;
            Some((is_global(&state, task), volumes(container)))
        });
        let used = used.into_iter().flat_map(|(global, names)| names.into_iter().map(move |it| (global, it)));
        for (is_global, volume) in used {
            let homes = cluster.witness.homes.entry(volume.clone()).or_default();
            ensure!(
                is_global || homes.is_empty() || homes.contains(&node.id),
                "{volume} has its data on {homes:?} and is used on {}",
                node.id
            );
            homes.insert(node.id.clone());
        }
    }
    Ok(())
}

/// A global service has a copy of its volumes on every node.
fn is_global(state: &State, task: &Task) -> bool {
    let spec = state.projects.get(&task.project).and_then(|stored| stored.spec.services.get(&task.service));
    spec.is_some_and(|service| service.deploy.mode == Mode::Global)
}

/// The volumes of a container, by their names in the Engine.
fn volumes(container: &Container) -> Vec<String> {
    let volumes = container.template.iter().flat_map(|template| template.needs.volumes.values());
    volumes.map(|volume| volume.engine_name.clone()).collect()
}
