//! Acknowledged commits a second: what the journal and its `fdatasync` cost, alone and in groups.

use std::sync::Arc;

use anyhow::Result;
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use tug_api::Clock;
use tug_model::Revision;
use tug_model::event::{Event, EventKind};
use tug_orchestrator::store::{self, Change, Config, Expect, Store};

use crate::table::Table;

const WRITERS: [usize; 3] = [1, 16, 64];
const TIME: Duration = Duration::from_secs(3);

/// Measures `runs` rounds, the numbers of writers in turn.
pub(crate) async fn measure(table: &mut Table, runs: usize) -> Result<()> {
    for _ in 0..runs {
        for writers in WRITERS {
            let folder = tempfile::tempdir()?;
            let (store, writer) = store::open(Config::folder(folder.path(), "bench")).await?;
            let stop = CancellationToken::new();
            let running = tokio::spawn(writer.run(stop.clone()));
            let rate = commits_per_second(&store, writers).await;
            stop.cancel();
            running.await?;
            table.add([&format!("{writers} writers"), "tug", "acknowledged commits", "/s"], rate);
        }
    }
    Ok(())
}

async fn commits_per_second(store: &Store, writers: usize) -> f64 {
    let clock = Clock::system();
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..writers {
        let store = store.clone();
        tasks.spawn(async move {
            let mut done = 0_u32;
            while start.elapsed() < TIME {
                let now = clock.now();
                let committed =
                    store.commit(Expect::Any, now, move |revision, _| vec![record(revision, now)]).await;
                if committed.is_ok() {
                    done += 1;
                }
            }
            done
        });
    }
    let total: u32 = tasks.join_all().await.into_iter().sum();
    f64::from(total) / start.elapsed().as_secs_f64()
}

/// About 512 bytes.
fn record(revision: Revision, at: tug_model::Timestamp) -> Change {
    let message = "x".repeat(400);
    Change::Record(Arc::new(Event {
        revision,
        at,
        kind: EventKind::Project,
        project: None,
        service: None,
        task: None,
        node: None,
        message,
    }))
}
