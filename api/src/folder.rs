//! The folder in which a daemon keeps its state: nobody else may write to it, for what lies there decides what runs.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Why a folder cannot hold a daemon's state.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// It could not be made or looked at.
    #[error("prepare the folder {}", path.display())]
    Prepare {
        /// The folder.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
    /// Others have a say in it.
    #[error("the folder {} cannot be used: {reason}", path.display())]
    NotOurs {
        /// The folder.
        path: PathBuf,
        /// Why, and what to do.
        reason: String,
    },
}

/// What `statfs` says of file systems that forget, or whose locks and syncs are somebody else's promise.
const RISKY: [(i64, &str); 3] = [(0x0102_1994, "tmpfs"), (0x6969, "NFS"), (0x8584_58f6, "ramfs")];

/// Makes the folder if need be, for its owner only, and refuses one that is not ours alone. Gives its real path.
pub fn prepare(path: &Path) -> Result<PathBuf, FolderError> {
    let failed = |source| FolderError::Prepare { path: path.to_owned(), source };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
    let found = fs::metadata(path).map_err(failed)?;
    let refuse = |reason: String| Err(FolderError::NotOurs { path: path.to_owned(), reason });
    let us = rustix::process::geteuid().as_raw();
    if found.uid() != us {
        return refuse(format!(
            "it belongs to user {}, this process runs as {us}: choose a folder of its own, or run it as that user",
            found.uid()
        ));
    }
    let mode = found.mode() & 0o777;
    if mode & 0o022 != 0 {
        return refuse(format!("others may write to it (mode {mode:04o}): run `chmod 700` on it"));
    }
    if let Some(name) = risk(path) {
        tracing::warn!(path = %path.display(), "the state is on {name}: it may not survive a restart of the machine");
    }
    path.canonicalize().map_err(failed)
}

/// The name of the file system that `path` is on, if state is not safe there; `None` also where it cannot be told.
pub fn risk(path: &Path) -> Option<&'static str> {
    let system = rustix::fs::statfs(path).ok()?;
    #[expect(clippy::useless_conversion, reason = "the type differs between architectures")]
    let kind = i64::try_from(system.f_type).unwrap_or(0);
    RISKY.iter().find(|(magic, _)| *magic == kind).map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_folder_of_ours_is_made_and_one_that_others_write_to_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lib/tug");
        let real = prepare(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        let link = folder.path().join("link");
        symlink(&path, &link).unwrap();
        assert_eq!(prepare(&link).unwrap(), real);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
        let error = prepare(&path).unwrap_err().to_string();
        assert!(error.contains("mode 0777") && error.contains("chmod 700"), "{error}");
        fs::write(folder.path().join("file"), "").unwrap();
        assert!(matches!(prepare(&folder.path().join("file")), Err(FolderError::Prepare { .. })));
    }
}
