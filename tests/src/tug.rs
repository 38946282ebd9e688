//! A Tug of its own for a test: control plane and node as two processes on this machine's real Engine, with a folder
//! of their own. Whatever happens, its containers, networks, volumes and processes are gone at the end.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::Instant;
use tug_api::client::Client;
use tug_api::transport::Channel;
use tug_api::user::NodeStatus;
use tug_model::ProjectName;
use tug_model::status::{ProjectStatus, ServiceStatus};

use crate::{docker, wait};

/// How long a test waits for anything before it fails.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The machine has two cores and one Engine: tests with real containers take turns.
static TURN: Mutex<()> = Mutex::const_new(());
static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A running Tug.
#[derive(Debug)]
pub struct Tug {
    folder: TempDir,
    node: String,
    /// Whether the orchestrator's process is the node too.
    is_one: bool,
    server: Option<Child>,
    agent: Option<Child>,
    /// The port on which it listens for other machines, on loopback.
    listen: Option<u16>,
    place: Place,
    _turn: MutexGuard<'static, ()>,
}

/// Where the daemons of a Tug run.
#[derive(Debug, Clone)]
pub struct Place {
    /// The Engine's socket.
    pub docker: PathBuf,
    /// The command that starts a daemon there, such as `nsenter --net=… --`; empty: none is needed, and the Engine is
    /// one that others use too.
    pub prefix: Vec<String>,
}

// === impl Tug ===

impl Tug {
    /// Starts control plane and node, and waits until the node is connected.
    pub async fn start() -> Result<Self> {
        Self::start_on(docker::socket()).await
    }

    /// The same, with the Engine behind another socket.
    pub async fn start_on(docker: PathBuf) -> Result<Self> {
        docker::require().await?;
        Self::start_in(Place { docker, prefix: Vec::new() }).await
    }

    /// The same, in another place.
    pub async fn start_in(place: Place) -> Result<Self> {
        let mut tug = Self::prepared(place).await?;
        tug.start_server()?;
        tug.start_agent()?;
        tug.until_connected().await?;
        Ok(tug)
    }

    /// The same as [`Tug::start`], with daemons that other machines reach too: the control plane at [`Tug::url`].
    pub async fn start_reachable() -> Result<Self> {
        docker::require().await?;
        let mut tug = Self::prepared(Place { docker: docker::socket(), prefix: Vec::new() }).await?;
        tug.listen = Some(free_port());
        tug.start_server()?;
        tug.start_agent()?;
        tug.until_connected().await?;
        Ok(tug)
    }

    /// Both in one process: `tug server --agent`, with the Engine behind `docker`.
    pub async fn start_as_one(docker: PathBuf) -> Result<Self> {
        let mut tug = Self::prepared(Place { docker, prefix: Vec::new() }).await?;
        tug.is_one = true;
        tug.start_server()?;
        tug.until_connected().await?;
        Ok(tug)
    }

    async fn prepared(place: Place) -> Result<Self> {
        let turn = turn().await;
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let node = format!("test-{}-{number}", std::process::id());
        let folder = TempDir::with_prefix("tug-test-")?;
        Ok(Self { folder, node, is_one: false, server: None, agent: None, listen: None, place, _turn: turn })
    }

    /// A project name that no other test uses.
    pub fn project(&self, name: &str) -> ProjectName {
        ProjectName::parse(&format!("{name}-{}", self.node))
            .expect("node ids and test names make project names")
    }

