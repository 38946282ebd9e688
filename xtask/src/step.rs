//! Running other programs, one step at a time, and saying how long each took.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// The folder of the workspace.
pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("xtask lies in the workspace")
}

/// Runs `cargo` with `arguments` in the workspace; its output is the user's to see.
pub(crate) fn cargo(arguments: &[&str]) -> Result<()> {
    run(command("cargo").args(arguments))
}

/// A command that runs in the workspace, as if it were typed there: what cargo tells the programs that it runs about
/// their own package would make build scripts run again, and much be compiled once more.
pub(crate) fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root());
    for (name, _) in std::env::vars_os() {
        let told = name.to_string_lossy();
        if ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|prefix| told.starts_with(prefix)) {
            command.env_remove(&name);
        }
    }
    command
}

/// Runs `command` to its end.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let shown = format!("{command:?}").replace('"', "");
    let status = command.status().with_context(|| format!("run {shown}"))?;
    if !status.success() {
        bail!("{shown}: {status}");
    }
    Ok(())
}

/// Says `name`, does `work`, and says how long it took.
pub(crate) fn timed<T>(name: &str, work: impl FnOnce() -> Result<T>) -> Result<(T, Duration)> {
    println!("==> {name}");
    let start = now();
    let done = work().with_context(|| format!("{name} failed"))?;
    Ok((done, start.elapsed()))
}

/// The moment.
#[expect(clippy::disallowed_methods, reason = "there is no paused clock here")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
