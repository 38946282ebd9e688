//! systemd units: `tug server --install`, `tug agent --install`, and what `tug join` starts.
//!
//! A unit is written whole, with the options that were given; what a person adds belongs into a drop-in
//! (`systemctl edit`), which is never touched.

use std::fmt::Write;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::process::geteuid;
use tokio::process::Command;

use crate::failure::Failure;

/// Where this machine's own units are.
const UNITS: &str = "/etc/systemd/system";
/// Is there when systemd runs the machine.
const RUNS: &str = "/run/systemd/system";
/// How a unit of ours begins.
const MARK: &str = "# Written by `tug";
/// What no service of ours needs.
const NEVER: &str = "NoNewPrivileges=yes\n";
/// What a control plane does not need that runs no containers: it writes to its state and its socket, and listens.
const SERVER_NEVER: &str = "\
ProtectSystem=full
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectControlGroups=yes
PrivateDevices=yes
RestrictSUIDSGID=yes
RestrictRealtime=yes
RestrictNamespaces=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
LockPersonality=yes
MemoryDenyWriteExecute=yes
LimitNOFILE=65536
";

/// What is run as a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unit {
    /// Its name, without `.service`.
    pub(super) name: &'static str,
    /// The program.
    pub(super) program: PathBuf,
    /// Its arguments.
    pub(super) arguments: Vec<String>,
    /// It runs containers.
    pub(super) is_node: bool,
}

// === impl Unit ===

impl Unit {
    /// The control plane, and the node with it if `is_node`.
    pub(super) fn server(arguments: Vec<String>, is_node: bool) -> Result<Self, Failure> {
        Ok(Self { name: "tug-server", program: program()?, arguments, is_node })
    }

    /// The node.
    pub(super) fn agent(arguments: Vec<String>) -> Result<Self, Failure> {
        Ok(Self { name: "tug-agent", program: program()?, arguments, is_node: true })
    }

    /// The file.
    pub(super) fn text(&self) -> String {
        let what = match (self.name, self.is_node) {
            ("tug-server", true) => "Tug control plane and node",
            ("tug-server", false) => "Tug control plane",
            _ => "Tug node",
        };
        let command = self.arguments.first().map_or("", String::as_str);
        let docker = if self.is_node { " docker.service" } else { "" };
        let before = if self.name == "tug-agent" { " tug-server.service" } else { "" };
        let mut text = format!(
            "{MARK} {command} --install`, which writes it anew: change it with `systemctl edit {}`.\n",
            self.name
        );
        let program = quoted(&self.program.to_string_lossy());
        let words = self.arguments.iter().map(|word| quoted(word));
        let command_line = std::iter::once(program).chain(words).collect::<Vec<_>>().join(" ");
        // Docker may go and come back; the node bears it, and would be stopped with it by `Requires=`.
        write!(
            text,
            "[Unit]\nDescription={what}\nWants=network-online.target{docker}\n\
             After=network-online.target{docker}{before}\n\n\
             [Service]\nExecStart={command_line}\nRestart=always\nRestartSec=1\nRestartPreventExitStatus=78\n"
        )
        .expect("a String takes everything");
        text.push_str(NEVER);
        if self.is_node {
            // The holder keeps the published ports open while the node restarts: it must not be ended with it.
            text.push_str("KillMode=process\nLimitNOFILE=65536\n");
        } else {
            text.push_str(SERVER_NEVER);
        }
        text.push_str("\n[Install]\nWantedBy=multi-user.target\n");
        text
    }

    /// Writes it, has it started at every boot, and starts it, or starts it anew.
    pub(super) async fn install(&self) -> Result<PathBuf, Failure> {
        if !has_systemd() {
            let by_hand =
                format!("have your init system run it, and again whenever it ends: {}", self.line());
            return Err(
                Failure::new(format!("systemd does not run this machine: there is no {RUNS}")).hint(by_hand)
            );
        }
        if !geteuid().is_root() {
            return Err(Failure::new(format!("only root may write to {UNITS}")).hint("try again with sudo"));
        }
        self.install_in(Path::new(UNITS), "systemctl").await
    }

    async fn install_in(&self, folder: &Path, systemctl: &str) -> Result<PathBuf, Failure> {
        let path = folder.join(format!("{}.service", self.name));
        let failed =
            |what: &str, error: &io::Error| Failure::caused(&format!("{what} {}", path.display()), error);
        match fs::read_to_string(&path) {
            Ok(text) if !text.starts_with(MARK) => {
                return Err(Failure::new(format!(
                    "{} is there and was not written by tug: it stays",
                    path.display()
                ))
                .hint(format!("remove it, or let it run: {}", self.line())));
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("read", &error)),
            Ok(_) | Err(_) => {}
        }
        let beside = path.with_extension("service.new");
        fs::write(&beside, self.text()).map_err(|error| failed("write", &error))?;
        fs::rename(&beside, &path).map_err(|error| failed("write", &error))?;
        for words in [&["daemon-reload"][..], &["enable", self.name], &["restart", self.name]] {
            call(systemctl, words).await?;
        }
        Ok(path)
    }

