//! Arguments of the commands that run until they are stopped.

use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::address::{Listening, Reached};
use super::deploy::{DOCKER, EngineArguments, ManifestArguments, ReadingArguments};
use super::{OutputArguments, SOCKET};

/// Where the daemons keep their state unless told otherwise.
const STATE_DIR: &str = "/var/lib/tug";
/// Where the control plane listens for other machines unless told otherwise.
const LISTEN: &str = "0.0.0.0:7443";
/// Where an agent listens for others unless told otherwise.
const PEER_LISTEN: &str = "0.0.0.0:7444";

/// `tug dev`.
#[derive(Debug, Args)]
#[command(after_help = "\
Deploys the file, follows the logs, and removes everything but the volumes on Ctrl-C. A second Ctrl-C gives up at
once; the next `tug dev` of the project takes over what was left behind.

Examples:
  tug dev compose.yaml
  tug dev                               compose.yaml of this folder
  tug dev -p try compose.yaml compose.dev.yaml")]
pub(crate) struct DevArguments {
    /// Compose files, merged in order [default: compose.yaml of this folder]
    #[arg(value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) reading: ReadingArguments,
    #[command(flatten)]
    pub(crate) engine: EngineArguments,
    #[command(flatten)]
    pub(crate) log: LogOptions,
}

/// `tug server`.
#[derive(Debug, Args)]
#[command(after_help = "\
Other machines come in by TLS, with a token (`tug token create`); on this one, whoever may open the socket may do
everything.

Examples:
  tug server --agent
  tug server --agent --install                as a systemd unit
  tug server --advertise tug.example.org      what `tug token create` tells others to dial
  tug server --listen none                    for this machine alone
  tug server --state-dir /srv/tug --socket /srv/tug/tug.sock
  tug server --log debug --log-format json")]
pub(crate) struct ServerArguments {
    #[command(flatten)]
    pub(crate) state: StateArguments,
    /// Be a node too: `tug agent` in the same process
    #[arg(long)]
    pub(crate) agent: bool,
    /// Where to listen for other machines; `none`: nowhere
    #[arg(
        long,
        env = "TUG_LISTEN",
        default_value = LISTEN,
        value_name = "ADDR:PORT",
        hide_env_values = true
    )]
    pub(crate) listen: Listening,
    /// What other machines dial; may be repeated [default: the addresses of this machine]
    #[arg(long, value_name = "HOST[:PORT]")]
    pub(crate) advertise: Vec<Reached>,
    #[command(flatten)]
    pub(crate) node: NodeOptions,
    #[command(flatten)]
    pub(crate) log: LogOptions,
    #[command(flatten)]
    pub(crate) install: InstallOptions,
}

/// `tug agent`.
#[derive(Debug, Args)]
#[command(after_help = "\
On a machine that has joined (`tug join`) it dials the servers that it was told of; elsewhere the socket.

Examples:
  tug agent
  tug agent --peer-advertise b.example.org    what the agents of other nodes dial
  tug agent --server /srv/tug/tug.sock --state-dir /srv/tug --node n1")]
pub(crate) struct AgentArguments {
    /// The socket of the server [default: --socket, or where this machine joined]
    #[arg(long, value_name = "PATH")]
    pub(crate) server: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) state: StateArguments,
    #[command(flatten)]
    pub(crate) node: NodeOptions,
    #[command(flatten)]
    pub(crate) log: LogOptions,
    #[command(flatten)]
    pub(crate) install: InstallOptions,
    /// In a session of its own, without a terminal
    #[arg(long, hide = true)]
    pub(crate) detached: bool,
}

/// `--install`.
#[derive(Debug, Clone, Args)]
pub(crate) struct InstallOptions {
    /// Write a systemd unit that runs this with the options given, at every boot, and start it
    #[arg(long)]
    pub(crate) install: bool,
    /// With --install: only print the unit
    #[arg(long, requires = "install")]
    pub(crate) print: bool,
}

/// `tug restore`.
#[derive(Debug, Args)]
#[command(after_help = "\
The server must not run. What the store holds now is put aside, not deleted; containers go on running, and the agents
are told of a new epoch when the server starts again.

Example:
  tug restore /srv/backup/export-00000000000000000812.jsonl")]
pub(crate) struct RestoreArguments {
    /// An export of the store: a file named export-*.jsonl
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) state: StateArguments,
}

/// Where the daemons keep what must outlive them.
#[derive(Debug, Clone, Args)]
pub(crate) struct StateArguments {
    /// Where everything is kept
    #[arg(
        long = "state-dir",
        env = "TUG_STATE_DIR",
        default_value = STATE_DIR,
        value_name = "PATH",
        hide_env_values = true
    )]
    pub(crate) folder: PathBuf,
}

/// `tug doctor`.
#[derive(Debug, Args)]
#[command(after_help = "\
Each line is ok, warn or fail, with what to do; the exit code is 1 if one of them fails. Nothing is changed. Run it as
the user that runs the daemons, usually root: others see less.

Examples:
  tug doctor
  tug doctor -o json
  tug doctor --state-dir /srv/tug")]
