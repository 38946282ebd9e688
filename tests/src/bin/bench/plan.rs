//! The control plane's side of a large deployment: 10,000 tasks planned in one pass.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tug_model::node::{Capacity, Node, NodeInfo};
use tug_model::project::StoredProject;
use tug_model::report::{Engine, Following, Health, Phase, Report, TaskReport};
use tug_model::{Bytes, Millis, NanoCpus, NodeId, Revision, Timestamp, spec};
use tug_orchestrator::plan::{self, NodeObserved, Observed, World};

use crate::table::Table;

const NOW: Timestamp = Timestamp(1_000_000);

/// What is planned.
#[derive(Debug, Clone, Copy)]
struct Size {
    services: u32,
    replicas: u32,
    nodes: u32,
}

const SIZES: [Size; 4] = [
    Size { services: 10, replicas: 100, nodes: 1 },
    Size { services: 100, replicas: 100, nodes: 1 },
    Size { services: 1, replicas: 10_000, nodes: 1 },
    Size { services: 100, replicas: 100, nodes: 50 },
];

/// What was measured, in the unit that is shown.
#[derive(Debug, Serialize, Deserialize)]
struct Measured {
    first_ms: f64,
    quiet_ms: f64,
    peak_mib: f64,
}

/// Measures `runs` rounds, the sizes in turn, each in a process of its own: memory that another pass gave back would
/// not be counted again.
pub(crate) fn measure(table: &mut Table, runs: usize) -> Result<()> {
    for _ in 0..runs {
        for (number, size) in SIZES.iter().enumerate() {
            let mut command = Command::new(std::env::current_exe()?);
            let output = command.args(["plan-once", &number.to_string()]).output()?;
            let errors = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.success(), "{size:?}: {errors}");
            let measured: Measured = serde_json::from_slice(&output.stdout)?;
            let Size { services, replicas, nodes } = size;
            let scenario = format!("{services} x {replicas} on {nodes}");
            table.add([&scenario, "tug", "first pass", "ms"], measured.first_ms);
            table.add([&scenario, "tug", "nothing to do", "ms"], measured.quiet_ms);
            table.add([&scenario, "tug", "memory at most", "MiB"], measured.peak_mib);
        }
    }
    Ok(())
}

/// Plans one of the sizes and prints what it took.
pub(crate) fn measure_once(number: usize) -> Result<String> {
    let size = *SIZES.get(number).context("there is such a size")?;
    let empty = resident_kib("VmRSS")?;
    let world = world(size)?;
    let (first, plan) = timed(|| plan::plan(&world, NOW));
    let planned = reported(&world.after(&plan, NOW));
    let tasks = size.services * size.replicas;
    ensure!(planned.tasks.len() == tasks as usize, "{} tasks", planned.tasks.len());
    let (quiet, again) = timed(|| plan::plan(&planned, NOW));
    ensure!(again.decisions.is_empty(), "a second pass changes nothing");
    let peak = resident_kib("VmHWM")?.saturating_sub(empty);
    let measured = Measured {
        first_ms: first.as_secs_f64() * 1e3,
        quiet_ms: quiet.as_secs_f64() * 1e3,
        peak_mib: f64::from(u32::try_from(peak)?) / 1024.0,
    };
    Ok(serde_json::to_string(&measured)?)
}

fn timed<T>(what: impl FnOnce() -> T) -> (Duration, T) {
    let begun = Instant::now();
    let result = what();
    (begun.elapsed(), result)
}

/// Nodes that hold everything, and services that are not there yet.
fn world(size: Size) -> Result<World> {
    let mut world = World { revision: Revision(1), ..World::default() };
    let project = project(size)?;
    world.projects.insert(project.spec.name.clone(), Arc::new(project));
    for number in 1..=size.nodes {
        let id = NodeId::parse(&format!("n{number}"))?;
        world.nodes.insert(id.clone(), Arc::new(Node::new(id, info(), NOW)));
    }
    Ok(reported(&world))
}

/// The world in which every node runs what it shall, and all of it is healthy.
fn reported(world: &World) -> World {
    let mut tasks: BTreeMap<&NodeId, Vec<TaskReport>> = BTreeMap::new();
    for task in world.tasks.values() {
        tasks.entry(&task.node).or_default().push(TaskReport {
            id: task.id.clone(),
            phase: Phase::Running { health: Health::Healthy, address: None },
            age: Millis::from_secs(60),
            restarts: 0,
            connections: 0,
        });
    }
    let nodes = world.nodes.keys().map(|node| {
        let report = Report {
            info: info(),
            following: Following::default(),
            engine: Engine::Up,
            tasks: tasks.remove(node).unwrap_or_default(),
            uncounted: false,
            lacks: BTreeSet::new(),
            closed_ports: Vec::new(),
            uptime: None,
        };
        let observed = NodeObserved {
            connected: true,
            report: Some(Arc::new(report)),
            received_at: NOW,
            acked: world.revision,
            ..NodeObserved::default()
        };
        (node.clone(), Arc::new(observed))
    });
    World { observed: Arc::new(Observed { nodes: nodes.collect(), ..Observed::default() }), ..world.clone() }
}

fn info() -> NodeInfo {
    NodeInfo {
        hostname: "n1".into(),
        os: "linux".into(),
        arch: "amd64".into(),
        capacity: Capacity { cpus: NanoCpus(u64::MAX / 2), memory: Bytes(u64::MAX / 2) },
        labels: BTreeMap::new(),
        engine_version: "0".into(),
        agent_version: "0".into(),
        address: None,
    }
}

fn project(Size { services, replicas, .. }: Size) -> Result<StoredProject> {
    let service = |number: u32| {
        let body = serde_json::json!({
            "container": {"image": "nginx:1.27", "environment": {"NUMBER": number.to_string()}},
            "deploy": {"mode": {"replicated": replicas}},
        });
        (format!("s{number}"), body)
    };
    let services: serde_json::Map<String, serde_json::Value> = (0..services).map(service).collect();
    let spec = serde_json::json!({"name": "bench", "services": services});
    let spec: spec::Project = serde_json::from_value(spec)?;
    Ok(StoredProject { spec, source: Vec::new(), number: 1, revision: Revision(1), accepted_at: NOW })
}

/// The memory of this process in KiB, as the kernel counts it: what it holds, or held at most.
pub(crate) fn resident_kib(what: &str) -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(':'));
    let number = line.and_then(|line| line.split_whitespace().next()).context("the kernel counts memory")?;
    Ok(number.parse()?)
}
