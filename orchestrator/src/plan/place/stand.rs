//! Where the tasks of one service stand.

use std::collections::BTreeMap;

use tug_model::quantity::Slot;

/// The tasks of a service, by the place of their nodes.
#[derive(Debug, Default)]
pub(super) struct Stand(BTreeMap<usize, Here>);

/// Where a service without a task stands.
pub(super) static EMPTY: Stand = Stand(BTreeMap::new());

/// The tasks of a service on one node.
#[derive(Debug, Default)]
struct Here {
    /// How many of them are to run.
    running: usize,
    /// The slots that have one, and how many of those are to run.
    slots: BTreeMap<Slot, usize>,
}

// === impl Stand ===

impl Stand {
    /// Counts a task in; it counts for the spread if it is to run.
    pub(super) fn take(&mut self, place: usize, slot: Slot, runs: bool) {
        let here = self.0.entry(place).or_default();
        here.running += usize::from(runs);
        *here.slots.entry(slot).or_default() += usize::from(runs);
    }

    /// A task does not count for the spread any more.
    pub(super) fn leave(&mut self, place: usize, slot: Slot) {
        let Some(here) = self.0.get_mut(&place) else { return };
        here.running = here.running.saturating_sub(1);
        if let Some(running) = here.slots.get_mut(&slot) {
            *running = running.saturating_sub(1);
        }
    }

    /// How many tasks of other slots are to run on a node.
    pub(super) fn others(&self, place: usize, slot: Slot) -> usize {
        let Some(here) = self.0.get(&place) else { return 0 };
        here.running.saturating_sub(here.slots.get(&slot).copied().unwrap_or(0))
    }

    /// How many other slots have tasks on a node, whatever becomes of those.
    pub(super) fn other_slots(&self, place: usize, slot: Slot) -> usize {
        let Some(here) = self.0.get(&place) else { return 0 };
        here.slots.len() - usize::from(here.slots.contains_key(&slot))
    }

    /// The places that have tasks, each slot of each.
    pub(super) fn slots(&self) -> impl Iterator<Item = (Slot, usize)> {
        self.0.iter().flat_map(|(place, here)| here.slots.keys().map(|slot| (*slot, *place)))
    }
}
