//! `cargo xtask bench NAME`: what Tug takes, beside the raw engine and a peer, in one run, interleaved.
//!
//! Absolute times on a small machine mean nothing; the ratio column does. `--json` prints one object a line:
//! `{bench, scenario, system, metric, value, unit}`.
//!
//! A benchmark is a file with a `measure`, which adds values to the table, and a line in [`BENCHMARKS`] and [`measure`].
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program that talks to the person who runs it"
)]

mod cluster;
mod engine;
mod fleet;
mod plan;
mod scale;
mod store;
mod swarm;
mod table;
mod usage;

use anyhow::{Result, bail};

use crate::table::Table;

/// By name, what each measures.
const BENCHMARKS: [(&str, &str); 5] = [
    (
        "scale",
        "one service 1 -> 50 -> 1 on the real Engine: tug, the raw engine, Docker Swarm where the Engine can be one",
    ),
    ("plan", "10,000 tasks planned in one pass: time and memory"),
    ("store", "acknowledged commits with 1, 16 and 64 writers: rate and latency"),
    ("fleet", "10, 100 and 1,000 simulated nodes of 100 tasks each: placing, resting, changing, losing one"),
    (
        "cluster",
        "three hosts: 1 -> 30 replicas, a container, a cable and an engine lost: tug, Docker Swarm (needs root)",
    ),
];
const RUNS: usize = 3;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let json = words.contains(&"--json");
    words.retain(|word| *word != "--json");
    let (name, runs) = match words.as_slice() {
        // One measurement of `plan`, which starts this program again for each.
        ["plan-once", number] => {
            println!("{}", plan::measure_once(number.parse()?)?);
            return Ok(());
        }
        // The same for `fleet`.
        ["fleet-once", nodes] => {
            let measured = tokio::runtime::Runtime::new()?.block_on(fleet::measure_once(nodes.parse()?))?;
            println!("{measured}");
            return Ok(());
        }
        [name] => (*name, RUNS),
        [name, "--runs", runs] => (*name, runs.parse()?),
        _ => bail!(usage()),
    };
    let mut table = Table::new(name);
    tokio::runtime::Runtime::new()?.block_on(measure(&mut table, runs))?;
    println!("{}", if json { table.json() } else { table.text() });
    Ok(())
}

async fn measure(table: &mut Table, runs: usize) -> Result<()> {
    match table.bench() {
        "scale" => scale::measure(table, runs).await,
        "plan" => plan::measure(table, runs),
        "store" => store::measure(table, runs).await,
        "fleet" => fleet::measure(table, runs),
        "cluster" => cluster::measure(table, runs).await,
        other => bail!("there is no benchmark `{other}`\n\n{}", usage()),
    }
}

fn usage() -> String {
    let lines = BENCHMARKS.map(|(name, what)| format!("  {name:<8}{what}"));
    format!("Usage: cargo xtask bench NAME [--runs N] [--json]\n\n{}", lines.join("\n"))
}
