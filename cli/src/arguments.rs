//! What can be said on the command line. Every example in the help is parsed by a test.

mod access;
mod address;
mod daemon;
mod deploy;
mod habit;
mod login;
mod look;
mod node;
mod url;
mod volume;

use std::path::PathBuf;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

pub(crate) use access::{
    JoinArguments, TokenArguments, TokenCommand, TokenCreateArguments, TokenRemoveArguments,
};
pub(crate) use address::{Listening, Reached};
pub(crate) use daemon::{
    AgentArguments, DevArguments, DoctorArguments, HoldArguments, InstallOptions, LogFormat, LogOptions,
    NodeOptions, RestoreArguments, ServerArguments,
};
pub(crate) use deploy::{
    ApplyArguments, CheckArguments, ManifestArguments, PlanArguments, ReadingArguments, RemoveArguments,
    Replicas, RestartArguments, ScaleArguments, WaitArguments,
};
pub(crate) use habit::advised;
pub(crate) use login::{ContextArguments, ContextCommand, LoginArguments, LogoutArguments, WhoamiArguments};
pub(crate) use look::{
    EventArguments, ExecArguments, ListArguments, LogArguments, PsArguments, TopArguments, WhyArguments,
};
pub(crate) use node::{
    ActivateArguments, DrainArguments, LabelArguments, NodeArguments, NodeCommand, RemoveNodeArguments,
    ShowNodeArguments,
};
pub(crate) use url::Url;
pub(crate) use volume::{ForgetArguments, VolumeArguments, VolumeCommand};

use crate::render::lines;

/// Where the server's socket is unless told otherwise.
pub(crate) const SOCKET: &str = "/run/tug/tug.sock";

/// Light container orchestration: the Compose file that you have, kept running, balanced and healed.
#[derive(Debug, Parser)]
#[command(name = "tug", version, disable_help_subcommand = true, max_term_width = 100)]
#[command(after_help = "\
Examples:
  tug dev compose.yaml            try a file on this machine, until Ctrl-C
  tug server --agent              run control plane and node here, for good
  tug apply -f compose.yaml       deploy, and wait until everything is healthy
  tug why web                     learn why a service is not as it should be

`tug COMMAND --help` says more. Names are SERVICE or PROJECT/SERVICE, of one replica with its number: web.1.
Exit codes: 0 done, 1 failed, 2 called wrongly, 130 interrupted.")]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Where the server is.
#[derive(Debug, Clone, Args)]
pub(crate) struct Connection {
    /// The socket of `tug server`
    #[arg(long, global = true, env = "TUG_SOCKET", default_value = SOCKET, value_name = "PATH", hide_env_values = true)]
    pub(crate) socket: PathBuf,
    /// The server that `tug login` stored by this name [default: the one in use]
    #[arg(long, global = true, env = "TUG_CONTEXT", value_name = "NAME", hide_env_values = true)]
    pub(crate) context: Option<String>,
}

/// The commands, in the order in which a user meets them; [`GROUPS`] has the headings.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a Compose file here, in the foreground, with a control plane of its own
    Dev(DevArguments),
    /// Find every mistake in Compose files
    Check(CheckArguments),
    /// Show what `apply` would do
    Plan(PlanArguments),
    /// Deploy a Compose file and wait until it is healthy
    Apply(ApplyArguments),
    /// List projects
    Ls(ListArguments),
    /// List the replicas of services
    Ps(PsArguments),
    /// Explain why a service is as it is
    Why(WhyArguments),
    /// Show what happened
    Events(EventArguments),
    /// Show what containers wrote
    Logs(LogArguments),
    /// Show what replicas use
    Top(TopArguments),
    /// Run a command in a replica
    Exec(ExecArguments),
    /// Change how many replicas services have
    Scale(ScaleArguments),
    /// Replace the containers of a service, one at a time
    Restart(RestartArguments),
    /// Remove a project; its volumes stay
    Rm(RemoveArguments),
    /// Run the control plane
    Server(ServerArguments),
    /// Run the node side: containers, probes, balancing
    Agent(AgentArguments),
    /// Make this machine a node of a cluster
    Join(JoinArguments),
    /// Look at the machines, empty, label and remove them
    Node(NodeArguments),
    /// Look where volumes have their data, and forget it
    Volume(VolumeArguments),
    /// Let machines join, and people in from elsewhere
    Token(TokenArguments),
    /// Check whether this machine is fit for Tug, and say what to do
    Doctor(DoctorArguments),
    /// Put the control plane's state back from an export
    Restore(RestoreArguments),
    /// Keep an agent's sockets open while it is away, and end what is exclusive
    #[command(hide = true)]
    Hold(HoldArguments),
    /// Be let in by a control plane elsewhere, and remember it
    Login(LoginArguments),
    /// Forget a control plane elsewhere, with its token
    Logout(LogoutArguments),
    /// List the control planes that are remembered, and choose one
    Context(ContextArguments),
    /// Show who the server takes you for
    Whoami(WhoamiArguments),
    /// Print completions for a shell
    Completion(CompletionArguments),
    /// Show the versions of this program and of the server
    Version(VersionArguments),
}

