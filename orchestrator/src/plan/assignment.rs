//! What one node is told: its tasks, what they are made of, and the published ports with the tasks behind them.
//!
//! Computed from the store alone, never from observations: a report can not change what an agent is told.

use std::collections::{BTreeMap, BTreeSet};

use tug_model::assignment::{AssignedTask, Assignment, RemoteBackend, Route};
use tug_model::name::{NodeId, TaskId};
use tug_model::spec::service::PortMode;
use tug_model::task::{Needs, Task, Template};

use super::World;
use super::index::Key;

/// Everything that `node` shall run, whole, as of the world's revision.
pub fn assignment(world: &World, cluster: &str, epoch: u64, node: &NodeId) -> Assignment {
    let mut whole = Assignment::empty(node.clone());
    cluster.clone_into(&mut whole.cluster);
    whole.epoch = epoch;
    whole.generation = world.revision;
    let tasks: Vec<&Task> =
        world.tasks.values().map(AsRef::as_ref).filter(|task| task.node == *node).collect();
    whole.tasks = tasks.iter().map(|task| assigned(task)).collect();
    add_templates(&mut whole, world, tasks);
    whole.routes = routes(world, node);
    whole.peers = peers(world, &whole.routes);
    whole
}

fn assigned(task: &Task) -> AssignedTask {
    AssignedTask {
        id: task.id.clone(),
        project: task.project.clone(),
        service: task.service.clone(),
        slot: task.slot,
        template: task.template.clone(),
        desired: task.desired,
        exclusive: task.exclusive,
    }
}

/// The templates of `tasks`, and what they use of their projects. Where two templates of a project mean different things
/// by one key, the node is told what the newer one means: the older one's container is there already.
fn add_templates(whole: &mut Assignment, world: &World, mut tasks: Vec<&Task>) {
    tasks.sort_by_key(|task| task.created_at);
    let mut seen = BTreeSet::new();
    for task in tasks {
        if !seen.insert((&task.project, &task.template)) {
            continue;
        }
        let Some(template) = world.templates.get(&task.template) else { continue };
        let mut template = Template::clone(template);
        let Needs { networks, volumes, configs } = std::mem::take(&mut template.needs);
        let resources = whole.projects.entry(task.project.clone()).or_default();
        resources.networks.extend(networks);
        resources.volumes.extend(volumes);
        whole.configs.extend(configs);
        whole.templates.insert(task.template.clone(), template);
    }
}

/// Every port that the agents open, with the tasks that may be given connections: those of `node` apart from the others.
fn routes(world: &World, node: &NodeId) -> Vec<Route> {
    let mut backends: BTreeMap<Key<'_>, (Vec<TaskId>, Vec<RemoteBackend>)> = BTreeMap::new();
    for task in world.tasks.values().filter(|task| task.desired.is_routed()) {
        let (local, remote) = backends.entry((&task.project, &task.service)).or_default();
        if task.node == *node {
            local.push(task.id.clone());
        } else {
            remote.push(RemoteBackend { task: task.id.clone(), node: task.node.clone() });
        }
    }
    let mut routes = Vec::new();
    for (project, stored) in &world.projects {
        for (name, service) in &stored.spec.services {
            let open = |port: &&tug_model::spec::service::Port| {
                port.mode == PortMode::Ingress && port.published.is_some()
            };
            for port in service.ports.iter().filter(open) {
                let (backends, remote) = backends.get(&(project, name)).cloned().unwrap_or_default();
                let (project, service) = (project.clone(), name.clone());
                routes.push(Route { project, service, port: port.clone(), backends, remote });
            }
        }
    }
    routes.sort_unstable();
    routes
}

/// Where the agents of the remote backends are reached.
fn peers(world: &World, routes: &[Route]) -> BTreeMap<NodeId, String> {
    let nodes: BTreeSet<&NodeId> =
        routes.iter().flat_map(|it| &it.remote).map(|remote| &remote.node).collect();
    let address = |id: &NodeId| world.nodes.get(id)?.info.address.clone();
    nodes.into_iter().filter_map(|id| Some((id.clone(), address(id)?))).collect()
}