    /// The name of the node.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// The folder of this Tug.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The orchestrator's socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("tug.sock")
    }

    /// Where it is reached by TLS, if it is.
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.listen.unwrap_or_default())
    }

    /// A client of the API.
    pub fn client(&self) -> Client {
        Client::new(Channel::unix(self.socket()))
    }

    // --- the two processes ---

    /// Starts the orchestrator.
    pub fn start_server(&mut self) -> Result<()> {
        ensure!(self.server.is_none(), "the orchestrator runs already");
        let state = self.server_folder();
        let docker = self.place.docker.to_string_lossy();
        let listen = self.listen.map_or_else(|| "none".to_owned(), |port| format!("127.0.0.1:{port}"));
        let mut arguments = vec!["--state-dir", &*state, "--listen", &*listen];
        if self.is_one {
            arguments.extend([
                "--agent",
                "--docker",
                &*docker,
                "--node",
                &self.node,
                "--peer-listen",
                self.peer_listen(),
            ]);
        }
        self.server = Some(self.daemon("server", &arguments)?);
        Ok(())
    }

    /// Where the agent listens for others.
    fn peer_listen(&self) -> &'static str {
        if self.listen.is_some() { "127.0.0.1:0" } else { "none" }
    }

    /// The state folder of the orchestrator.
    pub fn server_folder(&self) -> String {
        self.folder.path().join("server").to_string_lossy().into_owned()
    }

    /// Starts the agent.
    pub fn start_agent(&mut self) -> Result<()> {
        ensure!(self.agent.is_none(), "the agent runs already");
        self.agent = Some(self.spawn_agent()?);
        Ok(())
    }

    /// Ends the orchestrator by `signal` and waits until it is gone.
    pub async fn end_server(&mut self, signal: Signal) -> Result<()> {
        end(self.server.take().context("the orchestrator does not run")?, signal).await
    }

    /// Ends the agent by `signal` and waits until it is gone.
    pub async fn end_agent(&mut self, signal: Signal) -> Result<()> {
        end(self.agent.take().context("the agent does not run")?, signal).await
    }

    /// Sends a signal to the agent.
    pub fn signal_agent(&self, signal: Signal) -> Result<()> {
        let agent = self.agent.as_ref().context("the agent does not run")?;
        Ok(kill_process(Pid::from_child(agent), signal)?)
    }

    /// Asks the agent to end and starts the next one at once: an upgrade, in which the two overlap.
    pub async fn replace_agent(&mut self) -> Result<()> {
        let old = self.agent.take().context("the agent does not run")?;
        kill_process(Pid::from_child(&old), Signal::TERM)?;
        self.start_agent()?;
        gone(old).await
    }

    /// The process id of the orchestrator.
    pub fn server_id(&self) -> Option<u32> {
        self.server.as_ref().map(Child::id)
    }

    /// The process id of the agent.
    pub fn agent_id(&self) -> Option<u32> {
        self.agent.as_ref().map(Child::id)
    }

    fn spawn_agent(&self) -> Result<Child> {
        let state = self.folder.path().join("agent");
        let docker = self.place.docker.to_string_lossy().into_owned();
        self.daemon(
            "agent",
            &[
                "--state-dir",
                &state.to_string_lossy(),
                "--docker",
                &docker,
                "--node",
                &self.node,
                "--peer-listen",
                self.peer_listen(),
            ],
        )
    }

    fn daemon(&self, name: &str, arguments: &[&str]) -> Result<Child> {
        let log =
            File::options().create(true).append(true).open(self.folder.path().join(format!("{name}.log")))?;
        let mut command = self.command_after(&self.place.prefix, &[name]);
        command
            .args(arguments)
            .env("TUG_LOG", "info,tug_orchestrator=debug,tug_agent=debug,tug_api=debug")
            .stdin(Stdio::null());
        command.stdout(log.try_clone()?).stderr(log);
        command.spawn().with_context(|| format!("start tug {name}"))
    }

    // --- the command line ---

    /// A command of the `tug` binary against this orchestrator.
    pub fn command(&self, arguments: &[&str]) -> Command {
        self.command_after(&[], arguments)
    }

    fn command_after(&self, prefix: &[String], arguments: &[&str]) -> Command {
        let program = program();
        let mut words = prefix.iter().map(std::ffi::OsStr::new).chain([program.as_os_str()]);
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words);
        command.current_dir(self.folder.path()).arg("--socket").arg(self.socket()).args(arguments);
        command.env_remove("DOCKER_HOST").env("NO_COLOR", "1").stdin(Stdio::null());
        command
    }

    /// Runs `tug` to its end, whatever its exit code.
    pub async fn run(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = self.command(arguments);
        tokio::task::spawn_blocking(move || command.output().context("run tug")).await?
    }

    /// Runs `tug`, expects success, and gives its standard output.
    pub async fn ok(&self, arguments: &[&str]) -> Result<String> {
        let output = self.run(arguments).await?;
        wait::succeeded(arguments, &output).with_context(|| self.logs())
    }

    /// Writes `manifest` to a file, applies it and waits until it has settled.
    pub async fn apply(&self, manifest: &str) -> Result<String> {
        let path = self.write("compose.yaml", manifest)?;
        self.ok(&["apply", "--yes", "--file", &path.to_string_lossy()]).await
    }

    /// Writes a file into this Tug's folder.
    pub fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text)?;
        Ok(path)
    }

    // --- waiting ---

    /// Waits until the node is connected.
    pub async fn until_connected(&mut self) -> Result<()> {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if let Some(status) = self.ended() {
                bail!("a daemon ended: {status}\n{}", self.logs());
            }
            if self.client().nodes().await.is_ok_and(|nodes| nodes.iter().any(|node| node.connected)) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        bail!("the node did not connect\n{}", self.logs())
    }

    /// How one of the daemons ended, if one did.
    fn ended(&mut self) -> Option<std::process::ExitStatus> {
        let mut daemons = [&mut self.server, &mut self.agent].into_iter().flatten();
        daemons.find_map(|daemon| daemon.try_wait().ok().flatten())
    }

    /// Waits until `project` satisfies `condition`, and gives its status then.
    pub async fn until(
        &self,
        project: &ProjectName,
        what: &str,
        condition: impl Fn(&ProjectStatus) -> bool,
    ) -> Result<ProjectStatus> {
        let waited = wait::until_status(&self.client(), project, what, condition).await;
        waited.with_context(|| self.logs())
    }

    /// Waits until the nodes satisfy `condition`, and gives them then.
    pub async fn until_nodes(
        &self,
        what: &str,
        condition: impl Fn(&[NodeStatus]) -> bool,
    ) -> Result<Vec<NodeStatus>> {
        wait::until_nodes(&self.client(), what, condition).await.with_context(|| self.logs())
    }

    /// Waits until everything of `project` is as wanted.
    pub async fn until_settled(&self, project: &ProjectName) -> Result<ProjectStatus> {
        self.until(project, "the project to settle", |status| status.settled).await
    }

    /// Every container of this node, with the moment it was started.
    pub async fn starts(&self) -> Result<BTreeMap<String, String>> {
        let engine = docker::connect_to(&self.place.docker)?;
        let mut starts = BTreeMap::new();
        for container in docker::containers_of(&engine, &format!("tug.node={}", self.node)).await? {
            let id = container.id.unwrap_or_default();
            let state = engine.inspect_container(&id, None).await?.state.unwrap_or_default();
            starts.insert(id, state.started_at.unwrap_or_default());
        }
        Ok(starts)
    }

    /// What both daemons logged, the last lines of each.
    pub fn logs(&self) -> String {
        let tail_of = |name: &str| {
            let log =
                std::fs::read_to_string(self.folder.path().join(format!("{name}.log"))).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines.get(lines.len().saturating_sub(60)..).unwrap_or_default();
            format!("--- {name}.log\n{}\n", tail.join("\n"))
        };
        tail_of("server") + &tail_of("agent")
    }
}

