//! Which of several backends is given the next connection: the one with the fewest, among equals the one that was given
//! the fewest so far, and among those one of this node.
//!
//! Pure: the caller counts connections and remembers failures.

/// How far a backend may lag behind the others in what it was given, and still catch up. One that was passed over for
/// long must not be given everything when it comes back.
const LAG: u64 = 8;

/// What is known of a backend when a connection is to be given away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Candidate {
    /// The very connection that is to be given away has failed on it before.
    pub(super) tried: bool,
    /// The orchestrator says that it does not serve.
    pub(super) hinted: bool,
    /// A connection failed on it a moment ago.
    pub(super) suspected: bool,
    /// How many connections it has.
    pub(super) connections: u32,
    /// How many it was given so far.
    pub(super) given: u64,
    /// It is on another node.
    pub(super) remote: bool,
}

/// Who is given a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pick {
    /// Its place among the candidates.
    pub(super) index: usize,
    /// Its [`Candidate::given`] from now on.
    pub(super) given: u64,
}

/// The policy, in the order of the fields: the least of them is picked, the first of equals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    tried: bool,
    hinted: bool,
    suspected: bool,
    connections: u32,
    given: u64,
    remote: bool,
}

/// The best of `candidates`; `None` if there are none.
pub(super) fn pick(candidates: impl Iterator<Item = Candidate> + Clone) -> Option<Pick> {
    let floor = candidates.clone().map(|candidate| candidate.given).max()?.saturating_sub(LAG);
    let ranks = candidates.map(|candidate| Rank::of(candidate, floor)).enumerate();
    let (index, rank) = ranks.min_by_key(|(_, rank)| *rank)?;
    Some(Pick { index, given: rank.given + 1 })
}

// === impl Rank ===

impl Rank {
    fn of(candidate: Candidate, floor: u64) -> Self {
        let Candidate { tried, hinted, suspected, connections, given, remote } = candidate;
        Self { tried, hinted, suspected, connections, given: given.max(floor), remote }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    fn free(connections: u32, given: u64) -> Candidate {
        Candidate { tried: false, hinted: false, suspected: false, connections, given, remote: false }
    }

    fn candidate() -> impl Strategy<Value = Candidate> {
        (any::<[bool; 4]>(), 0..4_u32, 0..4_u64).prop_map(
            |([tried, hinted, suspected, remote], connections, given)| Candidate {
                tried,
                hinted,
                suspected,
                connections,
                given,
                remote,
            },
        )
    }

    /// Gives away `requests`, of which `concurrent` are open at a time; `ends` says which of them ends next. Returns
    /// how many each backend was given.
    fn spread(
        backends: usize,
        requests: usize,
        concurrent: usize,
        mut ends: impl FnMut(usize) -> usize,
    ) -> Vec<u64> {
        let mut candidates = vec![free(0, 0); backends];
        let mut flying = VecDeque::new();
        let mut counts = vec![0; backends];
        for _ in 0..requests {
            if flying.len() == concurrent {
                let ended: usize = flying.remove(ends(concurrent)).expect("the index is in range");
                candidates[ended].connections -= 1;
            }
            let Pick { index, given } = pick(candidates.iter().copied()).expect("there are backends");
            candidates[index] = free(candidates[index].connections + 1, given);
            counts[index] += 1;
            flying.push_back(index);
        }
        counts
    }

    #[test]
    fn nobody_there_is_nobody_picked() {
        assert_eq!(pick(std::iter::empty()), None);
    }

    #[test]
    fn equals_take_turns() {
        assert_eq!(spread(3, 7, 1, |_| 0), [3, 2, 2]);
    }

    #[test]
    fn a_suspected_backend_is_given_a_connection_only_when_it_is_alone() {
        let suspected = Candidate { suspected: true, ..free(0, 0) };
        assert_eq!(pick([suspected, free(1000, 1000)].into_iter()).unwrap().index, 1);
        assert_eq!(pick([suspected].into_iter()).unwrap().index, 0);
    }

    #[test]
    fn who_is_hinted_at_is_asked_last_but_before_who_has_failed_this_very_connection() {
        let hinted = Candidate { hinted: true, ..free(0, 0) };
        let suspected = Candidate { suspected: true, ..free(1000, 1000) };
        let tried = Candidate { tried: true, ..free(0, 0) };
        assert_eq!(pick([hinted, suspected].into_iter()).unwrap().index, 1);
        assert_eq!(pick([tried, hinted].into_iter()).unwrap().index, 1);
    }

    #[test]
    fn this_node_is_preferred_only_among_equals() {
        let remote = Candidate { remote: true, ..free(0, 0) };
        assert_eq!(pick([remote, free(0, 0)].into_iter()).unwrap().index, 1);
        assert_eq!(pick([remote, free(0, 1)].into_iter()).unwrap().index, 0);
        assert_eq!(pick([remote, free(1, 0)].into_iter()).unwrap().index, 0);
    }

    #[test]
    fn who_was_passed_over_for_long_catches_up_by_no_more_than_the_lag() {
        let mut candidates = [free(0, 10_000), free(0, 3)];
        let mut in_a_row = 0;
        while let Some(Pick { index: 1, given }) = pick(candidates.into_iter()) {
            candidates[1].given = given;
            in_a_row += 1;
        }
        assert_eq!(in_a_row, LAG);
    }

    #[test]
    fn five_thousand_requests_over_fifty_backends_are_spread_evenly() {
        for concurrent in [1, 2, 7, 16, 49, 50, 64, 333] {
            let counts = spread(50, 5000, concurrent, |_| 0);
            assert!(counts.iter().all(|n| (99..=101).contains(n)), "{concurrent}: {counts:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// The picked one has the least of everything that counts, in the order in which it counts.
        #[test]
        fn nothing_better_is_passed_over(candidates in prop::collection::vec(candidate(), 1..20)) {
            let key = |c: &Candidate| (c.tried, c.hinted, c.suspected, c.connections, c.given, c.remote);
            let picked = pick(candidates.iter().copied()).unwrap();
            let best = candidates.iter().map(key).min().unwrap();
            prop_assert_eq!(key(&candidates[picked.index]), best);
            prop_assert_eq!(picked.given, best.4 + 1);
        }

        /// As long as there are clearly more backends than requests at a time, the spread is even, however long each
        /// request takes.
        #[test]
        fn the_spread_is_even_whatever_ends_first(concurrent in 1..25_usize, seed in any::<u64>()) {
            let mut state = seed;
            let counts = spread(50, 5000, concurrent, |count| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                usize::try_from(state >> 33).expect("31 bits fit") % count
            });
            prop_assert!(counts.iter().all(|n| (90..=110).contains(n)), "{:?}", counts);
        }

        /// As long as nothing ends, the counts differ by one at most.
        #[test]
        fn open_connections_are_levelled(backends in 1..60_usize, requests in 0..500_usize) {
            let counts = spread(backends, requests, usize::MAX, |_| 0);
            let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
            prop_assert!(most - least <= 1);
        }
    }
}
