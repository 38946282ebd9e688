//! `cargo xtask …`: everything that is done with a checkout, in two commands and two helpers.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program that talks to the person who runs it"
)]

mod bench;
mod checks;
mod demo;
mod engine;
mod images;
mod step;

use std::process::ExitCode;

const USAGE: &str = "\
Usage: cargo xtask COMMAND

  demo              build Tug, run the example service on this machine, show it balanced, scaled and healed
  test              formatting, lints, docs and every test, those with real Docker included;
                    some make Docker hosts of their own, and need root, docker.io, iproute2 and iptables:
                    --without-lab leaves them out, --without-root all that need root
  bench NAME        measure: scale, plan, store (more with --help); --json for one object a line
  images            compile the programs of the examples in manifests/

All of them need Rust and a running Docker Engine, and leave nothing behind.";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["demo"] => demo::run(),
        ["test", rest @ ..] => checks::run(rest),
        ["bench", rest @ ..] => bench::run(rest),
        ["images"] => images::compile_all().map(drop),
        ["help" | "--help" | "-h"] | [] => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        other => {
            eprintln!("error: unknown command `{}`\n\n{USAGE}", other.join(" "));
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
