//! Where the data of local volumes is. A volume that has been used on a node has its data there, and nowhere else: what
//! mounts it goes there or nowhere, until the node is removed.
//!
//! A home is a fact of the store, because it outlives the tasks that made it: the next version of a service, a service
//! that was scaled to none, and a project that was removed and applied again find their data.

use std::collections::{BTreeMap, BTreeSet};

use tug_model::name::NodeId;
use tug_model::report::Phase;
use tug_model::spec::resource::Volume;
use tug_model::task::Template;

use super::World;
use super::decision::Change;
use super::index::Index;
use super::pass::Pass;

/// The nodes that each volume has been used on, by its name in the Engine.
#[derive(Debug)]
pub(super) struct Homes<'w> {
    nodes: BTreeMap<String, BTreeSet<&'w NodeId>>,
}

/// Writes down where volumes have been used, as far as that is not known yet.
pub(super) fn settle(pass: &mut Pass<'_>) {
    let world = pass.world;
    let mut found = BTreeSet::new();
    for seen in pass.index.services().flat_map(|(_, tasks)| tasks).filter(|seen| seen.at.is_some()) {
        let Some(template) = seen.template else { continue };
        // A volume that is not ours is there only if a container could be made with it.
        let has_started = seen.phase().is_some_and(Phase::has_started);
        for volume in local_volumes(template).filter(|volume| !volume.external || has_started) {
            let homes = world.homes.get(&volume.engine_name);
            if !homes.is_some_and(|homes| homes.contains(&seen.task.node)) {
                found.insert((volume.engine_name.clone(), seen.task.node.clone()));
            }
        }
    }
    for (volume, node) in found {
        let why = format!("{volume} is used on node {node}");
        pass.decide(Change::Settle { volume, node }, why);
    }
}

/// The volumes of a template whose data is on the machine that they are used on.
pub(super) fn local_volumes(template: &Template) -> impl Iterator<Item = &Volume> {
    template.needs.volumes.values().filter(|volume| volume.is_local())
}

// === impl Homes ===

impl<'w> Homes<'w> {
    /// Those that are written down, and those that a task is about to make.
    pub(super) fn new(world: &'w World, index: &Index<'w>) -> Self {
        let mut homes = Self { nodes: BTreeMap::new() };
        for (volume, nodes) in &world.homes {
            let known = nodes.iter().filter(|node| world.nodes.contains_key(*node));
            homes.nodes.entry(volume.clone()).or_default().extend(known);
        }
        for seen in index.services().flat_map(|(_, tasks)| tasks).filter(|seen| seen.at.is_some()) {
            if let Some(template) = seen.template {
                homes.take(template, &seen.task.node);
            }
        }
        homes
    }

    /// A task of `template` is on `node`.
    pub(super) fn take(&mut self, template: &Template, node: &'w NodeId) {
        for volume in local_volumes(template).filter(|volume| !volume.external) {
            self.nodes.entry(volume.engine_name.clone()).or_default().insert(node);
        }
    }

    /// A volume of `template` that has its data on other nodes than `node`, with one of those.
    pub(super) fn elsewhere<'t>(&self, template: &'t Template, node: &NodeId) -> Option<(&'t str, &NodeId)> {
        local_volumes(template).find_map(|volume| {
            let homes = self.nodes.get(&volume.engine_name)?;
            if homes.contains(node) {
                return None;
            }
            homes.first().map(|home| (volume.engine_name.as_str(), *home))
        })
    }
}
