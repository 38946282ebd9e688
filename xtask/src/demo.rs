//! `cargo xtask demo`: the whole main job, shown. Builds Tug, starts control plane and node on this machine, deploys
//! `manifests/hello`, shows requests balanced over its replicas, scales it, kills a container and shows it replaced.
//! On a terminal it then stays until Ctrl-C. Nothing of it is left behind either way.

use std::collections::BTreeMap;
use std::fs;
use std::io::{IsTerminal, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
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
    let name = format!("demo-{}", std::process::id());
    let folder = std::env::temp_dir().join(format!("tug-{name}"));
    fs::create_dir_all(&folder)?;
    let mut demo = Demo { name, folder, port: free_port()?, daemons: Vec::new(), interrupted };
    let shown = demo.start().and_then(|()| demo.show());
    // What is there by now goes, whatever happened.
    let removed = demo.finish();
    shown.and(removed)
}

/// Control plane and node.
struct Demo {
    /// The node's name.
    name: String,
    folder: PathBuf,
    port: u16,
    /// Those that were started so far.
    daemons: Vec<Child>,
    interrupted: Arc<AtomicBool>,
}

impl Demo {
    fn start(&mut self) -> Result<()> {
        println!("==> start control plane and node");
        self.daemons.push(daemon(&self.folder, "server", &["--listen", "none"])?);
        let docker = engine::socket();
        let more = ["--docker", &*docker.to_string_lossy(), "--node", &self.name, "--peer-listen", "none"];
        self.daemons.push(daemon(&self.folder, "agent", &more)?);
        self.until("the node to be ready", || {
            let nodes = self.tug(&["node", "ls", "-o", "json"]).stderr(Stdio::null()).output()?.stdout;
            Ok(String::from_utf8_lossy(&nodes).contains("\"connected\": true"))
        })
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
        if std::io::stdout().is_terminal() && !self.is_interrupted() {
            println!("Look around with: {}", self.shown_command());
            println!("Ctrl-C ends the demo and removes everything.");
            while !self.is_interrupted() {
                sleep(Duration::from_millis(100));
            }
        }
        Ok(())
    }

    /// Removes everything, whatever happened before.
    fn finish(mut self) -> Result<()> {
        println!("==> clean up");
        let removed = self.remove_project();
        // The node first: without its control plane it would only say that it misses it.
        let daemons = std::mem::take(&mut self.daemons);
        let stopped: Vec<Result<()>> = daemons.into_iter().rev().map(stop).collect();
        let released = undisturbed(&mut self.hold_release()).context("release the listening sockets");
        engine::remove_image(IMAGE);
        let ended = stopped.into_iter().chain([released]).fold(removed, Result::and);
        if ended.is_ok() {
            fs::remove_dir_all(&self.folder)?;
        } else {
            println!("    logs are kept in {}", self.folder.display());
        }
        ended
    }

    fn remove_project(&self) -> Result<()> {
        let listed = self.tug(&["ls", "-o", "json"]).stderr(Stdio::null()).output()?.stdout;
        if !String::from_utf8_lossy(&listed).contains("\"hello\"") {
            return Ok(());
        }
        println!("    $ tug rm --yes hello");
        undisturbed(&mut self.tug(&["rm", "--yes", "hello"]))
    }

    fn hold_release(&self) -> Command {
        let mut hold = Command::new(tug_program());
        hold.args(["hold", "--release", "--state-dir"]).arg(self.folder.join("agent"));
        hold.stderr(Stdio::null());
        hold
    }

    fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    /// Fails if the user wants no more of it.
    fn go_on(&self) -> Result<()> {
        if self.is_interrupted() {
            bail!("interrupted");
        }
        Ok(())
    }

    fn show_balance(&self, requests: usize) -> Result<()> {
        let mut answers: BTreeMap<String, usize> = BTreeMap::new();
        for _ in 0..requests {
            self.go_on()?;
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
        let (tug, socket) = (tug_program(), self.folder.join("tug.sock"));
        format!("{} --socket {} ps", tug.display(), socket.display())
    }

    fn run(&self, arguments: &[&str]) -> Result<()> {
        self.go_on()?;
        println!("    $ tug {}", arguments.join(" "));
        let done = crate::step::run(&mut self.tug(arguments));
        // Ctrl-C on the terminal is for the command too.
        self.go_on().and(done)
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
            self.go_on()?;
            if reached()? {
                return Ok(());
            }
            sleep(Duration::from_millis(50));
        }
        let folder = self.folder.display();
        bail!("waited {} s for {what}; the logs are in {folder}", PATIENCE.as_secs())
    }
}

/// What was built lies beside this program.
fn tug_program() -> PathBuf {
    let this = std::env::current_exe().expect("this program has a path");
    this.with_file_name("tug")
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
    command.process_group(0).spawn().with_context(|| format!("start tug {name}"))
}

/// Runs what a Ctrl-C on the terminal must not end.
fn undisturbed(command: &mut Command) -> Result<()> {
    crate::step::run(command.process_group(0))
}

fn stop(mut daemon: Child) -> Result<()> {
    let pid = daemon.id().to_string();
    undisturbed(Command::new("kill").args(["-TERM", &pid]))?;
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
