//! The second machine is one pasted line; a token that is not good lets nobody in; what proves who somebody is, is found
//! nowhere that it does not belong.

use std::fs;
use std::path::Path;
use std::process::Output;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use tokio::time::Instant;
use tug_agent::identity::{Folder, Membership};
use tug_api::Code;
use tug_api::client::{CallError, Client};
use tug_api::tls::Credentials;
use tug_api::token::{TokenKind, TokenText};
use tug_api::transport::Channel;
use tug_api::user::NodeStatus;
use tug_model::NodeId;
use tug_tests::machine::{Machine, command_lines};
use tug_tests::tug::{PATIENCE, Tug, free_port};

/// What standard error says.
fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The address and the token in the line that `tug token create` prints.
async fn address_and_token(tug: &Tug, more: &[&str]) -> Result<(String, String)> {
    let words: Vec<&str> = ["token", "create"].iter().chain(more).copied().collect();
    let line = tug.ok(&words).await?;
    let words: Vec<&str> = line.split_whitespace().collect();
    ensure!(words.len() == 4 && line.starts_with("tug join https://127.0.0.1:"), "{line}");
    Ok((words[2].to_owned(), words[3].to_owned()))
}

fn membership(machine: &Machine) -> Result<Option<Membership>> {
    Ok(Folder::of(&machine.state_dir().join("agent")).load()?)
}

/// Asks the control plane as the machine, with its certificate.
async fn whoami(machine: &Machine) -> Result<Result<(), CallError>> {
    let membership = membership(machine)?.context("it is a node")?;
    let server = membership.server(Some(&Credentials::new(&membership.identity)?))?;
    Ok(Client::new(Channel::tls(server)).whoami().await.map(drop))
}

