//! Exclusive services under everything that breaks: many stories, in none of which two processes run at once.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use tug_tests::sim::exclusive;

/// How many stories. `TUG_EXCLUSIVE_STORIES=1000` tells more.
const STORIES: u64 = 40;

#[test]
fn no_two_ever_run_at_once() {
    let wanted =
        std::env::vars().find_map(|(name, value)| (name == "TUG_EXCLUSIVE_STORIES").then_some(value));
    let stories: u64 =
        wanted.map_or(STORIES, |count| count.parse().expect("TUG_EXCLUSIVE_STORIES is a number"));
    let (next, partitions, moves) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= stories {
                        return;
                    }
                    let story = exclusive::tell(seed);
                    partitions.fetch_add(story.partitions as u64, Ordering::Relaxed);
                    moves.fetch_add(story.moves as u64, Ordering::Relaxed);
                    failures.lock().unwrap().extend(exclusive::explain(seed, &story));
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    let (partitions, moves) = (partitions.into_inner(), moves.into_inner());
    println!("{stories} stories: {partitions} partitions, {moves} moves to another machine");
    assert!(failures.is_empty(), "{} of {stories} stories fail; the first:\n{}", failures.len(), failures[0]);
    assert!(
        partitions >= 5 * stories && moves >= stories,
        "{partitions} partitions and {moves} moves show little"
    );
}

#[test]
fn the_same_seed_tells_the_same_story() {
    let (once, again) = (exclusive::tell(7), exclusive::tell(7));
    assert_eq!((once.trace, once.moves), (again.trace, again.moves));
}
