//! Machines from the command line, as far as one shows it: looked at, labelled, emptied, checked.

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::Web;

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_cannot_be_emptied_says_what_stands_in_the_way() -> Result<()> {
    let web = Web::start("drain", 2).await?;
    let (tug, node) = (&web.tug, web.tug.node());
    let shown = tug.ok(&["node", "show", node]).await?;
    ensure!(shown.contains("ready") && shown.contains("web.1") && shown.contains("manager"), "{shown}");
    let mistyped = tug.run(&["node", "show", &format!("{node}x")]).await?;
    let said = String::from_utf8_lossy(&mistyped.stderr).into_owned();
    ensure!(!mistyped.status.success() && said.contains(&format!("did you mean `{node}`?")), "{said}");

    let labelled: Value =
        serde_json::from_str(&tug.ok(&["node", "label", node, "disk=ssd", "zone-", "-o", "json"]).await?)?;
    ensure!(labelled["node"]["labels"]["disk"] == "ssd", "{labelled}");
    ensure!(tug.ok(&["node", "ls", "-o", "wide"]).await?.contains("disk=ssd"), "labels are listed");

    // The only machine has nowhere to go: what runs there runs on, and the reason is told.
    let before = tug.starts().await?;
    let drain = tug.run(&["node", "drain", node, "--wait", "--timeout", "2s"]).await?;
    let said = String::from_utf8_lossy(&drain.stderr).into_owned();
    ensure!(drain.status.code() == Some(1) && said.contains("is not empty after 2s"), "{said}");
    ensure!(said.contains("is being drained"), "the reason of each task is told: {said}");
    ensure!(tug.ok(&["node", "ls"]).await?.contains("draining"), "it goes on");
    let refused = tug.run(&["node", "rm", "-y", node]).await?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(refused.status.code() == Some(1) && said.contains("still has"), "{said}");
    let unasked = tug.run(&["node", "rm", node]).await?;
    ensure!(unasked.status.code() == Some(2), "without a terminal it must be confirmed");
    tug.ok(&["node", "activate", node]).await?;
    tug.until_settled(&web.project).await?;
    ensure!(tug.starts().await? == before, "no container was touched");

    // A machine with nothing on it is empty at once.
    tug.ok(&["rm", "-y", web.project.as_str()]).await?;
    let drained: Value =
        serde_json::from_str(&tug.ok(&["node", "drain", node, "--wait", "-o", "json"]).await?)?;
    ensure!(drained["state"] == "drained", "{drained}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn this_machine_is_checked_with_a_server_and_without() -> Result<()> {
    let web = Web::start("doctor", 1).await?;
    let state = web.tug.server_folder();
    let report = async |socket: &str| -> Result<(bool, Vec<Value>)> {
        let output =
            web.tug.run(&["doctor", "-o", "json", "--state-dir", &state, "--socket", socket]).await?;
        let findings: Vec<Value> = serde_json::from_slice(&output.stdout)?;
        Ok((output.status.success(), findings))
    };
    let level = |findings: &[Value], check: &str| {
        let found = findings.iter().find(|finding| finding["check"] == check);
        found.map(|finding| finding["level"].as_str().unwrap_or_default().to_owned())
    };
    let (is_fit, findings) = report(&web.tug.socket().to_string_lossy()).await?;
    for check in ["engine", "state-folder", "server", "clock"] {
        ensure!(level(&findings, check).as_deref() == Some("ok"), "{check}: {findings:#?}");
    }
    let fails = findings.iter().filter(|finding| finding["level"] == "fail").count();
    ensure!(is_fit == (fails == 0), "the exit code tells the truth: {findings:#?}");
    for finding in findings.iter().filter(|finding| finding["level"] != "ok") {
        ensure!(finding["remedy"].is_string(), "{finding} says what to do");
    }
    let (_, findings) = report("/nowhere/tug.sock").await?;
    ensure!(level(&findings, "server").as_deref() == Some("ok"), "none is known: {findings:#?}");

    let none = web.tug.run(&["doctor", "--docker", "/nowhere/docker.sock", "--state-dir", &state]).await?;
    let said = String::from_utf8_lossy(&none.stdout).into_owned();
    ensure!(none.status.code() == Some(1) && said.contains("fail  engine"), "{said}");
    Ok(())
}