/// What runs on a second node is shown on hosts of their own: two nodes in one Engine would share its networks.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_node_from_its_pasted_line_to_its_removal() -> Result<()> {
    let tug = Tug::start_reachable().await?;
    let machine = Machine::new(&tug, "b")?;
    machine.paste(&tug.ok(&["token", "create"]).await?).await?;
    let nodes = tug.ok(&["node", "ls"]).await?;
    ensure!(nodes.matches("ready").count() == 2 && nodes.contains(machine.node()), "{nodes}");
    let node = NodeId::parse(machine.node())?;
    let is_linked = |nodes: &[NodeStatus]| nodes.iter().any(|one| one.node.id == node && one.connected);

    // A restarted agent goes on by its certificate: no token is needed, and one that is named is not used up.
    machine.end_agent(Signal::TERM).await?;
    tug.until_nodes("the node to be away", |nodes| !is_linked(nodes)).await?;
    let (address, token) = address_and_token(&tug, &[]).await?;
    let again = machine.join(&[&address, "--token-file", "-", "--label", "disk=ssd"], &token).await?;
    ensure!(again.status.success() && said(&again).contains("the token was not used"), "{}", said(&again));
    tug.until_nodes("the node to be back", is_linked).await?;

    // The labels that it was given it keeps, when it joins again without naming any.
    machine.end_agent(Signal::TERM).await?;
    tug.until_nodes("the node to be away", |nodes| !is_linked(nodes)).await?;
    let again = machine.join(&[&address, "--token-file", "-"], &token).await?;
    ensure!(said(&again).contains("keeps its labels: disk=ssd"), "{}", said(&again));
    let nodes = tug.until_nodes("the node to be back", is_linked).await?;
    let label = nodes.iter().find(|one| one.node.id == node).and_then(|one| one.node.label("disk"));
    assert_eq!(label, Some("ssd"));

    // Removed, it is shut out at once, whatever its certificate says, although its agent still asks.
    whoami(&machine).await??;
    tug.ok(&["node", "rm", "--yes", "--force", machine.node()]).await?;
    let Err(CallError::Api(refused)) = whoami(&machine).await? else { bail!("it is not shut out") };
    assert_eq!(refused.code, Code::Forbidden, "{refused:?}");
    tug.until_nodes("the node to be gone", |nodes| nodes.len() == 1).await?;
    ensure!(machine.agent().is_some(), "its agent goes on asking");

    // With a token it is let in again, under its id.
    let back = machine.join(&[&address, &token], "").await?;
    ensure!(back.status.success() && said(&back).contains("is ready"), "{}", said(&back));
    tug.until_nodes("the node to be there again", is_linked).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_not_good_lets_nobody_in_and_says_why() -> Result<()> {
    let tug = Tug::start_reachable().await?;
    let machine = Machine::new(&tug, "c")?;
    let (address, token) = address_and_token(&tug, &["--life", "1s"]).await?;
    let secret = secret_of(&token);
    let mut errors = Vec::new();
    let mut refused = async |words: &[&str], input: &str, expected: &str| -> Result<()> {
        let output = machine.join(words, input).await?;
        ensure!(!output.status.success(), "{words:?} joined");
        ensure!(said(&output).contains(expected), "{expected}: {}", said(&output));
        ensure!(membership(&machine)?.is_none() && machine.agent().is_none(), "{words:?} left something");
        errors.push(said(&output));
        Ok(())
    };

    let start = Instant::now();
    while !tug.ok(&["token", "ls"]).await?.contains("expired") {
        ensure!(start.elapsed() < PATIENCE, "it does not expire");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    refused(&[&address, &token], "", "was used, has expired").await?;
    let wrong = format!("{}{}", if secret.starts_with('x') { "y" } else { "x" }, &secret[1..]);
    let typo = token.replacen(&secret, &wrong, 1);
    refused(&[&address, "-"], &typo, "typing error").await?;
    refused(&[&address, "--token-file", "/nowhere/token"], "", "/nowhere/token").await?;
    refused(&[&token, &address], "", "the address comes first").await?;
    let foreign = TokenText::new(TokenKind::Join, &"ab".repeat(32), [7; 36]).context("a token")?.expose();
    refused(&[&address, &foreign], "", "does not match the token (possible interception)").await?;
    let access = tug.ok(&["token", "create", "--role", "viewer"]).await?;
    refused(&[&address, access.trim()], "", "not for joining").await?;
    let (_, bound) = address_and_token(&tug, &["--node", "another"]).await?;
    refused(&[&address, &bound], "", "for the node another").await?;
    let nowhere = format!("https://127.0.0.1:{}", free_port());
    refused(&[&nowhere, &bound], "", "cannot reach").await?;
    assert_eq!(tug.client().nodes().await?.len(), 1);

    // A file, and a second time.
    let (_, token) = address_and_token(&tug, &[]).await?;
    let file = tug.write("token", &format!("{token}\n"))?;
    let joined = machine.join(&[&address, "--token-file", &file.to_string_lossy(), "--no-start"], "").await?;
    ensure!(joined.status.success(), "{}", said(&joined));
    ensure!(machine.agent().is_none(), "it was not to be started");
    let other = Machine::new(&tug, "d")?;
    let second = other.join(&[&address, &token], "").await?;
    ensure!(!second.status.success() && said(&second).contains("it was used"), "{}", said(&second));

    let known = machine.join(&[&address, &foreign], "").await?;
    ensure!(said(&known).contains("of another cluster"), "{}", said(&known));
    errors.extend([said(&second), said(&known)]);
    for text in [&token, &bound, &access.trim().to_owned(), &foreign, &typo] {
        ensure!(
            errors.iter().all(|error| !error.contains(&secret_of(text))),
            "a token is repeated: {errors:#?}"
        );
    }
    Ok(())
}

/// What nobody may read who has not been given the token.
fn secret_of(token: &str) -> String {
    token.split('.').nth(2).unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_found_in_no_log_no_argument_no_event_and_no_file() -> Result<()> {
    let tug = Tug::start_reachable().await?;
    let machine = Machine::new(&tug, "e")?;
    let line = tug.ok(&["token", "create", "--uses", "2"]).await?;
    let secret = secret_of(line.split_whitespace().last().context("a token")?);
    let role = tug.ok(&["token", "create", "--role", "admin", "--name", "canary"]).await?;
    let secrets = [secret, secret_of(role.trim())];
    machine.paste(&line).await?;
    let key = fs::read_to_string(machine.state_dir().join("agent/identity/key.pem"))?;
    let key = key.lines().nth(1).context("a key")?.to_owned();

    let mut told = vec![machine.log(), tug.ok(&["token", "ls", "-o", "json"]).await?];
    told.push(tug.ok(&["events", "-o", "json"]).await?);
    told.extend(command_lines().into_iter().flatten());
    for folder in [tug.folder().to_path_buf(), machine.state_dir()] {
        read_all(&folder, &mut told)?;
    }
    ensure!(told.iter().any(|text| text.contains("canary")), "what is looked through is not empty");
    for text in &told {
        ensure!(secrets.iter().all(|secret| !text.contains(secret.as_str())), "a token is told:\n{text}");
        ensure!(!text.contains(&key) || text.contains("PRIVATE KEY"), "a key is told:\n{text}");
    }

    // A restart writes an export, and the node comes back by its certificate alone.
    let mut tug = tug;
    tug.end_server(Signal::TERM).await?;
    let mut exported = Vec::new();
    read_all(Path::new(&tug.server_folder()), &mut exported)?;
    ensure!(exported.iter().any(|text| text.contains("canary")), "an export has the token's name");
    ensure!(exported.iter().all(|text| secrets.iter().all(|secret| !text.contains(secret.as_str()))));
    Ok(())
}

/// The contents of every file below `folder`.
fn read_all(folder: &Path, told: &mut Vec<String>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            read_all(&path, told)?;
        } else if path.is_file() {
            told.push(String::from_utf8_lossy(&fs::read(&path)?).into_owned());
        }
    }
    Ok(())
}
