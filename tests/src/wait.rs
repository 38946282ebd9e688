//! What a control plane says, and waiting for it to say something: of one machine and of several alike.

use std::fmt::Debug;
use std::process::Output;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use tokio::time::Instant;
use tug_api::client::{CallError, Client};
use tug_api::user::NodeStatus;
use tug_model::ProjectName;
use tug_model::status::ProjectStatus;

use crate::tug::PATIENCE;

/// How often it is asked.
const LOOK: Duration = Duration::from_millis(20);

/// Waits until `project` satisfies `condition`, and gives its status then.
pub async fn until_status(
    client: &Client,
    project: &ProjectName,
    what: &str,
    condition: impl Fn(&ProjectStatus) -> bool,
) -> Result<ProjectStatus> {
    until(what, async || client.status(project).await, condition).await
}

/// Waits until the nodes satisfy `condition`, and gives them then.
pub async fn until_nodes(
    client: &Client,
    what: &str,
    condition: impl Fn(&[NodeStatus]) -> bool,
) -> Result<Vec<NodeStatus>> {
    until(what, async || client.nodes().await, |nodes: &Vec<NodeStatus>| condition(nodes)).await
}

/// A control plane that is away for a moment says nothing new.
async fn until<T: Debug>(
    what: &str,
    ask: impl AsyncFn() -> Result<T, CallError>,
    condition: impl Fn(&T) -> bool,
) -> Result<T> {
    let start = Instant::now();
    let mut last = None;
    while start.elapsed() < PATIENCE {
        if let Ok(said) = ask().await {
            if condition(&said) {
                return Ok(said);
            }
            last = Some(said);
        }
        tokio::time::sleep(LOOK).await;
    }
    bail!("waited for {what}; last: {last:#?}")
}

/// The standard output of a `tug` that succeeded; an error with all that it said if it did not.
pub fn succeeded(arguments: &[&str], output: &Output) -> Result<String> {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "tug {arguments:?}: {}\n{out}\n{err}", output.status);
    Ok(out.into_owned())
}
