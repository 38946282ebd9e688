//! Arguments of the commands by which people who are elsewhere come in.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{ListArguments, OutputArguments};

/// `tug login`.
#[derive(Debug, Args)]
#[command(after_help = "\
The token is asked for without showing it, or read from standard input or a file. It says which cluster it is for:
whoever else answers at the address is not talked to. An admin makes one with `tug token create`.

Examples:
  tug login https://tug.example.org:7443
  tug login https://tug.example.org:7443 --name prod --token-file token
  tug login https://192.0.2.7:7443 < token")]
pub(crate) struct LoginArguments {
    /// The control plane: `https://HOST:7443`
    #[arg(value_name = "URL")]
    pub(crate) url: String,
    /// What to call it [default: the host]
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Read the token from this file
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Never a good idea; here so that it can be said
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "", value_name = "TOKEN")]
    pub(crate) token: Option<String>,
    /// The same
    #[arg(hide = true, value_name = "TOKEN")]
    pub(crate) more: Vec<String>,
}

/// `tug logout`.
#[derive(Debug, Args)]
#[command(after_help = "\
The token is forgotten here. It stays good until it expires or is removed (`tug token rm`).

Examples:
  tug logout
  tug logout prod")]
pub(crate) struct LogoutArguments {
    /// The context [default: the one in use]
    #[arg(value_name = "CONTEXT")]
    pub(crate) context: Option<String>,
}

/// `tug context`.
#[derive(Debug, Args)]
#[command(
    arg_required_else_help = true,
    after_help = "\
A context is a control plane elsewhere and the token that lets you in, as `tug login` stored them. `local` is the
socket of this machine.

Examples:
  tug context ls
  tug context use prod
  tug context use local
  tug context rm prod"
)]
pub(crate) struct ContextArguments {
    #[command(subcommand)]
    pub(crate) command: ContextCommand,
}

/// What is asked about contexts.
#[derive(Debug, Subcommand)]
pub(crate) enum ContextCommand {
    /// List them; the one in use is marked
    #[command(after_help = "\
Examples:
  tug context ls
  tug context ls -o json")]
    Ls(ListArguments),
    /// Use one from now on
    Use(UseContextArguments),
    /// Forget one, with its token
    #[command(after_help = "\
Example:
  tug context rm prod")]
    Rm(RemoveContextArguments),
}

/// `tug context use`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tug context use prod
  tug context use local")]
pub(crate) struct UseContextArguments {
    /// The context; `local` is the socket of this machine
    #[arg(value_name = "CONTEXT")]
    pub(crate) context: String,
}

/// `tug context rm`.
#[derive(Debug, Args)]
pub(crate) struct RemoveContextArguments {
    /// The context
    #[arg(value_name = "CONTEXT")]
    pub(crate) context: String,
}

/// `tug whoami`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tug whoami
  tug whoami -o json")]
pub(crate) struct WhoamiArguments {
    #[command(flatten)]
    pub(crate) output: OutputArguments,
}
