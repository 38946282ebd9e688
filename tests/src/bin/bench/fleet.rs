//! The control plane of a large cluster: real store, planner, sessions and API, and agents that do nothing but obey and
//! count. What things cost with 10, 100 and 1,000 nodes of 100 tasks each, and on the wire.

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};
use tug_model::task::Desired;
use tug_tests::fleet::{Fleet, Traffic, on_disk};

use crate::plan::resident_kib;
use crate::table::Table;
use crate::usage;

const NODES: [u32; 3] = [10, 100, 1_000];
const TASKS: u32 = 100;
/// The idle cluster is watched for so long.
const REST: Duration = Duration::from_secs(10);
/// The name of the threads that the agents' work is done by.
const AGENTS: &str = "agents";

/// One value, with its metric and unit.
#[derive(Debug, Serialize, Deserialize)]
struct Value(String, String, f64);

/// Measures `runs` rounds, the sizes in turn, each in a process of its own, which counts its own memory and time.
pub(crate) fn measure(table: &mut Table, runs: usize) -> Result<()> {
    for _ in 0..runs {
        for nodes in NODES {
            let mut command = Command::new(std::env::current_exe()?);
            let output = command.args(["fleet-once", &nodes.to_string()]).output()?;
            let errors = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.success(), "{nodes} nodes: {errors}");
            let values: Vec<Value> = serde_json::from_slice(&output.stdout)?;
            for Value(metric, unit, value) in values {
                table.add([&format!("{nodes} nodes"), "tug", &metric, &unit], value);
            }
        }
    }
    Ok(())
}

/// Measures one size and prints what it took.
pub(crate) async fn measure_once(nodes: u32) -> Result<String> {
    let agents = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name(AGENTS)
        .enable_all()
        .build()?;
    let folder = tempfile::tempdir_in(std::env::current_dir()?)?;
    let fleet = Fleet::start(on_disk(folder.path()), nodes as usize, agents.handle()).await?;
    let mut values = Vec::new();
    let mut add = |metric: &str, unit: &str, value: f64| {
        values.push(Value(metric.to_owned(), unit.to_owned(), value));
    };
    place(&fleet, nodes, &mut add).await?;
    rest(&mut add).await?;
    changes(&fleet, nodes, &mut add).await?;
    lose_one(&fleet, nodes, &mut add).await?;
    fleet.end().await?;
    agents.shutdown_background();
    Ok(serde_json::to_string(&values)?)
}

/// From nothing to everything placed, on disk, and acknowledged.
async fn place(fleet: &Fleet, nodes: u32, add: &mut impl FnMut(&str, &str, f64)) -> Result<()> {
    let tasks = f64::from(nodes * TASKS);
    let (memory, cpu, begun) = (resident_kib("VmRSS")?, control_time()?, Instant::now());
    fleet.apply(nodes, TASKS).await?;
    let applied = begun.elapsed();
    fleet.placed((nodes * TASKS) as usize).await?;
    let placed = begun.elapsed();
    add("applied", "ms", millis(applied));
    add("placed, on disk", "ms", millis(placed));
    add("placements", "/s", tasks / placed.as_secs_f64());
    fleet.acknowledged().await?;
    add("acknowledged", "ms", millis(begun.elapsed()));
    fleet.settled().await?;
    add("processor per task", "us", control_time()?.saturating_sub(cpu).as_secs_f64() * 1e6 / tasks);
    let grown = u32::try_from(resident_kib("VmRSS")?.saturating_sub(memory))?;
    add("memory per task", "KiB", f64::from(grown) / tasks);
    add("told per task", "B", bytes(fleet.traffic().told().bytes) / tasks);
    Ok(())
}

/// Nothing happens.
async fn rest(add: &mut impl FnMut(&str, &str, f64)) -> Result<()> {
    let cpu = control_time()?;
    sleep(REST).await;
    add(
        "processor at rest",
        "%",
        control_time()?.saturating_sub(cpu).as_secs_f64() * 100.0 / REST.as_secs_f64(),
    );
    Ok(())
}

/// One task more, behind no port and behind one; a service twice as large.
async fn changes(fleet: &Fleet, nodes: u32, add: &mut impl FnMut(&str, &str, f64)) -> Result<()> {
    for (what, service, replicas) in
        [("+1", 1, TASKS + 1), ("+1 published", 0, TASKS + 1), ("x2", 2, 2 * TASKS)]
    {
        let (before, running, cpu) = (fleet.traffic(), fleet.running(), control_time()?);
        let begun = Instant::now();
        fleet.scale(service, replicas).await?;
        let wanted = running + (replicas - TASKS) as usize;
        fleet.until("scaled", |fleet| fleet.running() == wanted).await?;
        add(&format!("{what}: decided"), "ms", millis(begun.elapsed()));
        fleet.settled().await?;
        let spent = fleet.traffic() - before;
        add(&format!("{what}: processor"), "ms", millis(control_time()?.saturating_sub(cpu)));
        add(&format!("{what}: assignments"), "", bytes(spent.assignments.messages));
        add(&format!("{what}: to all"), "B", bytes(spent.told().bytes));
        add(&format!("{what}: to each"), "B", bytes(spent.told().bytes) / f64::from(nodes));
    }
    Ok(())
}

/// A node is gone, and everything on it is replaced elsewhere.
async fn lose_one(fleet: &Fleet, nodes: u32, add: &mut impl FnMut(&str, &str, f64)) -> Result<()> {
    let agent = fleet.agents.last().ok_or_else(|| anyhow::anyhow!("there are nodes"))?;
    let (before, running, cpu, begun) = (fleet.traffic(), fleet.running(), control_time()?, Instant::now());
    let lost = agent.node().clone();
    agent.cut();
    let mut states = fleet.handle.store.watch();
    let replaced = states.wait_for(|state| {
        let tasks = state.tasks.values().filter(|task| task.desired == Desired::Run);
        tasks.filter(|task| task.node != lost).count() == running
    });
    tokio::time::timeout(Duration::from_secs(300), replaced).await??;
    let took = begun.elapsed();
    let allowed = fleet.handle.view.borrow().world.timing.closed_after.duration();
    add("lost: last decision", "ms", millis(took));
    add("lost: beyond its time", "ms", millis(took.saturating_sub(allowed)));
    fleet.settled().await?;
    let spent: Traffic = fleet.traffic() - before;
    add("lost: processor", "ms", millis(control_time()?.saturating_sub(cpu)));
    add("lost: to each other", "B", bytes(spent.told().bytes) / f64::from(nodes - 1));
    Ok(())
}

/// The processor time of this process without that of the agents.
fn control_time() -> Result<Duration> {
    let all = usage::processor_time(std::process::id())?;
    Ok(all.saturating_sub(usage::thread_time(AGENTS)?))
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn bytes(count: u64) -> f64 {
    count as f64
}
