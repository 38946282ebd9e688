//! What one node is told: its tasks, what they are made of, and the published ports with the tasks behind them.
//!
//! Computed from the store alone, never from observations: a report can not change what an agent is told.

use std::collections::BTreeMap;

use tug_model::assignment::{AssignedTask, Assignment, Resources, Route};
use tug_model::name::{NodeId, ProjectName, ServiceName, TaskId};
use tug_model::spec::resource::Config;
use tug_model::spec::service::PortMode;
use tug_model::task::{Task, Template};

use super::World;

/// Everything that `node` shall run, whole, as of the world's revision.
pub fn assignment(world: &World, cluster: &str, epoch: u64, node: &NodeId) -> Assignment {
    let mut whole = Assignment::empty(node.clone());
    cluster.clone_into(&mut whole.cluster);
    whole.epoch = epoch;
    whole.generation = world.revision;
    for task in world.tasks.values().filter(|task| task.node == *node) {
        whole.tasks.push(assigned(task));
        if whole.templates.contains_key(&task.template) {
            continue;
        }
        if let Some(template) = world.templates.get(&task.template) {
            whole.templates.insert(task.template.clone(), Template::clone(template));
            add_configs(world, &task.project, template, &mut whole.configs);
        }
    }
    for task in &whole.tasks {
        if !whole.projects.contains_key(&task.project)
            && let Some(resources) = resources(world, &task.project)
        {
            whole.projects.insert(task.project.clone(), resources);
        }
    }
    whole.routes = routes(world);
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
    }
}

/// The contents of the configs that a template mounts. A config that has changed since is not kept: a container made
/// of the older one has its file already.
fn add_configs(
    world: &World,
    project: &ProjectName,
    template: &Template,
    configs: &mut BTreeMap<String, Config>,
) {
    let Some(stored) = world.projects.get(project) else { return };
    for mount in &template.container.configs {
        if let Some(config) = stored.spec.configs.get(&mount.config)
            && config.hash() == mount.hash
        {
            configs.insert(mount.hash.clone(), config.clone());
        }
    }
}

fn resources(world: &World, project: &ProjectName) -> Option<Resources> {
    let spec = &world.projects.get(project)?.spec;
    Some(Resources { networks: spec.networks.clone(), volumes: spec.volumes.clone() })
}

/// Every port that the agents open, with the tasks that may be given connections.
fn routes(world: &World) -> Vec<Route> {
    let mut backends: BTreeMap<(&ProjectName, &ServiceName), Vec<TaskId>> = BTreeMap::new();
    for task in world.tasks.values().filter(|task| task.desired.is_routed()) {
        backends.entry((&task.project, &task.service)).or_default().push(task.id.clone());
    }
    let mut routes = Vec::new();
    for (project, stored) in &world.projects {
        for (name, service) in &stored.spec.services {
            let open = |port: &&tug_model::spec::service::Port| {
                port.mode == PortMode::Ingress && port.published.is_some()
            };
            for port in service.ports.iter().filter(open) {
                routes.push(Route {
                    project: project.clone(),
                    service: name.clone(),
                    port: port.clone(),
                    backends: backends.get(&(project, name)).cloned().unwrap_or_default(),
                });
            }
        }
    }
    routes.sort_unstable();
    routes
}
