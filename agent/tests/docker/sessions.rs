//! Logs, commands and measurements.

use std::time::Duration;

use futures_util::TryStreamExt;
use tokio::io::AsyncWriteExt;
use tug_agent::runtime::{ExecRequest, ExecSession, LogLine, LogQuery, Runtime, Stream, TerminalSize};
use tug_model::quantity::Timestamp;

use crate::scope::{Scope, get};

async fn read_log(scope: &Scope, query: LogQuery) -> Vec<LogLine> {
    let id = scope.only().await.id;
    let lines = scope.docker.logs(&id, query).await.unwrap().try_collect();
    tokio::time::timeout(Duration::from_secs(20), lines).await.expect("the log ends").unwrap()
}

fn texts(lines: &[LogLine], stream: Stream) -> Vec<String> {
    let lines = lines.iter().filter(|line| line.stream == stream);
    lines.map(|line| String::from_utf8(line.text.to_vec()).unwrap()).collect()
}

#[tokio::test]
async fn logs_come_as_lines_with_their_output_and_time() {
    let scope = Scope::new("logs").await;
    scope.run(&["print", "3"]).await;
    // Following ends with the container.
    let all = read_log(&scope, LogQuery { follow: true, ..LogQuery::default() }).await;
    assert_eq!(texts(&all, Stream::Stdout), ["line 1", "line 2", "line 3"]);
    assert_eq!(texts(&all, Stream::Stderr), ["printed 3 lines"]);
    assert!(all.iter().all(|line| line.at > Timestamp(1_500_000_000_000)), "{all:?}");

    scope.wait_for_exit().await;
    let whole = read_log(&scope, LogQuery::default()).await;
    assert_eq!(whole.len(), 4);
    let tail = read_log(&scope, LogQuery { tail: Some(2), ..LogQuery::default() }).await;
    assert_eq!(tail, whole[2..]);
    let since = whole.iter().map(|line| line.at).max();
    let latest = read_log(&scope, LogQuery { since, ..LogQuery::default() }).await;
    assert!(!latest.is_empty() && latest.iter().all(|line| Some(line.at) == since), "{latest:?}");
    let after = since.map(|since| Timestamp(since.0 + 1));
    assert_eq!(read_log(&scope, LogQuery { since: after, ..LogQuery::default() }).await, []);
}

#[tokio::test]
async fn long_lines_are_joined_and_too_long_ones_cut() {
    let scope = Scope::new("long").await;
    for (width, is_cut) in [(LogLine::LONGEST, false), (100_000, true)] {
        let id = scope.run(&["print", "2", &width.to_string()]).await;
        scope.wait_for_exit().await;
        let lines = texts(&read_log(&scope, LogQuery::default()).await, Stream::Stdout);
        assert_eq!(lines.iter().map(String::len).collect::<Vec<_>>(), [LogLine::LONGEST; 2]);
        assert!(lines.iter().all(|line| line.ends_with(LogLine::CUT) == is_cut));
        assert!(lines[1].starts_with("line 2..."));
        scope.docker.remove(&id).await.unwrap();
    }
}

#[tokio::test]
async fn logs_of_a_terminal_are_lines_too() {
    let scope = Scope::new("tty").await;
    let request = scope.request(|template| {
        template.container.tty = true;
        template.container.command = Some(["print", "2"].map(str::to_owned).to_vec());
    });
    scope.docker.run(&request).await.unwrap();
    scope.wait_for_exit().await;
    let lines = read_log(&scope, LogQuery::default()).await;
    assert_eq!(texts(&lines, Stream::Stdout), ["line 1", "line 2", "printed 2 lines"]);
    let tail = read_log(&scope, LogQuery { tail: Some(1), follow: true, since: None }).await;
    assert_eq!(tail, lines[2..]);
}

#[tokio::test]
async fn a_line_of_a_terminal_is_cut_too() {
    let scope = Scope::new("tty-long").await;
    let request = scope.request(|template| {
        template.container.tty = true;
        template.container.command = Some(["print", "1", "100000"].map(str::to_owned).to_vec());
    });
    scope.docker.run(&request).await.unwrap();
    scope.wait_for_exit().await;
    let lines = texts(&read_log(&scope, LogQuery::default()).await, Stream::Stdout);
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].starts_with("line 1...") && lines[0].ends_with(LogLine::CUT));
    assert_eq!(lines[0].len(), LogLine::LONGEST);
}

#[tokio::test]
async fn the_log_of_nothing_is_an_error() {
    let scope = Scope::new("nolog").await;
    let id = scope.run(&["exit", "0"]).await;
    scope.docker.remove(&id).await.unwrap();
    let Err(error) = scope.docker.logs(&id, LogQuery::default()).await else { panic!("there is a log") };
    assert!(error.is_not_found());
}

fn command(words: &[&str]) -> ExecRequest {
    ExecRequest { command: words.iter().map(|word| (*word).to_owned()).collect(), ..ExecRequest::default() }
}

