//! `cargo xtask bench NAME`: builds the measuring program with optimisation and runs it.

use anyhow::Result;

use crate::step::{self, command};
use crate::{engine, images};

/// Runs the benchmark that `arguments` name.
pub(crate) fn run(arguments: &[&str]) -> Result<()> {
    engine::require()?;
    images::compile_all()?;
    step::run(command("cargo").args([
        "build",
        "--profile",
        "measured",
        "--package",
        "tug-cli",
        "--package",
        "tug-tests",
        "--bins",
    ]))?;
    let program = step::root().join("target/measured/bench");
    step::run(command(&program.to_string_lossy()).args(arguments))
}
