//! A Tug on the hosts of a lab: control plane and node on the first, the others joined as people join them, by the line
//! that `tug token create` prints. Its daemons are services of the hosts, so they end with these, whatever happens.

mod certificate;
mod look;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use tokio::sync::MutexGuard;
use tug_api::client::Client;
use tug_api::transport::Channel;
use tug_model::{NodeId, ProjectName};

pub use self::look::spread;
use crate::lab::{Host, Lab};
use crate::tug::{PATIENCE, program, turn};
use crate::{image, wait};

/// The image that all hosts have.
pub const IMAGE: &str = "tug-test-hello:1";

const SERVER: &str = "server";
const AGENT: &str = "agent";
/// What is logged where a failing test shows it.
const LOG: &str = "info,tug_orchestrator=debug,tug_agent=debug,tug_api=debug";

/// Where the node of the first host runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Home {
    /// In the control plane's process: `tug server --agent`.
    Together,
    /// In a process of its own, so that each can be killed alone.
    Apart,
}

/// A running Tug on all hosts of a lab.
#[derive(Debug)]
pub struct Cluster<'l> {
    lab: &'l Lab,
    home: Home,
    /// What daemons are told beside what they need.
    extra: Vec<String>,
    /// The services that are the agents, by the number of their host.
    agents: Mutex<BTreeMap<usize, String>>,
    _turn: MutexGuard<'static, ()>,
}

// === impl Cluster ===

impl<'l> Cluster<'l> {
    /// Starts it on all hosts of `lab`, and waits until all nodes are connected. It logs what helps to find mistakes.
    pub async fn start(lab: &'l Lab, home: Home) -> Result<Self> {
        Self::start_on(lab, home, lab.hosts().len()).await
    }

    /// The same on so many of the hosts, the first ones: others can join later.
    pub async fn start_on(lab: &'l Lab, home: Home, hosts: usize) -> Result<Self> {
        Self::begin(lab, home, hosts, &["--log", LOG, "--log-format", "text"]).await
    }

    /// On all of them, with these options for all daemons.
    pub async fn start_with(lab: &'l Lab, home: Home, extra: &[&str]) -> Result<Self> {
        Self::begin(lab, home, lab.hosts().len(), extra).await
    }

    async fn begin(lab: &'l Lab, home: Home, hosts: usize, extra: &[&str]) -> Result<Self> {
        let extra = extra.iter().map(|&word| word.to_owned()).collect();
        let cluster = Self { lab, home, extra, agents: Mutex::default(), _turn: turn().await };
        cluster.load_image().await?;
        cluster.start_server().await?;
        for number in 2..=hosts {
            cluster.join(number).await?;
            cluster.start_agent(number)?;
        }
        cluster
            .until_nodes("all to be connected", |nodes| {
                nodes.len() == hosts && nodes.iter().all(|node| node.connected && node.engine.is_some())
            })
            .await?;
        Ok(cluster)
    }

    /// Builds the image on the first host and gives it to the others, unless they have it.
    async fn load_image(&self) -> Result<()> {
        let first = self.lab.host(1).connect()?;
        image::hello_image_of(&first, IMAGE).await;
        for host in &self.lab.hosts()[1..] {
            if host.connect()?.inspect_image(IMAGE).await.is_err() {
                host.load(IMAGE, &first).await?;
            }
        }
        Ok(())
    }

