//! Every command that the README shows is run, in its order, from the root of the checkout; the line that two machines paste
//! is the one that was printed before it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Result, ensure};
use tug_tests::machine::Machine;
use tug_tests::tug::{Tug, free_port, program};

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// What stands behind `$ ` in the blocks marked `console`.
fn commands(markdown: &str) -> Vec<String> {
    let mut inside = false;
    let mut commands = Vec::new();
    for line in markdown.lines() {
        if line.starts_with("```") {
            inside = line == "```console";
        } else if let Some(command) = line.strip_prefix("$ ").filter(|_| inside) {
            commands.push(command.to_owned());
        }
    }
    commands
}

/// What the test does itself, or is part of already.
fn is_done_elsewhere(command: &str) -> bool {
    // The test command runs this test; both daemons run already; the path is set for every command below.
    matches!(command, "cargo xtask test" | "tug server &" | "tug agent &" | "tug server --agent --install")
        || command.starts_with("export PATH=")
}

fn is_of_cargo(name: &str) -> bool {
    name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_of_the_readme_works() -> Result<()> {
    let readme = std::fs::read_to_string(root().join("README.md"))?;
    let commands = commands(&readme);
    assert!(commands.len() > 15, "{commands:?}");
    let ci = std::fs::read_to_string(root().join(".ci/run"))?;
    assert!(ci.contains("cargo xtask test"), "CI runs the test command of the README");

    let tug = Tug::start_reachable().await?;
    let machines = [Machine::new(&tug, "b")?, Machine::new(&tug, "c")?];
    let mut line_to_paste = String::new();
    let port = free_port();
    let temporary = tempfile::tempdir()?;
    for command in commands.iter().filter(|command| !is_done_elsewhere(command)) {
        let shown = command.clone();
        if shown.starts_with("tug join ") {
            for machine in &machines {
                machine.paste(&line_to_paste).await?;
            }
            continue;
        }
        let line = command.replace("localhost:8080", &format!("localhost:{port}"));
        let mut shell = Command::new("sh");
        shell.args(["-c", &line]).current_dir(root()).stdin(Stdio::null());
        let path =
            std::env::vars().find_map(|(key, value)| (key == "PATH").then_some(value)).unwrap_or_default();
        let folder = program().parent().unwrap().display().to_string();
        shell.env("PATH", format!("{folder}:{path}")).env("TUG_SOCKET", tug.socket());
        shell.env("HELLO_PORT", port.to_string()).env("TMPDIR", temporary.path());
        // Nobody who types this is a package that cargo tests; build scripts that look would run again.
        for (name, _) in std::env::vars().filter(|(name, _)| is_of_cargo(name)) {
            shell.env_remove(name);
        }
        let output = tokio::task::spawn_blocking(move || shell.output()).await??;
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "`{shown}`: {}\n{out}\n{err}\n{}", output.status, tug.logs());
        if shown.starts_with("tug token create") {
            line_to_paste = out.to_string();
        }
        if shown == "tug node ls" && !line_to_paste.is_empty() {
            ensure!(out.matches("ready").count() == 3, "{out}");
            // In one Engine networks are known by their names: what is spread over machines takes hosts of their own.
            for machine in &machines {
                tug.ok(&["node", "rm", "--yes", machine.node()]).await?;
            }
        }
        if shown == "cargo xtask demo" {
            crate::demo::nothing_is_left(temporary.path()).await?;
        }
        ensure!(!shown.starts_with("curl") || out.contains("replica"), "`{shown}` says {out}");
    }
    Ok(())
}
