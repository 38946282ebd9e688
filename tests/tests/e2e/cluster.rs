//! Several Docker hosts, and what may happen to them.
#![allow(clippy::print_stdout, reason = "figures, for people who look")]
#![allow(
    clippy::cognitive_complexity,
    reason = "stories that run straight: each `ensure!` in them counts as a branch"
)]

mod absence;
mod engines;
mod exclusive;
mod faults;
mod images;
mod lines;
mod machines;
mod verbs;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::{Result, ensure};
use tug_api::client::EventQuery;
use tug_model::ProjectName;
use tug_model::name::NodeId;
use tug_model::status::ProjectStatus;
use tug_tests::cluster::{Cluster, IMAGE, spread};
use tug_tests::lab::Host;
use tug_tests::load::{Load, Outcome};

/// Nobody else is in the hosts' networks.
const PORT: u16 = 8080;
const PROJECT: &str = "shop";
const REPLICAS: u32 = 6;

fn project() -> ProjectName {
    ProjectName::parse(PROJECT).unwrap()
}

/// A service `web` behind a port that all hosts open.
fn manifest(replicas: u32) -> String {
    format!(
        "name: {PROJECT}\n\
         services:\n  \
           web:\n    \
             image: {IMAGE}\n    \
             pull_policy: never\n    \
             init: true\n    \
             ports: ['{PORT}:8080']\n    \
             x-probe: {{http: /healthz, port: 8080}}\n    \
             stop_grace_period: 5s\n    \
             deploy: {{replicas: {replicas}}}\n"
    )
}

/// Clients outside of all hosts, of the port on these.
fn load(cluster: &Cluster<'_>, hosts: &[usize]) -> Load {
    let address = |number: &usize| SocketAddr::from((cluster.host(*number).address(), PORT));
    let addresses: Vec<SocketAddr> = hosts.iter().map(address).collect();
    let _outside = cluster.lab().outside().enter();
    Load::start_on(&addresses, "/", 2)
}

fn hosts<'l>(cluster: &Cluster<'l>, numbers: &[usize]) -> Vec<&'l Host> {
    numbers.iter().map(|number| cluster.host(*number)).collect()
}

/// How many replicas each of the first hosts shall have.
fn shares(cluster: &Cluster<'_>, shares: &[usize]) -> BTreeMap<NodeId, usize> {
    let given = shares.iter().enumerate().filter(|(_, share)| **share > 0);
    given.map(|(index, share)| (cluster.node(index + 1), *share)).collect()
}

/// Waits until everything is as wanted and spread so over the first hosts.
async fn until_spread(cluster: &Cluster<'_>, wanted: &[usize]) -> Result<ProjectStatus> {
    let wanted = shares(cluster, wanted);
    let is_spread = |status: &ProjectStatus| status.settled && spread(status) == wanted;
    cluster.until(&project(), &format!("replicas to be spread {wanted:?}"), is_spread).await
}

/// What is in both: it was not stopped and started, nor gone.
fn unchanged(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> Result<()> {
    let restarted: Vec<_> =
        before.iter().filter(|(task, at)| after.get(*task).is_some_and(|then| then != *at)).collect();
    ensure!(restarted.is_empty(), "restarted: {restarted:?}\nbefore: {before:#?}\nafter: {after:#?}");
    Ok(())
}

/// How often the control plane has lost a machine so far.
async fn losses(cluster: &Cluster<'_>) -> Result<usize> {
    let all = EventQuery { limit: Some(5_000), ..EventQuery::default() };
    let events = cluster.client().events(&all).await?;
    Ok(events.iter().filter(|event| event.message.contains("is not connected any more")).count())
}

fn without_failure(outcome: &Outcome) -> Result<()> {
    ensure!(outcome.failures.is_empty(), "of {} requests: {:?}", outcome.total(), outcome.failures);
    Ok(())
}
