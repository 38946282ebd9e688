//! Deterministic simulation: a whole orchestrator (store, planner, REST) and whole agents, over fake engines, on a
//! paused clock, with faults. One seed decides everything that happens; the same seed does the same again.
//!
//! ```text
//! seed ─▶ dice ─▶ Action ─▶ Cluster (orchestrator + agents + engines) ─▶ invariants after every step
//!                                                                      ─▶ at the end: heal all, it must converge
//! ```
//!
//! Replaced are only sockets, Docker and time: requests go from router to router through `link`, which a
//! partition cuts.

mod action;
mod cluster;
pub mod exclusive;
mod invariant;
mod link;

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};

pub use action::{Action, Request};
pub use cluster::Cluster;
pub(crate) use link::Link;

/// What one run did, and how it ended.
#[derive(Debug)]
pub struct Run {
    /// Everything that happened, a line each: the same for the same seed.
    pub trace: Vec<String>,
    /// What was violated, if anything.
    pub result: Result<()>,
}

/// How a simulation is made.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// How many machines.
    pub nodes: usize,
    /// How many actions before everything heals.
    pub steps: usize,
}

impl Config {
    /// One to three machines, so that the single machine of most people is a third of all stories.
    pub fn of(seed: u64) -> Self {
        let nodes = match seed % 3 {
            0 => 1,
            1 => 2,
            _ => 3,
        };
        Self { nodes, steps: 25 }
    }
}

/// Runs `count` seeds from `first` on two threads, and gives the explanations of those that fail.
pub fn run_many(first: u64, count: u64) -> Vec<String> {
    const THREADS: usize = 2;
    let next = AtomicU64::new(first);
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count {
                        return;
                    }
                    let failure = explain(seed, &run(seed, Config::of(seed)));
                    failures.lock().unwrap_or_else(PoisonError::into_inner).extend(failure);
                }
            });
        }
    });
    failures.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Runs the simulation of `seed`.
pub fn run(seed: u64, config: Config) -> Run {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .expect("a runtime can be made");
    let mut trace = Vec::new();
    let result = runtime.block_on(simulate(seed, config, &mut trace));
    Run { trace, result }
}

/// The message for a run that failed: what was violated, how to see it again, and the trace.
pub fn explain(seed: u64, run: &Run) -> Option<String> {
    let error = run.result.as_ref().err()?;
    let mut text = format!("seed {seed}: {error:#}\n");
    let _ = writeln!(text, "again, with logs: cargo run -p tug-tests --bin simulate -- {seed}");
    for line in &run.trace {
        let _ = writeln!(text, "  {line}");
    }
    Some(text)
}

async fn simulate(seed: u64, config: Config, trace: &mut Vec<String>) -> Result<()> {
    let mut dice = fastrand::Rng::with_seed(seed);
    let mut cluster = Cluster::start(seed, config.nodes).await?;
    for step in 0..config.steps {
        let action = Action::draw(&mut dice, config.nodes);
        trace.push(format!("{} {step}: {action}", cluster.now()));
        cluster.perform(&action).await.with_context(|| format!("step {step}: {action}"))?;
        cluster.pass(dice.u64(0..4000)).await;
        invariant::check(&mut cluster).await.with_context(|| format!("after step {step}: {action}"))?;
        trace.push(format!("  {}", cluster.summary()));
    }
    trace.push(format!("{} everything heals", cluster.now()));
    cluster.heal().await?;
    invariant::converges(&mut cluster).await.context("after everything healed")?;
    trace.push(format!("{} {}", cluster.now(), cluster.summary()));
    cluster.stop().await;
    Ok(())
}
