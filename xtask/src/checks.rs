//! `cargo xtask test`: everything that must hold before a change is taken, in the order in which it fails fastest.

use std::time::Duration;

use anyhow::Result;

use crate::step::{self, cargo, command, timed};
use crate::{engine, images};

/// One thing that must hold.
type Check = (&'static str, fn() -> Result<()>);

const CHECKS: [Check; 6] = [
    ("formatting", || cargo(&["fmt", "--all", "--check"])),
    ("lints", || cargo(&["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"])),
    ("documentation", documentation),
    ("programs of the examples", || images::compile_all().map(drop)),
    ("the tug binary", || cargo(&["build", "--package", "tug-cli"])),
    ("tests", || cargo(&["test", "--workspace", "--no-fail-fast"])),
];

/// Runs every check, stops at the first that fails, and says how long each took.
pub(crate) fn run() -> Result<()> {
    engine::require()?;
    let mut times: Vec<(&str, Duration)> = Vec::new();
    for (name, check) in CHECKS {
        let ((), took) = timed(name, check)?;
        times.push((name, took));
    }
    println!("\nAll checks passed:");
    for (name, took) in times {
        println!("  {name:<26} {:>6.1} s", took.as_secs_f64());
    }
    Ok(())
}

fn documentation() -> Result<()> {
    let arguments = ["doc", "--workspace", "--no-deps", "--document-private-items", "--quiet"];
    step::run(command("cargo").args(arguments).env("RUSTDOCFLAGS", "-D warnings"))
}
