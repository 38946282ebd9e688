//! A command that goes on until it is stopped: what it has said so far, and how it ended.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::Instant;

use crate::tug::PATIENCE;

/// A process whose output is kept. It is killed when this is dropped.
#[derive(Debug)]
pub struct Running {
    shown: String,
    child: Child,
    said: Said,
    readers: Vec<JoinHandle<()>>,
    /// Our end of its terminal.
    terminal: Option<File>,
}

#[derive(Debug, Clone, Default)]
struct Said(Arc<Mutex<Vec<u8>>>);

// === impl Running ===

impl Running {
    /// Starts `command` with pipes for its output.
    pub fn start(mut command: Command) -> Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("start {command:?}"))?;
        let said = Said::default();
        let (out, err) = (child.stdout.take().context("a pipe")?, child.stderr.take().context("a pipe")?);
        let readers = vec![said.reader(out), said.reader(err)];
        Ok(Self { shown: format!("{command:?}"), child, said, readers, terminal: None })
    }

    /// Starts `command` on a terminal of its own, which is all of its input and output.
    pub fn on_terminal(command: &Command) -> Result<Self> {
        use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).context("make a terminal")?;
        grantpt(&ours)?;
        unlockpt(&ours)?;
        let name = ptsname(&ours, Vec::new())?.into_string()?;
        let theirs = File::options().read(true).write(true).open(name)?;
        // What the terminal interrupts is its foreground, and only a session's leader can have one.
        let mut leader = Command::new("setsid");
        leader.args(["--ctty"]).arg(command.get_program()).args(command.get_args());
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => leader.env(key, value),
                None => leader.env_remove(key),
            };
        }
        leader.current_dir(command.get_current_dir().context("the command has a folder")?);
        leader.stdin(theirs.try_clone()?).stdout(theirs.try_clone()?).stderr(theirs);
        let child = leader.spawn().with_context(|| format!("start {leader:?}"))?;
        let shown = format!("{leader:?}");
        // It holds the other end too, and we shall see the end only when nobody does.
        drop(leader);
        let ours = File::from(ours);
        let said = Said::default();
        let readers = vec![said.reader(ours.try_clone()?)];
        Ok(Self { shown, child, said, readers, terminal: Some(ours) })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// All that it has written, in the order in which it came.
    pub fn said(&self) -> String {
        self.said.text()
    }

    /// Waits until `wanted` is true of what it has written.
    pub async fn until(&mut self, what: &str, wanted: impl Fn(&str) -> bool) -> Result<String> {
        let start = Instant::now();
        loop {
            let ended = self.child.try_wait()?;
            let said = self.said();
            if wanted(&said) {
                return Ok(said);
            }
            if let Some(status) = ended.filter(|_| self.readers.iter().all(JoinHandle::is_finished)) {
                bail!("waited for {what} of {}: it has ended, {status}\n{}", self.shown, self.said());
            }
            if start.elapsed() > PATIENCE {
                bail!("waited for {what} of {}\n{said}", self.shown);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until it has written `text`.
    pub async fn until_said(&mut self, text: &str) -> Result<String> {
        self.until(&format!("{text:?}"), |said| said.contains(text)).await
    }

    /// Sends a signal to the process alone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }

    /// Presses Ctrl-C on its terminal.
    pub fn press_ctrl_c(&mut self) -> Result<()> {
        self.press("\x03")
    }

    /// Presses these keys on its terminal.
    pub fn press(&mut self, keys: &str) -> Result<()> {
        let terminal = self.terminal.as_mut().context("it has no terminal")?;
        Ok(terminal.write_all(keys.as_bytes())?)
    }

    /// Waits for its end, and gives all that it has written.
    pub async fn ended(mut self) -> Result<(ExitStatus, String)> {
        let start = Instant::now();
        loop {
            let ended = self.child.try_wait()?;
            // Only when nobody can write any more, not even a process that it has started, all has been said.
            if let Some(status) = ended.filter(|_| self.readers.iter().all(JoinHandle::is_finished)) {
                return Ok((status, self.said()));
            }
            if start.elapsed() > PATIENCE {
                bail!("{} does not end\n{}", self.shown, self.said());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // What has ended already cannot be ended here.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

// === impl Said ===

impl Said {
    /// Takes in all that comes from `source`.
    fn reader(&self, mut source: impl Read + Send + 'static) -> JoinHandle<()> {
        let said = self.clone();
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            // A terminal whose other end is closed is an error to read.
            while let Ok(length @ 1..) = source.read(&mut piece) {
                said.0.lock().unwrap_or_else(PoisonError::into_inner).extend(&piece[..length]);
            }
        })
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

/// How many processes have `folder` among their arguments.
pub fn mentioned(folder: &Path) -> Result<usize> {
    let folder = folder.to_string_lossy();
    let mut count = 0;
    for entry in std::fs::read_dir("/proc")? {
        let process = entry?.path();
        // A process may end while it is looked at, and a file of /proc that is no process has no such file in it.
        let arguments = std::fs::read(process.join("cmdline")).unwrap_or_default();
        count += usize::from(String::from_utf8_lossy(&arguments).contains(&*folder));
    }
    Ok(count)
}

/// Waits until no process has `folder` among its arguments.
pub async fn until_unmentioned(folder: &Path) -> Result<()> {
    let start = Instant::now();
    while mentioned(folder)? > 0 {
        ensure!(start.elapsed() < PATIENCE, "a process still has {} among its arguments", folder.display());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}
