//! Completions for a shell, which know what there is: projects, services, replicas, nodes and volumes.
//!
//! At each Tab the shell asks this program by an environment variable, and the program asks the server that a command
//! without options would ask. A server that does not answer at once is not waited for.

use std::ffi::OsStr;
use std::time::Duration;

use clap::{ArgMatches, Command, FromArgMatches};
use clap_complete::CompleteEnv;
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};
use clap_complete::env::Shells;
use tug_api::client::{CallError, Client};
use tug_model::status::ProjectStatus;

use crate::arguments::{self, Arguments};
use crate::context::Surroundings;
use crate::failure::Failure;
use crate::place::Wish;

/// By this variable a shell asks; what it holds is which shell.
const VARIABLE: &str = "TUG_COMPLETE";
/// For so long the server is waited for.
const PATIENCE: Duration = Duration::from_millis(700);

/// What an argument is the name of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A service or a replica of it.
    Service,
    /// Those, or a project.
    Any,
    /// A project.
    Project,
    /// A node.
    Node,
    /// A volume.
    Volume,
}

/// Of each command, the arguments that name something, by their ids.
const NAMES: &[(&[&str], &str, Kind)] = &[
    (&["ps"], "names", Kind::Any),
    (&["ps"], "node", Kind::Node),
    (&["why"], "name", Kind::Service),
    (&["events"], "name", Kind::Any),
    (&["logs"], "names", Kind::Any),
    (&["top"], "names", Kind::Any),
    (&["exec"], "name", Kind::Service),
    (&["restart"], "name", Kind::Any),
    (&["rm"], "project", Kind::Project),
    (&["node", "show"], "node", Kind::Node),
    (&["node", "label"], "node", Kind::Node),
    (&["node", "drain"], "node", Kind::Node),
    (&["node", "activate"], "node", Kind::Node),
    (&["node", "rm"], "node", Kind::Node),
    (&["volume", "forget"], "volume", Kind::Volume),
    (&["volume", "forget"], "node", Kind::Node),
];

/// Answers a shell that asks, and ends the process then; else it does nothing.
pub(crate) fn answer() {
    CompleteEnv::with_factory(command).var(VARIABLE).complete();
}

/// What a shell reads to ask at each Tab.
pub(crate) fn script(shell: clap_complete::Shell) -> Result<Vec<u8>, Failure> {
    let (shells, name) = (Shells::builtins(), shell.to_string());
    let shell = shells.completer(&name).ok_or_else(|| Failure::usage(format!("{name} is not known")))?;
    let mut script = Vec::new();
    shell.write_registration(VARIABLE, "tug", "tug", "tug", &mut script)?;
    Ok(script)
}

/// The command line, whose arguments know what they may be.
fn command() -> Command {
    NAMES.iter().fold(arguments::command(), |command, (path, id, kind)| completed(command, path, id, *kind))
}

fn completed(command: Command, path: &[&'static str], id: &'static str, kind: Kind) -> Command {
    match path {
        [] => {
            let completer = ArgValueCompleter::new(move |current: &OsStr| candidates(kind, current));
            command.mut_arg(id, |argument| argument.add(completer))
        }
        [first, rest @ ..] => command.mut_subcommand(*first, |command| completed(command, rest, id, kind)),
    }
}

fn candidates(kind: Kind, current: &OsStr) -> Vec<CompletionCandidate> {
    let Some(current) = current.to_str() else { return Vec::new() };
    let known = known(kind, current).unwrap_or_default();
    known.into_iter().filter(|name| name.starts_with(current)).map(CompletionCandidate::new).collect()
}

/// What there is, by the server that the environment and `tug login` say.
fn known(kind: Kind, current: &str) -> Option<Vec<String>> {
    let matches = arguments::command().try_get_matches_from(["tug", "ls"]).ok()?;
    let client = client(&matches)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    let asked = async { tokio::time::timeout(PATIENCE, ask(&client, kind, current)).await };
    runtime.block_on(asked).ok()?.ok()
}

fn client(matches: &ArgMatches) -> Option<Client> {
    let arguments = Arguments::from_arg_matches(matches).ok()?;
    let place = Wish::new(matches, &arguments.connection).choose(&Surroundings::of_process().ok()?);
    place.ok()?.client().ok()
}

async fn ask(client: &Client, kind: Kind, current: &str) -> Result<Vec<String>, CallError> {
    let mut names: Vec<String> = match kind {
        Kind::Node => client.nodes().await?.into_iter().map(|one| one.node.id.to_string()).collect(),
        Kind::Volume => client.volumes().await?.into_iter().map(|volume| volume.name).collect(),
        Kind::Project => client.projects().await?.into_iter().map(|one| one.name.to_string()).collect(),
        Kind::Service => services(&client.projects().await?, current),
        Kind::Any => {
            let projects = client.projects().await?;
            let whole = projects.iter().map(|one| one.name.to_string());
            whole.chain(services(&projects, current)).collect()
        }
    };
    names.sort();
    names.dedup();
    Ok(names)
}

/// Services as they are named with as much as `current` has: their project from the slash on, their replicas from the dot on.
fn services(projects: &[ProjectStatus], current: &str) -> Vec<String> {
    let mut names = Vec::new();
    for project in projects {
        for service in &project.services {
            let project = if current.contains('/') { format!("{}/", project.name) } else { String::new() };
            let name = format!("{project}{}", service.name);
            if current.contains('.') {
                names.extend(service.tasks.iter().map(|task| format!("{name}.{}", task.slot)));
            }
            names.push(name);
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;
    use crate::sample;

    #[test]
    fn every_shell_is_told_how_to_ask() {
        for shell in clap_complete::Shell::value_variants() {
            let script = String::from_utf8(script(*shell).unwrap()).unwrap();
            assert!(script.contains(VARIABLE) && script.contains("tug"), "{shell}: {script}");
        }
    }

    #[test]
    fn every_argument_that_is_completed_is_there_and_nothing_that_names_a_node_is_left_out() {
        command().debug_assert();
        let mut command = command();
        let mut seen = 0;
        let mut count = |command: &Command| {
            let names = |it: &&clap::Arg| {
                it.get_value_names().is_some_and(|names| names.iter().any(|name| name == "NODE"))
            };
            for argument in command.get_arguments().filter(names) {
                assert!(argument.get::<ArgValueCompleter>().is_some(), "{}: {argument}", command.get_name());
                seen += 1;
            }
        };
        for one in command.get_subcommands_mut() {
            count(one);
            one.get_subcommands().for_each(&mut count);
        }
        assert!(seen > 5, "{seen}");
    }

    #[test]
    fn services_are_named_with_as_much_as_has_been_typed() {
        let web = sample::service("web", &[sample::healthy(), sample::healthy()]);
        let projects = [sample::project_of("shop", vec![web]), sample::project("blog", &["db"])];
        assert_eq!(services(&projects, ""), ["web", "db"]);
        assert_eq!(services(&projects, "shop/"), ["shop/web", "blog/db"]);
        assert_eq!(services(&projects, "web."), ["web.1", "web.2", "web", "db.1", "db"]);
    }
}
