//! Deterministic simulation: a whole orchestrator (store, planner, REST) and whole agents, over fake engines, on a
//! paused clock, with faults. One seed decides everything that happens; the same seed does the same again.
//!
//! ```text
//! seed ─▶ dice ─▶ Action ─▶ Cluster (orchestrator + agents + engines) ─▶ the witness, all the while
//!                                                                      ─▶ invariants after every step
//!                                                                      ─▶ at the end: heal all, it must converge
//! seed ─▶ dice ─▶ Story: one fault in a cluster at rest ─▶ what must come of it, how soon, and what must not
//! ```
//!
//! Replaced are only sockets, Docker and time: requests go from router to router through `link`, over cables that swallow
//! things.
//!
//! # What happens here
//!
//! | what happens | by |
//! |---|---|
//! | the control plane dies, and starts again | [`ControlAction::Crash`] |
//! | it is away for long, while containers and machines go on dying | [`ControlAction::Toggle`], [`Story::NoControlPlane`] (an hour) |
//! | it, or everything, is suspended | [`Action::StandStill`], [`Story::StandStill`] |
//! | it comes back empty, or another cluster's comes | [`ControlAction::Usurp`], [`Story::ForeignControlPlane`] |
//! | it is restored from an older export | [`ControlAction::BackUp`], [`ControlAction::Restore`], [`Story::Restored`] |
//! | an agent loses a file, or has one damaged | [`NodeAction::LoseLedger`], [`Story::AgentTrouble`] |
//! | an agent dies between making, starting, stopping a container and saying so | [`NodeAction::CrashAgentAfter`] |
//! | an agent stands still | [`NodeAction::Freeze`] |
//! | a container crashes again and again, or never serves | images `crash:…`, `sick:…` |
//! | a machine loses its power, and has it back before or after it was given up | [`NodeAction::PowerOff`], [`NodeAction::PowerOn`], [`Story::SilentNode`], [`Story::QuickReboot`] |
//! | half of the machines, or all, go at once | [`Action::Together`], [`Story::HalfAtOnce`] |
//! | a cable swallows everything, or only one direction, with and without something that keeps connections up | [`NodeAction::Cut`], [`Story::SilentNode`], [`Story::DeafNode`] |
//! | a cable comes and goes | [`NodeAction::Flap`], [`Story::Flapping`] |
//! | a connection breaks, is slow, loses answers after their effect, is left half open | [`NodeAction::Disconnect`], [`NodeAction::Delay`], [`NodeAction::LoseReplies`], [`NodeAction::Redial`], [`Story::SlowCable`] |
//! | a machine dials from a new address | [`NodeAction::Redial`] |
//! | an engine is dead or hangs | [`Faults::down`](crate::fake::Faults::down), [`hung`](crate::fake::Faults::hung), [`Story::EngineAway`], [`Story::EngineLost`] |
//! | its calls fail, are slow, take effect without an answer | [`failing`](crate::fake::Faults::failing), [`slowness`](crate::fake::Faults::slowness), [`lost_replies`](crate::fake::Faults::lost_replies) |
//! | its events are lost or doubled | [`lost_events`](crate::fake::Faults::lost_events), [`doubled_events`](crate::fake::Faults::doubled_events), [`Story::LostEvents`] |
//! | a removal is under way already | [`slow_removals`](crate::fake::Faults::slow_removals) |
//! | people kill or remove containers by hand, or run others | [`NodeAction::Kill`], [`NodeAction::RemoveContainer`], [`NodeAction::Foreign`] |
//! | clocks are wrong, by seconds and by years | [`NodeAction::SetClock`], [`ControlAction::SetClock`], [`Story::WrongClocks`] |
//! | clocks that run too fast or too slow, leases | [`exclusive`] |
//! | a machine is drained, used again, removed, set up anew | [`Request::Drain`] …, [`NodeAction::Reinstall`], [`Story::Drained`] |
//! | a machine goes while a service is being replaced | [`Story::LostDuringChange`] |
//!
//! # What happens elsewhere
//!
//! | what happens | where, or why not |
//! |---|---|
//! | kill at any moment of a write, a power cut, damage, a full disk | the store's own tests (`orchestrator/src/store/tests`), `e2e/durability.rs` |
//! | a copy of a store, or another cluster's, is put back with nothing that says so; two control planes on one state | the tests of `model::assignment` and the agent; `e2e/cluster/absence.rs`; the lock, `e2e/daemons.rs` |
//! | a task that ignores its signal | `e2e/order.rs`: the fake engine's processes end when told, but for `stubborn:…` |
//! | an agent is replaced under load; the balancer dies | `e2e/survival.rs`, `agent/src/proxy/tests` |
//! | real engines killed and suspended, containers that an engine lost sight of | `e2e/engine.rs`, `e2e/cluster`: a fake knows only what it was told |
//! | two machines with one address; packets lost by chance | nowhere: there are no packets here |
//! | a cable between two machines is cut, and each still reaches the control plane | `agent/src/proxy/tests/peers.rs`: balancers do not run here, they have no virtual sockets |
//! | certificates that end | `it/membership.rs`, the tests of `orchestrator::app`, `e2e/cluster/faults.rs`: nodes have none here |
//! | pulls that fail, wrong digests | the tests of images, `agent/tests/docker/registry.rs` |
//! | names, etcd | there are none |

