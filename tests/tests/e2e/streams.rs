//! Commands that go on until they are stopped, and the words that a shell completes.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use tug_api::user::LogRecord;
use tug_model::event::Event;
use tug_tests::load::get;
use tug_tests::running::Running;
use tug_tests::tug::{Tug, program};

use crate::Web;

/// The exit code after Ctrl-C.
const INTERRUPTED: i32 = 130;

/// The lines of the service `api` that `options` leave.
async fn lines(web: &Web, options: &[&str]) -> Result<Vec<LogRecord>> {
    let name = format!("{}/api", web.project);
    let arguments = [&["logs", "-o", "json"], options, &[&name]].concat();
    let text = web.tug.ok(&arguments).await?;
    Ok(text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
}

/// `web` with a second service of the same, `api`, behind another port.
async fn deploy_api(web: &Web, port: u16) -> Result<()> {
    let own = web.manifest(1, "1");
    let (head, service) = own.split_once("  web:\n").unwrap();
    let api = service.replace(&format!("'{}:8080'", web.port), &format!("'{port}:8080'"));
    web.tug.apply(&format!("{head}  web:\n{service}  api:\n{api}")).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_and_events_go_on_with_what_happens() -> Result<()> {
    let web = Web::start("follow", 1).await?;
    let port = tug_tests::tug::free_port();
    deploy_api(&web, port).await?;
    let names = ["web", "api"].map(|service| format!("{}/{service}", web.project));

    let mut logs = Running::start(web.tug.command(&["logs", "-f", "--tail", "1", &names[0], &names[1]]))?;
    let mut events = Running::start(web.tug.command(&["events", "-w", web.project.as_str()]))?;
    let both = |said: &str| said.contains("web.1 | hello 1") && said.contains("api.1 | hello 1");
    let before = logs.until("the last line of both", both).await?;
    ensure!(before.lines().count() == 2, "one line of each: {before}");
    events.until_said("healthy").await?;

    // The container ends without an answer and is started again. A `GET` would be asked of the next one once more.
    for (service, port) in [("api", port), ("web", web.port)] {
        let answer = crate::post(port, "/crash").await.unwrap_or_default();
        ensure!(answer.is_empty(), "it crashes: {answer}");
        let last = format!("{service}.1 | crashing, as asked");
        logs.until(&last, |said| said.split_once(&last).is_some_and(|(_, after)| after.contains("listens")))
            .await?;
    }
    events.until("the crash", |said| said.contains("exited with code 7")).await?;
    logs.signal(Signal::INT)?;
    let (status, said) = logs.ended().await?;
    ensure!(status.code() == Some(INTERRUPTED), "{status}: {said}");

    web.tug.ok(&["scale", &format!("{}=2", names[0])]).await?;
    events.until("the new replica", |said| said.contains("web.2") && said.contains("scaled")).await?;
    events.signal(Signal::INT)?;
    let (status, said) = events.ended().await?;
    ensure!(status.code() == Some(INTERRUPTED), "{status}: {said}");

    let all = lines(&web, &[]).await?;
    let texts: Vec<&str> = all.iter().map(|line| line.line.as_str()).collect();
    assert_eq!(texts.len(), 3, "a start, a crash, a start: {texts:?}");
    assert_eq!(lines(&web, &["--tail", "1"]).await?, all[2..]);
    let crash = all[1].at.to_string();
    assert_eq!(lines(&web, &["--since", &crash]).await?, all[1..]);
    assert_eq!(lines(&web, &["--since", "1h"]).await?, all);
    assert_eq!(lines(&web, &["--since", "1h", "--tail", "2"]).await?, all[1..]);
    let events = web.tug.ok(&["events", "-n", "3", "-o", "json", web.project.as_str()]).await?;
    assert_eq!(serde_json::from_str::<Vec<Event>>(&events)?.len(), 3, "{events}");
    Ok(())
}

/// Runs `tug completion SHELL`; no server is asked.
fn script(shell: &str) -> Result<String> {
    let output = Command::new(program()).args(["completion", shell]).output()?;
    ensure!(output.status.success(), "{shell}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// What bash completes the last of `words` to, where `tug` is the one that is tested and asks the server at `socket`.
fn completed(folder: &Path, words: &[&str], socket: &Path) -> Result<Vec<String>> {
    let path = folder.join("tug.bash");
    std::fs::write(&path, script("bash")?)?;
    let bin = program().parent().context("the program is in a folder")?.display().to_string();
    let last = words.last().context("a word")?;
    let complete = format!(
        "source {}; COMP_WORDS=(tug {}); COMP_CWORD={}; _clap_complete_tug tug '{last}'; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        path.display(),
        words.join(" "),
        words.len(),
    );
    let mut bash = Command::new("bash");
    bash.args(["-c", &complete]).env("PATH", format!("{bin}:/usr/bin:/bin")).env("TUG_SOCKET", socket);
    let output = bash.output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout)?;
    Ok(text.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect())
}

#[test]
fn bash_understands_its_completions_and_every_shell_has_some() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let nobody = folder.path().join("nobody.sock");
    assert_eq!(completed(folder.path(), &["app"], &nobody)?, ["apply"]);
    assert_eq!(completed(folder.path(), &["node", "dr"], &nobody)?, ["drain"]);
    assert_eq!(completed(folder.path(), &["why", "we"], &nobody)?, [""; 0], "nobody can be asked for names");
    for (shell, declared) in
        [("zsh", "#compdef tug"), ("fish", "complete --keep-order --exclusive --command tug")]
    {
        let script = script(shell)?;
        ensure!(script.contains(declared), "{shell}: {script:.200}");
    }
    let unknown = Command::new(program()).args(["completion", "cmd"]).output()?;
    assert_eq!(unknown.status.code(), Some(2), "{}", String::from_utf8_lossy(&unknown.stderr));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn bash_completes_what_there_is() -> Result<()> {
    let web = Web::start("complete", 2).await?;
    let (folder, socket) = (tempfile::tempdir()?, web.tug.socket());
    let completed = |words: &[&str]| completed(folder.path(), words, &socket);
    assert_eq!(completed(&["why", "we"])?, ["web"]);
    assert_eq!(completed(&["logs", "web."])?, ["web.1", "web.2"]);
    let project = web.project.as_str();
    assert_eq!(completed(&["rm", &project[..project.len() - 2]])?, [project]);
    assert_eq!(completed(&["node", "show", &web.tug.node()[..3]])?, [web.tug.node()]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_apply_that_is_interrupted_says_what_goes_on_and_one_whose_server_restarts_finds_it_again()
-> Result<()> {
    let mut tug = Tug::start().await?;
    let project = tug.project("apply");
    let web = crate::hello_image().await;
    let port = tug_tests::tug::free_port();
    let manifest = |version: &str| {
        format!(
            "name: {project}\nservices:\n  web:\n    image: {web}\n    pull_policy: never\n    init: true\n    \
             ports: ['{port}:8080']\n    environment: {{VERSION: '{version}'}}\n    deploy: {{replicas: 2}}\n"
        )
    };
    let apply = |tug: &Tug, version: &str| -> Result<Running> {
        let path = tug.write("compose.yaml", &manifest(version))?;
        Running::start(tug.command(&["apply", "--yes", "--file", &path.to_string_lossy()]))
    };

    // While the agent stands still, nothing can be done before the moment that the test is about.
    tug.signal_agent(Signal::STOP)?;
    let mut first = apply(&tug, "1")?;
    first.until_said("accepted").await?;
    // It says something when it has begun to wait.
    first.until_said("0/2 healthy").await?;
    first.signal(Signal::INT)?;
    let (status, said) = first.ended().await?;
    ensure!(status.code() == Some(INTERRUPTED), "{status}: {said}");
    ensure!(said.contains(&format!("stopped waiting; the deployment of {project} goes on")), "{said}");
    tug.signal_agent(Signal::CONT)?;
    tug.until_settled(&project).await?;
    assert_eq!(get(port, "/version").await?, "1");

    tug.signal_agent(Signal::STOP)?;
    let mut second = apply(&tug, "2")?;
    second.until_said("accepted").await?;
    tug.end_server(Signal::KILL).await?;
    second.until_said("the connection to the server was lost, trying again").await?;
    tug.start_server()?;
    second.until_said("the server is back").await?;
    tug.signal_agent(Signal::CONT)?;
    let (status, said) = second.ended().await?;
    ensure!(status.success(), "{status}: {said}\n{}", tug.logs());
    assert_eq!(get(port, "/version").await?, "2");
    Ok(())
}
