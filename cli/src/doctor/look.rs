//! How things are on this machine. Nothing is changed by looking, and nothing that cannot be seen is an error.

mod engine;
mod listeners;

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::timeout;
use tug_agent::identity::{self, Membership, Origin};
use tug_api::Clock;
use tug_api::client::Client;
use tug_api::error::chain;
use tug_api::tls::Credentials;
use tug_api::transport::Channel;

use super::{Disk, Facts, FileSystem, Folder, Server, State, judge};
use crate::failure::Failure;
use crate::place::Place;

/// A control plane that takes longer to answer does not.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where to look.
#[derive(Debug)]
pub(crate) struct Where<'a> {
    /// The Engine's socket.
    pub(crate) docker: &'a str,
    /// The folder of the daemons.
    pub(crate) state_dir: &'a Path,
    /// The control plane that the user means; why none can be asked.
    pub(crate) place: Result<Place, Failure>,
}

/// Looks at everything.
pub(crate) async fn look(at: Where<'_>, clock: Clock) -> Facts {
    let (engine, root) = engine::look(at.docker).await;
    let ports = [judge::BARE_API, judge::TLS_API, judge::SERVER_PORT, judge::PEER_PORT];
    let folder = identity::Folder::of(&at.state_dir.join("agent"));
    // What is damaged is the agent's to report; what is another user's cannot be seen.
    let membership = folder.load().ok().flatten();
    let has_joined = membership.as_ref().is_some_and(|it| matches!(it.facts.origin, Origin::Joined { .. }));
    Facts {
        engine,
        engine_disk: root.and_then(|root| disk(&root)),
        state: state(at.state_dir),
        listeners: listeners::on(&ports),
        has_joined,
        server: server(at.place, membership.filter(|_| has_joined), clock).await,
    }
}

fn state(path: &Path) -> State {
    let found = match fs::metadata(path) {
        Ok(found) => Ok(Some(Folder {
            is_directory: found.is_dir(),
            owner: found.uid(),
            us: rustix::process::geteuid().as_raw(),
            mode: found.mode() & 0o777,
        })),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.to_string()),
    };
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let there = path.ancestors().find(|folder| folder.exists()).map(Path::to_owned);
    let kind = there.as_deref().map_or(FileSystem::Lasting, file_system);
    let disk = there.and_then(|there| disk(&there)).map(|disk| Disk { path: path.clone(), ..disk });
    State { path, found, disk, kind }
}

fn disk(path: &Path) -> Option<Disk> {
    let found = rustix::fs::statvfs(path).ok()?;
    let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
    Some(Disk { path: PathBuf::from(path), free: bytes(found.f_bavail), total: bytes(found.f_blocks) })
}

fn file_system(path: &Path) -> FileSystem {
    match tug_api::folder::risk(path) {
        None => FileSystem::Lasting,
        Some("NFS") => FileSystem::Network,
        Some(_) => FileSystem::Memory,
    }
}

/// The control plane that the user means, or else the one that this machine joined.
async fn server(place: Result<Place, Failure>, membership: Option<Membership>, clock: Clock) -> Server {
    let place = match place {
        Ok(place) => place,
        Err(failure) => return Server::Silent { reason: failure.message },
    };
    let is_there = match &place {
        Place::Socket(path) => path.exists(),
        Place::Elsewhere(_) => true,
    };
    let client = match (is_there, membership) {
        (true, _) => place.client(),
        (false, Some(membership)) => as_node(&membership),
        (false, None) => return Server::Unknown,
    };
    match client {
        Ok(client) => ask(&client, clock).await,
        Err(failure) => Server::Silent { reason: failure.message },
    }
}

/// What asks as the node that this machine is.
fn as_node(membership: &Membership) -> Result<Client, Failure> {
    let failed = |error: &tug_api::tls::TlsError| Failure::caused("use the certificate of this node", error);
    let shown = Credentials::new(&membership.identity).map_err(|error| failed(&error))?;
    let server = membership.server(Some(&shown)).map_err(|error| failed(&error))?;
    Ok(Client::new(Channel::tls(server)))
}

async fn ask(client: &Client, clock: Clock) -> Server {
    let asked = clock.now();
    let info = match timeout(PATIENCE, client.info()).await {
        Ok(Ok(info)) => info,
        Ok(Err(error)) => return Server::Silent { reason: Failure::from(error).message },
        Err(error) => return Server::Silent { reason: chain(&error) },
    };
    let answered = clock.now();
    Server::Answers {
        version: info.version,
        ahead: info.now.map(|theirs| ahead(asked.0, theirs.0, answered.0)),
    }
}

/// How far `theirs`, read at some moment between `asked` and `answered`, is ahead of our clock, at least.
fn ahead(asked: u64, theirs: u64, answered: u64) -> i64 {
    let difference = |a: u64, b: u64| i64::try_from(a.saturating_sub(b)).unwrap_or(i64::MAX);
    if theirs > answered { difference(theirs, answered) } else { -difference(asked, theirs) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_the_way_takes_is_no_difference_of_clocks() {
        assert_eq!(ahead(1000, 3000, 5000), 0, "it may have been asked at any moment in between");
        assert_eq!(ahead(1000, 9000, 5000), 4000);
        assert_eq!(ahead(7000, 1000, 8000), -6000);
    }

    #[test]
    fn a_folder_is_looked_at_and_not_made() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b");
        let found = state(&path);
        assert_eq!((found.found, path.exists()), (Ok(None), false));
        assert!(found.disk.is_some_and(|disk| disk.total > 0 && disk.path == path));
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let there = state(folder.path()).found.unwrap().unwrap();
        assert!(there.is_directory && there.owner == there.us && there.mode == 0o700, "{there:?}");
    }

    #[tokio::test]
    async fn a_socket_that_is_not_there_is_no_server_and_one_that_nobody_serves_is_a_silent_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tug.sock");
        let at = |path: &Path| Ok(Place::Socket(path.to_owned()));
        assert_eq!(server(at(&path), None, Clock::system()).await, Server::Unknown);
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let silent = server(at(&path), None, Clock::system()).await;
        assert!(matches!(silent, Server::Silent { reason } if reason.contains("nobody listens")));
    }
}
