//! Where volumes have their data and who uses them, for people.

use std::collections::{BTreeMap, BTreeSet};

use tug_api::user::VolumeStatus;
use tug_model::name::ProjectName;
use tug_model::project::ServiceRef;
use tug_model::spec::container::MountSource;

use super::World;
use super::homes::local_volumes;

/// Who has to do with a volume.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Users {
    /// Who declares it.
    projects: BTreeSet<ProjectName>,
    /// Who mounts it, or still does: what is wanted, and tasks that have not gone yet.
    services: BTreeSet<ServiceRef>,
}

/// Every volume that is known to have data on some node, sorted by name, then node.
pub fn all(world: &World) -> Vec<VolumeStatus> {
    let users = users(world);
    let of = |volume: &String| users.get(volume.as_str()).cloned().unwrap_or_default();
    let lines = world.homes.iter().flat_map(|(volume, nodes)| {
        let Users { projects, services } = of(volume);
        nodes.iter().map(move |node| VolumeStatus {
            name: volume.clone(),
            projects: projects.iter().cloned().collect(),
            node: node.clone(),
            services: services.iter().cloned().collect(),
        })
    });
    lines.collect()
}

/// By the volumes' names in the Engine.
fn users(world: &World) -> BTreeMap<&str, Users> {
    let mut all: BTreeMap<&str, Users> = BTreeMap::new();
    for (project, stored) in &world.projects {
        for volume in stored.spec.volumes.values() {
            all.entry(&volume.engine_name).or_default().projects.insert(project.clone());
        }
        for (name, service) in &stored.spec.services {
            for mount in &service.container.mounts {
                let MountSource::Volume { name: key, .. } = &mount.source else { continue };
                let Some(volume) = stored.spec.volumes.get(key) else { continue };
                let service = ServiceRef { project: project.clone(), service: name.clone() };
                all.entry(&volume.engine_name).or_default().services.insert(service);
            }
        }
    }
    for task in world.tasks.values() {
        let template = world.templates.get(&task.template);
        for volume in template.into_iter().flat_map(|template| local_volumes(template)) {
            let users = all.entry(&volume.engine_name).or_default();
            users.projects.insert(task.project.clone());
            users.services.insert(task.service_ref());
        }
    }
    all
}
