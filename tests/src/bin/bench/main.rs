//! `cargo xtask bench NAME`: what Tug takes, beside the raw engine and a peer, in one run, interleaved.
//!
//! Absolute times on a small machine mean nothing; the ratio column does. `--json` prints one object a line:
//! `{bench, scenario, system, metric, value, unit}`.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program that talks to the person who runs it"
)]

mod cluster;
mod plan;
mod scale;
mod store;
mod table;

use anyhow::{Result, bail};

use crate::table::Table;

const USAGE: &str = "\
Usage: cargo xtask bench NAME [--runs N] [--json]

  scale   one service 1 -> 50 -> 1 on the real Engine: tug, the raw engine, Docker Swarm where the Engine can be one
  plan    10,000 tasks planned in one pass: time and memory
  store   acknowledged commits a second with 1, 16 and 64 writers
  cluster three hosts: 1 -> 30 replicas, a container, a cable and an engine lost; tug, Docker Swarm (as root)";

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let json = words.contains(&"--json");
    words.retain(|word| *word != "--json");
    let (name, runs) = match words.as_slice() {
        [name] => (*name, 3),
        [name, "--runs", runs] => (*name, runs.parse()?),
        _ => bail!("{USAGE}"),
    };
    let runtime = tokio::runtime::Runtime::new()?;
    let mut table = Table::new(name);
    runtime.block_on(async {
        match name {
            "scale" => scale::measure(&mut table, runs).await,
            "cluster" => cluster::measure(&mut table, runs).await,
            "plan" => plan::measure(&mut table, runs),
            "store" => store::measure(&mut table, runs).await,
            other => bail!("there is no benchmark `{other}`\n\n{USAGE}"),
        }
    })?;
    println!("{}", if json { table.json() } else { table.text() });
    Ok(())
}
