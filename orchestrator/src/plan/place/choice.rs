//! The best node for one replica after another of one service, without a look at every node for each.
//!
//! Replicas are alike but for their slots: a node that has no task of a slot is as good for it as for any other slot. So
//! the nodes are ranked once for a slot that nobody has, and those few that have a task of the slot are judged apart.

use std::collections::{BTreeMap, BTreeSet};

use tug_model::name::NodeId;
use tug_model::quantity::Slot;
use tug_model::spec::deploy::Mode;

use super::filter::FILTERS;
use super::{Ask, Back, NodeRoom, Rank};
use crate::plan::homes::{self, Homes};
use crate::plan::index::{Key, Seen};
use crate::plan::wanted::Wanted;

/// The slot of a replica that is nowhere yet: real ones begin with 1.
const NOWHERE: Slot = Slot(0);

/// The nodes, ranked for one service.
#[derive(Debug)]
pub(super) struct Choice<'w> {
    service: Key<'w>,
    /// Those that take a replica, the best first.
    ranked: BTreeSet<Rank<'w>>,
    /// The same by node.
    ranks: BTreeMap<&'w NodeId, Rank<'w>>,
    /// Those that have tasks of the service, by slot.
    hosts: BTreeMap<Slot, BTreeSet<&'w NodeId>>,
}

/// Every node, and what is taken there.
type Rooms<'w> = BTreeMap<&'w NodeId, NodeRoom<'w>>;

/// Whether the replicas of a service are alike: none is tied to a node, and where one is has no bearing on the others but
/// by their number.
pub(super) fn is_uniform(service: &Wanted<'_>) -> bool {
    matches!(service.spec.deploy.mode, Mode::Replicated(_))
        && service.spec.deploy.placement.preferences.is_empty()
        && homes::local_volumes(&service.template).next().is_none()
}

// === impl Choice ===

impl<'w> Choice<'w> {
    pub(super) fn new(service: &Wanted<'w>, rooms: &Rooms<'w>, homes: &Homes<'w>) -> Self {
        let (ranked, ranks, mut hosts): (_, _, BTreeMap<Slot, BTreeSet<&NodeId>>) = <_>::default();
        for (node, room) in rooms {
            for slot in room.slots.get(&service.key()).into_iter().flatten() {
                hosts.entry(*slot).or_default().insert(node);
            }
        }
        let mut choice = Self { service: service.key(), ranked, ranks, hosts };
        for room in rooms.values() {
            choice.put(&room.node.id, rank(service, NOWHERE, room, homes));
        }
        choice
    }

    pub(super) fn is_of(&self, service: Key<'_>) -> bool {
        self.service == service
    }

    /// The best node for a task; `None`: no node takes it.
    pub(super) fn best(
        &self,
        service: &Wanted<'w>,
        slot: Slot,
        rooms: &Rooms<'w>,
        homes: &Homes<'w>,
    ) -> Option<&'w NodeId> {
        let hosts = self.hosts.get(&slot);
        let is_host = |node: &NodeId| hosts.is_some_and(|hosts| hosts.contains(node));
        let other = self.ranked.iter().find(|rank| !is_host(rank.node));
        let judged: Vec<Rank<'w>> = hosts
            .into_iter()
            .flatten()
            .filter_map(|node| rank(service, slot, rooms.get(node)?, homes))
            .collect();
        judged.iter().chain(other).min().map(|rank| rank.node)
    }

    /// A task of the service is counted in on `room`.
    pub(super) fn take(&mut self, service: &Wanted<'w>, slot: Slot, room: &NodeRoom<'w>, homes: &Homes<'w>) {
        let node = &room.node.id;
        self.hosts.entry(slot).or_default().insert(node);
        self.put(node, rank(service, NOWHERE, room, homes));
    }

    /// A task of the service does not count for the spread any more; it keeps its room.
    pub(super) fn leave(&mut self, seen: &Seen<'w>, room: &NodeRoom<'w>) {
        if let Some(rank) = self.ranks.get(&seen.task.node).cloned() {
            let spread = vec![room.others(self.service, NOWHERE)];
            self.put(&room.node.id, Some(Rank { spread, ..rank }));
        }
    }

    fn put(&mut self, node: &'w NodeId, rank: Option<Rank<'w>>) {
        if let Some(old) = self.ranks.remove(node) {
            self.ranked.remove(&old);
        }
        if let Some(rank) = rank {
            self.ranked.insert(rank.clone());
            self.ranks.insert(node, rank);
        }
    }
}

/// How good a node is for a task; `None`: it does not take it.
fn rank<'w>(service: &Wanted<'w>, slot: Slot, room: &NodeRoom<'w>, homes: &Homes<'w>) -> Option<Rank<'w>> {
    let ask = Ask { service, slot, room, homes, back: Back::default() };
    FILTERS.iter().all(|filter| filter(&ask).is_ok()).then(|| Rank {
        flaps: room.machine.flaps_until.is_some(),
        spread: vec![room.others(service.key(), slot)],
        tasks: room.tasks,
        node: &room.node.id,
    })
}
