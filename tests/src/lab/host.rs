//! One Docker host of a lab: name spaces, containerd, dockerd, and what can happen to them.
//!
//! Its files outlive a power-off: the Engine's data, the logs, and whatever a test puts into its folder.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bollard::Docker;
use bollard::query_parameters::ImportImageOptions;
use futures_util::TryStreamExt;
use rustix::process::Signal;
use tokio::time::Instant;

use super::guard::{Groups, Guard};
use super::space::{Inside, Space};
use crate::docker;
use crate::tug::Place;

/// How long the Engine, or anything else in here, may take to start or to end.
const PATIENCE: Duration = Duration::from_secs(60);
const ENGINE: &str = "dockerd";
const CONTAINERD: &str = "containerd";
/// No part of containerd that only Kubernetes uses.
const CONTAINERD_SETTINGS: &str = "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n";

/// What a script that adds a network interface is told: its address.
const PLUG: &str = r#"
    ip addr add "$1/24" dev eth0
    ip link set eth0 up
"#;
/// A queue at each end of a cable lets through so many bits a second, and keeps nothing for longer than that.
const NARROW: &str = r#"tc qdisc add dev "$1" root tbf rate "$2" burst 4kb latency 500ms"#;
const WIDEN: &str = r#"tc qdisc del dev "$1" root"#;
/// What watches over the container of a process is its parent.
const KILL_SHIM: &str = r#"kill -KILL "$(sed -n 's/^PPid:\t//p' "/proc/$1/status")""#;
/// What a host is deaf or mute by. It stands before all that Docker does with packets.
const HEAR: [&str; 4] = ["raw", "PREROUTING", "--in-interface", "--source"];
const SPEAK: [&str; 4] = ["mangle", "POSTROUTING", "--out-interface", "--destination"];

/// A way that packets go, seen from a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// To the host.
    In,
    /// From the host.
    Out,
}

/// A Docker host.
#[derive(Debug)]
pub struct Host {
    number: u8,
    address: Ipv4Addr,
    folder: PathBuf,
    groups: Groups,
    /// `None` while it is off.
    space: Mutex<Option<Space>>,
}

// === impl Host ===

impl Host {
    /// Prepares one that is off.
    pub(super) fn prepare(guard: &Guard, number: u8, address: Ipv4Addr) -> Result<Self> {
        let name = format!("h{number}");
        let folder = guard.folder().join(&name);
        fs::create_dir(&folder)?;
        fs::write(folder.join("containerd.toml"), CONTAINERD_SETTINGS)?;
        let groups = Groups::make(&guard.name(), &name)?;
        Ok(Self { number, address, folder, groups, space: Mutex::new(None) })
    }

    /// Its host name.
    pub fn name(&self) -> String {
        format!("h{}", self.number)
    }

    /// Where the others reach it.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// The address of its network card.
    pub(super) fn hardware_address(&self) -> String {
        format!("02:00:00:00:00:{:02x}", self.number)
    }

    /// A folder for its files, the same from everywhere.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where its Engine listens; seen from everywhere.
    pub fn socket(&self) -> PathBuf {
        self.folder.join("docker.sock")
    }

    /// A connection to its Engine.
    pub fn connect(&self) -> Result<Docker> {
        docker::connect_to(&self.socket())
    }

    // --- power ---

    /// Boots it as far as its network can be plugged in. Gives the id of the first process.
    pub(super) async fn boot(&self) -> Result<u32> {
        ensure!(self.space().is_none(), "{} is on already", self.name());
        let (name, folder) = (self.name(), self.folder.clone());
        let space = tokio::task::spawn_blocking(move || Space::start(&name, &folder)).await??;
        let first = space.first();
        *self.space() = Some(space);
        Ok(first)
    }

    /// Configures the cable that has been plugged in.
    pub(super) fn configure(&self) -> Result<()> {
        self.within(|space| space.script(PLUG, &[&self.address.to_string()])).map(drop)
    }

    /// Every process in it ends at once. Its cable is to be plugged in anew.
    pub(super) async fn power_off(&self) -> Result<()> {
        let space = self.space().take().with_context(|| format!("{} is off", self.name()))?;
        // What is frozen is killed when it is let go.
        space.kill();
        self.groups.thaw();
        tokio::task::spawn_blocking(move || space.shut_down()).await?
    }

    /// Every process stands still and nothing is answered, until `thaw`.
    pub async fn freeze(&self) -> Result<()> {
        self.groups.freeze(true).await
    }

    /// All goes on.
    pub async fn thaw(&self) -> Result<()> {
        self.groups.freeze(false).await
    }

    // --- the Engine ---

    /// Starts the Engine, and containerd where it does not run; waits until the Engine answers.
    pub async fn start_engine(&self) -> Result<()> {
        self.start_engine_with(&[]).await
    }

