//! `cargo xtask test`: everything that must hold before a change is taken, in the order in which it fails fastest.

use std::time::Duration;

use anyhow::{Result, bail};

use crate::step::{self, cargo, command, timed};
use crate::{engine, images};

/// One thing that must hold.
type Check = (&'static str, fn(Root) -> Result<()>);

/// Whether the tests that need root are run: those that mount file systems and start an Engine of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Root {
    With,
    Without,
}

const CHECKS: [Check; 6] = [
    ("formatting", |_| cargo(&["fmt", "--all", "--check"])),
    ("lints", |_| cargo(&["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"])),
    ("documentation", |_| documentation()),
    ("programs of the examples", |_| images::compile_all().map(drop)),
    ("the tug binary", |_| cargo(&["build", "--package", "tug-cli"])),
    ("tests", tests),
];

/// What the names of such tests begin with.
const AS_ROOT: &str = "as_root_";
/// The images that the tests build.
const TEST_IMAGES: [&str; 4] =
    ["tug-test-hello:1", "tug-tests-hello:runtime", "tug-example-hello", "tug-example-shop"];

/// Runs every check, stops at the first that fails, and says how long each took.
pub(crate) fn run(arguments: &[&str]) -> Result<()> {
    let root = match arguments {
        [] => Root::With,
        ["--without-root"] => Root::Without,
        other => bail!("unknown option `{}`: there is --without-root", other.join(" ")),
    };
    engine::require()?;
    let mut times: Vec<(&str, Duration)> = Vec::new();
    for (name, check) in CHECKS {
        let ((), took) = timed(name, || check(root))?;
        times.push((name, took));
    }
    println!("\nAll checks passed:");
    for (name, took) in times {
        println!("  {name:<26} {:>6.1} s", took.as_secs_f64());
    }
    if root == Root::Without {
        println!(
            "Left out: the tests named {AS_ROOT}…, which need root (power cuts and full disks on real file systems,"
        );
        println!("an Engine of their own that is killed and stopped).");
    }
    Ok(())
}

fn documentation() -> Result<()> {
    let arguments = ["doc", "--workspace", "--no-deps", "--document-private-items", "--quiet"];
    step::run(command("cargo").args(arguments).env("RUSTDOCFLAGS", "-D warnings"))
}

fn tests(root: Root) -> Result<()> {
    let mut arguments = vec!["test", "--workspace", "--no-fail-fast"];
    if root == Root::Without {
        arguments.extend(["--", "--skip", AS_ROOT]);
    }
    let tested = cargo(&arguments);
    TEST_IMAGES.into_iter().for_each(engine::remove_image);
    tested
}
