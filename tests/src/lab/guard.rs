//! What sees to it that nothing stays behind: control groups and files outlive the processes of a lab, also when the
//! test is killed.
//!
//! A shell in a process group of its own waits until the test has closed its input, which the kernel does for a test
//! that was killed. It then lets go on what is frozen (of a frozen process the kernel takes its time to be rid), and
//! removes the control groups and the folder of the lab, and nothing else.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use super::requirements::PATH;

/// Where the control groups are: one tree, or one for each controller below.
const CONTROL_GROUPS: &str = "/sys/fs/cgroup";

/// The kernel lets go of the last process of a group a moment after it has ended.
const GUARD: &str = r#"
    cat
    folder=$1 name=$2 groups=$3
    for tree in "$groups/$name" "$groups"/*/"$name"; do
        [ -d "$tree" ] || continue
        for machine in "$tree"/*/; do
            [ ! -e "$machine/freezer.state" ] || echo THAWED >"$machine/freezer.state"
            [ ! -e "$machine/cgroup.freeze" ] || echo 0 >"$machine/cgroup.freeze"
        done
        tries=500
        while [ -d "$tree" ] && [ "$tries" -gt 0 ]; do
            find "$tree" -depth -type d -exec rmdir {} + 2>/dev/null || sleep 0.02
            tries=$((tries - 1))
        done
        [ ! -d "$tree" ] || { echo "$tree stays" >&2; exit 1; }
    done
    rm -rf "$folder"
"#;

/// The folder and the control groups of one lab.
#[derive(Debug)]
pub(super) struct Guard {
    folder: PathBuf,
    shell: Child,
    lifeline: Option<ChildStdin>,
}

// === impl Guard ===

impl Guard {
    /// Makes the folder, and guards it.
    pub(super) fn start() -> Result<Self> {
        let folder = TempDir::with_prefix("tug-lab-")?;
        let mut shell = Command::new("sh");
        shell.args(["-c", GUARD, "sh"]).arg(folder.path()).arg(name(folder.path())).arg(CONTROL_GROUPS);
        shell.env("PATH", PATH).current_dir("/").process_group(0);
        shell.stdin(Stdio::piped()).stdout(Stdio::null());
        let mut shell = shell.spawn().context("start the guard of a lab")?;
        let lifeline = shell.stdin.take();
        Ok(Self { folder: folder.keep(), shell, lifeline })
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// What the control groups of the lab are named by.
    pub(super) fn name(&self) -> String {
        name(&self.folder)
    }

    /// Removes everything, once nothing runs in the lab any more. Blocks for a moment.
    pub(super) fn end(&mut self) -> Result<()> {
        drop(self.lifeline.take());
        let status = self.shell.wait()?;
        ensure!(status.success(), "something of {} stays: {status}", self.folder.display());
        Ok(())
    }
}

fn name(folder: &Path) -> String {
    folder.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase()
}

/// The control groups of one machine.
#[derive(Debug, Clone)]
pub(super) struct Groups {
    /// `/LAB/MACHINE`.
    name: String,
    /// The folder of that name in the tree that can freeze.
    freezer: PathBuf,
}

// === impl Groups ===

impl Groups {
    /// Makes them.
    pub(super) fn make(lab: &str, machine: &str) -> Result<Self> {
        let root = Path::new(CONTROL_GROUPS);
        let of_its_own = root.join("freezer");
        let tree = if of_its_own.is_dir() { of_its_own } else { root.to_owned() };
        let groups = Self { name: format!("/{lab}/{machine}"), freezer: tree.join(lab).join(machine) };
        std::fs::create_dir_all(groups.system()).context("make a control group")?;
        Ok(groups)
    }

    /// Where everything but containers is.
    pub(super) fn system(&self) -> PathBuf {
        self.freezer.join("system")
    }

    /// What the Engine is told to make its containers' groups in.
    pub(super) fn containers(&self) -> String {
        format!("{}/containers", self.name)
    }

    /// Freezes all, or lets it go on, and waits until that is so.
    pub(super) async fn freeze(&self, frozen: bool) -> Result<()> {
        let (file, word, state, reached) = if self.freezer.join("freezer.state").exists() {
            let word = if frozen { "FROZEN" } else { "THAWED" };
            ("freezer.state", word, "freezer.state", word.to_owned())
        } else {
            let word = if frozen { "1" } else { "0" };
            ("cgroup.freeze", word, "cgroup.events", format!("frozen {word}"))
        };
        let ask = || std::fs::write(self.freezer.join(file), word);
        let reached = async {
            ask()?;
            for tries in 1_u32.. {
                if std::fs::read_to_string(self.freezer.join(state))?.contains(&reached) {
                    break;
                }
                // Between a process and one that it is about to start, a group can be caught half frozen for ever.
                if frozen && tries.is_multiple_of(40) {
                    self.thaw();
                    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                    ask()?;
                }
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
            anyhow::Ok(())
        };
        let patience = std::time::Duration::from_secs(10);
        tokio::time::timeout(patience, reached)
            .await
            .with_context(|| format!("{} is not {word}", self.name))?
    }

    /// Lets everything go on, without waiting.
    pub(super) fn thaw(&self) {
        // It is not there, or was never frozen.
        let _ = std::fs::write(self.freezer.join("freezer.state"), "THAWED")
            .or_else(|_| std::fs::write(self.freezer.join("cgroup.freeze"), "0"));
    }
}
