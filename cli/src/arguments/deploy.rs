//! Arguments of the commands that read manifests or change what runs.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::OutputArguments;
use crate::time::duration;

/// Which manifest.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ManifestArguments {
    /// A Compose file; several are merged in order [default: compose.yaml of this folder]
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) reading: ReadingArguments,
}

/// How a manifest is read.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ReadingArguments {
    /// The project's name, instead of the file's `name` or its folder's
    #[arg(short = 'p', long = "project", visible_alias = "project-name", value_name = "NAME")]
    pub(crate) project_name: Option<String>,
    /// Run the services of this profile too
    #[arg(long = "profile", value_name = "NAME")]
    pub(crate) profiles: Vec<String>,
    /// Take variables from this file instead of `.env`
    #[arg(long = "env-file", value_name = "FILE")]
    pub(crate) env_files: Vec<PathBuf>,
    /// Go on without a key that is not supported
    #[arg(long = "ignore-unsupported", value_name = "KEY", value_delimiter = ',')]
    pub(crate) ignore_unsupported: Vec<String>,
}

/// How long, and whether, to wait.
#[derive(Debug, Clone, Args)]
pub(crate) struct WaitArguments {
    /// Do not wait until everything is healthy
    #[arg(short = 'd', long)]
    pub(crate) detach: bool,
    /// How long to wait
    #[arg(long, default_value = "5m", value_parser = duration, value_name = "TIME")]
    pub(crate) timeout: Duration,
}

/// `tug check`.
#[derive(Debug, Args)]
#[command(after_help = "\
Each finding is one line, `FILE:LINE:COLUMN: PATH: MESSAGE`; the exit code is 1 if one of them is an error.

Examples:
  tug check compose.yaml
  tug check --strict compose.yaml other/compose.yaml
  tug check --merge compose.yaml compose.prod.yaml
  tug check --print compose.yaml        the project as it is understood")]
pub(crate) struct CheckArguments {
    /// Compose files, each checked for itself [default: compose.yaml of this folder]
    #[arg(value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Merge the files into one project, in this order
    #[arg(long)]
    pub(crate) merge: bool,
    /// Take warnings for errors
    #[arg(long)]
    pub(crate) strict: bool,
    /// Print the project as it is understood, with everything written out
    #[arg(long)]
    pub(crate) print: bool,
    #[command(flatten)]
    pub(crate) reading: ReadingArguments,
    #[command(flatten)]
    pub(crate) output: OutputArguments,
}

/// `tug plan`.
#[derive(Debug, Args)]
#[command(after_help = "\
Nothing is built and nothing is changed. Of a service with `build` it is assumed that its image stays as it is.

Examples:
  tug plan -f compose.yaml
  tug plan -f compose.yaml -f compose.prod.yaml
  tug plan -f compose.yaml -o json")]
pub(crate) struct PlanArguments {
    #[command(flatten)]
    pub(crate) manifest: ManifestArguments,
    #[command(flatten)]
    pub(crate) output: OutputArguments,
}

/// `tug apply`.
#[derive(Debug, Args)]
#[command(after_help = "\
Images with `build` are built first. Then the plan is shown and, on a terminal, confirmed. The command waits until
every replica is healthy, and shows why not.

Exit codes: 0 everything is healthy (with --detach: accepted), 1 it is not, 130 interrupted (the deployment goes on).

Examples:
  tug apply -f compose.yaml
  tug apply -y --timeout 10m -f compose.yaml
  tug apply --detach -f compose.yaml")]
pub(crate) struct ApplyArguments {
    #[command(flatten)]
    pub(crate) manifest: ManifestArguments,
    /// Do not ask
    #[arg(short = 'y', long)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) waiting: WaitArguments,
    #[command(flatten)]
    pub(crate) engine: EngineArguments,
}

/// The Engine of this machine unless told otherwise.
pub(super) const DOCKER: &str = "unix:///var/run/docker.sock";

/// Which Engine.
#[derive(Debug, Clone, Args)]
pub(crate) struct EngineArguments {
    /// The Docker Engine of this machine
    #[arg(
        long,
        env = "DOCKER_HOST",
        default_value = DOCKER,
        value_name = "SOCKET",
        hide_env_values = true
    )]
    pub(crate) docker: String,
}

/// `tug scale`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tug scale web=5
  tug scale shop/web=5 shop/api=2
  tug scale -p shop web=5 api=2")]
pub(crate) struct ScaleArguments {
    /// How many replicas each service shall have
    #[arg(required = true, value_name = "SERVICE=N", value_parser = replicas)]
    pub(crate) replicas: Vec<Replicas>,
    /// The project of the services
    #[arg(short = 'p', long, visible_alias = "project-name", value_name = "NAME")]
    pub(crate) project: Option<String>,
    #[command(flatten)]
    pub(crate) waiting: WaitArguments,
}

/// `web=5`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Replicas {
    /// The service as it was named.
    pub(crate) name: String,
    /// How many.
    pub(crate) count: u32,
}

/// `tug restart`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tug restart web
  tug restart shop/web
  tug restart shop/                     every service of the project")]
pub(crate) struct RestartArguments {
    /// A service, or a project
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) waiting: WaitArguments,
}

/// `tug rm`.
#[derive(Debug, Args)]
#[command(after_help = "\
Its containers and networks are removed, its volumes stay.

Examples:
  tug rm shop
  tug rm -y shop")]
pub(crate) struct RemoveArguments {
    /// The project
    #[arg(value_name = "PROJECT")]
    pub(crate) project: String,
    /// Do not ask
    #[arg(short = 'y', long)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) waiting: WaitArguments,
}

fn replicas(text: &str) -> Result<Replicas, String> {
    const FORM: &str = "write SERVICE=N, such as web=5";
    let (name, count) = text.split_once('=').ok_or(FORM)?;
    let count = count.parse().map_err(|_| FORM)?;
    if name.is_empty() {
        return Err(FORM.to_owned());
    }
    Ok(Replicas { name: name.to_owned(), count })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_are_read() {
        assert_eq!(replicas("shop/web=5").unwrap(), Replicas { name: "shop/web".into(), count: 5 });
        for bad in ["web", "web=", "=5", "web=-1", "web=five", "web=5=6"] {
            assert!(replicas(bad).unwrap_err().contains("web=5"), "{bad}");
        }
    }
}