pub(crate) struct DoctorArguments {
    #[command(flatten)]
    pub(crate) state: StateArguments,
    #[command(flatten)]
    pub(crate) engine: EngineArguments,
    #[command(flatten)]
    pub(crate) output: OutputArguments,
}

/// What a node is told about itself.
#[derive(Debug, Clone, Args)]
pub(crate) struct NodeOptions {
    /// The node's id [default: chosen at the first start, from the host's name]
    #[arg(long = "node", value_name = "ID")]
    pub(crate) id: Option<String>,
    /// A label of the node
    #[arg(long = "label", value_name = "KEY=VALUE")]
    pub(crate) labels: Vec<String>,
    /// Where to listen for the agents of other nodes; `none`: nowhere
    #[arg(
        long,
        env = "TUG_PEER_LISTEN",
        default_value = PEER_LISTEN,
        value_name = "ADDR:PORT",
        hide_env_values = true
    )]
    pub(crate) peer_listen: Listening,
    /// What the agents of other nodes dial [default: this machine's address]
    #[arg(long, value_name = "HOST[:PORT]")]
    pub(crate) peer_advertise: Option<Reached>,
    #[command(flatten)]
    pub(crate) engine: EngineArguments,
}

/// What is logged, and how.
#[derive(Debug, Clone, Args)]
pub(crate) struct LogOptions {
    /// What to log: a level, or `target=level,…`
    #[arg(long = "log", env = "TUG_LOG", value_name = "FILTER", hide_env_values = true)]
    pub(crate) filter: Option<String>,
    /// How [default: text on a terminal, json elsewhere]
    #[arg(long, value_enum)]
    pub(crate) log_format: Option<LogFormat>,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people
    Text,
    /// For tools, one object a line
    Json,
}

/// `tug hold`.
#[derive(Debug, Args)]
pub(crate) struct HoldArguments {
    #[command(flatten)]
    pub(crate) state: StateArguments,
    /// End the holder that runs: no agent will come back for its sockets
    #[arg(long)]
    pub(crate) release: bool,
}

// === impl DevArguments ===

impl DevArguments {
    /// The manifest that is meant.
    pub(crate) fn manifest(&self) -> ManifestArguments {
        ManifestArguments { files: self.files.clone(), reading: self.reading.clone() }
    }
}

// === the same options for a process that is started later, by somebody else ===

impl ServerArguments {
    /// The words after `tug` that start the same server.
    pub(crate) fn words(&self, socket: &Path) -> io::Result<Vec<String>> {
        let mut words = vec!["server".to_owned()];
        option(&mut words, "--socket", &absolute(socket)?, SOCKET);
        self.state.add_to(&mut words)?;
        option(&mut words, "--listen", &self.listen.to_string(), LISTEN);
        for one in &self.advertise {
            option(&mut words, "--advertise", &one.to_string(), "");
        }
        if self.agent {
            words.push("--agent".to_owned());
            self.node.add_to(&mut words);
        }
        self.log.add_to(&mut words);
        Ok(words)
    }
}

impl AgentArguments {
    /// The words after `tug` that start the same agent.
    pub(crate) fn words(&self, socket: &Path) -> io::Result<Vec<String>> {
        let mut words = vec!["agent".to_owned()];
        option(&mut words, "--socket", &absolute(socket)?, SOCKET);
        if let Some(server) = &self.server {
            option(&mut words, "--server", &absolute(server)?, "");
        }
        self.state.add_to(&mut words)?;
        self.node.add_to(&mut words);
        self.log.add_to(&mut words);
        Ok(words)
    }
}

impl StateArguments {
    pub(super) fn add_to(&self, words: &mut Vec<String>) -> io::Result<()> {
        option(words, "--state-dir", &absolute(&self.folder)?, STATE_DIR);
        Ok(())
    }
}

impl NodeOptions {
    pub(super) fn add_to(&self, words: &mut Vec<String>) {
        if let Some(id) = &self.id {
            option(words, "--node", id, "");
        }
        for label in &self.labels {
            option(words, "--label", label, "");
        }
        option(words, "--peer-listen", &self.peer_listen.to_string(), PEER_LISTEN);
        if let Some(advertise) = &self.peer_advertise {
            option(words, "--peer-advertise", &advertise.to_string(), "");
        }
        option(words, "--docker", &self.engine.docker, DOCKER);
    }
}

impl LogOptions {
    fn add_to(&self, words: &mut Vec<String>) {
        if let Some(filter) = &self.filter {
            option(words, "--log", filter, "");
        }
        if let Some(format) = self.log_format.and_then(|format| format.to_possible_value()) {
            option(words, "--log-format", format.get_name(), "");
        }
    }
}

/// An option that is not as it would be anyway. One word: a value may begin with `-`.
fn option(words: &mut Vec<String>, name: &str, value: &str, usual: &str) {
    if value != usual {
        words.push(format!("{name}={value}"));
    }
}

fn absolute(path: &Path) -> io::Result<String> {
    Ok(std::path::absolute(path)?.to_string_lossy().into_owned())
}
