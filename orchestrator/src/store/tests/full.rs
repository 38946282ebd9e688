//! A disk that is full: what is refused, what is still taken, and that it is over when there is room again.

use std::path::Path;
use std::sync::Arc;

use tug_model::task::Desired;
use tug_model::{ProjectName, Revision, TaskId};

use super::mount::Mount;
use super::support::{Running, event, project, remembered, task, template};
use crate::store::{Change, CommitError, Condition, Config, MemoryDisk, State};

const KIB: usize = 1 << 10;

fn small(config: Config) -> Config {
    Config { segment_bytes: 64 << 10, export_every: 50, ballast_bytes: 256 << 10, ..config }
}

/// Commits until the disk is full.
async fn fill(running: &Running) {
    for n in 0..100_000 {
        match running.put(vec![event(&format!("{n} {}", "x".repeat(8 * KIB)))]).await {
            Ok(_) => {}
            Err(CommitError::Full) => return,
            Err(error) => panic!("{error}"),
        }
    }
    panic!("the disk never ran full");
}

fn remove(name: &str) -> Change {
    Change::RemoveProject(ProjectName::parse(name).unwrap())
}

/// Fills the disk below a store, opens it again while it is full, and makes room.
async fn full_and_free_again(config: Config, make_full: impl Fn(bool)) {
    let running = Running::open(config.clone()).await.unwrap();
    let some = [project("p0", 1), project("p1", 1), Change::template(template("one"))];
    running.put([&some[..], &[task("a.1", "one", Desired::Run)]].concat()).await.unwrap();
    make_full(true);
    fill(&running).await;
    takes_only_what_makes_room(&running).await;

    let promised = running.kill().await;
    let running = open_with(&config, &promised, true).await;
    running.put(vec![remove("p1")]).await.unwrap();
    let promised = running.close().await;
    let running = open_with(&config, &promised, true).await;
    running.put(vec![Change::RemoveTask(TaskId::parse("a.1").unwrap())]).await.unwrap();

    make_full(false);
    has_room(&running).await;
    let promised = running.close().await;
    open_with(&config, &promised, false).await;
}

async fn open_with(config: &Config, promised: &State, full: bool) -> Running {
    let running = Running::open(config.clone()).await.unwrap();
    assert_eq!(*running.state(), *promised);
    let large = vec![event(&"x".repeat(200 * KIB))];
    assert_eq!(running.put(large).await.is_err(), full, "{:?}", running.store.condition());
    running
}

/// There is room again, and no restart was needed.
async fn has_room(running: &Running) {
    running.put(vec![event("there is room")]).await.unwrap();
    assert_eq!(*running.store.condition().borrow(), Condition::Writable);
    for n in 0..200 {
        running.put(vec![event(&format!("on {n}"))]).await.unwrap();
    }
}

/// What a store on a full disk refuses, and what it takes.
async fn takes_only_what_makes_room(running: &Running) {
    let promised = running.state();
    assert_eq!(*running.store.condition().borrow(), Condition::Full);
    assert_eq!(running.put(vec![event("no")]).await, Err(CommitError::Full));
    assert_eq!(running.put(vec![remove("p9"), project("p9", 1)]).await, Err(CommitError::Full));
    assert_eq!(running.state(), promised, "what was refused left nothing");
    running.put(vec![remove("p0"), event("removed"), remembered("key", 1)]).await.unwrap();
    let stop = Desired::Stop { since: Revision(1) };
    running.put(vec![task("a.1", "one", stop)]).await.unwrap();
    assert_eq!(running.put(vec![task("a.2", "one", stop)]).await, Err(CommitError::Full));
}

#[tokio::test]
async fn a_full_disk_in_memory_still_takes_what_makes_room() {
    let disk = MemoryDisk::new();
    let limited = disk.clone();
    let limit = move |full: bool| limited.limit(full.then_some(1 << 20));
    full_and_free_again(small(Config::memory(&disk, "c1")), limit).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn as_root_a_full_file_system_still_takes_what_makes_room() {
    let mount = Arc::new(Mount::tmpfs("6m"));
    let folder = mount.path().join("state");
    let filler = mount.path().join("filler");
    let full =
        |full: bool| if full { take_all_room(&filler) } else { std::fs::remove_file(&filler).unwrap() };
    full_and_free_again(small(Config::folder(&folder, "c1")), full).await;
}

/// Writes until the file system has no more than a few pages left.
fn take_all_room(filler: &Path) {
    let mut bytes = vec![7; 3 << 20];
    while std::fs::write(filler, &bytes).is_err() {
        bytes.truncate(bytes.len() - (64 << 10));
    }
}
