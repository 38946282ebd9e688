//! The journal read again: random histories, cuts at every byte, random bytes, and a disk that loses its power.

use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use tug_model::{ProjectName, Revision, TaskId};

use super::support::{Chance, Running, event, node, project, remembered, series, task, template};
use crate::store::export;
use crate::store::record::{self, End};
use crate::store::{Change, CommitError, Condition, Config, MemoryDisk, State};
use tug_model::task::Desired;

fn some_change() -> impl Strategy<Value = Change> {
    let name = |n: u8| format!("p{n}");
    let id = |n: u8| TaskId::parse(&format!("task.{n}")).unwrap();
    prop_oneof![
        (0..6_u8, 0..99_u64).prop_map(move |(n, number)| project(&name(n), number)),
        (0..6_u8).prop_map(move |n| Change::RemoveProject(ProjectName::parse(&name(n)).unwrap())),
        (0..4_u8).prop_map(|n| Change::template(template(&format!("image:{n}")))),
        (0..9_u8, 0..4_u8, any::<bool>()).prop_map(|(n, image, run)| {
            let desired = if run { Desired::Run } else { Desired::Stop { since: Revision(1) } };
            task(&format!("task.{n}"), &format!("image:{image}"), desired)
        }),
        (0..9_u8).prop_map(move |n| Change::RemoveTask(id(n))),
        (0..3_u8, "[a-zé\"\\\\\n]{0,9}").prop_map(|(n, host)| node(&format!("n{n}"), &host)),
        "\\PC{0,40}".prop_map(|text| event(&text)),
        ("[a-z/]{1,3}", 0..200_000_000_u64).prop_map(|(key, at)| remembered(&key, at)),
    ]
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever was committed, a store that is opened again holds the same, killed or closed, from the journal and
    /// from exports.
    #[test]
    fn any_history_is_read_as_it_was_written(
        lives in vec((vec(vec(some_change(), 0..4), 0..20), any::<bool>()), 1..4),
    ) {
        runtime().block_on(async {
            let disk = MemoryDisk::new();
            let config = Config { segment_bytes: 3_000, export_every: 7, ..Config::memory(&disk, "c1") };
            let mut before = Arc::new(State::new("c1", 1));
            for (commits, close) in lives {
                let running = Running::open(config.clone()).await.unwrap();
                assert_eq!(running.state(), before);
                for changes in commits {
                    running.put(changes).await.unwrap();
                }
                before = if close { running.close().await } else { running.kill().await };
            }
            assert_eq!(Running::open(config).await.unwrap().state(), before);
        });
    }

    /// Random bytes are never a record, and nothing panics over them.
    #[test]
    fn random_bytes_are_no_records(bytes in vec(any::<u8>(), 0..2_000), start in 0..2_100_usize) {
        let scan = record::scan(&bytes, start);
        prop_assert!(scan.records.is_empty());
        prop_assert!(export::read(&bytes).is_err());
    }

    /// Whatever is done to a journal, each record that is accepted is one that was written.
    #[test]
    fn a_mutated_journal_yields_only_written_records(
        payloads in vec("[ -~]{0,900}", 1..6),
        edits in vec((any::<prop::sample::Index>(), any::<u8>(), 0..4_u8, 0..700_usize), 1..5),
    ) {
        let (mut bytes, mut hashes) = (Vec::new(), vec![record::Chain::default()]);
        for payload in &payloads {
            let (one, hash) = record::encode(payload.as_bytes(), 1, Revision(1), *hashes.last().unwrap());
            bytes.extend(one);
            hashes.push(hash);
        }
        for (index, byte, kind, length) in edits {
            let at = index.index(bytes.len() + 1);
            let end = (at + length).min(bytes.len());
            match kind {
                0 if at < bytes.len() => bytes[at] ^= byte,
                1 => bytes.truncate(at),
                2 => bytes[at..end].fill(0),
                _ => drop(bytes.splice(at..at, std::iter::repeat_n(byte, length % 50))),
            }
        }
        let scan = record::scan(&bytes, 0);
        for found in &scan.records {
            prop_assert!(hashes.contains(&found.hash));
        }
    }

    /// A mutated export is refused.
    #[test]
    fn a_mutated_export_is_refused(at in any::<prop::sample::Index>(), bit in 0..8_u8, cut in any::<bool>()) {
        let mut state = State::new("c1", 1);
        for n in 0..30 {
            state.apply(Revision(n + 1), &series(n));
        }
        let mark = crate::store::entry::Mark {
            revision: state.revision, epoch: 1, segment: 1, offset: 9, chain: record::Chain::default(),
        };
        let mut text = export::write(&state, mark);
        prop_assert_eq!(&export::read(&text).unwrap().state.projects, &state.projects);
        let at = at.index(text.len());
        if cut { text.truncate(at) } else { text[at] ^= 1 << bit }
        prop_assert!(export::read(&text).is_err());
    }
}