mod action;
mod cluster;
mod convergence;
mod draw;
pub mod exclusive;
mod invariant;
mod link;
mod machine;
mod perform;
mod plane;
mod story;
mod witness;

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};

pub use action::{Action, ControlAction, Direction, Ledger, Moment, NodeAction, Request};
pub use cluster::Cluster;
pub(crate) use link::{Cable, Link};
pub use story::Story;

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
    /// The trace tells every event that the store records, too.
    pub events: bool,
}

impl Config {
    /// One to five machines; the single machine of most people is a sixth of all stories.
    pub fn of(seed: u64) -> Self {
        let nodes = [1, 2, 3, 3, 4, 5][usize::try_from(seed % 6).unwrap_or_default()];
        Self { nodes, steps: 25, events: false }
    }
}

/// Runs `count` seeds from `first` on two threads, and gives the explanations of those that fail.
pub fn run_many(first: u64, count: u64) -> Vec<String> {
    many(first, count, |seed| explain(&seed.to_string(), &run(seed, Config::of(seed))))
}

/// Tells every story as `count` seeds from `first` have it, and gives the explanations of those that fail.
pub fn tell_many(first: u64, count: u64) -> Vec<String> {
    let stories = Story::ALL.len() as u64;
    many(first * stories, count * stories, |number| {
        let story = Story::ALL[usize::try_from(number % stories).unwrap_or_default()];
        let seed = number / stories;
        explain(&format!("{story:?} {seed}"), &tell(story, seed))
    })
}

fn many(first: u64, count: u64, one: impl Fn(u64) -> Option<String> + Sync) -> Vec<String> {
    const THREADS: usize = 2;
    let next = AtomicU64::new(first);
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= first + count {
                        return;
                    }
                    let failure = one(number);
                    failures.lock().unwrap_or_else(PoisonError::into_inner).extend(failure);
                }
            });
        }
    });
    failures.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Runs the simulation of `seed`.
pub fn run(seed: u64, config: Config) -> Run {
    paused(async |trace| simulate(seed, config, trace).await)
}

/// Tells `story` as `seed` has it.
pub fn tell(story: Story, seed: u64) -> Run {
    paused(async |trace| story::tell(story, seed, trace).await)
}

fn paused(work: impl AsyncFnOnce(&mut Vec<String>) -> Result<()>) -> Run {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .expect("a runtime can be made");
    let mut trace = Vec::new();
    let result = runtime.block_on(work(&mut trace));
    Run { trace, result }
}

/// The message for a run that failed: what was violated, how to see it again, and the trace.
pub fn explain(seed: &str, run: &Run) -> Option<String> {
    let error = run.result.as_ref().err()?;
    let mut text = format!("seed {seed}: {error:#}\n");
    let _ = writeln!(text, "again, with logs: cargo run -p tug-tests --bin simulate -- {seed}");
    for line in &run.trace {
        let _ = writeln!(text, "  {line}");
    }
    Some(text)
}

async fn simulate(seed: u64, config: Config, trace: &mut Vec<String>) -> Result<()> {
    let mut cluster = Cluster::start(seed, config.nodes).await?;
    let told = tell_story(seed, config, &mut cluster, trace).await;
    if config.events {
        trace.extend(cluster.events());
    }
    cluster.stop().await;
    told
}

async fn tell_story(seed: u64, config: Config, cluster: &mut Cluster, trace: &mut Vec<String>) -> Result<()> {
    let mut dice = fastrand::Rng::with_seed(seed);
    for step in 0..config.steps {
        let action = draw::action(&mut dice, config.nodes);
        trace.push(format!("{} {step}: {action}", cluster.now()));
        cluster.perform(&action).await.with_context(|| format!("step {step}: {action}"))?;
        let passes = cluster.pass(dice.u64(0..4000)).await;
        passes.with_context(|| format!("after step {step}: {action}"))?;
        invariant::check(cluster).await.with_context(|| format!("after step {step}: {action}"))?;
        trace.push(format!("  {}", cluster.summary()));
    }
    trace.push(format!("{} everything heals", cluster.now()));
    cluster.heal().await?;
    convergence::converges(cluster).await.context("after everything healed")?;
    trace.push(format!("{} {}", cluster.now(), cluster.summary()));
    Ok(())
}
