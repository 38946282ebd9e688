//! An Engine of a test's own, that may be killed, stopped and frozen: a `dockerd` in name spaces of its own, so that the
//! machine's Engine, network, mounts and processes are never touched.
//!
//! The first process in there is a reaper over a `cat` that reads from the test: when the test ends, however it ends,
//! `cat` has read everything, the first process ends, and the kernel ends every other process in there. All mounts and
//! networks are theirs and go with them. Signals are sent from inside, where no other process can be hit.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bollard::Docker;
use rustix::process::Signal;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tempfile::TempDir;
use tokio::runtime::{EnterGuard, Runtime};
use tokio::time::Instant;

use crate::docker;
use crate::tug::Place;

/// How long the Engine may take to start or to end.
const PATIENCE: Duration = Duration::from_secs(60);
/// Where Debian and Docker put what is needed.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/libexec/docker";
const PROGRAMS: [&str; 9] =
    ["unshare", "nsenter", "mount", "ip", "iptables", "dockerd", "containerd", "runc", "docker-init"];
const CONTROL_GROUPS: &str = "/sys/fs/cgroup";

/// Runs as the first process of the name spaces. It says its process id as it is outside, from the outer `/proc`. The
/// control groups move from the machine's `/sys` to the new one, which shows the new network.
const FIRST_PROCESS: &str = "
    read -r id _ </proc/self/stat
    mount --make-rprivate /
    mount -t tmpfs -o mode=755 tmpfs /run
    [ ! -d /etc/docker ] || mount -t tmpfs tmpfs /etc/docker
    mkdir /run/lock /run/cgroup
    mount -t proc proc /proc
    mount --rbind /sys/fs/cgroup /run/cgroup
    mount -t sysfs sysfs /sys
    mount --rbind /run/cgroup /sys/fs/cgroup
    umount --lazy /run/cgroup
    ip link set lo up
    ip route add unreachable default
    echo $id
    exec docker-init -s -- cat
";

/// A running Engine and what it lives in.
#[derive(Debug)]
pub struct Engine {
    folder: TempDir,
    /// `unshare`, which ends with the first process.
    space: Child,
    /// The first process, by its id in the machine.
    first: u32,
    /// Its standard input: closed, all ends.
    lifeline: Option<ChildStdin>,
    /// What waits for `dockerd`.
    daemon: Option<Child>,
    /// Its threads are in the Engine's network.
    inside: Option<Runtime>,
}

// === impl Engine ===

