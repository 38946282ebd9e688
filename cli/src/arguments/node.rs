//! Arguments of `tug node`: the machines.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::{ListArguments, OutputArguments};
use crate::time::duration;

/// `tug node`.
#[derive(Debug, Args)]
#[command(
    arg_required_else_help = true,
    after_help = "\
Examples:
  tug node ls -o wide
  tug node show attic
  tug node drain attic --wait
  tug node activate attic
  tug node label attic disk=ssd zone-
  tug node rm attic"
)]
pub(crate) struct NodeArguments {
    #[command(subcommand)]
    pub(crate) command: NodeCommand,
}

/// What is asked about nodes.
#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// List them
    #[command(after_help = "\
Examples:
  tug node ls
  tug node ls -o wide")]
    Ls(ListArguments),
    /// Show everything about one of them
    Show(ShowNodeArguments),
    /// Change the labels that placement may ask for
    Label(LabelArguments),
    /// Empty one: the replacements start first, elsewhere
    Drain(DrainArguments),
    /// Let one have tasks again
    Activate(ActivateArguments),
    /// Remove one from the cluster: its agent is shut out
    Rm(RemoveNodeArguments),
}

/// `tug node show`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tug node show attic
  tug node show attic -o yaml")]
pub(crate) struct ShowNodeArguments {
    /// The node
    #[arg(value_name = "NODE")]
    pub(crate) node: String,
    #[command(flatten)]
    pub(crate) output: OutputArguments,
}

/// `tug node label`.
#[derive(Debug, Args)]
#[command(after_help = "\
Labels given here win over those that the agent was started with. Services ask for them by
`placement.constraints: [node.labels.disk==ssd]`.

Examples:
  tug node label attic disk=ssd
  tug node label attic disk=hdd zone-")]
pub(crate) struct LabelArguments {
    /// The node
    #[arg(value_name = "NODE")]
    pub(crate) node: String,
    /// KEY=VALUE gives it a label, KEY- takes one away
    #[arg(value_name = "LABEL", required = true)]
    pub(crate) labels: Vec<String>,
    #[command(flatten)]
    pub(crate) output: OutputArguments,
}

/// `tug node drain`.
#[derive(Debug, Args)]
#[command(after_help = "\
What runs there serves until its replacement is healthy elsewhere. What has no other place stays and says why, unless
there is a deadline: after it, what is left is stopped.

Examples:
  tug node drain attic --wait
  tug node drain attic --deadline 10m")]
pub(crate) struct DrainArguments {
    /// The node
    #[arg(value_name = "NODE")]
    pub(crate) node: String,
    /// Wait until it is empty
    #[arg(short = 'w', long)]
    pub(crate) wait: bool,
    /// Stop what is left after this time, replaced or not
    #[arg(long, value_parser = duration, value_name = "TIME")]
    pub(crate) deadline: Option<Duration>,
    /// How long to wait [default: 10m, or 2m longer than the deadline]
    #[arg(long, value_parser = duration, value_name = "TIME", requires = "wait")]
    pub(crate) timeout: Option<Duration>,
    #[command(flatten)]
    pub(crate) output: OutputArguments,
}

/// `tug node activate`.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  tug node activate attic")]
pub(crate) struct ActivateArguments {
    /// The node
    #[arg(value_name = "NODE")]
    pub(crate) node: String,
    #[command(flatten)]
    pub(crate) output: OutputArguments,
}

/// `tug node rm`.
#[derive(Debug, Args)]
#[command(after_help = "\
A node that has tasks, or the only data of a volume, is removed only by force: drain it first. To come back it has to
join again, with a new token.

Examples:
  tug node rm attic
  tug node rm -y --force attic")]
pub(crate) struct RemoveNodeArguments {
    /// The node
    #[arg(value_name = "NODE")]
    pub(crate) node: String,
    /// Also while it has tasks, or the only data of volumes
    #[arg(long)]
    pub(crate) force: bool,
    /// Do not ask
    #[arg(short = 'y', long)]
    pub(crate) yes: bool,
}

impl DrainArguments {
    /// How long is waited for an empty node.
    pub(crate) fn patience(&self) -> Duration {
        const USUAL: Duration = Duration::from_secs(10 * 60);
        const BEYOND: Duration = Duration::from_secs(2 * 60);
        let usual = self.deadline.map_or(USUAL, |deadline| deadline.saturating_add(BEYOND));
        self.timeout.unwrap_or(usual)
    }
}