    /// The command as a shell takes it.
    pub(super) fn line(&self) -> String {
        let words =
            std::iter::once(self.program.to_string_lossy().into_owned()).chain(self.arguments.clone());
        words.map(|word| in_shell(&word)).collect::<Vec<_>>().join(" ")
    }
}

/// Whether systemd runs this machine, and we may tell it what to run.
pub(super) fn has_systemd() -> bool {
    Path::new(RUNS).is_dir()
}

/// This program, where it will be found again.
pub(super) fn program() -> Result<PathBuf, Failure> {
    std::env::current_exe().map_err(|error| Failure::caused("find this program", &error))
}

async fn call(program: &str, words: &[&str]) -> Result<(), Failure> {
    let what = format!("{program} {}", words.join(" "));
    let output = Command::new(program).args(words).stdin(Stdio::null()).output().await;
    let output = output.map_err(|error| Failure::caused(&what, &error))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Failure::new(format!("{what}: {}", said.trim())))
}

/// A word as systemd reads it.
fn quoted(word: &str) -> String {
    let escaped = word.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%").replace('$', "$$");
    if is_plain(word) { word.to_owned() } else { format!("\"{escaped}\"") }
}

/// A word as a shell reads it.
fn in_shell(word: &str) -> String {
    if is_plain(word) { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

fn is_plain(word: &str) -> bool {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_=./:,@+[]".contains(letter);
    !word.is_empty() && word.chars().all(plain)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn unit(arguments: &[&str]) -> Unit {
        let arguments = arguments.iter().map(|word| (*word).to_owned()).collect();
        Unit { name: "tug-agent", program: "/usr/local/bin/tug".into(), arguments, is_node: true }
    }

    #[test]
    fn a_unit_says_how_to_run_it() {
        insta::assert_snapshot!(unit(&["agent", "--label", "room=50% \"up\" $x"]).text(), @r#"
        # Written by `tug agent --install`, which writes it anew: change it with `systemctl edit tug-agent`.
        [Unit]
        Description=Tug node
        Wants=network-online.target docker.service
        After=network-online.target docker.service tug-server.service

        [Service]
        ExecStart=/usr/local/bin/tug agent --label "room=50%% \"up\" $$x"
        Restart=always
        RestartSec=1
        RestartPreventExitStatus=78
        NoNewPrivileges=yes
        KillMode=process
        LimitNOFILE=65536

        [Install]
        WantedBy=multi-user.target
        "#);
        let server = Unit { name: "tug-server", is_node: false, ..unit(&["server"]) };
        let text = server.text();
        assert!(!text.contains("docker") && !text.contains("KillMode"), "{text}");
        assert!(text.contains("ProtectSystem=full\n") && text.contains("\n\n[Install]\n"), "{text}");
        assert_eq!(
            unit(&["agent", "--label", "a='b c'"]).line(),
            r"/usr/local/bin/tug agent --label 'a='\''b c'\'''"
        );
    }

    #[tokio::test]
    async fn a_unit_is_written_enabled_and_started_and_one_of_somebody_else_stays() {
        let folder = tempfile::tempdir().unwrap();
        let said = folder.path().join("said");
        let systemctl = folder.path().join("systemctl");
        fs::write(&systemctl, format!("#!/bin/sh\necho \"$@\" >> {}\n", said.display())).unwrap();
        fs::set_permissions(&systemctl, fs::Permissions::from_mode(0o755)).unwrap();
        let systemctl = systemctl.to_str().unwrap();

        let path = unit(&["agent"]).install_in(folder.path(), systemctl).await.unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), unit(&["agent"]).text());
        let calls = "daemon-reload\nenable tug-agent\nrestart tug-agent\n";
        assert_eq!(fs::read_to_string(&said).unwrap(), calls);
        let again = unit(&["agent", "--node", "b"]);
        again.install_in(folder.path(), systemctl).await.unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), again.text());

        fs::write(&path, "[Unit]\n").unwrap();
        let failure = again.install_in(folder.path(), systemctl).await.unwrap_err();
        assert!(failure.message.contains("was not written by tug"), "{failure:?}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "[Unit]\n");

        let failure = call("false", &["enable"]).await.unwrap_err();
        assert!(failure.message.starts_with("false enable:"), "{failure:?}");
    }
}
