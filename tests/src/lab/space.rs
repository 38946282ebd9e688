//! Name spaces with a first process, in which a machine of the lab lives.
//!
//! The first process is a reaper over a `cat` that reads from the test: when the test ends, however it ends, `cat` has
//! read everything, the first process ends, and the kernel ends every other process in there. All mounts and networks
//! are theirs and go with them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::runtime::{EnterGuard, Runtime};

use super::requirements::PATH;

/// Runs as the first process of the name spaces. It says its process id as it is outside, from the outer `/proc`. The
/// control groups move from the machine's `/sys` to the new one, which shows the new network.
const FIRST_PROCESS: &str = r#"
    read -r id _ </proc/self/stat
    mount --make-rprivate /
    mount -t tmpfs -o mode=755 tmpfs /run
    mkdir -p /run/lock /run/lab /run/cgroup "$2/etc"
    mount -t proc proc /proc
    mount --rbind /sys/fs/cgroup /run/cgroup
    mount -t sysfs sysfs /sys
    mount --rbind /run/cgroup /sys/fs/cgroup
    umount --lazy /run/cgroup
    [ ! -d /etc/docker ] || mount --bind "$2/etc" /etc/docker
    hostname "$1"
    ip link set lo up
    ip route add unreachable default
    echo "$id"
    exec docker-init -s -- cat
"#;

/// Runs a program beside a shell that stays and waits for it: without one, `nsenter` would stop when the program is
/// stopped, and nobody would let it go on. The shell enters the groups that are frozen with the machine.
const SERVICE: &str = r#"
    name=$1 group=$2
    shift 2
    echo 0 >"$group/cgroup.procs"
    "$@" &
    echo $! >"/run/lab/$name.pid"
    wait $!
"#;

/// The same for a program that nobody signals.
const COMMAND: &str = r#"
    echo 0 >"$1/cgroup.procs"
    shift
    exec "$@"
"#;

/// The name spaces and what was started in them.
#[derive(Debug)]
pub(super) struct Space {
    /// `unshare`, which ends with the first process.
    unshare: Child,
    /// The first process, by its id in the machine and by what is never another's.
    first: Pid,
    handle: OwnedFd,
    /// Its standard input: closed, all ends.
    lifeline: Option<ChildStdin>,
    /// What waits for each service.
    services: BTreeMap<String, Child>,
}

// === impl Space ===

impl Space {
    /// Makes them, for a machine of this name whose files are in `folder`. Blocks for a moment.
    pub(super) fn start(name: &str, folder: &Path) -> Result<Self> {
        let log = folder.join("space.log");
        let mut unshare = Command::new("unshare");
        unshare.args(["--net", "--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child", "--"]);
        unshare.args(["sh", "-ec", FIRST_PROCESS, "sh", name]).arg(folder).env("PATH", PATH);
        unshare.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(File::create(&log)?);
        let mut unshare = unshare.spawn().context("start unshare")?;
        let lifeline = unshare.stdin.take();
        let mut line = String::new();
        BufReader::new(unshare.stdout.take().context("its output is piped")?).read_line(&mut line)?;
        let made = || -> Result<(Pid, OwnedFd)> {
            let first = Pid::from_raw(line.trim().parse()?).context("a process has an id")?;
            Ok((first, pidfd_open(first, PidfdFlags::empty())?))
        };
        match made() {
            Ok((first, handle)) => Ok(Self { unshare, first, handle, lifeline, services: BTreeMap::new() }),
            Err(error) => {
                drop(lifeline);
                unshare.wait()?;
                let why = std::fs::read_to_string(&log).unwrap_or_default();
                Err(error.context(format!("the name spaces of {name} are not made: {why}")))
            }
        }
    }

    /// The first process, by its id in the machine.
    pub(super) fn first(&self) -> u32 {
        self.first.as_raw_nonzero().get().unsigned_abs()
    }

