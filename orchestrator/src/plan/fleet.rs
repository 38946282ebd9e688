//! What may be concluded about the machines: who is lost, who is dead, who is to be emptied; and when so many are away at
//! once that nothing is concluded at all.
//!
//! A silent node is *lost* at once, which moves nothing, and *dead* when its silence has lasted. The brake is on for nodes
//! that went away together with others, when together they are half of those that were there: then it is more likely
//! that something between us and them broke than that they did.

use std::collections::BTreeMap;

use tug_model::name::NodeId;
use tug_model::node::{Availability, Node};
use tug_model::quantity::{Millis, Timestamp};
use tug_model::report::Engine;

use super::world::HUSH;
use super::{FLAPPING_LOSSES, FLAPPING_WITHIN, NodeObserved, World};

/// A node that lost its connection often is given nothing for so long after the last time, while another one can take it.
const FLAPPING_REST: Millis = Millis::from_secs(5 * 60);

/// A node that was lost shows for so long that it stays, before anything is moved to it only to spread things.
const SETTLING: Millis = Millis::from_secs(15);

/// Every machine, and what is concluded about it.
#[derive(Debug)]
pub(super) struct Fleet<'w> {
    /// By the place of their nodes in the world.
    machines: Vec<Machine>,
    places: BTreeMap<&'w NodeId, usize>,
    /// Those that would count as dead if they were fewer.
    held: Vec<&'w NodeId>,
}

/// What is concluded about one machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Machine {
    /// Whether it is there.
    pub(super) presence: Presence,
    /// Where it is dead: whether it has been away for so long that what must not run twice is replaced, too.
    pub(super) is_long_dead: bool,
    /// It says what it runs, and has not taken its assignment for long.
    pub(super) is_deaf: bool,
    /// Why its tasks are to be moved away while it is there.
    pub(super) emptied: Option<Emptied>,
    /// Until when it is given nothing that another one can take, because its connection comes and goes.
    pub(super) flaps_until: Option<Timestamp>,
    /// Until when nothing is moved to it only to spread things: it was lost, and has just come back.
    pub(super) settles_until: Option<Timestamp>,
    /// When something else is concluded about it although nothing changed.
    pub(super) next: Option<Timestamp>,
}

/// Whether a node is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    /// It is connected and reports.
    Connected,
    /// It was, since the orchestrator started: its tasks stay.
    Lost,
    /// It was not heard of since the orchestrator started: it is given the time to come back.
    Awaited,
    /// It has been silent for so long that its tasks are replaced elsewhere.
    Dead {
        /// For how long.
        silent: Millis,
    },
}

/// Why a node is to be emptied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Emptied {
    /// Somebody asked for it.
    Drain {
        /// The deadline has passed: what is left there is stopped, replaced or not.
        over: bool,
    },
    /// Its Engine has not answered for long: what is there can neither be looked after nor stopped.
    NoEngine {
        /// And ends when the Engine starts again.
        doomed: bool,
    },
}

/// That a node is not of use, and since when.
#[derive(Debug, Clone, Copy)]
struct Absence {
    since: Timestamp,
    after: Millis,
    silent: bool,
    doomed: bool,
}

// === impl Fleet ===

impl<'w> Fleet<'w> {
    pub(super) fn new(world: &'w World, now: Timestamp) -> Self {
        let away: BTreeMap<&NodeId, Absence> =
            world.nodes.keys().filter_map(|id| Some((id, Absence::of(world, id)?))).collect();
        let away = with_grace(world, &away);
        // Those that went at the same moment are not all missed at the same moment.
        let mut doubtful = away.clone();
        let hushed = world.nodes.keys().filter(|id| !away.contains_key(*id));
        doubtful.extend(hushed.filter_map(|id| Some((id, Absence::in_doubt(world, id, now)?))));
        let places = world.nodes.keys().zip(0..).collect();
        let mut fleet = Self { machines: Vec::with_capacity(world.nodes.len()), places, held: Vec::new() };
        for (id, node) in &world.nodes {
            let absence = away.get(id).copied();
            let is_over = absence.is_some_and(|absence| absence.is_over(now));
            // What a person says about a node is said in the knowledge of what there is.
            let too_many = |away| are_too_many(away, id, world);
            let held = is_over && node.is_active() && (too_many(&away) || too_many(&doubtful));
            let mut machine = Machine::new(world, node, (absence, is_over && !held), now);
            if held {
                fleet.held.push(id);
                // Who is only in doubt speaks, or is lost, before long.
                let soon = Some(now.plus(Millis::from_secs(1))).filter(|_| !too_many(&away));
                machine.next = machine.next.into_iter().chain(soon).min();
            }
            fleet.machines.push(machine);
        }
        fleet
    }

