//! `cargo xtask test`: everything that must hold before a change is taken, in the order in which it fails fastest.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Result, bail, ensure};

use crate::step::{self, cargo, command, timed};
use crate::{engine, images};

/// One thing that must hold.
type Check = (&'static str, fn(&[Kind]) -> Result<()>);

/// Tests that a machine may be unfit for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// They mount file systems, and so need root.
    Root,
    /// They make Docker hosts of their own, and so need root, dockerd and iproute2.
    Lab,
}

const CHECKS: [Check; 6] = [
    ("formatting", |_| cargo(&["fmt", "--all", "--check"])),
    ("lints", |_| cargo(&["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"])),
    ("documentation", |_| documentation()),
    ("programs of the examples", |_| images::compile_all().map(drop)),
    ("the tug binary", |_| cargo(&["build", "--package", "tug-cli"])),
    ("tests", tests),
];

/// The images that the tests build.
const TEST_IMAGES: [&str; 4] =
    ["tug-test-hello:1", "tug-tests-hello:runtime", "tug-example-hello", "tug-example-shop"];

// === impl Kind ===

impl Kind {
    /// What the names of such tests begin with.
    fn prefix(self) -> &'static str {
        match self {
            Self::Root => "as_root_",
            Self::Lab => "in_a_lab_",
        }
    }
}

/// Runs every check, stops at the first that fails, and says how long each took.
pub(crate) fn run(arguments: &[&str]) -> Result<()> {
    let without = match arguments {
        [] => &[][..],
        ["--without-lab"] => &[Kind::Lab],
        // Labs need root as well.
        ["--without-root"] => &[Kind::Root, Kind::Lab],
        other => bail!("unknown option `{}`: there are --without-lab and --without-root", other.join(" ")),
    };
    engine::require()?;
    let mut times: Vec<(&str, Duration)> = Vec::new();
    for (name, check) in CHECKS {
        let ((), took) = timed(name, || check(without))?;
        times.push((name, took));
    }
    println!("\nAll checks passed:");
    for (name, took) in times {
        println!("  {name:<26} {:>6.1} s", took.as_secs_f64());
    }
    if !without.is_empty() {
        let left_out = left_out(without)?;
        println!("Left out, and so not shown on this machine ({} tests):", left_out.len());
        for name in left_out {
            println!("  {name}");
        }
    }
    Ok(())
}

/// The names of the tests of these kinds.
fn left_out(kinds: &[Kind]) -> Result<Vec<String>> {
    let mut list = command("cargo");
    list.args(["test", "--workspace", "--quiet", "--", "--list"]);
    list.args(kinds.iter().map(|kind| kind.prefix()));
    let output = list.stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "list the tests: {}", output.status);
    let listed = String::from_utf8(output.stdout)?;
    Ok(listed.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect())
}

fn documentation() -> Result<()> {
    let arguments = ["doc", "--workspace", "--no-deps", "--document-private-items", "--quiet"];
    step::run(command("cargo").args(arguments).env("RUSTDOCFLAGS", "-D warnings"))
}

fn tests(without: &[Kind]) -> Result<()> {
    let mut arguments = vec!["test", "--workspace", "--no-fail-fast"];
    if !without.is_empty() {
        arguments.push("--");
    }
    arguments.extend(without.iter().flat_map(|kind| ["--skip", kind.prefix()]));
    let tested = cargo(&arguments);
    TEST_IMAGES.into_iter().for_each(engine::remove_image);
    tested
}
