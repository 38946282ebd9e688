//! Arguments of the commands that look.

use std::time::Duration;

use clap::Args;

use super::OutputArguments;
use crate::time::{Moment, duration, moment};

/// `tug ls`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tug ls
  tug ls -o json")]
pub(crate) struct ListArguments {
    #[command(flatten)]
    pub(crate) output: OutputArguments,
}

/// `tug ps`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tug ps
  tug ps shop
  tug ps -o wide shop/web
  tug ps --node attic")]
pub(crate) struct PsArguments {
    /// Services or projects [default: everything]
    #[arg(value_name = "NAME")]
    pub(crate) names: Vec<String>,
    /// Only what is on this node
    #[arg(long, value_name = "NODE")]
    pub(crate) node: Option<String>,
    #[command(flatten)]
    pub(crate) output: OutputArguments,
}

/// `tug why`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tug why web
  tug why shop/web.2
  tug why shop/web -o json")]
pub(crate) struct WhyArguments {
    /// The service, or a replica of it
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) output: OutputArguments,
}

/// `tug events`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tug events
  tug events -w shop
  tug events -n 20 shop/web -o json")]
pub(crate) struct EventArguments {
    /// A service or a project [default: everything]
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Go on with what happens from now on
    #[arg(short = 'w', long)]
    pub(crate) watch: bool,
    /// Show only the newest so many
    #[arg(short = 'n', long, value_name = "N")]
    pub(crate) limit: Option<usize>,
    #[command(flatten)]
    pub(crate) output: OutputArguments,
}

/// `tug logs`.
#[derive(Debug, Args)]
#[command(after_help = "\
Control characters are shown, not obeyed, unless --raw is given.

Examples:
  tug logs web
  tug logs -f --tail 20 web api.1
  tug logs --since 10m shop/
  tug logs --since 2026-01-31T12:00:00Z -o json web")]
pub(crate) struct LogArguments {
    /// Services, replicas of them, or projects
    #[arg(value_name = "NAME", required = true)]
    pub(crate) names: Vec<String>,
    /// Go on with what is written from now on
    #[arg(short = 'f', long)]
    pub(crate) follow: bool,
    /// Only lines since then: an age or a UTC time
    #[arg(long, value_parser = moment, value_name = "TIME")]
    pub(crate) since: Option<Moment>,
    /// Only the last lines of each replica
    #[arg(short = 'n', long, value_name = "N")]
    pub(crate) tail: Option<u32>,
    /// Show the time of each line
    #[arg(short = 't', long)]
    pub(crate) timestamps: bool,
    /// Do not show which replica wrote a line
    #[arg(long)]
    pub(crate) no_prefix: bool,
    /// Pass control characters on to the terminal
    #[arg(long)]
    pub(crate) raw: bool,
    #[command(flatten)]
    pub(crate) output: OutputArguments,
}

/// `tug top`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tug top
  tug top -w --interval 5s
  tug top --nodes
  tug top shop -o json")]
pub(crate) struct TopArguments {
    /// Services or projects [default: everything]
    #[arg(value_name = "NAME")]
    pub(crate) names: Vec<String>,
    /// Show what the replicas use on each node, together
    #[arg(long)]
    pub(crate) nodes: bool,
    /// Show it again and again
    #[arg(short = 'w', long)]
    pub(crate) watch: bool,
    /// How often
    #[arg(long, default_value = "2s", value_parser = duration, value_name = "TIME")]
    pub(crate) interval: Duration,
    #[command(flatten)]
    pub(crate) output: OutputArguments,
}

/// `tug exec`.
#[derive(Debug, Args)]
#[command(after_help = "\
A terminal is used where there is one on both sides; what is piped in becomes the command's input. The exit code is
the command's own.

Examples:
  tug exec web -- sh
  tug exec shop/db.2 -- psql -U app
  tug exec -T db -- pg_dump app > app.sql")]
pub(crate) struct ExecArguments {
    /// The service, or a replica of it
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
    /// Which replica [default: the first healthy one]
    #[arg(long, value_name = "N")]
    pub(crate) slot: Option<u32>,
    /// With a terminal, also where it does not look like one
    #[arg(short = 't', long, conflicts_with = "no_tty")]
    pub(crate) tty: bool,
    /// Pass standard input on; it always is, this is for habit
    #[arg(short = 'i', long, hide = true)]
    pub(crate) interactive: bool,
    /// Without a terminal
    #[arg(short = 'T', long)]
    pub(crate) no_tty: bool,
    /// As this user
    #[arg(short = 'u', long, value_name = "USER")]
    pub(crate) user: Option<String>,
    /// In this folder of the container
    #[arg(short = 'w', long, value_name = "PATH")]
    pub(crate) workdir: Option<String>,
    /// With this variable
    #[arg(short = 'e', long = "env", value_name = "KEY=VALUE")]
    pub(crate) environment: Vec<String>,
}
