//! `cargo xtask demo`: the whole main job, shown. Builds Tug, starts control plane and node on this machine, deploys
//! `manifests/hello`, shows requests balanced over its replicas, scales it, kills a container and shows it replaced.
//! On a terminal it then stays until Ctrl-C. Nothing of it is left behind either way.

use std::collections::BTreeMap;
use std::fs;
use std::io::{IsTerminal, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::step::{cargo, now, root, timed};
use crate::{engine, images};

/// How long any one thing may take before the demo gives up.
const PATIENCE: Duration = Duration::from_secs(60);
/// The port of the example, if it is free.
const USUAL_PORT: u16 = 8080;
const IMAGE: &str = "tug-example-hello";

/// Runs the demo.
pub(crate) fn run() -> Result<()> {
    engine::require()?;
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted))?;
    }
    timed("build Tug", || cargo(&["build", "--package", "tug-cli"]))?;
    timed("compile the example's program", || images::compile_all().map(drop))?;
    let demo = Demo::start(interrupted)?;
    let shown = demo.show();
    let removed = demo.finish();
    shown.and(removed)
}

/// Control plane and node, running.
struct Demo {
    folder: PathBuf,
    port: u16,
    server: Child,
    agent: Child,
    interrupted: Arc<AtomicBool>,
}

