//! Arguments of `tug volume`: where data is.

use clap::{Args, Subcommand};

use super::ListArguments;

/// `tug volume`.
#[derive(Debug, Args)]
#[command(
    arg_required_else_help = true,
    after_help = "\
A volume's data is on the node where it was used, and what mounts it goes there.

Examples:
  tug volume ls
  tug volume forget shop_data --node attic"
)]
pub(crate) struct VolumeArguments {
    #[command(subcommand)]
    pub(crate) command: VolumeCommand,
}

/// What is asked about volumes.
#[derive(Debug, Subcommand)]
pub(crate) enum VolumeCommand {
    /// List them, with their nodes and the services that use them
    #[command(after_help = "\
Examples:
  tug volume ls
  tug volume ls -o json")]
    Ls(ListArguments),
    /// Forget that a volume has its data on a node; the data itself stays there
    Forget(ForgetArguments),
}

/// `tug volume forget`.
#[derive(Debug, Args)]
#[command(after_help = "\
Only where a volume has its data is forgotten, and only if no service uses it: it keeps no node from being removed any
more, and a service that mounts it later may begin with an empty one elsewhere. Tug removes no data: `docker volume rm`
on the node does.

Examples:
  tug volume forget shop_data
  tug volume forget -y shop_data --node attic")]
pub(crate) struct ForgetArguments {
    /// The volume, as `tug volume ls` names it
    #[arg(value_name = "VOLUME")]
    pub(crate) volume: String,
    /// The node, where there are several
    #[arg(long, value_name = "NODE")]
    pub(crate) node: Option<String>,
    /// Do not ask
    #[arg(short = 'y', long)]
    pub(crate) yes: bool,
}