impl Drop for Tug {
    fn drop(&mut self) {
        for child in [self.server.take(), self.agent.take()].into_iter().flatten() {
            // What cannot be ended here has ended already.
            let _ = end_now(child);
        }
        let mut release = Command::new(program());
        let node = if self.is_one { "server" } else { "agent" };
        release.arg("hold").arg("--release").arg("--state-dir").arg(self.folder.path().join(node));
        let _ = release.stdout(Stdio::null()).stderr(Stdio::null()).status();
        if self.place.prefix.is_empty() {
            docker::remove_all_of(&self.node);
        }
    }
}

/// Waits until no other test uses the machine's Engine; until the guard is dropped, none will.
pub async fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().await
}

/// The named service of a project.
pub fn service<'a>(status: &'a ProjectStatus, name: &str) -> &'a ServiceStatus {
    let found = status.services.iter().find(|service| service.name.as_str() == name);
    found.unwrap_or_else(|| panic!("no service {name} in {status:?}"))
}

/// A TCP port of this machine that nobody uses at this moment.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind(("0.0.0.0", 0)).expect("a free port");
    listener.local_addr().expect("it is bound").port()
}

/// The `tug` binary beside this test.
pub fn program() -> PathBuf {
    let mut folder = std::env::current_exe().expect("this program has a path");
    folder.pop();
    if folder.ends_with("deps") || folder.ends_with("examples") {
        folder.pop();
    }
    let program = folder.join("tug");
    assert!(
        program.exists(),
        "{} is missing: build it with `cargo build --package tug-cli`",
        program.display()
    );
    program
}

async fn end(child: Child, signal: Signal) -> Result<()> {
    kill_process(Pid::from_child(&child), signal)?;
    gone(child).await
}

/// Waits until a process has ended. A second signal would end it hard.
async fn gone(mut child: Child) -> Result<()> {
    let waited = tokio::task::spawn_blocking(move || child.wait());
    tokio::time::timeout(PATIENCE, waited).await.context("a daemon does not end")???;
    Ok(())
}

fn end_now(mut child: Child) -> std::io::Result<()> {
    child.kill()?;
    child.wait().map(drop)
}
