//! How many commits a second the store makes, for one writer and for many: `cargo run --release -p tug-orchestrator
//! --example commits [FOLDER]`. The folder says which disk is measured.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tug_model::event::{Event, EventKind};
use tug_model::{Revision, Timestamp};
use tug_orchestrator::store::{self, Change, Config, Expect};

const FOR: Duration = Duration::from_secs(3);
/// About what a planner's commit for one task weighs.
const MESSAGE_BYTES: usize = 400;

#[tokio::main]
#[expect(clippy::print_stdout, reason = "the figures are what it is for")]
async fn main() {
    let folder = std::env::args_os().nth(1).map_or_else(|| PathBuf::from("."), PathBuf::from);
    println!("writers  commits/s  p50 ms  p99 ms");
    for writers in [1_usize, 16, 64] {
        let store_folder = folder.join(format!("commits-{writers}-{}", std::process::id()));
        let mut waits = measure(Config::folder(&store_folder, "bench"), writers).await;
        waits.sort_unstable();
        let at = |percent: usize| {
            let wait = waits.get(waits.len() * percent / 100).copied().unwrap_or_default();
            wait.as_secs_f64() * 1000.0
        };
        let each_second = waits.len() as u64 / FOR.as_secs();
        println!("{writers:>7}  {each_second:>9}  {:>6.2}  {:>6.2}", at(50), at(99));
        std::fs::remove_dir_all(store_folder).expect("the folder is ours");
    }
}

/// How long each commit took.
async fn measure(config: Config, writers: usize) -> Vec<Duration> {
    let (store, writer) = store::open(config).await.expect("a new store opens");
    let stop = CancellationToken::new();
    let running = tokio::spawn(writer.run(stop.clone()));
    let end = Instant::now() + FOR;
    let mut tasks = JoinSet::new();
    for _ in 0..writers {
        let store = store.clone();
        tasks.spawn(async move {
            let mut waits = Vec::new();
            while Instant::now() < end {
                let start = Instant::now();
                store.commit(Expect::Any, Timestamp(0), |_, _| vec![event()]).await.expect("there is room");
                waits.push(start.elapsed());
            }
            waits
        });
    }
    let waits = tasks.join_all().await.concat();
    stop.cancel();
    running.await.expect("the writer ends well");
    waits
}

fn event() -> Change {
    Change::Record(Arc::new(Event {
        revision: Revision(0),
        at: Timestamp(0),
        kind: EventKind::Planned,
        project: None,
        service: None,
        task: None,
        node: None,
        message: "x".repeat(MESSAGE_BYTES),
    }))
}