    /// The hosts.
    pub fn lab(&self) -> &'l Lab {
        self.lab
    }

    /// One of them; the first is 1.
    pub fn host(&self, number: usize) -> &'l Host {
        self.lab.host(number)
    }

    /// The node of a host. A node is named after its host.
    pub fn node(&self, number: usize) -> NodeId {
        NodeId::parse(&self.host(number).name()).expect("hosts of a lab have plain names")
    }

    // --- the control plane ---

    /// The orchestrator's socket.
    pub fn socket(&self) -> PathBuf {
        self.host(1).folder().join("tug.sock")
    }

    /// A client of the API.
    pub fn client(&self) -> Client {
        Client::new(Channel::unix(self.socket()))
    }

    /// Where a host's daemons keep their state.
    pub fn state(&self, number: usize) -> PathBuf {
        self.host(number).folder().join("tug")
    }

    /// Starts the control plane, and the node of its host, and waits until it answers.
    pub async fn start_server(&self) -> Result<()> {
        let mut words = self.words(SERVER, 1);
        words.extend(["--socket".to_owned(), text(self.socket())]);
        if self.home == Home::Together {
            words.extend(["--agent".to_owned(), "--docker".to_owned(), text(self.host(1).socket())]);
            words.extend(["--node".to_owned(), self.host(1).name()]);
        }
        self.serve(1, SERVER, &words)?;
        self.until_answered().await?;
        if self.home == Home::Apart && !self.agents().contains_key(&1) {
            self.start_agent(1)?;
        }
        Ok(())
    }

    /// Ends the control plane's process by `signal`, and waits until it is gone.
    pub async fn end_server(&self, signal: Signal) -> Result<()> {
        self.host(1).end(SERVER, signal).await
    }

    // --- the nodes ---

    /// Lets a host join: by the line that is printed for it, with where things are on this host.
    pub async fn join(&self, number: usize) -> Result<()> {
        let line = self.ok(&["token", "create"]).await?;
        let line: Vec<&str> = line.split_whitespace().collect();
        let [tug, join, server, token] = line[..] else { anyhow::bail!("no line to paste: {line:?}") };
        ensure!((tug, join) == ("tug", "join"), "{line:?}");
        let (program, state, docker) =
            (text(program()), text(self.state(number)), text(self.host(number).socket()));
        let words =
            [&*program, join, server, token, "--no-start", "--state-dir", &state, "--docker", &docker];
        let output = self.host(number).run(&words).await?;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "{} does not join: {error}\n{}",
            self.host(number).name(),
            self.logs()
        );
        Ok(())
    }

    /// Starts the agent of a host that has joined, or of the control plane's host where it runs apart.
    pub fn start_agent(&self, number: usize) -> Result<()> {
        let mut words = self.words(AGENT, number);
        words.extend(["--docker".to_owned(), text(self.host(number).socket())]);
        if number == 1 {
            words.extend(["--server".to_owned(), text(self.socket())]);
            words.extend(["--node".to_owned(), self.host(1).name()]);
        }
        // Two run beside each other for a moment when one is replaced.
        let name = match self.agents().get(&number) {
            Some(last) if last == AGENT => format!("{AGENT}-next"),
            Some(_) | None => AGENT.to_owned(),
        };
        self.serve(number, &name, &words)?;
        self.agents().insert(number, name);
        Ok(())
    }

    /// Ends the agent of a host by `signal`, and waits until it is gone.
    pub async fn end_agent(&self, number: usize, signal: Signal) -> Result<()> {
        let name = self.agents().get(&number).cloned().context("no agent runs there")?;
        self.host(number).end(&name, signal).await
    }

    /// Signals the agent of a host.
    pub fn signal_agent(&self, number: usize, signal: Signal) -> Result<()> {
        let name = self.agents().get(&number).cloned().context("no agent runs there")?;
        self.host(number).signal(&name, signal)
    }

    /// Asks an agent to end and starts the next one at once: an upgrade, in which the two overlap.
    pub async fn replace_agent(&self, number: usize) -> Result<()> {
        let old = self.agents().get(&number).cloned().context("no agent runs there")?;
        self.host(number).signal(&old, Signal::TERM)?;
        self.start_agent(number)?;
        self.host(number).wait(&old).await
    }

    // --- the command line ---

    /// Runs `tug` on the first host, expects success, and gives its standard output.
    pub async fn ok(&self, arguments: &[&str]) -> Result<String> {
        let (program, socket) = (text(program()), text(self.socket()));
        let words = [&[&*program, "--socket", &*socket], arguments].concat();
        let output = self.host(1).run(&words).await?;
        wait::succeeded(arguments, &output).with_context(|| self.logs())
    }

    /// Writes `manifest` to a file, applies it and waits until it has settled.
    pub async fn apply(&self, manifest: &str) -> Result<String> {
        let path = self.host(1).folder().join("compose.yaml");
        std::fs::write(&path, manifest)?;
        self.ok(&["apply", "--yes", "--file", &text(path)]).await
    }

    // --- the end ---

    /// Removes `project`, ends everything and forgets it: the hosts are as they were before.
    pub async fn leave(self, project: &ProjectName) -> Result<()> {
        self.ok(&["rm", "--yes", project.as_str()]).await?;
        let agents = std::mem::take(&mut *self.agents());
        for (number, name) in agents {
            self.host(number).end(&name, Signal::TERM).await?;
        }
        self.end_server(Signal::TERM).await?;
        for number in (1..=self.lab.hosts().len()).filter(|number| self.state(*number).exists()) {
            self.forget(number).await?;
        }
        Ok(())
    }

    /// Lets go of the sockets that are kept for the next agent, and removes the state.
    pub async fn forget(&self, number: usize) -> Result<()> {
        let (program, state) = (text(program()), text(self.state(number)));
        let output = self.host(number).run(&[&program, "hold", "--release", "--state-dir", &state]).await?;
        ensure!(output.status.success(), "release: {}", String::from_utf8_lossy(&output.stderr));
        Ok(std::fs::remove_dir_all(self.state(number))?)
    }

    fn words(&self, daemon: &str, number: usize) -> Vec<String> {
        let mut words =
            vec![text(program()), daemon.to_owned(), "--state-dir".to_owned(), text(self.state(number))];
        words.extend(self.extra.iter().cloned());
        words
    }

    fn serve(&self, number: usize, name: &str, words: &[String]) -> Result<()> {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        self.host(number).serve(name, &words)
    }

    fn agents(&self) -> std::sync::MutexGuard<'_, BTreeMap<usize, String>> {
        self.agents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn until_answered(&self) -> Result<()> {
        let client = self.client();
        let answered = async {
            while client.info().await.is_err() {
                ensure!(self.host(1).runs(SERVER)?, "the control plane ended\n{}", self.logs());
                tokio::time::sleep(look::LOOK).await;
            }
            Ok(())
        };
        tokio::time::timeout(PATIENCE, answered)
            .await
            .with_context(|| format!("the control plane does not answer\n{}", self.logs()))?
    }
}

fn text(path: impl AsRef<std::path::Path>) -> String {
    path.as_ref().to_string_lossy().into_owned()
}