    /// What is concluded about a node. One that is not known any more was removed: nothing of it comes back.
    pub(super) fn machine(&self, id: &NodeId) -> Machine {
        let presence = Presence::Dead { silent: Millis(0) };
        let gone = Machine {
            presence,
            is_long_dead: true,
            is_deaf: false,
            emptied: None,
            flaps_until: None,
            settles_until: None,
            next: None,
        };
        self.place(id).and_then(|place| self.machines.get(place)).copied().unwrap_or(gone)
    }

    /// The place of a node among those of the world.
    pub(super) fn place(&self, id: &NodeId) -> Option<usize> {
        self.places.get(id).copied()
    }

    /// Why the tasks of a silent node are not replaced; `None` when that is not for the brake.
    pub(super) fn brake(&self, id: &NodeId) -> Option<String> {
        self.held.contains(&id).then(|| self.braked())?
    }

    /// That the brake is on.
    pub(super) fn braked(&self) -> Option<String> {
        let (away, all) = (self.held.len(), self.machines.len());
        (away > 0).then(|| {
            format!("{away} of {all} nodes went away at once, so nothing is moved until one of them is back")
        })
    }

    /// Whether no machine has just gone, and none is about to come back.
    pub(super) fn is_calm(&self) -> bool {
        let calm =
            |machine: &Machine| matches!(machine.presence, Presence::Connected | Presence::Dead { .. });
        self.held.is_empty() && self.machines.iter().all(calm)
    }
}

// === impl Machine ===

impl Machine {
    fn new(world: &World, node: &Node, (absence, is_over): (Option<Absence>, bool), now: Timestamp) -> Self {
        let observed = world.observed.nodes.get(&node.id);
        let presence = match absence.filter(|absence| absence.silent) {
            None => Presence::Connected,
            Some(absence) if is_over => Presence::Dead { silent: now.since(absence.since) },
            Some(_) if observed.is_some_and(|observed| observed.report.is_some()) => Presence::Lost,
            Some(_) => Presence::Awaited,
        };
        let emptied = match node.availability {
            Availability::Drain { .. } => {
                let over = deadline(world, node, now).is_some_and(|at| now >= at);
                Some(Emptied::Drain { over })
            }
            Availability::Active => {
                let doomed = absence.is_some_and(|absence| absence.doomed);
                (is_over && presence == Presence::Connected).then_some(Emptied::NoEngine { doomed })
            }
        };
        let flaps_until = observed.and_then(|observed| flaps_until(observed, now));
        let long =
            absence.filter(|it| it.silent).map(|it| it.since.plus(it.after.max(world.timing.lost_after)));
        let is_long_dead = is_over && long.is_some_and(|at| now >= at);
        let deaf_at = observed.and_then(|observed| deaf_at(world, observed));
        // What it does not name may run all the same while its Engine does not answer.
        let is_deaf = presence == Presence::Connected
            && absence.is_none_or(|_| is_over)
            && deaf_at.is_some_and(|at| now >= at);
        let times = [absence.map(|it| it.since.plus(it.after)), long, deadline(world, node, now), deaf_at];
        let next = times.into_iter().flatten().filter(|at| *at > now).min();
        let back_at = observed.filter(|it| it.lost_at.is_some()).and_then(|it| it.back_at);
        let settles_until = back_at.map(|at| at.plus(SETTLING)).max(flaps_until).filter(|until| *until > now);
        Self { presence, is_long_dead, is_deaf, emptied, flaps_until, settles_until, next }
    }

    /// Whether nothing on it can be stopped: what is created elsewhere need not wait for it.
    pub(super) fn is_out_of_reach(&self) -> bool {
        let is_dead = matches!(self.presence, Presence::Dead { .. });
        (is_dead && self.is_long_dead) || matches!(self.emptied, Some(Emptied::NoEngine { .. }))
    }
}

/// When a node has been told for long what to do, in vain; `None`: it takes its assignment, as far as is known.
fn deaf_at(world: &World, observed: &NodeObserved) -> Option<Timestamp> {
    let deaf = observed.deaf.as_ref()?;
    Some(deaf.since.max(world.since).plus(world.timing.lost_after))
}

/// When what is left on a node that is drained is stopped. A time that lies ahead of us was written by a clock that was
/// wrong, so it counts from when we began to look.
fn deadline(world: &World, node: &Node, now: Timestamp) -> Option<Timestamp> {
    let Availability::Drain { at, deadline: Some(deadline) } = node.availability else { return None };
    Some(began(world, at, now).plus(deadline))
}

