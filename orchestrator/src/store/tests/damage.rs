//! Files that are not what was written: every promised commit is there, or the store is refused; never fewer.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::support::{Chance, Running, event, series};
use crate::store::{Config, MemoryDisk, OpenError, State};

const COMMITS: u64 = 70;

fn small(config: Config) -> Config {
    Config { segment_bytes: 6_000, export_every: 20, ballast_bytes: 4_096, ..config }
}

/// A store in a folder with some commits, closed or killed, and what it had.
async fn store_in(folder: &Path, close: bool) -> Arc<State> {
    let running = Running::open(small(Config::folder(folder, "c1"))).await.unwrap();
    for n in 0..COMMITS {
        running.put(series(n)).await.unwrap();
    }
    if close { running.close().await } else { running.kill().await }
}

/// Opens a damaged store: true if it has everything and goes on, false if it refuses with the way out.
async fn has_everything_or_refuses(config: Config, promised: &State, what: &str) -> bool {
    match Running::open(config.clone()).await {
        Ok(running) => {
            assert_eq!(*running.state(), *promised, "{what}");
            running.put(vec![event("on")]).await.unwrap();
            let newest = running.kill().await;
            let again = Running::open(config).await.unwrap();
            assert_eq!(again.kill().await, newest, "{what}, opened again");
            true
        }
        Err(error) => {
            assert!(matches!(error, OpenError::Damaged { .. }), "{what}: {error}");
            assert!(error.to_string().contains("tug restore"), "{error}");
            false
        }
    }
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (path, name) = entry.map(|entry| (entry.path(), entry.file_name())).unwrap();
        if path.is_dir() {
            copy_folder(&path, &to.join(name));
        } else {
            copy_file(&path, &to.join(name));
        }
    }
}