// === impl Command ===

impl Command {
    /// Whether it asks a server, so that it must be known where that is.
    pub(crate) fn asks_a_server(&self) -> bool {
        match self {
            Self::Plan(_)
            | Self::Apply(_)
            | Self::Ls(_)
            | Self::Ps(_)
            | Self::Why(_)
            | Self::Events(_)
            | Self::Logs(_)
            | Self::Top(_)
            | Self::Exec(_)
            | Self::Scale(_)
            | Self::Restart(_)
            | Self::Rm(_)
            | Self::Node(_)
            | Self::Volume(_)
            | Self::Token(_)
            | Self::Whoami(_)
            | Self::Version(_) => true,
            Self::Dev(_)
            | Self::Check(_)
            | Self::Server(_)
            | Self::Agent(_)
            | Self::Join(_)
            | Self::Doctor(_)
            | Self::Restore(_)
            | Self::Hold(_)
            | Self::Login(_)
            | Self::Logout(_)
            | Self::Context(_)
            | Self::Completion(_) => false,
        }
    }
}

/// How a list is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Format {
    /// For people, cut to the terminal
    #[default]
    Table,
    /// For people, with more columns, never cut
    Wide,
    /// For tools
    Json,
    /// For tools
    Yaml,
}

/// `-o`.
#[derive(Debug, Clone, Args)]
pub(crate) struct OutputArguments {
    /// How to show it
    #[arg(
        short = 'o',
        long = "output",
        value_enum,
        default_value_t,
        value_name = "FORMAT",
        hide_possible_values = true,
        help = "table, wide, json or yaml"
    )]
    pub(crate) format: Format,
}

/// `tug completion`.
#[derive(Debug, Args)]
#[command(after_help = "\
At each Tab the shell asks this program, and that the server for the names of services, projects, nodes and volumes. After
an upgrade, print it anew.

Examples:
  tug completion bash > /etc/bash_completion.d/tug
  tug completion zsh > ~/.zfunc/_tug
  tug completion fish > ~/.config/fish/completions/tug.fish")]
