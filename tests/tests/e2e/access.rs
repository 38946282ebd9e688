//! People who are elsewhere: they log in with a token, do what they may, over TLS, and are told what they may not.

use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use tempfile::TempDir;
use tug_api::token::{TokenKind, TokenText};
use tug_tests::running::Running;
use tug_tests::tug::{Tug, program};

use crate::Web;

/// Somebody at another machine: with a home of their own, and without the control plane's socket.
struct Somebody {
    home: TempDir,
}

impl Somebody {
    fn new() -> Result<Self> {
        Ok(Self { home: TempDir::with_prefix("tug-test-home-")? })
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program());
        command.args(arguments).current_dir(self.home.path()).stdin(Stdio::null());
        command.env("HOME", self.home.path()).env("NO_COLOR", "1");
        for variable in ["XDG_CONFIG_HOME", "TUG_SOCKET", "TUG_CONTEXT", "DOCKER_HOST"] {
            command.env_remove(variable);
        }
        command
    }

    async fn run(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = self.command(arguments);
        tokio::task::spawn_blocking(move || command.output().context("run tug")).await?
    }

    /// Runs `tug`, expects success, and gives its standard output.
    async fn ok(&self, arguments: &[&str]) -> Result<String> {
        let output = self.run(arguments).await?;
        ensure!(output.status.success(), "tug {arguments:?}: {}", all(&output));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs `tug`, expects the exit code 1, and gives what it says.
    async fn refused(&self, arguments: &[&str]) -> Result<String> {
        let output = self.run(arguments).await?;
        ensure!(output.status.code() == Some(1), "tug {arguments:?}: {}", all(&output));
        Ok(all(&output))
    }

    /// Logs in, with the token on standard input.
    async fn log_in(&self, url: &str, token: &str) -> Result<Output> {
        let mut command = self.command(&["login", url]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        child.stdin.take().context("a pipe")?.write_all(format!("{token}\n").as_bytes())?;
        Ok(tokio::task::spawn_blocking(move || child.wait_with_output()).await??)
    }

    fn context(&self, name: &str) -> PathBuf {
        self.home.path().join(format!(".config/tug/contexts/{name}.json"))
    }
}

/// All that a command said, and how it ended.
fn all(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    format!("{}\n{out}{err}", output.status)
}

/// A token with a role, made on the control plane's machine.
async fn token(tug: &Tug, options: &[&str]) -> Result<TokenText> {
    let made = tug.ok(&[&["token", "create", "-o", "json"], options].concat()).await?;
    let made: serde_json::Value = serde_json::from_str(&made)?;
    Ok(made["token"].as_str().context("a token")?.parse()?)
}

/// The part of a token that nobody may see.
fn secret(token: &TokenText) -> String {
    token.expose().split('.').nth(2).unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_elsewhere_does_everything_over_tls() -> Result<()> {
    let web = Web::start_on(Tug::start_reachable().await?, "admin", 1).await?;
    let (url, service) = (web.tug.url(), web.service());
    let token = token(&web.tug, &["--role", "admin", "--name", "laptop"]).await?;
    let admin = Somebody::new()?;

    // The token is typed where nobody sees it, and kept where nobody else may read it.
    let mut login = Running::on_terminal(&admin.command(&["login", &url, "--name", "prod"]))?;
    login.until_said("which is not shown").await?;
    login.press(&format!("{}\r", token.expose()))?;
    let (status, said) = login.ended().await?;
    ensure!(status.success() && said.contains("admin, by token") && said.contains("(laptop)"), "{said}");
    ensure!(!said.contains(&secret(&token)), "the token is shown: {said}");
    let mode = std::fs::metadata(admin.context("prod"))?.permissions().mode() & 0o777;
    ensure!(mode == 0o600, "{mode:o}");

    ensure!(admin.ok(&["whoami"]).await?.starts_with("admin"), "whoami");
    ensure!(admin.ok(&["ps", &service, "-o", "wide"]).await?.contains(web.tug.node()), "ps");
    ensure!(admin.ok(&["why", &service]).await?.contains("web"), "why");
    ensure!(admin.ok(&["top", "--nodes"]).await?.contains(web.tug.node()), "top");
    ensure!(admin.ok(&["version", "-o", "json"]).await?.contains("cluster"), "version");
    let code = admin.run(&["exec", &service, "--", "/hello", "exit", "7"]).await?;
    ensure!(code.status.code() == Some(7), "{}", all(&code));

    // Streams, both ways.
    let mut logs = Running::start(admin.command(&["logs", "-f", &service]))?;
    logs.until_said("listens on port").await?;
    let mut events = Running::start(admin.command(&["events", "-w", web.project.as_str()]))?;
    let mut cat = Running::on_terminal(&admin.command(&["exec", "-it", &service, "--", "/hello", "cat"]))?;
    cat.press("over the wire\r")?;
    // Once as the terminal's echo, once as the command's output.
    cat.until("what was typed, twice", |said| said.matches("over the wire").count() >= 2).await?;
    cat.press("\x04")?;
    let (status, said) = cat.ended().await?;
    ensure!(status.success(), "{status}: {said}");

    let manifest = web.manifest(2, "2");
    std::fs::write(admin.home.path().join("compose.yaml"), manifest)?;
    let applied = admin.run(&["apply", "--yes", "-f", "compose.yaml"]).await?;
    ensure!(applied.status.success(), "{}\n{}", all(&applied), web.tug.logs());
    events.until_said("web.2").await?;
    logs.until("the new version", |said| said.contains("hello 2 listens")).await?;
    admin.ok(&["scale", &format!("{service}=1")]).await?;

    // A context that others may read is not used.
    std::fs::set_permissions(admin.context("prod"), std::fs::Permissions::from_mode(0o644))?;
    let refused = admin.refused(&["ls"]).await?;
    ensure!(refused.contains("mode 0644"), "{refused}");
    std::fs::set_permissions(admin.context("prod"), std::fs::Permissions::from_mode(0o600))?;

    // A token that is removed ends what goes on by it, and opens nothing.
    web.tug.ok(&["token", "rm", token.id()]).await?;
    let refused = admin.refused(&["ls"]).await?;
    ensure!(refused.contains("removed, or has expired") && refused.contains("tug login"), "{refused}");
    let (status, said) = events.ended().await?;
    ensure!(status.code() == Some(1) && said.contains("removed, or has expired"), "{status}: {said}");
    logs.signal(Signal::INT)?;
    logs.ended().await?;
    admin.ok(&["logout"]).await?;
    ensure!(!admin.context("prod").exists(), "it is forgotten");

    let logged = std::fs::read_to_string(web.tug.folder().join("server.log"))?;
    ensure!(!logged.contains(&secret(&token)), "the token is in the log");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_may_only_look_or_only_deploy_is_told_so() -> Result<()> {
    let web = Web::start_on(Tug::start_reachable().await?, "roles", 1).await?;
    let (url, service, node) = (web.tug.url(), web.service(), web.tug.node().to_owned());
    let other = web.tug.project("other");
    let foreign = web.manifest(1, "1").replace(web.project.as_str(), other.as_str());
    let foreign =
        foreign.replace(&format!("{}:8080", web.port), &format!("{}:8080", tug_tests::tug::free_port()));
    web.tug.apply(&foreign).await?;

    let (viewer, deployer) = (Somebody::new()?, Somebody::new()?);
    let looking = token(&web.tug, &["--role", "viewer"]).await?;
    let deploying = token(&web.tug, &["--role", "deployer", "--project", web.project.as_str()]).await?;
    for (somebody, token) in [(&viewer, &looking), (&deployer, &deploying)] {
        let output = somebody.log_in(&url, &token.expose()).await?;
        ensure!(output.status.success() && !all(&output).contains(&secret(token)), "{}", all(&output));
    }

    // A viewer looks at everything and changes nothing.
    let listed = viewer.ok(&["ls"]).await?;
    ensure!(listed.contains(web.project.as_str()) && listed.contains(other.as_str()), "{listed}");
    viewer.ok(&["logs", "--tail", "1", &service]).await?;
    viewer.ok(&["node", "show", &node]).await?;
    let needs = "this token has the role viewer";
    for change in [
        &["scale", &format!("{service}=2")][..],
        &["restart", &service],
        &["rm", "-y", web.project.as_str()],
        &["exec", &service, "--", "/hello", "exit", "0"],
        &["node", "drain", &node],
        &["node", "label", &node, "a=b"],
        &["node", "rm", "-y", &node],
        &["token", "ls"],
    ] {
        let refused = viewer.refused(change).await?;
        ensure!(
            refused.contains(needs) && refused.contains("tug token create --role"),
            "{change:?}: {refused}"
        );
    }

    // A deployer deploys its own project, and the others are not there.
    let listed = deployer.ok(&["ls"]).await?;
    ensure!(listed.contains(web.project.as_str()) && !listed.contains(other.as_str()), "{listed}");
    deployer.ok(&["scale", &format!("{service}=2")]).await?;
    let manifest = deployer.home.path().join("compose.yaml");
    std::fs::write(&manifest, web.manifest(1, "2"))?;
    deployer.ok(&["apply", "--yes", "-f", "compose.yaml"]).await?;
    let refused = deployer.refused(&["scale", &format!("{other}/web=2")]).await?;
    ensure!(refused.contains("there is no service"), "{refused}");
    std::fs::write(&manifest, foreign)?;
    let refused = deployer.refused(&["apply", "--yes", "-f", "compose.yaml"]).await?;
    ensure!(refused.contains(other.as_str()) && refused.contains("tug whoami"), "{refused}");
    let refused = deployer.refused(&["node", "drain", &node]).await?;
    ensure!(refused.contains("single projects only"), "{refused}");
    let events = deployer.ok(&["events", "-o", "json"]).await?;
    ensure!(!events.contains(other.as_str()), "{events}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_fails_says_why_and_keeps_nothing() -> Result<()> {
    let mut tug = Tug::start_reachable().await?;
    let url = tug.url();
    let good = token(&tug, &["--role", "viewer"]).await?;
    let somebody = Somebody::new()?;
    let logged_in = async |url: &str, token: &str| -> Result<(Option<i32>, String)> {
        let output = somebody.log_in(url, token).await?;
        Ok((output.status.code(), all(&output)))
    };

    let (code, said) = logged_in(&url.replace("https", "http"), &good.expose()).await?;
    ensure!(code == Some(2) && said.contains("by https only"), "{said}");
    let joining = token_to_join(&tug).await?;
    let (code, said) = logged_in(&url, &joining.expose()).await?;
    ensure!(code == Some(1) && said.contains("lets a machine join"), "{said}");
    let (code, said) = logged_in(&url, &good.expose()[..60]).await?;
    ensure!(code == Some(1) && said.contains("token"), "{said}");

    // Whoever is not of the token's cluster hears nothing of the token.
    let foreign = TokenText::new(TokenKind::Access, &"ab".repeat(32), [7; 36]).context("a token")?;
    let (code, said) = logged_in(&url, &foreign.expose()).await?;
    ensure!(code == Some(1) && said.contains("is not the cluster that the token is for"), "{said}");
    // One that this cluster never gave out.
    let forged = TokenText::new(TokenKind::Access, &good.authority(), [7; 36]).context("a token")?;
    let (code, said) = logged_in(&url, &forged.expose()).await?;
    ensure!(code == Some(1) && said.contains("does not know this token"), "{said}");

    // Something else listens there, or nothing does.
    let plain = TcpListener::bind("127.0.0.1:0")?;
    let address = plain.local_addr()?;
    let answering = std::thread::spawn(move || -> std::io::Result<()> {
        let (mut stream, _) = plain.accept()?;
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    });
    let (code, said) = logged_in(&format!("https://{address}"), &good.expose()).await?;
    ensure!(code == Some(1) && said.contains("does not speak TLS"), "{said}");
    answering.join().expect("it answers")?;
    let (code, said) = logged_in(&format!("https://{address}"), &good.expose()).await?;
    ensure!(code == Some(1) && said.contains(&format!("https://{address} (connection refused)")), "{said}");
    ensure!(!somebody.home.path().join(".config/tug/contexts").exists(), "nothing is kept of what failed");

    // The control plane goes away, and comes back.
    let (code, said) = logged_in(&url, &good.expose()).await?;
    ensure!(code == Some(0), "{said}");
    tug.end_server(Signal::TERM).await?;
    let refused = somebody.refused(&["ls"]).await?;
    ensure!(refused.contains("(connection refused)") && refused.contains("--listen"), "{refused}");
    tug.start_server()?;
    tug.until_connected().await?;
    somebody.ok(&["ls"]).await?;
    Ok(())
}

async fn token_to_join(tug: &Tug) -> Result<TokenText> {
    token(tug, &[]).await
}
