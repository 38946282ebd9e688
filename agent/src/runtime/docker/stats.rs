//! What a container uses, in one sample.

use bollard::models::{ContainerBlkioStats, ContainerMemoryStats, ContainerStatsResponse};
use bollard::query_parameters::StatsOptionsBuilder;
use futures_util::TryStreamExt;
use tug_model::quantity::Bytes;

use super::{ContainerId, Docker, Operation, RuntimeError, Stats, deadline};
use crate::runtime::Cause;

// === impl Docker ===

impl Docker {
    pub(super) async fn measure(&self, id: &ContainerId) -> Result<Stats, RuntimeError> {
        let call = self.call(Operation::Stats, id);
        let options = StatsOptionsBuilder::new().stream(false).one_shot(true).build();
        let sample = call
            .within(deadline::READ, |client| async move {
                Box::pin(client.stats(id.as_str(), Some(options))).try_next().await
            })
            .await?;
        sample.map(stats).ok_or_else(|| call.error(Cause::Failed("the engine sent no sample".to_owned())))
    }
}

fn stats(sample: ContainerStatsResponse) -> Stats {
    let networks = || sample.networks.iter().flat_map(|networks| networks.values());
    let blocks = sample.blkio_stats.unwrap_or_default();
    let memory = sample.memory_stats.unwrap_or_default();
    Stats {
        cpu_nanos: sample.cpu_stats.and_then(|cpu| cpu.cpu_usage?.total_usage).unwrap_or(0),
        memory: Bytes(used(&memory)),
        memory_limit: Bytes(memory.limit.unwrap_or(0)),
        pids: sample.pids_stats.and_then(|pids| pids.current).unwrap_or(0),
        received: Bytes(networks().filter_map(|network| network.rx_bytes).sum()),
        sent: Bytes(networks().filter_map(|network| network.tx_bytes).sum()),
        read: Bytes(transferred(&blocks, "read")),
        written: Bytes(transferred(&blocks, "write")),
    }
}

/// The memory that would not be given back under pressure: without the inactive page cache, as `docker stats` counts.
fn used(memory: &ContainerMemoryStats) -> u64 {
    let details = memory.stats.as_ref();
    let get = |key: &str| details.and_then(|details| details.get(key)).copied();
    // The first is what cgroup v1 says, the second v2.
    let cache = get("total_inactive_file").or_else(|| get("inactive_file")).unwrap_or(0);
    memory.usage.unwrap_or(0).saturating_sub(cache)
}

fn transferred(blocks: &ContainerBlkioStats, operation: &str) -> u64 {
    let entries = blocks.io_service_bytes_recursive.iter().flatten();
    entries
        .filter(|entry| entry.op.as_deref().is_some_and(|op| op.eq_ignore_ascii_case(operation)))
        .filter_map(|entry| entry.value)
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_summed_up() {
        let sample = serde_json::json!({
            "cpu_stats": { "cpu_usage": { "total_usage": 7 } },
            "memory_stats": { "usage": 100, "limit": 1000, "stats": { "inactive_file": 30, "file": 50 } },
            "pids_stats": { "current": 3 },
            "networks": { "eth0": { "rx_bytes": 1, "tx_bytes": 2 }, "eth1": { "rx_bytes": 10, "tx_bytes": 20 } },
            "blkio_stats": { "io_service_bytes_recursive": [
                { "op": "read", "value": 5 }, { "op": "Write", "value": 6 }, { "op": "read", "value": 1 },
            ] },
        });
        let expected = Stats {
            cpu_nanos: 7,
            memory: Bytes(70),
            memory_limit: Bytes(1000),
            pids: 3,
            received: Bytes(11),
            sent: Bytes(22),
            read: Bytes(6),
            written: Bytes(6),
        };
        assert_eq!(stats(serde_json::from_value(sample).unwrap()), expected);
        assert_eq!(stats(ContainerStatsResponse::default()), Stats::default());
    }
}