/// Copies a file up to its last byte that is not zero, which is what takes room.
fn copy_file(from: &Path, to: &Path) {
    let bytes = fs::read(from).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
    fs::write(to, &bytes[..used]).unwrap();
    fs::File::options().write(true).open(to).unwrap().set_len(bytes.len() as u64).unwrap();
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else if !path.ends_with("lock") && !path.ends_with("ballast") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// Flips one to four bits among the bytes that are in use.
fn flip(bytes: &mut [u8], chance: &mut Chance) {
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
    if used > 0 {
        for _ in 0..=chance.below(4) {
            bytes[chance.below(used)] ^= 1 << chance.below(8);
        }
    }
}

#[tokio::test]
async fn flipped_bits_in_memory_are_repaired_or_refused() {
    for close in [false, true] {
        let disk = MemoryDisk::new();
        let running = Running::open(small(Config::memory(&disk, "c1"))).await.unwrap();
        for n in 0..COMMITS {
            running.put(series(n)).await.unwrap();
        }
        let promised = if close { running.close().await } else { running.kill().await };
        let mut repaired = 0;
        for seed in 0..400_u32 {
            let mut chance = Chance::new(seed.into());
            let damaged = disk.copy();
            let mut files = damaged.files();
            files.remove("ballast");
            let (name, mut bytes) = {
                let nth = chance.below(files.len());
                files.into_iter().nth(nth).unwrap()
            };
            flip(&mut bytes, &mut chance);
            damaged.overwrite(&name, Some(bytes));
            let config = small(Config::memory(&damaged, "c1"));
            let what = format!("seed {seed}, closed {close}, {name}");
            repaired += u32::from(has_everything_or_refuses(config, &promised, &what).await);
        }
        // A closed store has an export of everything.
        assert!(if close { repaired == 400 } else { repaired > 200 }, "closed {close}: {repaired} repaired");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn flipped_bits_in_any_file_are_repaired_or_refused() {
    let mut repaired = 0;
    let mut tried = 0;
    for close in [false, true] {
        let original = tempfile::tempdir().unwrap();
        let promised = store_in(&original.path().join("state"), close).await;
        for seed in 0..120 {
            let mut chance = Chance::new(seed);
            let copy = tempfile::tempdir().unwrap();
            let folder = copy.path().join("state");
            copy_folder(&original.path().join("state"), &folder);
            let files = files_below(&folder);
            let file = &files[chance.below(files.len())];
            let mut bytes = fs::read(file).unwrap();
            flip(&mut bytes, &mut chance);
            fs::write(file, bytes).unwrap();
            let what = format!("seed {seed}, closed {close}, {}", file.display());
            tried += 1;
            let config = small(Config::folder(&folder, "c1"));
            repaired += u32::from(has_everything_or_refuses(config, &promised, &what).await);
        }
    }
    assert_eq!(repaired, tried, "the tree and the journal stand in for each other");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_gone_or_empty_is_made_up_for_or_refused() {
    for close in [false, true] {
        let original = tempfile::tempdir().unwrap();
        let promised = store_in(&original.path().join("state"), close).await;
        let files = files_below(&original.path().join("state"));
        for file in &files {
            for empty in [false, true] {
                let copy = tempfile::tempdir().unwrap();
                let folder = copy.path().join("state");
                copy_folder(&original.path().join("state"), &folder);
                let file = folder.join(file.strip_prefix(original.path().join("state")).unwrap());
                if empty {
                    fs::write(&file, []).unwrap();
                } else {
                    fs::remove_file(&file).unwrap();
                }
                let what = format!("closed {close}, empty {empty}, {}", file.display());
                let config = small(Config::folder(&folder, "c1"));
                let whole = has_everything_or_refuses(config, &promised, &what).await;
                // Only the last file of the journal is missed, and only where the store was not closed.
                assert!(whole || !close && !empty && what.contains("journal-"), "{what} was refused");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_tree_or_with_an_older_one_the_journal_has_everything() {
    let original = tempfile::tempdir().unwrap();
    let folder = original.path().join("state");
    let config = small(Config::folder(&folder, "c1"));
    let running = Running::open(config.clone()).await.unwrap();
    for n in 0..30 {
        running.put(series(n)).await.unwrap();
    }
    running.close().await;
    copy_folder(&folder.join("tree"), &original.path().join("old"));
    let running = Running::open(config.clone()).await.unwrap();
    for n in 30..COMMITS {
        running.put(series(n)).await.unwrap();
    }
    let promised = running.kill().await;
    fs::remove_dir_all(folder.join("tree")).unwrap();
    assert!(has_everything_or_refuses(config.clone(), &promised, "no tree").await);
    fs::remove_dir_all(folder.join("tree")).unwrap();
    fs::rename(original.path().join("old"), folder.join("tree")).unwrap();
    fs::write(folder.join("tree/snap.0000000000000042.generating"), b"torn").unwrap();
    let running = Running::open(config).await.unwrap();
    assert_eq!(running.state().revision.0, promised.revision.0 + 1);
}

#[tokio::test]
async fn an_emptied_a_newer_and_a_foreign_store_are_refused() {
    let disk = MemoryDisk::new();
    let running = Running::open(small(Config::memory(&disk, "c1"))).await.unwrap();
    for n in 0..COMMITS {
        running.put(series(n)).await.unwrap();
    }
    running.close().await;
    let open = |disk: &MemoryDisk| Running::open(small(Config::memory(disk, "c2")));

    let emptied = disk.copy();
    for name in disk.files().into_keys().filter(|name| name != "cluster.json") {
        emptied.overwrite(&name, None);
    }
    let error = open(&emptied).await.err().unwrap();
    assert!(matches!(&error, OpenError::Damaged { cluster, .. } if cluster == "c1"), "{error}");

    let other = MemoryDisk::new();
    let running = open(&other).await.unwrap();
    running.put(vec![event("one")]).await.unwrap();
    running.kill().await;
    let mixed = disk.copy();
    mixed.overwrite("cluster.json", other.files().remove("cluster.json"));
    let error = open(&mixed).await.err().unwrap();
    assert!(matches!(error, OpenError::Foreign { .. }), "{error}");

    let newer = disk.copy();
    let mut sentinel = crate::store::sentinel::Sentinel::load(&disk).unwrap().unwrap();
    sentinel.format += 1;
    sentinel.save(&newer).unwrap();
    let files = newer.files();
    let error = open(&newer).await.err().unwrap();
    assert!(matches!(error, OpenError::Newer { found: 2, known: 1, .. }), "{error}");
    assert_eq!(newer.files(), files, "a refused store is left as it is");
}

#[tokio::test]
async fn damage_with_records_after_it_is_never_cut_off() {
    let disk = MemoryDisk::new();
    let running = Running::open(Config::memory(&disk, "c1")).await.unwrap();
    for n in 0..20 {
        running.put(series(n)).await.unwrap();
    }
    running.kill().await;
    let name = "journal-0000000001.log";
    let mut bytes = disk.files()[name].clone();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 600].fill(0);
    disk.overwrite(name, Some(bytes));
    let files = disk.files();
    let error = Running::open(Config::memory(&disk, "c1")).await.err().unwrap();
    assert!(error.to_string().contains("is damaged at byte"), "{error}");
    assert_eq!(disk.files(), files);
}

#[tokio::test]
async fn of_damaged_files_the_newest_few_are_kept() {
    let disk = MemoryDisk::new();
    let running = Running::open(Config::memory(&disk, "c1")).await.unwrap();
    running.put(vec![event("one")]).await.unwrap();
    let promised = running.kill().await;
    for number in 1..=4 {
        disk.overwrite(&format!("export-{number:020}.jsonl"), Some(b"what a bad disk left".to_vec()));
        let again = Running::open(Config::memory(&disk, "c1")).await.unwrap();
        assert_eq!(*again.kill().await, *promised);
    }
    let files = disk.files();
    let aside: Vec<&String> = files.keys().filter(|name| name.ends_with(".damaged")).collect();
    let name = |number: u64| format!("export-{number:020}.jsonl.damaged");
    assert_eq!(aside, [&name(3), &name(4)]);
}

#[tokio::test]
async fn a_journal_that_lost_what_an_export_lacks_is_refused() {
    let disk = MemoryDisk::new();
    let config = Config { export_every: 50, ..Config::memory(&disk, "c1") };
    let running = Running::open(config).await.unwrap();
    for n in 0..COMMITS {
        running.put(series(n)).await.unwrap();
    }
    running.kill().await;
    let name = "journal-0000000001.log";
    for length in [0, 20, 4_000] {
        let damaged = disk.copy();
        damaged.overwrite(name, Some(disk.files()[name][..length].to_vec()));
        let error = Running::open(Config::memory(&damaged, "c1")).await.err().unwrap();
        assert!(error.to_string().contains("shorter than it was"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_that_lost_an_entry_is_made_again() {
    let original = tempfile::tempdir().unwrap();
    let folder = original.path().join("state");
    let promised = store_in(&folder, false).await;
    let tree = sled::Config::new().path(folder.join("tree")).segment_size(16 << 20).open().unwrap();
    let lost = tree.scan_prefix("event/").keys().next().unwrap().unwrap();
    tree.remove(lost).unwrap().unwrap();
    tree.flush().unwrap();
    drop(tree);
    let config = small(Config::folder(&folder, "c1"));
    assert!(has_everything_or_refuses(config, &promised, "a lost entry").await);
}
