//! The contents of configs as files on the node, which containers see read-only.
//!
//! A file is named after what is in it and how it may be read, so it is written once and never changes under a
//! container. It goes when nothing on the node may need it any more.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use tug_model::spec::container::ConfigMount;
use tug_model::spec::resource::Config;
use tug_model::task::Template;

use crate::ledger;

/// The folder of the config files.
#[derive(Debug, Clone)]
pub(super) struct ConfigFiles {
    folder: PathBuf,
}

/// Why a config is not there as a file.
#[derive(Debug, thiserror::Error)]
#[error("write config `{config}` to {}", path.display())]
pub(super) struct ConfigError {
    config: String,
    path: PathBuf,
    #[source]
    source: io::Error,
}

const MODE: u32 = 0o444;

// === impl ConfigFiles ===

impl ConfigFiles {
    /// Files in `folder`, which is made when it is first needed.
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Sees to it that every config of `template` is a file, and says where, by the target in the container.
    pub(super) fn prepare(
        &self,
        template: &Template,
        contents: &BTreeMap<String, Config>,
    ) -> Result<BTreeMap<String, PathBuf>, ConfigError> {
        let mut files = BTreeMap::new();
        for mount in &template.container.configs {
            let path = self.folder.join(name(mount));
            let there = match contents.get(&mount.hash) {
                Some(config) => self.write(&path, mount, &config.content),
                None => Err(io::Error::new(io::ErrorKind::NotFound, "its content was not sent")),
            };
            there.map_err(|source| ConfigError {
                config: mount.config.clone(),
                path: path.clone(),
                source,
            })?;
            files.insert(mount.target.clone(), path);
        }
        Ok(files)
    }

    /// Removes every file that none of `templates` needs. An error is about one that stays; the others are gone.
    pub(super) fn keep_only<'a>(&self, templates: impl Iterator<Item = &'a Template>) -> io::Result<()> {
        let needed: BTreeSet<String> =
            templates.flat_map(|template| &template.container.configs).map(name).collect();
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let mut failed = None;
        for entry in entries {
            let entry = entry?;
            if !entry.file_name().to_str().is_some_and(|file| needed.contains(file)) {
                // One that stays must not keep the others.
                failed = remove(&entry.path()).err().or(failed);
            }
        }
        failed.map_or(Ok(()), Err)
    }

    fn write(&self, path: &Path, mount: &ConfigMount, content: &[u8]) -> io::Result<()> {
        if path.is_file() {
            return Ok(());
        }
        // An engine makes a directory of a path that it shall mount and does not find.
        if path.is_dir() {
            fs::remove_dir(path)?;
        }
        // Processes of any user in a container must get through to their own file, and see no list of the others.
        fs::DirBuilder::new().recursive(true).mode(0o711).create(&self.folder)?;
        ledger::replace(path, content, mount.mode.unwrap_or(MODE), (mount.uid, mount.gid))
    }
}

/// Removes a file, or a directory with nothing in it.
fn remove(path: &Path) -> io::Result<()> {
    if path.symlink_metadata()?.is_dir() { fs::remove_dir(path) } else { fs::remove_file(path) }
}

/// The name of the file of `mount`: its content's hash, and how it may be read where that is said.
fn name(mount: &ConfigMount) -> String {
    if mount.mode.is_none() && mount.uid.is_none() && mount.gid.is_none() {
        return mount.hash.clone();
    }
    let number = |number: Option<u32>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
    let (mode, user, group) = (mount.mode.unwrap_or(MODE), number(mount.uid), number(mount.gid));
    format!("{}_{mode:o}_{user}_{group}", mount.hash)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use tug_model::spec::container::Container;
    use tug_model::spec::service::Restart;

    use super::*;

    fn mount(config: &Config, target: &str, mode: Option<u32>) -> ConfigMount {
        ConfigMount {
            config: "app".to_owned(),
            hash: config.hash(),
            target: target.to_owned(),
            mode,
            uid: None,
            gid: None,
        }
    }

    fn template(configs: Vec<ConfigMount>) -> Template {
        Template {
            container: Container { configs, ..Container::default() },
            restart: Restart::default(),
            probe: None,
            host_ports: Vec::new(),
            exposed: Vec::new(),
            exclusive: false,
            restarts_asked: 0,
            needs: tug_model::task::Needs::default(),
        }
    }

    #[test]
    fn a_file_for_each_content_and_mode_which_goes_when_nothing_needs_it() {
        let folder = tempfile::tempdir().unwrap();
        let files = ConfigFiles::new(folder.path().join("configs"));
        let config = Config { content: b"one\0two\n".to_vec() };
        let contents = BTreeMap::from([(config.hash(), config.clone())]);
        let both = template(vec![mount(&config, "/a", None), mount(&config, "/b", Some(0o400))]);

        let paths = files.prepare(&both, &contents).unwrap();
        for (target, mode) in [("/a", 0o444), ("/b", 0o400)] {
            let path = &paths[target];
            assert_eq!(fs::read(path).unwrap(), config.content);
            assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, mode, "{target}");
        }
        let written = fs::metadata(&paths["/a"]).unwrap().modified().unwrap();
        assert_eq!(files.prepare(&both, &contents).unwrap(), paths);
        assert_eq!(fs::metadata(&paths["/a"]).unwrap().modified().unwrap(), written, "never written again");

        let one = template(vec![mount(&config, "/elsewhere", None)]);
        files.keep_only([&one].into_iter()).unwrap();
        assert!(paths["/a"].exists() && !paths["/b"].exists());
        files.keep_only(std::iter::empty()).unwrap();
        assert!(!paths["/a"].exists());
    }

    #[test]
    fn a_missing_content_is_an_error_with_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let files = ConfigFiles::new(folder.path().join("configs"));
        let template = template(vec![mount(&Config::default(), "/a", None)]);
        let error = files.prepare(&template, &BTreeMap::new()).unwrap_err();
        assert!(error.to_string().contains("`app`"), "{error}");
    }

    #[test]
    fn a_directory_is_no_file_and_what_cannot_be_removed_keeps_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("configs");
        let files = ConfigFiles::new(folder.clone());
        let config = Config { content: b"one".to_vec() };
        let contents = BTreeMap::from([(config.hash(), config.clone())]);
        let one = template(vec![mount(&config, "/a", None)]);
        let path = folder.join(config.hash());
        fs::create_dir_all(&path).unwrap();
        assert_eq!(files.prepare(&one, &contents).unwrap()["/a"], path);
        assert_eq!(fs::read(&path).unwrap(), config.content);

        for number in 0..20 {
            fs::write(folder.join(format!("old{number}")), "").unwrap();
        }
        fs::create_dir_all(folder.join("full/inside")).unwrap();
        fs::create_dir(folder.join("empty")).unwrap();
        files.keep_only([&one].into_iter()).unwrap_err();
        let left =
            fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        assert_eq!(left.collect::<BTreeSet<_>>(), BTreeSet::from([config.hash(), "full".to_owned()]));
    }
}