pub(crate) struct CompletionArguments {
    /// Which shell
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

/// `tug version`.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  tug version -o json")]
pub(crate) struct VersionArguments {
    #[command(flatten)]
    pub(crate) output: OutputArguments,
}

/// The commands of `tug --help` by what they are for.
const GROUPS: [(&str, &[&str]); 7] = [
    ("Try", &["dev", "check"]),
    ("Deploy", &["plan", "apply"]),
    ("Look", &["ls", "ps", "why", "events", "logs", "top"]),
    ("Change", &["exec", "scale", "restart", "rm"]),
    ("Run the cluster", &["server", "agent", "join", "node", "volume", "token", "doctor", "restore"]),
    ("From elsewhere", &["login", "logout", "context", "whoami"]),
    ("This program", &["completion", "version"]),
];

/// The whole command line, with the commands of the help in groups.
pub(crate) fn command() -> clap::Command {
    let command = Arguments::command();
    let groups = grouped(&command);
    let heading = anstyle::Style::new().bold().underline();
    command.help_template(format!(
        "{{about-with-newline}}\n{{usage-heading}} {{usage}}\n\n{groups}{heading}Options:{heading:#}\n{{options}}{{after-help}}"
    ))
}

fn grouped(command: &clap::Command) -> String {
    let heading = anstyle::Style::new().bold().underline();
    let name_style = anstyle::Style::new().bold();
    let mut text = String::new();
    for (title, names) in GROUPS {
        lines::add(&mut text, &format!("{heading}{title}:{heading:#}"));
        for name in names {
            let about = command.find_subcommand(name).and_then(clap::Command::get_about);
            let about = about.map(ToString::to_string).unwrap_or_default();
            lines::add(&mut text, &format!("  {name_style}{name:<11}{name_style:#} {about}"));
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::FromArgMatches;

    use super::*;

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        let matches = command().try_get_matches_from(line.split_whitespace())?;
        Arguments::from_arg_matches(&matches)
    }

    fn help_of(command: &mut clap::Command) -> String {
        command.render_long_help().to_string()
    }

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn every_command_is_in_one_group_and_has_a_short_line() {
        let command = command();
        let grouped: Vec<&str> = GROUPS.iter().flat_map(|(_, names)| names.iter().copied()).collect();
        let unique: BTreeSet<&str> = grouped.iter().copied().collect();
        assert_eq!(grouped.len(), unique.len());
        let visible: BTreeSet<&str> =
            command.get_subcommands().filter(|one| !one.is_hide_set()).map(clap::Command::get_name).collect();
        assert_eq!(unique, visible);
        for one in command.get_subcommands() {
            let about = one.get_about().expect("every command says what it does").to_string();
            assert!(!about.ends_with('.') && !about.is_empty(), "{about}");
            assert!(about.chars().count() < 80, "{about}");
        }
    }

    #[test]
    fn every_example_in_the_help_is_understood() {
        let mut seen = 0;
        let mut command = command();
        command.build();
        let mut texts = vec![help_of(&mut command)];
        for one in command.get_subcommands_mut() {
            texts.push(help_of(one));
            texts.extend(one.get_subcommands_mut().map(help_of));
        }
        for text in texts {
            let examples = text.lines().filter(|line| line.starts_with("  tug "));
            for example in examples {
                // What follows two spaces explains; what follows a redirection is the shell's.
                let line = example.trim().split("  ").next().unwrap();
                let line = line.split(['>', '|']).next().unwrap().trim();
                if let Err(error) = parse(line) {
                    panic!("{line}: {error}");
                }
                seen += 1;
            }
        }
        assert!(seen > 25, "only {seen} examples were found");
    }

    #[test]
    fn every_visible_command_shows_an_example() {
        let mut command = command();
        command.build();
        for one in command.get_subcommands_mut().filter(|one| !one.is_hide_set()) {
            let (name, help) = (one.get_name().to_owned(), help_of(one));
            assert!(help.contains(&format!("tug {name}")) && help.contains("Example"), "{name}: {help}");
            for part in one.get_subcommands_mut().filter(|part| part.get_name() != "help") {
                let (part, help) = (format!("tug {name} {}", part.get_name()), help_of(part));
                assert!(help.contains(&format!("  {part}")) && help.contains("Example"), "{part}: {help}");
            }
        }
    }

    #[test]
    fn the_help_is_grouped() {
        let help = command().render_help().to_string();
        insta::assert_snapshot!(help.lines().take(16).collect::<Vec<_>>().join("\n"), @r"
        Light container orchestration: the Compose file that you have, kept running, balanced and healed

        Usage: tug [OPTIONS] <COMMAND>

        Try:
          dev         Run a Compose file here, in the foreground, with a control plane of its own
          check       Find every mistake in Compose files

        Deploy:
          plan        Show what `apply` would do
          apply       Deploy a Compose file and wait until it is healthy

        Look:
          ls          List projects
          ps          List the replicas of services
          why         Explain why a service is as it is
        ");
    }

    #[test]
    fn a_typo_gets_a_suggestion_and_the_usage_code() {
        let error = parse("tug aply -f x").unwrap_err();
        assert_eq!(error.exit_code(), i32::from(crate::failure::USAGE));
        assert!(error.to_string().contains("apply"), "{error}");
    }
}
