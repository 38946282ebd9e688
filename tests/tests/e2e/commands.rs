//! The command line, command by command, the way people and scripts use it.

use std::time::Duration;

use anyhow::Result;
use tokio::time::Instant;

use tug_tests::tug::service;

use crate::Web;

#[tokio::test(flavor = "multi_thread")]
async fn a_look_around() -> Result<()> {
    let web = Web::start("look", 2).await?;
    let service = web.service();

    let listed: serde_json::Value = serde_json::from_str(&web.tug.ok(&["ls", "-o", "json"]).await?)?;
    assert_eq!(listed[0]["name"], web.project.as_str());
    let table = web.tug.ok(&["ps", &service]).await?;
    assert_eq!(table.matches("healthy").count(), 2, "{table}");
    let wide = web.tug.ok(&["ps", &service, "-o", "wide"]).await?;
    assert!(wide.contains(web.tug.node()), "{wide}");
    let yaml = web.tug.ok(&["ps", &service, "-o", "yaml"]).await?;
    assert!(yaml.contains("phase: running"), "{yaml}");

    let code = web.tug.run(&["exec", &service, "--", "/hello", "exit", "7"]).await?;
    assert_eq!(code.status.code(), Some(7), "{}", String::from_utf8_lossy(&code.stderr));
    let logs = web.tug.ok(&["logs", "--tail", "1", &service]).await?;
    assert_eq!(logs.lines().count(), 2, "one line of each replica: {logs}");
    let replica = format!("{service}.2");
    let logs = web.tug.ok(&["logs", "--tail", "1", &replica]).await?;
    assert!(
        logs.lines().count() == 1 && logs.contains("web.2"),
        "one line of the replica that is named: {logs}"
    );
    let why = web.tug.ok(&["why", &replica]).await?;
    assert!(why.contains("web.2 healthy") && !why.contains("web.1 healthy"), "{why}");
    web.tug.ok(&["exec", &replica, "--", "/hello", "exit", "0"]).await?;
    let events = web.tug.ok(&["events", web.project.as_str()]).await?;
    assert!(events.contains("healthy"), "{events}");
    let top = web.tug.ok(&["top", "-o", "json"]).await?;
    assert_eq!(serde_json::from_str::<Vec<serde_json::Value>>(&top)?.len(), 2, "{top}");

    let unknown = web.tug.run(&["ps", "wbe"]).await?;
    let said = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert!(!unknown.status.success() && said.contains("web"), "a typo is met with what there is: {said}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_gone_from_the_file_is_removed_and_its_volume_stays() -> Result<()> {
    let web = Web::start("gone", 1).await?;
    let more = format!(
        "{}  extra:\n    image: {}\n    pull_policy: never\n    init: true\n    volumes: ['data:/data']\nvolumes:\n  data:\n",
        web.manifest(1, "1"),
        web.image
    );
    web.tug.apply(&more).await?;
    let volume = format!("{}_data", web.project);
    let engine = tug_tests::docker::connect()?;
    engine.inspect_volume(&volume).await?;
    web.tug.apply(&web.manifest(1, "1")).await?;
    let status = web.tug.until_settled(&web.project).await?;
    assert_eq!(status.services.len(), 1, "{status:#?}");
    engine.inspect_volume(&volume).await?;

    // Where its data is may be forgotten from now on, for the data is not.
    let shown = |text: &str| text.lines().find(|line| line.starts_with(&volume)).map(str::to_owned);
    let line = shown(&web.tug.ok(&["volume", "ls"]).await?).unwrap_or_default();
    assert!(line.contains(web.tug.node()) && line.ends_with("nothing"), "{line}");
    web.tug.ok(&["volume", "forget", "--yes", &volume]).await?;
    assert_eq!(shown(&web.tug.ok(&["volume", "ls"]).await?), None);
    engine.inspect_volume(&volume).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_config_replaces_the_containers_and_a_removed_project_is_soon_gone() -> Result<()> {
    let web = Web::start("config", 2).await?;
    let with = |content: &str| {
        let mounted = "    configs: [{source: words, target: /etc/words}]\n";
        format!("{}{mounted}configs:\n  words:\n    content: {content}\n", web.manifest(2, "1"))
    };
    web.tug.apply(&with("one")).await?;
    let before = web.tug.until_settled(&web.project).await?;
    web.tug.apply(&with("two")).await?;
    let after = web.tug.until_settled(&web.project).await?;
    let ids = |status: &tug_model::status::ProjectStatus| -> Vec<String> {
        service(status, "web").tasks.iter().map(|task| task.id.to_string()).collect()
    };
    assert!(ids(&after).iter().all(|id| !ids(&before).contains(id)), "{:?} {:?}", ids(&before), ids(&after));

    // Nobody is connected, and the program ends at the first signal: nothing is waited for.
    let start = Instant::now();
    web.tug.ok(&["rm", "--yes", web.project.as_str()]).await?;
    assert!(start.elapsed() < Duration::from_secs(15), "it took {:?}", start.elapsed());
    Ok(())
}
