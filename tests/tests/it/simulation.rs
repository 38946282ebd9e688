//! Whole clusters on a paused clock, with faults: many seeds, each a different story, all with the same ending; and stories
//! of one fault each, told for many seeds.

use tug_tests::sim::{self, Config};

/// How many seeds. `cargo run -p tug-tests --bin simulate -- FIRST COUNT` runs more.
const SEEDS: u64 = 1_000;
/// How many seeds every story is told for. `cargo run -p tug-tests --bin simulate -- stories FIRST COUNT` tells more.
const TELLINGS: u64 = 20;

#[test]
fn every_seed_keeps_the_invariants_and_converges() {
    let failures = sim::run_many(0, SEEDS);
    assert!(failures.is_empty(), "{} of {SEEDS} seeds fail; the first:\n{}", failures.len(), failures[0]);
}

#[test]
fn every_story_ends_well() {
    let failures = sim::tell_many(0, TELLINGS);
    assert!(
        failures.is_empty(),
        "{} of {TELLINGS} tellings fail; the first:\n{}",
        failures.len(),
        failures[0]
    );
}

#[test]
fn the_same_seed_tells_the_same_story() {
    for seed in [3, 14, 159] {
        let config = Config { events: true, ..Config::of(seed) };
        let (once, again) = (sim::run(seed, config), sim::run(seed, config));
        assert!(once.trace.len() > 20, "{:?}", once.trace);
        assert_eq!(once.trace, again.trace, "seed {seed}");
    }
}