    /// A command in all of them.
    pub(super) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg("--target").arg(self.first().to_string());
        command.args(["--net", "--mount", "--pid", "--ipc", "--uts", "--", program]);
        command.env("PATH", PATH).stdin(Stdio::null());
        command
    }

    /// A command in all of them and in `group`.
    pub(super) fn command_in(&self, group: &Path, program: &str) -> Command {
        let mut command = self.command("sh");
        command.args(["-ec", COMMAND, "sh"]).arg(group).arg(program);
        command
    }

    /// Runs a script to its end.
    pub(super) fn script(&self, script: &str, arguments: &[&str]) -> Result<String> {
        said(self.command("sh").args(["-ec", script, "sh"]).args(arguments), script)
    }

    /// The same in its network alone: processes and files are the machine's.
    pub(super) fn script_on_machine(&self, script: &str, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.first())).args(["--", "sh", "-ec", script, "sh"]);
        said(command.args(arguments).env("PATH", PATH).stdin(Stdio::null()), script)
    }

    // --- services ---

    /// Starts `words` under this name, in `group`; what it says goes to `log`.
    pub(super) fn serve(&mut self, name: &str, group: &Path, words: &[String], log: &File) -> Result<()> {
        ensure!(!self.runs(name), "{name} runs already");
        let mut shell = self.command("sh");
        shell.args(["-ec", SERVICE, "sh", name]).arg(group).args(words);
        shell.stdout(log.try_clone()?).stderr(log.try_clone()?);
        self.services.insert(name.to_owned(), shell.spawn().with_context(|| format!("start {name}"))?);
        Ok(())
    }

    /// Whether a service was started and has not ended.
    pub(super) fn runs(&mut self, name: &str) -> bool {
        self.services.get_mut(name).is_some_and(|service| matches!(service.try_wait(), Ok(None)))
    }

    /// Signals a service. The id in its file means a process in the name spaces or none.
    pub(super) fn signal(&self, name: &str, signal: Signal) -> Result<()> {
        let number = signal.as_raw().to_string();
        let script = r#"kill -"$1" "$(cat "/run/lab/$2.pid")""#;
        self.script(script, &[&number, name]).with_context(|| format!("signal {name}"))?;
        Ok(())
    }

    /// What waits for a service, to be waited for.
    pub(super) fn take(&mut self, name: &str) -> Option<Child> {
        self.services.remove(name)
    }

    // --- the end, and clients ---

    /// Kills every process in there.
    pub(super) fn kill(&self) {
        // It has ended already where this fails.
        let _ = pidfd_send_signal(&self.handle, Signal::KILL);
    }

    /// Does so, and waits until nothing is left. Blocks for a moment.
    pub(super) fn shut_down(mut self) -> Result<()> {
        self.kill();
        drop(self.lifeline.take());
        self.unshare.wait()?;
        for service in self.services.values_mut() {
            service.wait()?;
        }
        Ok(())
    }

    /// Threads in the network of this machine.
    pub(super) fn inside(&self) -> Result<Inside> {
        let network = File::open(format!("/proc/{}/ns/net", self.first()))?;
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        runtime.worker_threads(1).enable_all().on_thread_start(move || {
            move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))
                .expect("root may enter a network that it has made");
        });
        Ok(Inside { runtime: Some(runtime.build()?) })
    }
}

/// Runs a command to its end: what it says.
fn said(command: &mut Command, script: &str) -> Result<String> {
    let output = command.output()?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {} {error}", script.trim(), output.status);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Threads in the network of one machine of the lab: what is spawned while the guard of `enter` lives runs there.
#[derive(Debug)]
pub struct Inside {
    runtime: Option<Runtime>,
}

// === impl Inside ===

impl Inside {
    /// From here on, until the guard is dropped.
    pub fn enter(&self) -> EnterGuard<'_> {
        self.runtime().enter()
    }

    /// Does `work` in there.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        self.runtime().spawn(work).await?
    }

    fn runtime(&self) -> &Runtime {
        self.runtime.as_ref().expect("it is there until it is dropped")
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
