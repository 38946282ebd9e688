//! The control plane's side of a large deployment: 10,000 tasks planned in one pass.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use tokio::time::Instant;
use tug_model::node::{Capacity, Node, NodeInfo};
use tug_model::project::StoredProject;
use tug_model::report::{Engine, Following, Report};
use tug_model::{Bytes, NanoCpus, NodeId, Revision, Timestamp, spec};
use tug_orchestrator::plan::{self, NodeObserved, Observed, World};

use crate::table::Table;

const NOW: Timestamp = Timestamp(1_000_000);
const REPLICAS: u32 = 100;

/// Measures `runs` rounds of 1,000 and of 10,000 tasks.
pub(crate) fn measure(table: &mut Table, runs: usize) -> Result<()> {
    for _ in 0..runs {
        for services in [10, 100] {
            let tasks = f64::from(services * REPLICAS);
            let scenario = format!("{tasks} tasks");
            let world = world(services)?;
            let before = resident_bytes()?;
            let start = Instant::now();
            let plan = plan::plan(&world, NOW);
            let first = start.elapsed();
            let planned = world.after(&plan, NOW);
            let memory = resident_bytes()?.saturating_sub(before);
            ensure!(planned.tasks.len() == (services * REPLICAS) as usize, "{} tasks", planned.tasks.len());
            let start = Instant::now();
            let again = plan::plan(&planned, NOW);
            let second = start.elapsed();
            ensure!(again.decisions.is_empty(), "a second pass changes nothing");
            table.add([&scenario, "tug", "first pass", "ms"], first.as_secs_f64() * 1e3);
            table.add([&scenario, "tug", "pass with nothing to do", "ms"], second.as_secs_f64() * 1e3);
            #[expect(clippy::cast_precision_loss, reason = "megabytes, for people")]
            table.add([&scenario, "tug", "memory", "MiB"], memory as f64 / f64::from(1 << 20));
        }
    }
    Ok(())
}

/// One node that holds everything, and `services` services that are not there yet.
fn world(services: u32) -> Result<World> {
    let node = NodeId::parse("n1")?;
    let info = NodeInfo {
        hostname: "n1".into(),
        os: "linux".into(),
        arch: "amd64".into(),
        capacity: Capacity { cpus: NanoCpus(u64::MAX / 2), memory: Bytes(u64::MAX / 2) },
        labels: std::collections::BTreeMap::new(),
        engine_version: "0".into(),
        agent_version: "0".into(),
        address: None,
    };
    let report = Report {
        info: info.clone(),
        following: Following::default(),
        engine: Engine::Up,
        tasks: Vec::new(),
        uncounted: false,
        closed_ports: Vec::new(),
    };
    let observed = NodeObserved {
        connected: true,
        report: Some(Arc::new(report)),
        received_at: NOW,
        acked: Revision(1),
        ..NodeObserved::default()
    };
    let project = project(services)?;
    let mut world = World { revision: Revision(1), ..World::default() };
    world.nodes.insert(node.clone(), Arc::new(Node::new(node.clone(), info, NOW)));
    world.observed = Arc::new(Observed { nodes: std::iter::once((node, Arc::new(observed))).collect() });
    world.projects.insert(project.spec.name.clone(), Arc::new(project));
    Ok(world)
}

fn project(services: u32) -> Result<StoredProject> {
    let service = |number: u32| {
        let body = serde_json::json!({
            "container": {"image": "nginx:1.27", "environment": {"NUMBER": number.to_string()}},
            "deploy": {"mode": {"replicated": REPLICAS}},
        });
        (format!("s{number}"), body)
    };
    let services: serde_json::Map<String, serde_json::Value> = (0..services).map(service).collect();
    let spec = serde_json::json!({"name": "bench", "services": services});
    let spec: spec::Project = serde_json::from_value(spec)?;
    Ok(StoredProject { spec, source: Vec::new(), number: 1, revision: Revision(1), accepted_at: NOW })
}

/// The memory that this process holds, as the kernel counts it.
fn resident_bytes() -> Result<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    let pages: u64 = statm.split(' ').nth(1).context("statm has a second field")?.parse()?;
    Ok(pages * u64::try_from(rustix::param::page_size())?)
}
