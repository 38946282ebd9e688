//! A second machine, as far as one machine can be two: an agent with a folder and a node of its own, which becomes one by
//! `tug join`. At the end its agent, its holder and its containers are gone.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::time::Instant;

use crate::docker;
use crate::tug::{PATIENCE, Tug, program};

/// A machine that may join.
#[derive(Debug)]
pub struct Machine {
    folder: TempDir,
    node: String,
}

// === impl Machine ===

impl Machine {
    /// One that is to be a node of `tug`'s cluster, and is none yet.
    pub fn new(tug: &Tug, name: &str) -> Result<Self> {
        Ok(Self { folder: TempDir::with_prefix("tug-machine-")?, node: format!("{}-{name}", tug.node()) })
    }

    /// The id that it asks for.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Its state folder.
    pub fn state_dir(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// `tug join` with these words, and `input` on standard input, whatever its exit code. The agent that it starts is a
    /// process of its own, also where there is systemd.
    pub async fn join(&self, words: &[&str], input: &str) -> Result<Output> {
        let mut command = Command::new(program());
        command.current_dir(self.folder.path()).env("NO_COLOR", "1").env_remove("TUG_LOG");
        command.arg("join").args(words).arg("--state-dir").arg(self.state_dir());
        command.args(["--node", &self.node, "--peer-listen", "127.0.0.1:0"]);
        command.arg("--docker").arg(docker::socket());
        if !words.contains(&"--no-start") {
            command.arg("--detach");
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let input = input.to_owned();
        let ended = tokio::task::spawn_blocking(move || {
            let mut child = command.spawn().context("run tug join")?;
            let mut stdin = child.stdin.take().context("its standard input")?;
            // A command that does not want it may have ended by now.
            let _unread = stdin.write_all(input.as_bytes());
            drop(stdin);
            anyhow::Ok(child.wait_with_output()?)
        });
        ended.await?
    }

    /// Joins with the line that `tug token create` printed.
    pub async fn paste(&self, line: &str) -> Result<()> {
        let words: Vec<&str> = line.split_whitespace().skip(2).collect();
        let output = self.join(&words, "").await?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "tug join: {}\n{said}\n{}", output.status, self.log());
        Ok(())
    }

    /// The process of its agent, if one runs.
    pub fn agent(&self) -> Option<Pid> {
        let state_dir = self.state_dir().to_string_lossy().into_owned();
        let processes = fs::read_dir("/proc").ok()?.flatten();
        let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        ids.filter_map(Pid::from_raw).find(|id| {
            let words = command_line(*id);
            words.iter().any(|word| word == "agent") && words.iter().any(|word| word.ends_with(&state_dir))
        })
    }

    /// Ends its agent and waits until it is gone.
    pub async fn end_agent(&self, signal: Signal) -> Result<()> {
        let agent = self.agent().context("no agent runs")?;
        kill_process(agent, signal)?;
        let start = Instant::now();
        while self.agent().is_some() {
            if start.elapsed() > PATIENCE {
                bail!("the agent does not end\n{}", self.log());
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// What its agent logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.state_dir().join("agent/agent.log")).unwrap_or_default()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Some(agent) = self.agent() {
            // What cannot be ended here has ended already.
            let _ended = kill_process(agent, Signal::KILL);
        }
        let mut release = Command::new(program());
        release.args(["hold", "--release", "--state-dir"]).arg(self.state_dir());
        let _released = release.stdout(Stdio::null()).stderr(Stdio::null()).status();
        docker::remove_all_of(&self.node);
    }
}

/// The words of every process, as everybody on this machine may read them.
pub fn command_lines() -> Vec<Vec<String>> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    ids.filter_map(Pid::from_raw).map(command_line).collect()
}

fn command_line(process: Pid) -> Vec<String> {
    let bytes = fs::read(format!("/proc/{}/cmdline", process.as_raw_nonzero())).unwrap_or_default();
    let words = bytes.split(|byte| *byte == 0).filter(|word| !word.is_empty());
    words.map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}