impl Engine {
    /// Starts one, and waits until it answers.
    pub async fn start() -> Result<Self> {
        require()?;
        let folder = TempDir::with_prefix("tug-engine-")?;
        let mut space = Command::new("unshare");
        space.args(["--net", "--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child", "--"]);
        space.args(["sh", "-ec", FIRST_PROCESS]).env("PATH", PATH);
        space
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(folder.path().join("space.log"))?);
        let mut space = space.spawn().context("start unshare")?;
        let lifeline = space.stdin.take();
        let said = space.stdout.take().context("its output is piped")?;
        // From here on the guard cleans up.
        let mut engine = Self { folder, space, first: 0, lifeline, daemon: None, inside: None };
        engine.first = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            BufReader::new(said).read_line(&mut line)?;
            anyhow::Ok(line)
        })
        .await??
        .trim()
        .parse()
        .with_context(|| format!("no name spaces:\n{}", engine.log("space.log")))?;
        engine.inside = Some(engine.runtime()?);
        engine.start_daemon().await?;
        Ok(engine)
    }

    /// Where it listens; seen from everywhere.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("docker.sock")
    }

    /// A connection to it.
    pub fn connect(&self) -> Result<Docker> {
        docker::connect_to(&self.socket())
    }

    /// Where a Tug runs that has this Engine: its daemons are in the Engine's network.
    pub fn place(&self) -> Place {
        let network = format!("--net=/proc/{}/ns/net", self.first);
        Place { docker: self.socket(), prefix: vec!["nsenter".to_owned(), network, "--".to_owned()] }
    }

    /// What is spawned while the guard lives runs in the Engine's network, such as a client of a published port.
    pub fn enter(&self) -> EnterGuard<'_> {
        self.inside.as_ref().expect("it is there from the start to the end").enter()
    }

    /// Starts `dockerd`, and waits until it answers.
    pub async fn start_daemon(&mut self) -> Result<()> {
        ensure!(self.daemon.is_none(), "the Engine runs already");
        let folder = self.folder.path();
        let log = File::options().create(true).append(true).open(folder.join("dockerd.log"))?;
        // The shell in between keeps `nsenter` from freezing with `dockerd`, and so from outliving the name spaces.
        let mut daemon = self.command("sh")?;
        daemon.args(["-c", "\"$0\" \"$@\" & wait $!", "dockerd"]);
        daemon.args(["--exec-root", "/run/docker", "--pidfile", "/run/docker.pid", "--group", ""]);
        daemon.arg("--data-root").arg(folder.join("data"));
        daemon.arg("--host").arg(format!("unix://{}", self.socket().display()));
        daemon.args(["--bip", "10.201.0.1/24", "--default-address-pool", "base=10.202.0.0/16,size=24"]);
        daemon.args(["--storage-driver", "vfs", "--exec-opt", "native.cgroupdriver=cgroupfs"]);
        daemon.arg("--cgroup-parent").arg(format!("/{}", self.name()));
        daemon.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.daemon = Some(daemon.spawn().context("start dockerd")?);
        let start = Instant::now();
        while !self.answers().await {
            let ended = self.daemon.as_mut().and_then(|daemon| daemon.try_wait().ok().flatten());
            if ended.is_some() || start.elapsed() > PATIENCE {
                bail!("dockerd does not start ({ended:?}):\n{}", self.log("dockerd.log"));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Ends `dockerd` by `signal`, and waits until it is gone.
    pub async fn end_daemon(&mut self, signal: Signal) -> Result<()> {
        self.signal(signal)?;
        let mut daemon = self.daemon.take().context("the Engine does not run")?;
        let waited = tokio::task::spawn_blocking(move || daemon.wait());
        tokio::time::timeout(PATIENCE, waited).await.context("dockerd does not end")???;
        Ok(())
    }

    /// Freezes `dockerd`: it keeps its socket open and answers nothing.
    pub fn freeze(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets a frozen `dockerd` go on.
    pub fn thaw(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// What it logged, the last lines.
    pub fn logs(&self) -> String {
        self.log("dockerd.log")
    }

    /// Sends a signal to `dockerd`. The id in its file means a process in the name spaces or none.
    fn signal(&self, signal: Signal) -> Result<()> {
        let number = signal.as_raw().to_string();
        let mut kill = self.command("sh")?;
        kill.args(["-c", "kill -\"$0\" \"$(cat /run/docker.pid)\"", &number]);
        let output = kill.output().context("run kill")?;
        ensure!(output.status.success(), "kill: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    /// A command in the name spaces.
    fn command(&self, program: &str) -> Result<Command> {
        let first = self.first.to_string();
        ensure!(Path::new("/proc").join(&first).exists(), "the name spaces have ended");
        let mut command = Command::new("nsenter");
        command.args(["--target", &first, "--net", "--mount", "--pid", "--ipc", "--uts", "--", program]);
        command.env("PATH", PATH);
        Ok(command)
    }

    async fn answers(&self) -> bool {
        let Ok(engine) = self.connect() else { return false };
        let ping = tokio::time::timeout(Duration::from_secs(1), engine.ping()).await;
        ping.is_ok_and(|ping| ping.is_ok())
    }

    fn runtime(&self) -> Result<Runtime> {
        let network = File::open(format!("/proc/{}/ns/net", self.first))?;
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        runtime.worker_threads(1).enable_all().on_thread_start(move || {
            let network = std::os::fd::AsFd::as_fd(&network);
            move_into_link_name_space(network, Some(LinkNameSpaceType::Network))
                .expect("root may enter a network that it has made");
        });
        Ok(runtime.build()?)
    }

    /// Names it where the machine sees it.
    fn name(&self) -> String {
        self.folder.path().file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase()
    }

    fn log(&self, name: &str) -> String {
        let log = fs::read_to_string(self.folder.path().join(name)).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines.get(lines.len().saturating_sub(40)..).unwrap_or_default().join("\n")
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(inside) = self.inside.take() {
            inside.shutdown_background();
        }
        drop(self.lifeline.take());
        // It ends when the last process in there has gone.
        let ended = self.space.wait();
        let daemon = self.daemon.take().map(|mut daemon| daemon.wait());
        let groups = remove_groups(&self.name());
        if ended.is_err() || matches!(daemon, Some(Err(_))) || groups.is_err() {
            eprintln!("cleaning up after an Engine: {ended:?}, {daemon:?}, {groups:?}");
        }
    }
}

/// Succeeds when such an Engine can be made here; the error says what is missing.
fn require() -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "this test starts an Engine of its own, and for that it must run as root: run all tests as root, or leave out \
         those that need it with `cargo xtask test --without-root`"
    );
    let is_missing = |program: &&str| !PATH.split(':').any(|folder| Path::new(folder).join(program).exists());
    let missing: Vec<&str> = PROGRAMS.into_iter().filter(is_missing).collect();
    ensure!(
        missing.is_empty(),
        "this test starts an Engine of its own, and {} is missing here: `apt-get install docker.io iproute2 iptables \
         util-linux`",
        missing.join(", ")
    );
    Ok(())
}

/// Removes the control groups that the Engine made: one tree for each hierarchy, or one for all.
fn remove_groups(name: &str) -> std::io::Result<()> {
    let mut hierarchies = vec![PathBuf::from(CONTROL_GROUPS)];
    for entry in fs::read_dir(CONTROL_GROUPS)? {
        hierarchies.push(entry?.path());
    }
    let mut left = Ok(());
    // The kernel lets go of the last process of a group a moment after it has ended.
    for _ in 0..100 {
        left =
            hierarchies.iter().map(|hierarchy| hierarchy.join(name)).try_for_each(|tree| remove_tree(&tree));
        if left.is_ok() {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    left
}

/// Removes the folders of a tree whose files go with them.
fn remove_tree(tree: &Path) -> std::io::Result<()> {
    if !tree.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(tree)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(tree)
}