/// What the command wrote, and its exit code.
async fn finish(scope: &Scope, session: ExecSession) -> (String, Option<i64>) {
    let ExecSession { id, output, input } = session;
    let output = output.try_fold(Vec::new(), |mut all, piece| async move {
        all.extend_from_slice(&piece.bytes);
        Ok(all)
    });
    let output = tokio::time::timeout(Duration::from_secs(20), output).await.expect("it ends").unwrap();
    drop(input);
    (String::from_utf8(output).unwrap(), scope.docker.exec_exit(&id).await.unwrap())
}

#[tokio::test]
async fn a_command_has_input_output_environment_and_an_exit_code() {
    let scope = Scope::new("exec").await;
    let id = scope.run(&["sleep"]).await;

    let request = ExecRequest { stdin: true, ..command(&["/hello", "cat"]) };
    let mut session = scope.docker.exec(&id, &request).await.unwrap();
    let text = "words ".repeat(20_000);
    session.input.write_all(text.as_bytes()).await.unwrap();
    assert_eq!(scope.docker.exec_exit(&session.id).await.unwrap(), None);
    session.input.shutdown().await.unwrap();
    assert_eq!(finish(&scope, session).await, (text, Some(0)));

    let session = scope.docker.exec(&id, &command(&["/hello", "exit", "5"])).await.unwrap();
    assert_eq!(finish(&scope, session).await, (String::new(), Some(5)));

    let request = ExecRequest { environment: vec!["WHO=me".to_owned()], ..command(&["/hello", "env"]) };
    assert!(!format!("{request:?}").contains("WHO"));
    let session = scope.docker.exec(&id, &request).await.unwrap();
    let (output, code) = finish(&scope, session).await;
    assert!(output.lines().any(|line| line == "WHO=me"), "{output}");
    assert_eq!(code, Some(0));
}

#[tokio::test]
async fn a_command_can_have_a_terminal() {
    let scope = Scope::new("terminal").await;
    let id = scope.run(&["sleep"]).await;
    let size = Some(TerminalSize { rows: 33, columns: 101 });
    let request = ExecRequest { tty: true, stdin: true, size, ..command(&["/hello", "cat"]) };
    let mut session = scope.docker.exec(&id, &request).await.unwrap();
    scope.docker.exec_resize(&session.id, TerminalSize { rows: 20, columns: 80 }).await.unwrap();
    // What a terminal is sent comes back as an echo, and from the command; Ctrl-D is the end.
    session.input.write_all(b"hi\n\x04").await.unwrap();
    let (output, code) = finish(&scope, session).await;
    assert_eq!((output.as_str(), code), ("hi\r\nhi\r\n", Some(0)));
}

#[tokio::test]
async fn a_terminal_may_show_any_bytes() {
    let scope = Scope::new("bytes").await;
    let id = scope.run(&["sleep"]).await;
    let request = ExecRequest { tty: true, stdin: true, ..command(&["/hello", "cat"]) };
    let mut session = scope.docker.exec(&id, &request).await.unwrap();
    // Ctrl-V takes the next byte as it is. The bytes 1 and 2 are what frames begin with, and must not be taken for one.
    session.input.write_all(b"\x16\x01\x16\x02\n\x04").await.unwrap();
    let (output, code) = finish(&scope, session).await;
    assert!(output.ends_with("\n\x01\x02\r\n"), "{output:?}");
    assert_eq!(code, Some(0));
}

#[tokio::test]
async fn a_command_that_is_not_there_fails() {
    let scope = Scope::new("nocommand").await;
    let id = scope.run(&["sleep"]).await;
    match scope.docker.exec(&id, &command(&["/no/such/program"])).await {
        Ok(session) => {
            let (output, code) = finish(&scope, session).await;
            assert!(output.contains("/no/such/program"), "{output}");
            assert!(matches!(code, Some(126 | 127)), "{code:?}");
        }
        Err(error) => assert!(!error.is_engine_down(), "{error:?}"),
    }
    scope.docker.kill(&id, None).await.unwrap();
    scope.wait_for_exit().await;
    let Err(error) = scope.docker.exec(&id, &command(&["/hello", "env"])).await else { panic!("it ran") };
    assert!(error.is_conflict(), "{error:?}");
}

#[tokio::test]
async fn a_container_is_measured() {
    let scope = Scope::new("stats").await;
    let id = scope.run(&["serve"]).await;
    let before = scope.docker.stats(&id).await.unwrap();
    assert!(before.memory.0 > 0 && before.memory_limit.0 > before.memory.0 && before.pids >= 1, "{before:?}");
    for _ in 0..3 {
        get(scope.only().await.address().unwrap(), "/").await;
    }
    let after = scope.docker.stats(&id).await.unwrap();
    assert!(after.cpu_nanos > 0 && after.received > before.received && after.sent > before.sent, "{after:?}");
}
