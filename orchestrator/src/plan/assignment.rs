//! What one node is told: its tasks, and what they are made of.
//!
//! Computed from the store alone, never from observations: a report can not change what an agent is told.

use std::collections::BTreeSet;

use tug_model::assignment::{AssignedTask, Assignment};
use tug_model::name::NodeId;
use tug_model::task::{Needs, Task, Template};

use super::World;

/// Everything that `node` shall run, whole, as of the world's revision. `tasks` are all tasks of the node, sorted by id.
pub fn assignment<'w>(
    world: &World,
    cluster: &str,
    epoch: u64,
    node: &NodeId,
    tasks: impl IntoIterator<Item = &'w Task>,
) -> Assignment {
    let mut whole = Assignment::empty(node.clone());
    cluster.clone_into(&mut whole.cluster);
    whole.epoch = epoch;
    whole.generation = world.revision;
    let tasks: Vec<&Task> = tasks.into_iter().collect();
    whole.tasks = tasks.iter().map(|task| assigned(task)).collect();
    add_templates(&mut whole, world, tasks);
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
    tasks.sort_by_key(|task| task.made_by());
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