impl Demo {
    fn start(interrupted: Arc<AtomicBool>) -> Result<Self> {
        println!("==> start control plane and node");
        let folder = std::env::temp_dir().join(format!("tug-demo-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        let port = free_port()?;
        let server = daemon(&folder, "server", &[])?;
        let docker = engine::socket();
        let agent = daemon(&folder, "agent", &["--docker", &docker.to_string_lossy()])?;
        let demo = Self { folder, port, server, agent, interrupted };
        let ready = demo.until("the node to be ready", || {
            Ok(demo
                .tug(&["node", "ls", "-o", "json"])
                .output()?
                .stdout
                .windows(17)
                .any(|w| w == b"\"connected\": true"))
        });
        match ready {
            Ok(()) => Ok(demo),
            Err(error) => {
                let _ = demo.finish();
                Err(error)
            }
        }
    }

    fn show(&self) -> Result<()> {
        println!("==> deploy manifests/hello: three replicas behind port {}", self.port);
        self.run(&["apply", "--yes", "--file", "manifests/hello/compose.yaml"])?;

        println!("==> twelve requests, answered by:");
        self.show_balance(12)?;

        println!("==> scale to five");
        self.run(&["scale", "hello/web=5"])?;
        self.show_balance(20)?;

        let victim = self.first_task()?;
        println!("==> kill the container of {victim}");
        let start = now();
        engine::kill(&victim)?;
        self.until("the killed replica to be replaced", || {
            let tasks = self.output(&["ps", "hello/web", "-o", "json"])?;
            Ok(count(&tasks, "\"state\": \"healthy\"") == 5 && count(&tasks, "\"restarts\": 0") == 4)
        })?;
        println!("    five healthy replicas again after {:.1} s", start.elapsed().as_secs_f64());
        self.run(&["ps", "hello/web"])?;
        self.run(&["why", "hello/web"])?;

        println!("\nThe service answers at http://localhost:{}/api/hello", self.port);
        if std::io::stdout().is_terminal() && !self.interrupted.load(Ordering::Relaxed) {
            println!("Look around with: {}", self.shown_command());
            println!("Ctrl-C ends the demo and removes everything.");
            while !self.interrupted.load(Ordering::Relaxed) {
                sleep(Duration::from_millis(100));
            }
        }
        Ok(())
    }

    /// Removes everything, whatever happened before.
    fn finish(mut self) -> Result<()> {
        println!("==> clean up");
        let project = self.output(&["ls", "-o", "json"]).is_ok_and(|projects| projects.contains("\"hello\""));
        let removed = if project { self.run(&["rm", "--yes", "hello"]) } else { Ok(()) };
        for daemon in [&mut self.agent, &mut self.server] {
            stop(daemon)?;
        }
        let mut hold = Command::new(tug_program());
        hold.args(["hold", "--release", "--state-dir"]).arg(self.folder.join("agent"));
        hold.stderr(Stdio::null()).status().context("release the listening sockets")?;
        engine::remove_image(IMAGE);
        if removed.is_ok() {
            fs::remove_dir_all(&self.folder)?;
        } else {
            println!("    logs are kept in {}", self.folder.display());
        }
        removed
    }

    fn show_balance(&self, requests: usize) -> Result<()> {
        let mut answers: BTreeMap<String, usize> = BTreeMap::new();
        for _ in 0..requests {
            *answers.entry(self.get("/api/hello")?).or_default() += 1;
        }
        for (answer, times) in answers {
            println!("    {times:>2} × {answer}");
        }
        Ok(())
    }

    fn get(&self, path: &str) -> Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (_, body) = answer.split_once("\r\n\r\n").context("the service gave no HTTP answer")?;
        Ok(body.trim().to_owned())
    }

    fn first_task(&self) -> Result<String> {
        let tasks = self.output(&["ps", "hello/web", "-o", "json"])?;
        let found = tasks.split('"').find(|word| word.starts_with("hello.web."));
        Ok(found.context("no task of hello/web is listed")?.to_owned())
    }

    fn tug(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(tug_program());
        command.current_dir(root()).arg("--socket").arg(self.folder.join("tug.sock")).args(arguments);
        command.env("HELLO_PORT", self.port.to_string()).stdin(Stdio::null());
        command
    }

    fn shown_command(&self) -> String {
        format!("target/debug/tug --socket {} ps", self.folder.join("tug.sock").display())
    }

    fn run(&self, arguments: &[&str]) -> Result<()> {
        println!("    $ tug {}", arguments.join(" "));
        crate::step::run(&mut self.tug(arguments))
    }

    fn output(&self, arguments: &[&str]) -> Result<String> {
        let output = self.tug(arguments).stderr(Stdio::inherit()).output()?;
        if !output.status.success() {
            bail!("tug {}: {}", arguments.join(" "), output.status);
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn until(&self, what: &str, reached: impl Fn() -> Result<bool>) -> Result<()> {
        let start = now();
        while start.elapsed() < PATIENCE {
            if self.interrupted.load(Ordering::Relaxed) {
                bail!("interrupted");
            }
            if reached()? {
                return Ok(());
            }
            sleep(Duration::from_millis(50));
        }
        let folder = self.folder.display();
        bail!("waited {} s for {what}; the logs are in {folder}", PATIENCE.as_secs())
    }
}

fn tug_program() -> PathBuf {
    root().join("target/debug/tug")
}

fn daemon(folder: &std::path::Path, name: &str, more: &[&str]) -> Result<Child> {
    let log = fs::File::create(folder.join(format!("{name}.log")))?;
    let mut command = Command::new(tug_program());
    command
        .arg("--socket")
        .arg(folder.join("tug.sock"))
        .arg(name)
        .arg("--state-dir")
        .arg(folder.join(name))
        .args(more);
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    // A Ctrl-C on the terminal is for the demo alone: it still needs both to clean up.
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    command.spawn().with_context(|| format!("start tug {name}"))
}

fn stop(daemon: &mut Child) -> Result<()> {
    let pid = daemon.id().to_string();
    crate::step::run(Command::new("kill").args(["-TERM", &pid]))?;
    daemon.wait()?;
    Ok(())
}

fn free_port() -> Result<u16> {
    let listener =
        TcpListener::bind(("0.0.0.0", USUAL_PORT)).or_else(|_| TcpListener::bind(("0.0.0.0", 0)))?;
    Ok(listener.local_addr()?.port())
}

fn count(text: &str, part: &str) -> usize {
    text.matches(part).count()
}