#[test]
fn a_broken_last_record_is_torn_only_if_a_part_was_never_written() {
    let (mut bytes, hash) = record::encode(&[b'a'; 700], 1, Revision(1), record::Chain::default());
    let first = bytes.len();
    bytes.extend(record::encode(&[b'b'; 900], 1, Revision(2), hash).0);
    for end in first + 1..bytes.len() {
        assert_eq!(record::scan(&bytes[..end], 0).end, End::Torn { at: first });
    }
    for sector in first / 512..bytes.len().div_ceil(512) {
        let mut hole = bytes.clone();
        hole[first.max(sector * 512)..bytes.len().min((sector + 1) * 512)].fill(0);
        assert_eq!(record::scan(&hole, 0).end, End::Torn { at: first }, "sector {sector}");
    }
    for bit in first * 8..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(record::scan(&flipped, 0).end, End::Damaged { at: first }, "bit {bit}");
    }
    let mut early = bytes.clone();
    early[100..130].fill(0);
    assert_eq!(record::scan(&early, 0).end, End::Damaged { at: 0 });
}

#[tokio::test]
async fn a_journal_cut_at_any_byte_of_its_last_record_loses_nothing_else() {
    let disk = MemoryDisk::new();
    let running = Running::open(Config::memory(&disk, "c1")).await.unwrap();
    for n in 0..20 {
        running.put(series(n)).await.unwrap();
    }
    let before = running.state();
    let name = "journal-0000000001.log";
    let start = disk.files()[name].len();
    running.put(series(20)).await.unwrap();
    let after = running.kill().await;
    let bytes = disk.files()[name].clone();
    for end in start..=bytes.len() {
        let cut = disk.copy();
        cut.overwrite(name, Some(bytes[..end].to_vec()));
        let again = Running::open(Config::memory(&cut, "c1")).await.unwrap();
        assert_eq!(again.state(), if end == bytes.len() { after.clone() } else { before.clone() });
        // What was cut off is gone for good, and what comes next is there again.
        again.put(series(21)).await.unwrap();
        let newest = again.kill().await;
        assert_eq!(Running::open(Config::memory(&cut, "c1")).await.unwrap().state(), newest);
    }
}

#[tokio::test]
async fn a_disk_that_loses_its_power_keeps_every_promise() {
    for seed in 0..600 {
        let mut chance = Chance::new(seed);
        let mut disk = MemoryDisk::new();
        let mut promised = Arc::new(State::new("c1", 1));
        for life in 0..3 {
            let config = Config { segment_bytes: 1_500, export_every: 9, ..Config::memory(&disk, "c1") };
            disk.cut_power_after(1 + chance.below(60) as u64);
            let opened = Running::open(config.clone()).await;
            if let Ok(running) = &opened {
                assert!(running.state().revision >= promised.revision, "seed {seed} life {life}");
                promised = running.state();
                let mut n = promised.revision.0;
                while running.put(series(n)).await.is_ok() {
                    n += 1;
                    promised = running.state();
                }
                assert!(matches!(*running.store.condition().borrow(), Condition::ReadOnly { .. }));
            }
            drop(opened);
            disk = disk.after_power_cut(|limit| chance.below(limit));
        }
        let running = Running::open(Config::memory(&disk, "c1")).await.unwrap();
        let state = running.state();
        // The group on its way when the power went may be there: it is whole, or not there at all.
        assert!((promised.revision..=promised.revision.next()).contains(&state.revision), "seed {seed}");
        let mut expected = (*promised).clone();
        if state.revision > promised.revision {
            expected.apply(state.revision, &stamped(state.revision));
        }
        assert_eq!(*state, expected, "seed {seed}");
    }
}

#[tokio::test]
async fn after_a_failed_sync_nothing_is_promised_any_more() {
    let disk = MemoryDisk::new();
    let running = Running::open(Config::memory(&disk, "c1")).await.unwrap();
    running.put(vec![event("one")]).await.unwrap();
    disk.fail_syncs(true);
    assert!(matches!(running.put(vec![event("two")]).await, Err(CommitError::Unknown { .. })));
    disk.fail_syncs(false);
    assert!(matches!(running.put(vec![event("three")]).await, Err(CommitError::ReadOnly { .. })));
    assert_eq!(running.close().await.revision, Revision(1));
    let again = Running::open(Config::memory(&disk, "c1")).await.unwrap();
    assert!((1..=2).contains(&again.state().revision.0));
    again.put(vec![event("four")]).await.unwrap();
}

/// The changes that the power-cut test commits as `revision`.
fn stamped(revision: Revision) -> Vec<Change> {
    series(revision.0 - 1).into_iter().map(|change| change.stamped(revision)).collect()
}
