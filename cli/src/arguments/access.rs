//! Arguments of the commands about who may do what: tokens, and machines that join with them.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use tug_model::token::AccessRole;

use super::daemon::{NodeOptions, StateArguments};
use super::{ListArguments, OutputArguments};
use crate::time::duration;

/// `tug token`.
#[derive(Debug, Args)]
#[command(
    arg_required_else_help = true,
    after_help = "\
A token is shown once, when it is made; only its hash is kept. One for joining is good for nothing else.

Examples:
  tug token create                            the line to paste on the machine that shall join
  tug token create --role deployer --project shop
  tug token ls
  tug token rm 1f3a90c2"
)]
pub(crate) struct TokenArguments {
    #[command(subcommand)]
    pub(crate) command: TokenCommand,
}

/// What is asked about tokens.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make one: to join as a node, or with --role to use the API
    Create(TokenCreateArguments),
    /// List them
    #[command(after_help = "\
Example:
  tug token ls")]
    Ls(ListArguments),
    /// Make them worthless
    Rm(TokenRemoveArguments),
}

/// `tug token create`.
#[derive(Debug, Args)]
#[command(after_help = "\
The line, or the token, goes to standard output, what is to be said about it to standard error.

Examples:
  tug token create                            one machine, within an hour
  tug token create --uses 3 --life 4h         three machines
  tug token create --node attic               only as this node
  tug token create --role admin --name laptop
  tug token create --role deployer --project shop --life 30d")]
pub(crate) struct TokenCreateArguments {
    /// The id that the node will have [default: like its host's name]
    #[arg(long, value_name = "ID", conflicts_with_all = ["role", "uses"])]
    pub(crate) node: Option<String>,
    /// How many machines may join with it
    #[arg(long, value_name = "N", default_value_t = 1, conflicts_with = "role")]
    pub(crate) uses: u32,
    /// A token to use the API from elsewhere, with this role
    #[arg(long, value_enum, value_name = "ROLE")]
    pub(crate) role: Option<Role>,
    /// Only with this project; may be repeated
    #[arg(long = "project", value_name = "PROJECT", requires = "role")]
    pub(crate) projects: Vec<String>,
    /// For how long it is good [default: 1h to join, 90d for the API]
    #[arg(long, value_parser = duration, value_name = "TIME")]
    pub(crate) life: Option<Duration>,
    /// What to call it in lists
    #[arg(long, default_value = "", value_name = "TEXT", hide_default_value = true)]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) output: OutputArguments,
}

/// What the holder of a token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// Look
    Viewer,
    /// Deploy, scale, restart, remove and exec
    Deployer,
    /// Everything
    Admin,
}

/// `tug token rm`.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  tug token rm 1f3a90c2")]
pub(crate) struct TokenRemoveArguments {
    /// The ids, as `tug token ls` shows them
    #[arg(value_name = "ID", required = true)]
    pub(crate) ids: Vec<String>,
}

/// `tug join`.
#[derive(Debug, Args)]
#[command(after_help = "\
Makes this machine's own key, which stays here, fetches its certificate, and starts the agent: as a systemd unit where
there is systemd, otherwise as a process of its own. `tug token create`, on the control plane, prints the line to paste.
The token is needed only now. A node that joins again keeps the labels that it has, unless others are named.

Examples:
  tug join https://tug.example.org:7443 tug_join_1f3a90c2.…
  tug join https://192.0.2.7 --token-file /root/token
  tug join https://192.0.2.7 - --label disk=ssd --no-start")]
pub(crate) struct JoinArguments {
    /// The control plane, as `https://HOST:PORT`
    // Read later: what is in the wrong place here may be a token, and an error would repeat it.
    #[arg(value_name = "URL")]
    pub(crate) server: String,
    /// The token; `-` or nothing: from standard input
    #[arg(value_name = "TOKEN")]
    pub(crate) token: Option<String>,
    /// The token is in this file; `-`: on standard input
    #[arg(long, value_name = "FILE", conflicts_with = "token")]
    pub(crate) token_file: Option<PathBuf>,
    /// Only join; start `tug agent` yourself
    #[arg(long, conflicts_with = "detach")]
    pub(crate) no_start: bool,
    /// Start the agent as a process of its own, also where there is systemd
    #[arg(long)]
    pub(crate) detach: bool,
    /// How long to wait until the node is ready
    #[arg(long, default_value = "1m", value_parser = duration, value_name = "TIME")]
    pub(crate) timeout: Duration,
    #[command(flatten)]
    pub(crate) state: StateArguments,
    #[command(flatten)]
    pub(crate) node: NodeOptions,
}

impl From<Role> for AccessRole {
    fn from(role: Role) -> Self {
        match role {
            Role::Viewer => Self::Viewer,
            Role::Deployer => Self::Deployer,
            Role::Admin => Self::Admin,
        }
    }
}

impl JoinArguments {
    /// The words after `tug` that start the agent of the machine when it has joined. Who it is, it knows then. `kept` are the
    /// labels that it has unless others are named.
    pub(crate) fn agent_words(&self, kept: &[String]) -> io::Result<Vec<String>> {
        let mut words = vec!["agent".to_owned()];
        self.state.add_to(&mut words)?;
        let labels = if self.node.labels.is_empty() { kept } else { &self.node.labels };
        NodeOptions { id: None, labels: labels.to_vec(), ..self.node.clone() }.add_to(&mut words);
        Ok(words)
    }
}
