//! Starts the agent of a machine that has joined, so that it stays when this command and its terminal are gone, and
//! waits until the control plane has heard of it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tug_agent::identity::Membership;
use tug_api::client::{CallError, Client};
use tug_api::error::chain;
use tug_api::join::Whoami;
use tug_api::tls::Credentials;
use tug_api::transport::Channel;
use tug_model::NodeId;
use tug_model::report::Engine;

use super::join::is_running;
use super::node::agent_dir;
use super::unit::{self, Unit};
use crate::arguments::JoinArguments;
use crate::context::Context;
use crate::failure::Failure;
use crate::render::escape::printable;
use crate::render::style::{self, paint};
use crate::time::age;

/// How often it is asked whether the node is there.
const LOOK: Duration = Duration::from_millis(200);
/// How much of the agent's log is shown when it ends at once, in lines.
const LAST_LINES: usize = 10;

/// How the agent was started.
enum Started {
    /// It ran already.
    Before,
    /// By systemd.
    Unit,
    /// By us.
    Process { child: Child, log: PathBuf },
}

/// Starts the agent and waits until the node is ready.
pub(super) async fn node(
    context: &mut Context,
    arguments: &JoinArguments,
    membership: &Membership,
) -> Result<(), Failure> {
    let (client, node) = (client(membership)?, &membership.facts.node);
    let mut kept = Vec::new();
    if arguments.node.labels.is_empty() {
        kept = labels(client.whoami().await);
    }
    if !kept.is_empty() {
        context.screen.note(&format!("node {node} keeps its labels: {}", printable(&kept.join(", "))));
    }
    let mut started = start(context, arguments, &kept).await?;
    match wait(context, &mut started, (&client, node), arguments.timeout).await {
        Ok(()) => {
            context.screen.note(&format!("{} node {node} is ready", paint(style::GOOD, "✓")));
            Ok(())
        }
        Err(failure) => Err(failure),
    }
}

/// Speaks to the control plane as the node.
fn client(membership: &Membership) -> Result<Client, Failure> {
    let credentials = Credentials::new(&membership.identity);
    let credentials = credentials.map_err(|error| Failure::caused("use the certificate", &error))?;
    let server = membership.server(Some(&credentials));
    let server = server.map_err(|error| Failure::caused("prepare TLS", &error))?;
    Ok(Client::new(Channel::tls(server)))
}

/// The labels that the agent of the node was started with, as the control plane knows it.
fn labels(asked: Result<Whoami, CallError>) -> Vec<String> {
    let Ok(Whoami::Node { status: Some(status), .. }) = asked else { return Vec::new() };
    status.node.info.labels.iter().map(|(key, value)| format!("{key}={value}")).collect()
}

async fn start(
    context: &mut Context,
    arguments: &JoinArguments,
    kept: &[String],
) -> Result<Started, Failure> {
    let state_dir = &arguments.state.folder;
    let words =
        arguments.agent_words(kept).map_err(|error| Failure::caused("find the current folder", &error))?;
    if unit::has_systemd() && !arguments.detach {
        let path = Unit::agent(words)?.install().await?;
        context.screen.note(&format!("the agent runs as systemd unit {}", path.display()));
        return Ok(Started::Unit);
    }
    if is_running(state_dir)? {
        context.screen.note("the agent runs already");
        return Ok(Started::Before);
    }
    let log = std::path::absolute(agent_dir(state_dir).join("agent.log"))
        .map_err(|error| Failure::caused("find the state folder", &error))?;
    let child = detached(&words, &log)?;
    context.screen.note(&format!("the agent runs as process {}; its log is {}", child.id(), log.display()));
    context.screen.note(&format!(
        "it does not start by itself when the machine does: have your init system run `{}`",
        Unit::agent(words)?.line()
    ));
    Ok(Started::Process { child, log })
}

/// A process of its own, in a session of its own: the end of this terminal does not reach it.
fn detached(words: &[String], log: &Path) -> Result<Child, Failure> {
    let failed = |error: io::Error| Failure::caused(&format!("open {}", log.display()), &error);
    let output: File = OpenOptions::new().create(true).append(true).mode(0o600).open(log).map_err(failed)?;
    let mut command = Command::new(unit::program()?);
    command.args(words).arg("--detached").current_dir("/").stdin(Stdio::null());
    command.stdout(output.try_clone().map_err(failed)?).stderr(output);
    command.spawn().map_err(|error| Failure::caused("start the agent", &error))
}

/// Asks the control plane, as the node, how it stands, until it is ready.
async fn wait(
    context: &mut Context,
    started: &mut Started,
    (client, node): (&Client, &NodeId),
    timeout: Duration,
) -> Result<(), Failure> {
    let deadline = Instant::now() + timeout;
    let mut said = String::new();
    loop {
        if let Started::Process { child, log } = started
            && let Some(status) =
                child.try_wait().map_err(|error| Failure::caused("look after the agent", &error))?
        {
            return Err(Failure::new(format!("the agent ended: {status}\n{}", tail(log))));
        }
        let (is_linked, standing) = standing(client.whoami().await);
        let Some(standing) = standing else { return Ok(()) };
        if said != standing {
            context.screen.note(&format!("node {node}: {standing}"));
            said.clone_from(&standing);
        }
        if Instant::now() > deadline {
            let what = if is_linked { "is linked, but not ready" } else { "has joined, but is not linked" };
            return Err(Failure::new(format!(
                "node {node} {what} after {}: {standing}",
                age(timeout.into())
            ))
            .hint("the agent goes on trying; `tug node ls`, on the control plane, says how it stands"));
        }
        sleep(LOOK).await;
    }
}

/// Whether the node is linked, and what keeps it from being ready; nothing does: it is.
fn standing(asked: Result<Whoami, CallError>) -> (bool, Option<String>) {
    let status = match asked {
        Ok(Whoami::Node { status, .. }) => status,
        Ok(Whoami::Local | Whoami::Token { .. }) => None,
        Err(error) => return (false, Some(printable(&chain(&error)))),
    };
    match status.filter(|status| status.connected).map(|status| status.engine) {
        None => (false, Some("waiting for the agent to link".to_owned())),
        Some(None) => (true, Some("linked, waiting for its first report".to_owned())),
        Some(Some(Engine::Down { reason, .. })) => {
            (true, Some(format!("its Docker Engine does not answer: {}", printable(&reason))))
        }
        Some(Some(Engine::Up)) => (true, None),
    }
}

fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines.get(lines.len().saturating_sub(LAST_LINES)..).unwrap_or_default().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    #[test]
    fn a_node_that_joins_again_has_the_labels_that_its_agent_was_started_with() {
        let mut status = sample::node("b");
        status.node.info.labels =
            [("disk".to_owned(), "ssd".to_owned()), ("zone".to_owned(), String::new())].into();
        status.node.labels = [("room".to_owned(), "attic".to_owned())].into();
        let node = status.node.id.clone();
        let known = Whoami::Node { node: node.clone(), status: Some(Box::new(status)) };
        assert_eq!(labels(Ok(known)), ["disk=ssd", "zone="]);
        assert!(labels(Ok(Whoami::Node { node, status: None })).is_empty(), "it is new");
    }
}
