//! Making use of a node that is new or came back, gently: when nothing else is to be done, one replica of one service is
//! moved at a time, and only if that leaves its service spread better than by chance: two replicas more here than there.
//!
//! The replica that is moved gets a successor of the same template; that there are two of them is all that says so. The
//! older one leaves when the newer one serves, as in any other replacement.

use std::rc::Rc;

use tug_model::spec::deploy::Mode;
use tug_model::spec::service::RestartOn;

use super::depends;
use super::index::Standing;
use super::pass::Pass;
use super::wanted::Wanted;

/// Begins to move one replica, if there is nothing else to do.
pub(super) fn advance(pass: &mut Pass<'_>) {
    let busy = pass.index.services().flat_map(|(_, tasks)| tasks).any(|seen| !seen.runs());
    if busy || !pass.plan.decisions.is_empty() || !pass.fleet.is_calm() {
        return;
    }
    let services = Rc::clone(&pass.services);
    for service in services.in_order().filter(|service| may_move(service)) {
        if move_one(pass, service) {
            return;
        }
    }
}

/// What has its data or its port in one place stays there, and so does what runs to its end.
fn may_move(service: &Wanted<'_>) -> bool {
    let is_replicated = match service.spec.deploy.mode {
        Mode::Replicated(count) => count > 1,
        Mode::Global => false,
    };
    is_replicated && !service.stop_first && service.spec.restart.condition == RestartOn::Any
}

fn move_one<'w>(pass: &mut Pass<'w>, service: &Wanted<'w>) -> bool {
    let (slots, surplus) = pass.index.slots(service, &pass.left);
    let is_quiet = |seen: &super::index::Seen<'_>| seen.standing() == Standing::Serving;
    let quiet = slots.values().all(|slot| slot.running() == 1 && slot.current.iter().all(is_quiet));
    if !quiet || !surplus.is_empty() || depends::unmet(pass, service).is_some() {
        return false;
    }
    for (number, slot) in &slots {
        let Some(old) = slot.current.first() else { continue };
        let Some(node) = pass.room.better(pass.world, service, *number, &old.task.node) else { continue };
        if let Some(until) = pass.fleet.machine(node).settles_until {
            pass.wake_at(until);
            continue;
        }
        let id = &old.task.id;
        let why = format!("spreads {}: takes the place of {id}, which stays until then", service.name);
        pass.create(service, *number, node, why);
        return true;
    }
    false
}
