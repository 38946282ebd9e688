//! The best node for one replica after another of one service, without a look at every node for each.
//!
//! Replicas are alike but for their slots: a node that has no task of a slot is as good for it as for any other slot. So
//! the nodes are ranked once for a slot that nobody has, and those few that have a task of the slot are judged apart.

use std::collections::{BTreeMap, BTreeSet};

use tug_model::quantity::Slot;
use tug_model::spec::deploy::Mode;

use super::filter::FILTERS;
use super::stand::Stand;
use super::{Ask, Back, NodeRoom};
use crate::plan::homes::{self, Homes};
use crate::plan::index::Key;
use crate::plan::wanted::Wanted;

/// The slot of a replica that is nowhere yet: real ones begin with 1.
const NOWHERE: Slot = Slot(0);

/// The nodes, ranked for one service.
#[derive(Debug)]
pub(super) struct Choice<'w> {
    service: Key<'w>,
    /// Those that take a replica, the best first.
    ranked: BTreeSet<Rank>,
    /// The same by the place of the node.
    ranks: Vec<Option<Rank>>,
    /// Those that have tasks of the service, by slot.
    hosts: BTreeMap<Slot, BTreeSet<usize>>,
}

/// How good a node is. The spread is the number of other replicas there.
type Rank = super::Rank<usize>;

/// Whether the replicas of a service are alike: none is tied to a node, and where one is has no bearing on the others but
/// by their number.
pub(super) fn is_uniform(service: &Wanted<'_>) -> bool {
    matches!(service.spec.deploy.mode, Mode::Replicated(_))
        && service.spec.deploy.placement.preferences.is_empty()
        && homes::local_volumes(&service.template).next().is_none()
}

// === impl Choice ===

impl<'w> Choice<'w> {
    pub(super) fn new(
        service: &Wanted<'w>,
        stand: &Stand,
        rooms: &[NodeRoom<'w>],
        homes: &Homes<'w>,
    ) -> Self {
        let mut hosts: BTreeMap<Slot, BTreeSet<usize>> = BTreeMap::new();
        for (slot, place) in stand.slots() {
            hosts.entry(slot).or_default().insert(place);
        }
        let rank = |room| rank(service, (NOWHERE, stand), room, homes);
        let ranks: Vec<Option<Rank>> = rooms.iter().map(rank).collect();
        Self { service: service.key(), ranked: ranks.iter().flatten().copied().collect(), ranks, hosts }
    }

    pub(super) fn is_of(&self, service: Key<'_>) -> bool {
        self.service == service
    }

    /// The best node for a task of `slot`; `None`: no node takes it.
    pub(super) fn best(
        &self,
        service: &Wanted<'w>,
        (slot, stand): (Slot, &Stand),
        rooms: &[NodeRoom<'w>],
        homes: &Homes<'w>,
    ) -> Option<usize> {
        let hosts = self.hosts.get(&slot);
        let is_host = |place: &usize| hosts.is_some_and(|hosts| hosts.contains(place));
        let other = self.ranked.iter().find(|rank| !is_host(&rank.place)).copied();
        let hosts = hosts.into_iter().flatten().filter_map(|place| rooms.get(*place));
        let judged = hosts.filter_map(|room| rank(service, (slot, stand), room, homes));
        judged.chain(other).min().map(|rank| rank.place)
    }

    /// A task of `slot` is counted in on `room`.
    pub(super) fn take(
        &mut self,
        service: &Wanted<'w>,
        (slot, stand): (Slot, &Stand),
        room: &NodeRoom<'w>,
        homes: &Homes<'w>,
    ) {
        self.hosts.entry(slot).or_default().insert(room.place);
        self.put(room.place, rank(service, (NOWHERE, stand), room, homes));
    }

    /// A task of the service does not count for the spread any more; it keeps its room.
    pub(super) fn leave(&mut self, place: usize, stand: &Stand) {
        if let Some(rank) = self.ranks.get(place).copied().flatten() {
            self.put(place, Some(Rank { spread: stand.others(place, NOWHERE), ..rank }));
        }
    }

    fn put(&mut self, place: usize, rank: Option<Rank>) {
        let Some(known) = self.ranks.get_mut(place) else { return };
        if let Some(old) = std::mem::replace(known, rank) {
            self.ranked.remove(&old);
        }
        self.ranked.extend(rank);
    }
}

/// How good a node is for a task; `None`: it does not take it.
fn rank<'w>(
    service: &Wanted<'w>,
    (slot, stand): (Slot, &Stand),
    room: &NodeRoom<'w>,
    homes: &Homes<'w>,
) -> Option<Rank> {
    let ask = Ask { service, slot, room, stand, homes, back: Back::default() };
    FILTERS.iter().all(|filter| filter(&ask).is_ok()).then(|| Rank {
        flaps: room.machine.flaps_until.is_some(),
        spread: stand.others(room.place, slot),
        tasks: room.tasks,
        place: room.place,
    })
}
