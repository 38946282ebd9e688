//! `cargo run -p tug-tests --bin simulate -- SEED`: tells the story of one seed again, with logs.
//! `… -- FIRST COUNT`: tells many, and prints those that fail.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program that talks to the person who runs it"
)]

use std::process::ExitCode;

use tug_tests::sim;

fn main() -> ExitCode {
    let numbers: Result<Vec<u64>, _> = std::env::args().skip(1).map(|word| word.parse()).collect();
    match numbers.as_deref() {
        Ok([seed]) => one(*seed),
        Ok([first, count]) => many(*first, *count),
        _ => {
            eprintln!("Usage: simulate SEED | FIRST COUNT");
            ExitCode::from(2)
        }
    }
}

fn one(seed: u64) -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::new("warn,tug_orchestrator=debug,tug_agent=debug");
    tracing_subscriber::fmt().with_env_filter(filter).without_time().with_writer(std::io::stderr).init();
    let run = sim::run(seed, sim::Config::of(seed));
    println!("{}", run.trace.join("\n"));
    match sim::explain(seed, &run) {
        Some(text) => {
            eprintln!("{}", text.lines().next().unwrap_or_default());
            ExitCode::FAILURE
        }
        None => ExitCode::SUCCESS,
    }
}

fn many(first: u64, count: u64) -> ExitCode {
    let failures = sim::run_many(first, count);
    for text in &failures {
        eprintln!("{text}");
    }
    println!("{count} seeds from {first}: {} failed", failures.len());
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
