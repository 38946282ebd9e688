//! As many tasks as are wanted: what is missing is created, what is too much goes, the highest slots first.

use std::collections::BTreeMap;
use std::sync::Arc;

use tug_model::name::{ProjectName, ServiceName};
use tug_model::quantity::Slot;
use tug_model::spec::deploy::Mode;

use super::World;
use super::decision::{Obstacle, ObstacleKind};
use super::depends;
use super::drain::leave;
use super::exclusive;
use super::index::{Seen, SlotTasks};
use super::pass::Pass;
use super::wanted::Wanted;

/// Takes the tasks out of service that no wanted service has a place for.
pub(super) fn retire(pass: &mut Pass<'_>) {
    let services = std::rc::Rc::clone(&pass.services);
    let unwanted: Vec<Seen<'_>> = pass
        .index
        .services()
        .filter(|(key, _)| !services.contains(*key))
        .flat_map(|(_, tasks)| tasks.iter().rev().copied())
        .collect();
    for seen in unwanted {
        let why = why_gone(pass.world, &seen.task.project, &seen.task.service);
        leave(pass, seen, why);
    }
}

fn why_gone(world: &World, project: &ProjectName, service: &ServiceName) -> String {
    if world.projects.contains_key(project) {
        format!("{service} is no longer part of {project}")
    } else {
        format!("{project} is removed")
    }
}

/// Takes the tasks of a wanted service out of service that stand in no slot of it.
pub(super) fn shrink<'w>(pass: &mut Pass<'w>, service: &Wanted<'w>, surplus: &[Seen<'w>]) {
    for seen in surplus.iter().rev() {
        leave(pass, *seen, why_surplus(service));
    }
}

/// Creates a task for every slot that has none.
pub(super) fn fill<'w>(pass: &mut Pass<'w>, service: &Wanted<'w>, slots: &mut BTreeMap<Slot, SlotTasks<'w>>) {
    let mut running = slots.values().filter(|slot| slot.running() > 0 || slot.pending).count();
    if running == slots.len() {
        return;
    }
    let unmet = depends::unmet(pass, service);
    let mut full: Option<Arc<[String]>> = None;
    for (number, slot) in slots.iter_mut().filter(|(_, slot)| slot.running() == 0 && !slot.pending) {
        if let Some(reasons) = &unmet {
            slot.pending = true;
            let reasons = Arc::clone(reasons);
            pass.hinder(service, *number, Obstacle { kind: ObstacleKind::Dependency, reasons });
            continue;
        }
        if let Some(obstacle) = exclusive::held(pass, service) {
            slot.pending = true;
            pass.hinder(service, *number, obstacle);
            continue;
        }
        if let Some(old) = slot.clashing(service) {
            pass.hinder(service, *number, old.must_stop());
            slot.pending = true;
            continue;
        }
        let place = match &full {
            Some(reasons) => Err(Arc::clone(reasons)),
            None => pass.room.place(pass.world, service, *number, None),
        };
        match place {
            Ok(node) => {
                slot.pending = true;
                let why = format!("{running} of {} running", service.slots.len());
                pass.create(service, *number, node, why);
                running += 1;
            }
            Err(reasons) => {
                // Replicas are all alike: where one has no place, the next has none either.
                let alike = service.slots.get(number).is_some_and(Option::is_none);
                full = alike.then(|| Arc::clone(&reasons));
                pass.no_place(service, *number, reasons);
            }
        }
    }
}

fn why_surplus(service: &Wanted<'_>) -> String {
    match (service.spec.deploy.mode, service.slots.len()) {
        (Mode::Global, _) => "one is wanted on every node that suits it".to_owned(),
        (Mode::Replicated(_), 0) => "no replica is wanted".to_owned(),
        (Mode::Replicated(_), 1) => "only 1 replica is wanted".to_owned(),
        (Mode::Replicated(_), count) => format!("only {count} replicas are wanted"),
    }
}
