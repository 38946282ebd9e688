//! `GET /usage`: what every running task uses now.

use std::sync::PoisonError;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use futures_util::{StreamExt, stream};
use tokio::time::Instant;
use tug_api::node::TaskUse;
use tug_model::{NanoCpus, TaskId};

use super::Shared;
use crate::runtime::{ContainerId, Stats};

/// What a container had used at some time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    at: Instant,
    cpu_nanos: u64,
}

/// An earlier sample is compared with as long as it is not older than this, and not younger than [`SHORTEST`].
const LONGEST: Duration = Duration::from_secs(30);
const SHORTEST: Duration = Duration::from_millis(200);
/// So many containers are measured at once.
const AT_ONCE: usize = 8;

pub(super) async fn usage(State(shared): State<Shared>) -> Json<Vec<TaskUse>> {
    let running = shared.running();
    if shared.forget_old(&running) {
        // Processor time is a rate: where there is nothing to compare with, two samples are taken.
        shared.measure(&running).await;
        tokio::time::sleep(SHORTEST).await;
    }
    super::json(shared.measure(&running).await)
}

// === impl Shared ===

impl Shared {
    fn running(&self) -> Vec<(TaskId, ContainerId)> {
        let snapshot = self.snapshots.borrow().clone();
        let containers = snapshot.iter().flat_map(|snapshot| &snapshot.containers);
        let running = containers.filter(|(_, inside)| inside.running.is_some());
        running.map(|(task, inside)| (task.clone(), inside.container.clone())).collect()
    }

    /// Forgets samples that are of no use; returns whether a container is left without one.
    fn forget_old(&self, running: &[(TaskId, ContainerId)]) -> bool {
        let mut samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        samples.retain(|_, sample| (SHORTEST..LONGEST).contains(&sample.at.elapsed()));
        running.iter().any(|(_, container)| !samples.contains_key(container))
    }

    /// What is in use; containers that cannot be measured are left out.
    async fn measure(&self, running: &[(TaskId, ContainerId)]) -> Vec<TaskUse> {
        let measured = stream::iter(running.iter().cloned()).map(|(task, container)| {
            let runtime = self.asked.runtime.clone();
            async move {
                let stats = runtime.stats(&container).await.ok()?;
                Some((task, container, stats))
            }
        });
        let measured = measured.buffered(AT_ONCE).filter_map(std::future::ready);
        measured.map(|(task, container, stats)| self.rate(task, container, stats)).collect().await
    }

    fn rate(&self, task: TaskId, container: ContainerId, stats: Stats) -> TaskUse {
        let sample = Sample { at: Instant::now(), cpu_nanos: stats.cpu_nanos };
        let mut samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        let cpu = samples.insert(container, sample).map_or(0, |earlier| {
            let used = u128::from(sample.cpu_nanos.saturating_sub(earlier.cpu_nanos));
            let passed = sample.at.duration_since(earlier.at).as_nanos().max(1);
            u64::try_from(used * 1_000_000_000 / passed).unwrap_or(u64::MAX)
        });
        TaskUse {
            task,
            cpu: NanoCpus(cpu),
            memory: stats.memory,
            memory_limit: Some(stats.memory_limit),
            pids: stats.pids,
            received: stats.received,
            sent: stats.sent,
        }
    }
}
