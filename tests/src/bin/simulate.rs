//! `cargo run -p tug-tests --bin simulate -- SEED`: tells the story of one seed again, with logs.
//! `… -- FIRST COUNT`: tells many, and prints those that fail. `… -- STORY SEED`: tells one of the stories, with logs;
//! `… -- stories FIRST COUNT` tells all of them for many seeds.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program that talks to the person who runs it"
)]

use std::process::ExitCode;

use tug_tests::sim;

/// So many seeds are told between two words.
const AT_ONCE: usize = 8;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let numbers: Vec<u64> = words.iter().filter_map(|word| word.parse().ok()).collect();
    let story = words.first().and_then(|word| {
        sim::Story::ALL.into_iter().find(|story| format!("{story:?}").eq_ignore_ascii_case(word))
    });
    match (words.as_slice(), numbers.as_slice(), story) {
        ([_], [seed], None) => {
            one(&seed.to_string(), || sim::run(*seed, sim::Config { events: true, ..sim::Config::of(*seed) }))
        }
        ([_, _], [first, count], None) => many(*first, *count, sim::run_many),
        ([name, _], [seed], Some(story)) => one(&format!("{name} {seed}"), || sim::tell(story, *seed)),
        ([word, _, _], [first, count], None) if word == "stories" => many(*first, *count, sim::tell_many),
        _ => {
            eprintln!("Usage: simulate SEED | FIRST COUNT | STORY SEED | stories FIRST COUNT");
            eprintln!("Stories: {:?}", sim::Story::ALL);
            ExitCode::from(2)
        }
    }
}

fn one(name: &str, run: impl FnOnce() -> sim::Run) -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::new("warn,tug_orchestrator=debug,tug_agent=debug");
    tracing_subscriber::fmt().with_env_filter(filter).without_time().with_writer(std::io::stderr).init();
    let run = run();
    println!("{}", run.trace.join("\n"));
    match sim::explain(name, &run) {
        Some(text) => {
            eprintln!("{}", text.lines().next().unwrap_or_default());
            ExitCode::FAILURE
        }
        None => ExitCode::SUCCESS,
    }
}

fn many(first: u64, count: u64, tell: impl Fn(u64, u64) -> Vec<String>) -> ExitCode {
    let mut failed = 0;
    // A few at a time, so that what fails is told soon.
    for begin in (first..first + count).step_by(AT_ONCE) {
        let failures = tell(begin, (AT_ONCE as u64).min(first + count - begin));
        for text in &failures {
            eprintln!("{text}");
        }
        failed += failures.len();
    }
    println!("{count} seeds from {first}: {failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
