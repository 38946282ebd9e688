//! Acknowledged commits a second, and how long one takes: what the journal and its `fdatasync` cost, alone and in groups.

use std::sync::Arc;

use anyhow::Result;
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use tug_api::Clock;
use tug_model::Revision;
use tug_model::event::{Event, EventKind};
use tug_orchestrator::store::{self, Change, Config, Store};

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
            let mut times = commits(&store, writers).await;
            stop.cancel();
            running.await?;
            times.sort_unstable();
            let scenario = format!("{writers} writers");
            let count = u32::try_from(times.len())?;
            table.add([&scenario, "tug", "acknowledged", "/s"], f64::from(count) / TIME.as_secs_f64());
            for (metric, percent) in [("latency, p50", 50), ("latency, p99", 99)] {
                let time = times.get(times.len() * percent / 100).copied().unwrap_or_default();
                table.add([&scenario, "tug", metric, "ms"], time.as_secs_f64() * 1e3);
            }
        }
    }
    Ok(())
}

/// How long each commit took that was acknowledged within [`TIME`].
async fn commits(store: &Store, writers: usize) -> Vec<Duration> {
    let clock = Clock::system();
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..writers {
        let store = store.clone();
        tasks.spawn(async move {
            let mut times = Vec::new();
            loop {
                let (begun, now) = (Instant::now(), clock.now());
                let committed = store.commit(now, move |revision, _| vec![record(revision, now)]).await;
                if start.elapsed() >= TIME {
                    return times;
                }
                if committed.is_ok() {
                    times.push(begun.elapsed());
                }
            }
        });
    }
    tasks.join_all().await.concat()
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
