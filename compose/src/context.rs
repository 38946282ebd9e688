//! What the readers of services need beside the tree: the files around the manifest, the environment, and where they
//! leave what they find.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use tug_model::ProjectName;
use tug_model::spec::resource::Config;

use crate::disk::Disk;
use crate::finding::Report;
use crate::tree::Place;

/// What is around the manifest.
pub(crate) struct Context<'a> {
    pub(crate) report: &'a Report,
    pub(crate) disk: &'a dyn Disk,
    pub(crate) project: &'a ProjectName,
    pub(crate) environment: &'a BTreeMap<String, String>,
    /// The folder that relative paths of each file start from, by the file's number.
    pub(crate) folders: &'a [PathBuf],
    /// The contents of configs, with those that were made of relative bind mounts.
    pub(crate) configs: RefCell<BTreeMap<String, Config>>,
}

// === impl Context ===

impl Context<'_> {
    /// `path` as an absolute one, seen from the file that it is written in.
    pub(crate) fn absolute(&self, place: Place, path: &str) -> PathBuf {
        let folder = self.folders.get(usize::from(place.file)).or_else(|| self.folders.first());
        normalize(&folder.map_or_else(|| PathBuf::from("/"), Clone::clone).join(path))
    }
}

/// The path without `.`, `..` and double slashes.
pub(crate) fn normalize(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                normal.pop();
            }
            Component::Prefix(_) | Component::RootDir | Component::Normal(_) => normal.push(component),
        }
    }
    normal
}
