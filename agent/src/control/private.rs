//! What no container is shown: the folder in which this machine's daemons keep their state.
//!
//! The control plane refuses such mounts by their names. Where a name leads is known only here: through a link, into the
//! same folder. Whoever can change links while a container is made is on this machine already, outside of containers.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use tug_model::spec::container::{Container, MountSource};
use tug_model::spec::resource::Volume;

/// The folder, by its real path.
#[derive(Debug, Clone)]
pub(super) struct Private {
    folder: PathBuf,
}

/// Why something is not mounted.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{path}` leads into Tug's own state, of which no container is shown anything: mount another folder")]
pub(super) struct OwnState {
    path: String,
}

// === impl Private ===

impl Private {
    /// Of a folder that is there, by its real path.
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Whether `container` mounts nothing of it.
    pub(super) fn check_container(&self, container: &Container) -> Result<(), OwnState> {
        container.mounts.iter().try_for_each(|mount| match &mount.source {
            MountSource::Bind { path, .. } => self.check(path),
            MountSource::Volume { .. } | MountSource::Anonymous | MountSource::Tmpfs { .. } => Ok(()),
        })
    }

    /// Whether the driver of `volume` is told of nothing of it.
    pub(super) fn check_volume(&self, volume: &Volume) -> Result<(), OwnState> {
        let mut paths = volume.option_paths();
        paths.try_for_each(|(_, path)| self.check(path))
    }

    fn check(&self, path: &str) -> Result<(), OwnState> {
        let path = Path::new(path);
        // `..` means one thing to the kernel and, behind a link, another to an engine that tidies paths up first.
        let is_ours = [path, &tidied(path)].into_iter().any(|path| {
            // What cannot be looked at is not ours, who may look at everything of ours.
            real(path).is_ok_and(|real| real.starts_with(&self.folder))
        });
        if is_ours { Err(OwnState { path: path.to_string_lossy().into_owned() }) } else { Ok(()) }
    }
}

/// `path` with every `..` and what is before it taken out.
fn tidied(path: &Path) -> PathBuf {
    let mut tidied = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => drop(tidied.pop()),
            Component::Prefix(_) | Component::RootDir | Component::CurDir | Component::Normal(_) => {
                tidied.push(component);
            }
        }
    }
    tidied
}

/// Where `path` leads, as far as it is there.
fn real(path: &Path) -> io::Result<PathBuf> {
    for there in path.ancestors() {
        match fs::canonicalize(there) {
            Ok(real) => {
                return Ok(real.join(path.strip_prefix(there).unwrap_or_else(|_| Path::new(""))));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(path.to_owned())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::fs::symlink;

    use tug_model::spec::container::Mount;

    use super::*;

    fn binding(path: &Path) -> Container {
        let source = MountSource::Bind {
            path: path.to_string_lossy().into_owned(),
            create: true,
            propagation: None,
            selinux: None,
        };
        let mount = Mount { source, target: "/data".to_owned(), read_only: true };
        Container { mounts: vec![mount], ..Container::default() }
    }

    #[test]
    fn nothing_of_the_state_is_mounted_by_whatever_name() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("tug/agent")).unwrap();
        fs::create_dir_all(root.join("tugboat")).unwrap();
        symlink(root.join("tug"), root.join("link")).unwrap();
        symlink("../link/agent", root.join("tugboat/deep")).unwrap();
        let private = Private::new(root.join("tug"));
        for own in
            ["tug", "tug/agent", "tug/not/there/yet", "link", "link/agent/x", "tugboat/deep/x", "a/../tug"]
        {
            let path = root.join(own);
            let error = private.check_container(&binding(&path)).unwrap_err();
            assert!(error.to_string().contains(&*path.to_string_lossy()), "{error}");
            let options = BTreeMap::from([("device".to_owned(), path.to_string_lossy().into_owned())]);
            let volume = Volume { driver_opts: options, ..Volume::default() };
            private.check_volume(&volume).unwrap_err();
        }
        for other in ["tugboat", "tugboat/x", "nowhere", "."] {
            assert_eq!(private.check_container(&binding(&root.join(other))), Ok(()), "{other}");
        }
        assert_eq!(private.check_volume(&Volume::default()), Ok(()));
    }
}
