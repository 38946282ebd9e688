//! How a task goes: out of the routes first, then stopped, then forgotten.
//!
//! `Run → Drain → Stop`, never back. A task that may hold connections is drained: it keeps running until every
//! connected node has said that it routes by the commit that took the task out, and its connections have ended or its
//! grace has passed. A stopped task is forgotten when its node follows the commit that stopped it and does not report
//! it any more.

use tug_model::quantity::{Millis, Revision, Timestamp};
use tug_model::spec::container::StopGrace;
use tug_model::task::Desired;

use super::World;
use super::decision::Change;
use super::exclusive;
use super::fleet::{self, Presence};
use super::index::{Seen, Standing};
use super::pass::Pass;

/// A connected node that has not said after so long, beyond the grace, that it routes by the newer commit is not waited
/// for: every state has an end.
const LONGEST_SILENCE: Millis = Millis::from_secs(30);

/// Takes a running task out of service.
pub(super) fn leave<'w>(pass: &mut Pass<'w>, seen: Seen<'w>, why: impl Into<String>) {
    if !seen.runs() || !pass.left.insert(&seen.task.id) {
        return;
    }
    pass.room.leave(seen);
    let id = seen.task.id.clone();
    let change = if may_be_connected(seen) { Change::Drain(id) } else { Change::Stop(id) };
    pass.decide(change, why);
}

/// Moves every task that is on its way out as far as it may go.
pub(super) fn advance(pass: &mut Pass<'_>) {
    let slowest = slowest_ack(pass.world);
    let leaving: Vec<Seen<'_>> = pass
        .index
        .services()
        .flat_map(|(_, tasks)| tasks.iter().copied().filter(|seen| !seen.runs()))
        .collect();
    for seen in leaving {
        match seen.task.desired {
            Desired::Run => {}
            Desired::Drain { since, at } => {
                // What its own node says about connections counts from when it has followed that commit.
                let acked = slowest.is_none_or(|acked| acked >= since) && seen.follows >= since;
                let drained = drained(pass, seen, acked, at);
                match drained {
                    Ok(why) => pass.decide(Change::Stop(seen.task.id.clone()), why),
                    Err(wake_at) => pass.wake_at(wake_at),
                }
            }
            Desired::Stop { since } => {
                if has_gone(pass, seen, since) {
                    pass.decide(Change::Forget(seen.task.id.clone()), "it has gone");
                }
            }
        }
    }
}

/// Whether somebody may be connected to the task through a balancer.
fn may_be_connected(seen: Seen<'_>) -> bool {
    let reachable = seen.template.is_none_or(|template| !template.exposed.is_empty());
    let may_serve = match seen.node.presence {
        Presence::Connected => seen.standing() == Standing::Serving || seen.may_have_connections(),
        Presence::Lost | Presence::Dead { .. } => false,
        Presence::Awaited => true,
    };
    reachable && may_serve
}

/// Why a draining task may be stopped, or when to look again.
fn drained(pass: &Pass<'_>, seen: Seen<'_>, acked: bool, at: Timestamp) -> Result<&'static str, Timestamp> {
    match seen.node.presence {
        Presence::Lost | Presence::Dead { .. } => return Ok("its node is not connected"),
        Presence::Connected | Presence::Awaited => {}
    }
    let StopGrace(grace) = seen.template.map_or_else(StopGrace::default, |t| t.container.stop_grace_period);
    let at = fleet::began(pass.world, at, pass.now);
    let (end, last) = (at.plus(grace), at.plus(grace).plus(LONGEST_SILENCE));
    if !acked || seen.node.presence == Presence::Awaited {
        return if pass.now >= last {
            Ok("a node has not said for too long that it routes without it")
        } else {
            Err(last)
        };
    }
    if !seen.may_have_connections() {
        return Ok("no connection is left");
    }
    if pass.now >= end { Ok("the grace of its connections has passed") } else { Err(end) }
}

/// The oldest revision that a connected node routes by; `None` when no node is connected.
fn slowest_ack(world: &World) -> Option<Revision> {
    let connected = world.observed.nodes.values().filter(|node| node.connected);
    connected.map(|node| world.observed.acked(node)).min()
}

/// Whether the container of a stopped task has gone. What the node said before it followed the commit that stopped
/// the task does not count: the container may have been made since.
fn has_gone(pass: &mut Pass<'_>, seen: Seen<'_>, since: Revision) -> bool {
    let world = pass.world;
    if !world.nodes.contains_key(&seen.task.node) {
        return seen.task.exclusive.is_none() || exclusive::has_ended(pass, seen.task);
    }
    let Some(observed) = world.observed.nodes.get(&seen.task.node) else { return false };
    let Some(report) = &observed.report else { return false };
    let follows = world.observed.acked(observed) >= since && seen.follows >= since;
    // A node that is not connected may still have said that it has gone.
    let listed = || report.tasks.iter().any(|task| task.id == seen.task.id);
    follows && if seen.node.presence == Presence::Connected { seen.report.is_none() } else { !listed() }
}
