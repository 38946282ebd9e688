//! The Docker Engine of this machine, spoken to in the few words that the demo needs.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};

const HOW_TO_GET_IT: &str = "Docker is needed and does not answer: install it with `sudo apt-get install docker.io` \
    (Debian, Ubuntu) or as https://docs.docker.com/engine/install says, start it with `sudo systemctl start docker`, \
    and see to it that you may use its socket (`sudo usermod -aG docker $USER`, then log in again)";

/// The Engine's socket: `DOCKER_HOST=unix://…`, or the usual place.
pub(crate) fn socket() -> PathBuf {
    let host = std::env::vars().find_map(|(key, value)| (key == "DOCKER_HOST").then_some(value));
    let path = host.as_deref().and_then(|host| host.strip_prefix("unix://"));
    PathBuf::from(path.unwrap_or("/var/run/docker.sock"))
}

/// Succeeds when the Engine answers; the error says how to get one.
pub(crate) fn require() -> Result<()> {
    ask("GET", "/_ping").map(drop).context(HOW_TO_GET_IT)
}

/// Ends the main process of a container, the way a crash would.
pub(crate) fn kill(container: &str) -> Result<()> {
    ask("POST", &format!("/containers/{container}/kill")).map(drop)
}

/// Removes an image that we built, if it is there and nobody uses it.
pub(crate) fn remove_image(reference: &str) {
    if ask("GET", &format!("/images/{reference}/json")).is_err() {
        return;
    }
    if let Err(error) = ask("DELETE", &format!("/images/{reference}")) {
        println!("  (the image {reference} stays: {error:#})");
    }
}

fn ask(method: &str, path: &str) -> Result<String> {
    let socket = socket();
    let mut stream =
        UnixStream::connect(&socket).with_context(|| format!("connect to {}", socket.display()))?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    write!(stream, "{method} {path} HTTP/1.0\r\nHost: docker\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).with_context(|| format!("{method} {path}"))?;
    let status = answer.split(' ').nth(1).unwrap_or_default();
    if !status.starts_with('2') {
        bail!("{method} {path}: {}", answer.lines().last().unwrap_or("no answer"));
    }
    Ok(answer)
}
