//! The socket of the API: only its owner may use it, and only one orchestrator has it.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen as start, socket_with,
};
use tokio::net::UnixListener;

use super::Error;

/// So many connections wait to be accepted.
const BACKLOG: i32 = 1_024;

/// A socket that is listened on.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) listener: UnixListener,
    /// Removes the file when it is dropped.
    pub(super) file: SocketFile,
}

/// The socket's file.
#[derive(Debug)]
pub(super) struct SocketFile(PathBuf);

/// Listens on `path`. What a dead process left there is replaced.
pub(super) fn listen(path: &Path) -> Result<Socket, Error> {
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        let made = fs::DirBuilder::new().recursive(true).mode(0o755).create(parent);
        made.map_err(|source| Error::Folder { path: parent.to_owned(), source })?;
    }
    remove_stale(path)?;
    let listener = open(path).map_err(|source| Error::Listen { path: path.to_owned(), source })?;
    Ok(Socket { listener, file: SocketFile(path.to_owned()) })
}

fn remove_stale(path: &Path) -> Result<(), Error> {
    let failed = |source| Error::Listen { path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(Error::NotASocket { path: path.to_owned() });
        }
        Ok(_) => {}
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(Error::Running { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(failed)
        }
        Err(error) => Err(failed(error)),
    }
}

/// The permissions are set between `bind` and `listen`, so there is no moment at which others could connect.
fn open(path: &Path) -> io::Result<UnixListener> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    start(&socket, BACKLOG)?;
    UnixListener::from_std(std::os::unix::net::UnixListener::from(socket))
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0) {
            tracing::warn!(%error, socket = %self.0.display(), "remove the socket");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_owner_may_connect_and_nothing_is_left_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/tug.sock");
        let socket = listen(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        drop(socket);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_dead_processes_socket_is_replaced_and_a_live_ones_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tug.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "as a killed process leaves it");
        let live = listen(&path).unwrap();
        let refused = listen(&path).unwrap_err();
        assert!(matches!(refused, Error::Running { .. }), "{refused}");
        assert!(refused.to_string().starts_with("another orchestrator is running"), "{refused}");
        assert!(path.exists(), "the refusal left the live one its socket");
        drop(live);
        fs::write(&path, "data").unwrap();
        assert!(matches!(listen(&path).unwrap_err(), Error::NotASocket { .. }));
        assert_eq!(fs::read(&path).unwrap(), b"data");
    }
}