/// When something that the store says began at `at` began, as far as our own clock can tell.
pub(super) fn began(world: &World, at: Timestamp, now: Timestamp) -> Timestamp {
    if at > now { world.since.min(now) } else { at }
}

/// Until when a node counts as flapping; `None`: it does not.
pub(super) fn flaps_until(observed: &NodeObserved, now: Timestamp) -> Option<Timestamp> {
    let recent = observed.losses.iter().filter(|at| now.since(**at) <= FLAPPING_WITHIN).count();
    let until = observed.losses.last()?.plus(FLAPPING_REST);
    (recent >= FLAPPING_LOSSES && now < until).then_some(until)
}

/// Of so many that went together that nothing was concluded, some are back: the others are given the time to come back, too,
/// from then on.
fn with_grace<'w>(world: &'w World, away: &BTreeMap<&'w NodeId, Absence>) -> BTreeMap<&'w NodeId, Absence> {
    let is_back = |id: &&NodeId| world.nodes.contains_key(*id) && !away.contains_key(*id);
    let returned = world.observed.nodes.iter().filter(|(id, _)| is_back(id));
    let went = |it: &NodeObserved| Some((it.silent_since.or(it.lost_at)?, it.back_at?));
    let returned: Vec<(Timestamp, Timestamp)> = returned.filter_map(|(_, observed)| went(observed)).collect();
    let while_near = world.timing.lost_after;
    let grace = |absence: &Absence| {
        let is_near = |at: Timestamp| at.since(absence.since).max(absence.since.since(at)) <= while_near;
        let with_it = returned.iter().filter(|(went, _)| is_near(*went));
        let back = with_it.clone().map(|(_, back)| *back).max()?;
        let together = with_it.count() + away.values().filter(|it| is_near(it.since)).count();
        let before = away.values().filter(|it| !is_near(it.since) && it.since < absence.since).count();
        let are_many = 2 * together >= world.nodes.len().saturating_sub(before);
        let (since, after) = (absence.since.max(back), absence.after.max(while_near));
        (absence.silent && are_many).then_some(Absence { since, after, ..*absence })
    };
    away.iter().map(|(id, absence)| (*id, grace(absence).unwrap_or(*absence))).collect()
}

/// Whether so many went away together with `id` that it is left open which side is the one that broke. Who was away long
/// before does not count.
fn are_too_many(away: &BTreeMap<&NodeId, Absence>, id: &NodeId, world: &World) -> bool {
    let Some(ours) = away.get(id) else { return false };
    let (all, while_near) = (world.nodes.len(), ours.after.max(world.timing.lost_after));
    let near = |it: &&Absence| it.since.since(ours.since).max(ours.since.since(it.since)) <= while_near;
    let together = away.values().filter(near).count();
    let before = away.values().filter(|it| !near(it) && it.since < ours.since).count();
    together >= 2 && 2 * together >= all.saturating_sub(before)
}

// === impl Absence ===

impl Absence {
    fn of(world: &World, id: &NodeId) -> Option<Self> {
        let observed = world.observed.nodes.get(id);
        let Some(report) =
            observed.filter(|it| it.connected).and_then(|it| it.report.as_ref().map(|r| (it, r)))
        else {
            let lost_at = observed.and_then(|observed| observed.lost_at);
            let fell_silent = observed.and_then(|observed| observed.silent_since);
            let (since, after) = match (fell_silent, lost_at) {
                (Some(since), _) => (since, world.timing.silent_after),
                (None, Some(since)) => (since, world.timing.closed_after),
                (None, None) => (Timestamp::default(), world.timing.lost_after),
            };
            return Some(Self { since: since.max(world.since), after, silent: true, doomed: false });
        };
        let (observed, report) = report;
        match report.engine {
            Engine::Up => None,
            Engine::Down { age, doomed, .. } => {
                let timing = world.timing;
                let after = if doomed { timing.doomed_after } else { timing.engine_after }?;
                let since = Timestamp(observed.received_at.0.saturating_sub(age.0)).max(world.since);
                Some(Self { since, after, silent: false, doomed })
            }
        }
    }

    /// That of a node which is connected and has not said anything for longer than usual.
    fn in_doubt(world: &World, id: &NodeId, now: Timestamp) -> Option<Self> {
        let since = world.observed.nodes.get(id)?.spoke_at().max(world.since);
        let after = world.timing.silent_after;
        (now.since(since) >= HUSH).then_some(Self { since, after, silent: true, doomed: false })
    }

    fn is_over(&self, now: Timestamp) -> bool {
        now >= self.since.plus(self.after)
    }
}
