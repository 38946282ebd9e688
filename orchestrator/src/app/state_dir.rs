//! The folder that holds everything: nobody else may write to it.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;

use super::Error;

/// What `statfs` says of file systems that forget, or whose locks and syncs are somebody else's promise.
const RISKY: [(i64, &str); 3] = [(0x0102_1994, "tmpfs"), (0x6969, "NFS"), (0x8584_58f6, "ramfs")];

/// Makes the folder if need be, and refuses one that is not ours alone.
pub(super) fn prepare(path: &Path) -> Result<(), Error> {
    let failed = |source| Error::Folder { path: path.to_owned(), source };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
    let found = fs::metadata(path).map_err(failed)?;
    let refuse = |reason: String| Err(Error::StateDir { path: path.to_owned(), reason });
    let us = rustix::process::geteuid().as_raw();
    if found.uid() != us {
        return refuse(format!("it belongs to user {}, this process runs as {us}", found.uid()));
    }
    let mode = found.mode() & 0o777;
    if mode & 0o022 != 0 {
        return refuse(format!("others may write to it (mode {mode:04o}): run `chmod 700` on it"));
    }
    let system = rustix::fs::statfs(path).map_err(|error| failed(error.into()))?;
    #[expect(clippy::useless_conversion, reason = "the type differs between architectures")]
    let kind = i64::try_from(system.f_type).unwrap_or(0);
    if let Some((_, name)) = RISKY.iter().find(|(magic, _)| *magic == kind) {
        tracing::warn!(path = %path.display(), "the state is on {name}: it may not survive a restart of the machine");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_folder_of_ours_is_made_and_one_that_others_write_to_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lib/tug");
        prepare(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        prepare(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
        let error = prepare(&path).unwrap_err().to_string();
        assert!(error.contains("mode 0777") && error.contains("chmod 700"), "{error}");
        fs::write(folder.path().join("file"), "").unwrap();
        assert!(matches!(prepare(&folder.path().join("file")), Err(Error::Folder { .. })));
    }
}
