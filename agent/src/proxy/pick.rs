//! Which of several backends is given the next connection: the one with the fewest, in turn where several have as few.
//!
//! Pure: the caller counts connections and remembers failures.

/// What is known of a backend when a connection is to be given away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Candidate {
    /// The very connection that is to be given away has failed on it before.
    pub(super) tried: bool,
    /// A connection failed on it a moment ago.
    pub(super) suspected: bool,
    /// How many connections it has.
    pub(super) connections: u32,
}

/// Whose turn it is among equals.
#[derive(Debug, Default)]
pub(super) struct Rotation {
    next: usize,
}

/// The policy, in the order of the fields: the least of them is picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    tried: bool,
    suspected: bool,
    connections: u32,
    /// How far the rotation is from this backend.
    distance: usize,
}

// === impl Rotation ===

impl Rotation {
    /// The index of the best of `candidates`; `None` if there are none. The turn moves on past it.
    pub(super) fn pick(&mut self, candidates: impl ExactSizeIterator<Item = Candidate>) -> Option<usize> {
        let count = candidates.len();
        let start = if self.next < count { self.next } else { 0 };
        let (index, _) = candidates
            .enumerate()
            .map(|(index, candidate)| (index, Rank::of(candidate, (index + count - start) % count)))
            .min_by_key(|(_, rank)| *rank)?;
        self.next = index + 1;
        Some(index)
    }
}

// === impl Rank ===

impl Rank {
    fn of(candidate: Candidate, distance: usize) -> Self {
        let Candidate { tried, suspected, connections } = candidate;
        Self { tried, suspected, connections, distance }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    fn free(connections: u32) -> Candidate {
        Candidate { tried: false, suspected: false, connections }
    }

    fn candidate() -> impl Strategy<Value = Candidate> {
        (any::<bool>(), any::<bool>(), 0..4_u32).prop_map(|(tried, suspected, connections)| Candidate {
            tried,
            suspected,
            connections,
        })
    }

    /// Gives away `requests`, of which `concurrent` are open at a time; `ends` says which of them ends next. Returns
    /// how many each backend was given.
    fn spread(
        backends: usize,
        requests: usize,
        concurrent: usize,
        mut ends: impl FnMut(usize) -> usize,
    ) -> Vec<usize> {
        let mut rotation = Rotation::default();
        let mut open = vec![0_u32; backends];
        let mut given = vec![0_usize; backends];
        let mut flying = VecDeque::new();
        for _ in 0..requests {
            if flying.len() == concurrent {
                let ended: usize = flying.remove(ends(concurrent)).expect("the index is in range");
                open[ended] -= 1;
            }
            let index = rotation.pick(open.iter().map(|n| free(*n))).expect("there are backends");
            open[index] += 1;
            given[index] += 1;
            flying.push_back(index);
        }
        given
    }

    #[test]
    fn nobody_there_is_nobody_picked() {
        assert_eq!(Rotation::default().pick(std::iter::empty()), None);
    }

    #[test]
    fn equals_take_turns() {
        let mut rotation = Rotation::default();
        let picks: Vec<_> = (0..7).map(|_| rotation.pick([free(0); 3].into_iter()).unwrap()).collect();
        assert_eq!(picks, [0, 1, 2, 0, 1, 2, 0]);
    }

    #[test]
    fn the_turn_survives_a_shorter_list() {
        let mut rotation = Rotation { next: 9 };
        assert_eq!(rotation.pick([free(0); 2].into_iter()), Some(0));
    }

    #[test]
    fn a_suspected_backend_is_given_a_connection_only_when_it_is_alone() {
        let suspected = Candidate { tried: false, suspected: true, connections: 0 };
        assert_eq!(Rotation::default().pick([suspected, free(1000)].into_iter()), Some(1));
        assert_eq!(Rotation::default().pick([suspected].into_iter()), Some(0));
    }

    #[test]
    fn five_thousand_requests_over_fifty_backends_are_spread_evenly() {
        for concurrent in [1, 2, 7, 16, 49, 50, 64, 333] {
            let given = spread(50, 5000, concurrent, |_| 0);
            assert!(given.iter().all(|n| (99..=101).contains(n)), "{concurrent}: {given:?}");
        }
    }

    proptest! {
        /// The picked one has the least of everything that counts, in the order in which it counts.
        #[test]
        fn nothing_better_is_passed_over(candidates in prop::collection::vec(candidate(), 1..20), next in 0..25_usize) {
            let key = |c: &Candidate| (c.tried, c.suspected, c.connections);
            let index = Rotation { next }.pick(candidates.iter().copied()).unwrap();
            let best = candidates.iter().map(key).min().unwrap();
            prop_assert_eq!(key(&candidates[index]), best);
        }

        /// As long as there are clearly more backends than requests at a time, the spread is even, however long each
        /// request takes.
        #[test]
        fn the_spread_is_even_whatever_ends_first(concurrent in 1..25_usize, seed in any::<u64>()) {
            let mut state = seed;
            let given = spread(50, 5000, concurrent, |count| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                usize::try_from(state >> 33).expect("31 bits fit") % count
            });
            prop_assert!(given.iter().all(|n| (90..=110).contains(n)), "{:?}", given);
        }

        /// As long as nothing ends, the counts differ by one at most.
        #[test]
        fn open_connections_are_levelled(backends in 1..60_usize, requests in 0..500_usize) {
            let given = spread(backends, requests, usize::MAX, |_| 0);
            let (least, most) = (given.iter().min().unwrap(), given.iter().max().unwrap());
            prop_assert!(most - least <= 1);
        }
    }
}