    /// The same with more options, such as `--live-restore`.
    pub async fn start_engine_with(&self, options: &[&str]) -> Result<()> {
        if !self.runs(CONTAINERD)? {
            let settings = self.folder.join("containerd.toml");
            let root = self.folder.join("containerd");
            let words = ["--config", path(&settings)?, "--root", path(&root)?, "--state", "/run/containerd"];
            let address = ["--address", "/run/containerd/containerd.sock", "--log-level", "warn"];
            self.serve(CONTAINERD, &[&[CONTAINERD], words.as_slice(), &address].concat())?;
        }
        let number = self.number;
        let data = self.folder.join("docker");
        let socket = format!("unix://{}", self.socket().display());
        let bridge = format!("10.201.{number}.1/24");
        let pool = format!("base=10.{}.0.0/16,size=24", 100 + number);
        let group = self.groups.containers();
        let words: [&[&str]; 5] = [
            &[ENGINE, "--containerd", "/run/containerd/containerd.sock", "--data-root", path(&data)?],
            &["--exec-root=/run/docker", "--pidfile=/run/docker.pid", "--group=", "--host", &socket],
            &["--bip", &bridge, "--default-address-pool", &pool, "--log-level=warn"],
            &[
                "--storage-driver=vfs",
                "--exec-opt",
                "native.cgroupdriver=cgroupfs",
                "--cgroup-parent",
                &group,
            ],
            options,
        ];
        // One that was killed leaves its file behind.
        self.within(|space| space.script("rm -f /run/docker.pid", &[]))?;
        self.serve(ENGINE, &words.concat())?;
        self.until_engine_answers().await
    }

    /// Ends the Engine by `signal`, and waits until it is gone. Containers live on when it is killed.
    pub async fn end_engine(&self, signal: Signal) -> Result<()> {
        self.end(ENGINE, signal).await
    }

    /// Stops the Engine: it keeps its socket open and answers nothing, until it is signalled to go on.
    pub fn signal_engine(&self, signal: Signal) -> Result<()> {
        self.signal(ENGINE, signal)
    }

    /// Stops what the Engine has containers run by: it answers, and gets nothing done, until that is signalled to go on.
    pub fn signal_containerd(&self, signal: Signal) -> Result<()> {
        self.signal(CONTAINERD, signal)
    }

    /// The main process of a container, by its id in here.
    pub async fn process_of(&self, container: &str) -> Result<String> {
        let state = self.connect()?.inspect_container(container, None).await?.state;
        let process = state.and_then(|state| state.pid).filter(|pid| *pid > 0);
        Ok(process.with_context(|| format!("{container} has no process"))?.to_string())
    }

    /// Whether a process is there, by its id in here.
    pub fn has_process(&self, process: &str) -> Result<bool> {
        self.within(|space| space.script(r#"[ ! -e "/proc/$1" ] || echo yes"#, &[process]))
            .map(|said| !said.is_empty())
    }

    /// Kills what watches over the container of a process.
    pub fn kill_shim(&self, process: &str) -> Result<()> {
        self.within(|space| space.script(KILL_SHIM, &[process])).map(drop)
    }

    async fn until_engine_answers(&self) -> Result<()> {
        let start = Instant::now();
        while !self.engine_answers().await {
            for service in [CONTAINERD, ENGINE] {
                if !self.runs(service)? || start.elapsed() > PATIENCE {
                    bail!("{service} of {} does not start:\n{}", self.name(), self.log(service));
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Whether its Engine answers within a second.
    pub async fn engine_answers(&self) -> bool {
        let Ok(engine) = self.connect() else { return false };
        let ping = tokio::time::timeout(Duration::from_secs(1), engine.ping()).await;
        ping.is_ok_and(|ping| ping.is_ok())
    }

    /// Gives it an image that another Engine has.
    pub async fn load(&self, image: &str, from: &Docker) -> Result<()> {
        let saved: Vec<bytes::Bytes> = from.export_image(image).try_collect().await?;
        let body = bollard::body_full(saved.concat().into());
        let loading = self.connect()?;
        let loaded = loading.import_image(ImportImageOptions::default(), body, None);
        loaded.try_collect::<Vec<_>>().await.with_context(|| format!("load {image} on {}", self.name()))?;
        Ok(())
    }

    // --- programs ---

    /// A command in it, such as `tug ps`.
    pub fn exec(&self, program: &str) -> Result<Command> {
        self.within(|space| Ok(space.command_in(&self.groups.system(), program)))
    }

    /// Runs a command in it to its end, whatever its exit code.
    pub async fn run(&self, words: &[&str]) -> Result<Output> {
        let (program, arguments) = words.split_first().context("a command has a name")?;
        let mut command = self.exec(program)?;
        command.args(arguments);
        tokio::task::spawn_blocking(move || command.output().context("run nsenter")).await?
    }

    /// Starts `words` as a service of this name; its log is `NAME.log` in the folder.
    pub fn serve(&self, name: &str, words: &[&str]) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.folder.join(format!("{name}.log")))?;
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let group = self.groups.system();
        self.within(|space| space.serve(name, &group, &words, &log))
    }

    /// Whether a service runs.
    pub fn runs(&self, name: &str) -> Result<bool> {
        self.within(|space| Ok(space.runs(name)))
    }

    /// Signals a service.
    pub fn signal(&self, name: &str, signal: Signal) -> Result<()> {
        self.within(|space| space.signal(name, signal))
    }

    /// Ends a service by `signal`, and waits until it is gone.
    pub async fn end(&self, name: &str, signal: Signal) -> Result<()> {
        self.signal(name, signal)?;
        self.wait(name).await
    }

    /// Waits until a service has ended.
    pub async fn wait(&self, name: &str) -> Result<()> {
        let service = self.within(|space| Ok(space.take(name)))?;
        let mut service = service.with_context(|| format!("{name} does not run on {}", self.name()))?;
        let waited = tokio::task::spawn_blocking(move || service.wait());
        tokio::time::timeout(PATIENCE, waited).await.with_context(|| format!("{name} does not end"))???;
        Ok(())
    }

    /// What a service logged, the last lines.
    pub fn log(&self, name: &str) -> String {
        let log = fs::read_to_string(self.folder.join(format!("{name}.log"))).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines.get(lines.len().saturating_sub(40)..).unwrap_or_default().join("\n")
    }

    // --- the network ---

    /// Drops every packet that goes this way through its cable: all, or those of one other host. The same once more
    /// does it twice.
    pub fn block(&self, way: Way, other: Option<&Self>) -> Result<()> {
        self.filter("--insert", way, other, &[])
    }

    /// Takes back one `block`.
    pub fn unblock(&self, way: Way, other: Option<&Self>) -> Result<()> {
        self.filter("--delete", way, other, &[])
    }

    /// Of the packets that go this way through its cable, each is dropped with this probability, such as `0.1`.
    pub fn lose(&self, way: Way, probability: &str) -> Result<()> {
        self.filter("--insert", way, None, &by_chance(probability))
    }

    /// Takes back one `lose`.
    pub fn keep(&self, way: Way, probability: &str) -> Result<()> {
        self.filter("--delete", way, None, &by_chance(probability))
    }

    /// Its end of the cable lets through no more than `rate`, such as `256kbit`.
    pub(super) fn narrow(&self, rate: &str) -> Result<()> {
        self.within(|space| narrow(space, "eth0", rate))
    }

    /// Takes back `narrow`.
    pub(super) fn widen(&self) -> Result<()> {
        self.within(|space| widen(space, "eth0"))
    }

    fn filter(&self, verb: &str, way: Way, other: Option<&Self>, which: &[&str]) -> Result<()> {
        let [table, chain, interface, end] = match way {
            Way::In => HEAR,
            Way::Out => SPEAK,
        };
        let address = other.map_or_else(|| "0.0.0.0/0".to_owned(), |other| other.address.to_string());
        let rule = ["--wait", "--table", table, verb, chain, interface, "eth0", end, &address];
        let words = [&rule, which, &["--jump", "DROP"]].concat();
        self.within(|space| space.script(r#"iptables "$@""#, &words)).map(drop)
    }

    /// The command line of a shell in it, for a person.
    pub fn enter(&self) -> Result<String> {
        self.within(|space| Ok(format!("nsenter --target {} --all -- sh", space.first())))
    }

    /// Threads in its network, for clients of `127.0.0.1`.
    pub fn inside(&self) -> Result<Inside> {
        self.within(|space| space.inside())
    }

    /// Where a Tug runs that has this Engine: its daemons are in the host's network, and end with the test alone.
    pub fn place(&self) -> Result<Place> {
        let network = self.within(|space| Ok(format!("--net=/proc/{}/ns/net", space.first())))?;
        Ok(Place { docker: self.socket(), prefix: vec!["nsenter".to_owned(), network, "--".to_owned()] })
    }

    fn within<T>(&self, work: impl FnOnce(&mut Space) -> Result<T>) -> Result<T> {
        match self.space().as_mut() {
            Some(space) => work(space),
            None => bail!("{} is off", self.name()),
        }
    }

    fn space(&self) -> MutexGuard<'_, Option<Space>> {
        self.space.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends it, as far as it is on. Blocks for a moment.
    pub(super) fn shut_down(&self) -> Result<()> {
        let Some(space) = self.space().take() else { return Ok(()) };
        space.kill();
        self.groups.thaw();
        space.shut_down()
    }
}

/// One end of a cable lets through no more than `rate`.
pub(super) fn narrow(space: &Space, end: &str, rate: &str) -> Result<()> {
    space.script(NARROW, &[end, rate]).map(drop)
}

/// Takes back `narrow`.
pub(super) fn widen(space: &Space, end: &str) -> Result<()> {
    space.script(WIDEN, &[end]).map(drop)
}

fn by_chance(probability: &str) -> [&str; 6] {
    ["--match", "statistic", "--mode", "random", "--probability", probability]
}

fn path(path: &Path) -> Result<&str> {
    path.to_str().context("a folder for temporary files has a plain name")
}
