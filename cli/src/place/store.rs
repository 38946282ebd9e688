//! What `tug login` keeps: a folder of our own with one file for each context, readable by its owner only, and the name
//! of the one that is in use.
//!
//! A file that others may read is refused, not mended: whoever could read the token has perhaps done so.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tug_api::token::TokenText;

use super::LOCAL;
use crate::context::Surroundings;
use crate::failure::Failure;
use crate::names::suggest;

/// A context file has at most so many bytes.
const LARGEST: u64 = 64 << 10;
/// The longest name of a context.
const LONGEST_NAME: usize = 64;

/// A control plane elsewhere, and what lets us in. Its debug output shows no more of the token than its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Saved {
    /// What the user calls it.
    pub(crate) name: String,
    /// Where it is reached, as `host:port`; they are tried in this order.
    pub(crate) servers: Vec<String>,
    /// The SHA-256 of the key of its authority, in hexadecimal digits: who is talked to.
    pub(crate) authority: String,
    /// The cluster's id.
    pub(crate) cluster: String,
    /// What lets us in.
    pub(crate) token: TokenText,
}

/// The same, in its file.
#[derive(Serialize, Deserialize)]
struct Kept {
    servers: Vec<String>,
    authority: String,
    cluster: String,
    token: String,
}

/// The folder with all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Store {
    folder: PathBuf,
}

// === impl Store ===

impl Store {
    /// The store of the user; `None` where there is no home.
    pub(crate) fn of(surroundings: &Surroundings) -> Option<Self> {
        let folder = |name: &str| {
            let path = surroundings.environment.get(name).map(PathBuf::from);
            path.filter(|path| path.is_absolute())
        };
        let base = folder("XDG_CONFIG_HOME").or_else(|| Some(folder("HOME")?.join(".config")))?;
        Some(Self { folder: base.join("tug") })
    }

    /// The same, for what cannot do without.
    pub(crate) fn require(surroundings: &Surroundings) -> Result<Self, Failure> {
        Self::of(surroundings).ok_or_else(|| {
            Failure::new("there is no place for contexts: neither XDG_CONFIG_HOME nor HOME is set")
        })
    }

    /// The names of all, sorted.
    pub(crate) fn names(&self) -> Result<Vec<String>, Failure> {
        let entries = match fs::read_dir(self.contexts()) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed("list the contexts in", &self.contexts(), &error)),
        };
        let names = entries.filter_map(|entry| {
            let name = entry.ok()?.file_name().into_string().ok()?;
            name.strip_suffix(".json").filter(|name| check(name).is_ok()).map(str::to_owned)
        });
        let mut names: Vec<String> = names.collect();
        names.sort();
        Ok(names)
    }

    /// The context `name`.
    pub(crate) fn read(&self, name: &str) -> Result<Saved, Failure> {
        check(name)?;
        let path = self.path(name);
        let text = match read_private(&path) {
            Ok(text) => text,
            Err(Unreadable::Failed(error)) if error.kind() == io::ErrorKind::NotFound => {
                return Err(self.unknown(name)?);
            }
            Err(Unreadable::Failed(error)) => return Err(failed("read", &path, &error)),
            Err(Unreadable::Open(reason)) => {
                let failure = Failure::new(format!("{} is not used: {reason}", path.display()));
                return Err(failure.hint(format!(
                    "its token may be known to others: have it removed, and make another; then `tug logout {name}`"
                )));
            }
        };
        let damaged = || {
            Failure::new(format!("{} is damaged", path.display()))
                .hint(format!("`tug logout {name}`, then log in again"))
        };
        // What was read is not part of the error: it has the token.
        let kept: Kept = serde_json::from_str(&text).map_err(|_| damaged())?;
        let Kept { servers, authority, cluster, token } = kept;
        let token = token.parse().map_err(|_| damaged())?;
        Ok(Saved { name: name.to_owned(), servers, authority, cluster, token })
    }

    /// Keeps a context, instead of one of the same name if there is one.
    pub(crate) fn write(&self, saved: &Saved) -> Result<(), Failure> {
        check(&saved.name)?;
        let Saved { name, servers, authority, cluster, token } = saved;
        let kept = Kept {
            servers: servers.clone(),
            authority: authority.clone(),
            cluster: cluster.clone(),
            token: token.expose(),
        };
        let text = serde_json::to_string_pretty(&kept).map_err(|error| Failure::caused("write", &error))?;
        self.prepare()?;
        let path = self.path(name);
        replace(&path, text.as_bytes()).map_err(|error| failed("write", &path, &error))
    }

    /// Removes a context; it is no longer in use either.
    pub(crate) fn remove(&self, name: &str) -> Result<(), Failure> {
        check(name)?;
        let path = self.path(name);
        match fs::remove_file(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(self.unknown(name)?),
            Err(error) => return Err(failed("remove", &path, &error)),
        }
        if self.current()?.as_deref() == Some(name) {
            self.set_current(LOCAL)?;
        }
        Ok(())
    }

    /// The name of the context that is in use; `None`: the socket is.
    pub(crate) fn current(&self) -> Result<Option<String>, Failure> {
        let path = self.folder.join("current");
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text.trim().to_owned()).filter(|name| !name.is_empty() && name != LOCAL)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("read", &path, &error)),
        }
    }

    /// Uses the context `name` from now on, or the socket.
    pub(crate) fn set_current(&self, name: &str) -> Result<(), Failure> {
        if name != LOCAL {
            check(name)?;
        }
        self.prepare()?;
        let path = self.folder.join("current");
        replace(&path, format!("{name}\n").as_bytes()).map_err(|error| failed("write", &path, &error))
    }

    /// Makes the folders, for their owner only, and refuses those that others may write to.
    fn prepare(&self) -> Result<(), Failure> {
        let contexts = self.contexts();
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&contexts);
        made.map_err(|error| failed("make the folder", &contexts, &error))?;
        for folder in [&self.folder, &contexts] {
            let found = fs::metadata(folder).map_err(|error| failed("look at", folder, &error))?;
            if let Some(reason) = open_to_others(&found, 0o022) {
                return Err(Failure::new(format!("{} is not used: {reason}", folder.display()))
                    .hint(format!("chmod 700 {}", folder.display())));
            }
        }
        Ok(())
    }

    fn contexts(&self) -> PathBuf {
        self.folder.join("contexts")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.contexts().join(format!("{name}.json"))
    }

    fn unknown(&self, name: &str) -> Result<Failure, Failure> {
        let names = self.names()?;
        let failure = Failure::new(format!("there is no context `{}`", name.escape_default()));
        Ok(match suggest(name, names.iter().map(String::as_str)) {
            Some(near) => failure.hint(format!("did you mean `{near}`?")),
            None => failure.hint("`tug context ls` shows them, `tug login https://HOST:7443` makes one"),
        })
    }
}

/// Whether a context may have this name, which is part of a file's.
pub(crate) fn check(name: &str) -> Result<(), Failure> {
    let is_right = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    let wrong = name.is_empty()
        || name.len() > LONGEST_NAME
        || name.starts_with(['.', '-'])
        || !name.chars().all(is_right);
    if wrong {
        let shown: String = name.chars().take(LONGEST_NAME).flat_map(char::escape_default).collect();
        return Err(Failure::usage(format!("`{shown}` is no name for a context"))
            .hint("use up to 64 letters, digits, `-`, `.` and `_`"));
    }
    if name == LOCAL {
        return Err(Failure::usage("`local` is the socket of this machine").hint("choose another name"));
    }
    Ok(())
}

enum Unreadable {
    Failed(io::Error),
    Open(String),
}

/// The text of a file that nobody else may read.
fn read_private(path: &Path) -> Result<String, Unreadable> {
    let file = File::open(path).map_err(Unreadable::Failed)?;
    let found = file.metadata().map_err(Unreadable::Failed)?;
    if let Some(reason) = open_to_others(&found, 0o077) {
        return Err(Unreadable::Open(reason));
    }
    let mut text = String::new();
    file.take(LARGEST).read_to_string(&mut text).map_err(Unreadable::Failed)?;
    Ok(text)
}

/// Why something is not ours alone: `mask` are the permissions that others must not have.
fn open_to_others(found: &fs::Metadata, mask: u32) -> Option<String> {
    let (us, mode) = (rustix::process::geteuid().as_raw(), found.mode() & 0o777);
    if found.uid() != us {
        return Some(format!("it belongs to user {}, this is user {us}", found.uid()));
    }
    (mode & mask != 0).then(|| format!("others may use it (mode {mode:04o})"))
}

/// Writes a file that only its owner may read, whole or not at all.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension(format!("{}.new", std::process::id()));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    let written =
        file.write_all(bytes).and_then(|()| file.sync_all()).and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        // The error of the writing is what matters.
        let _left = fs::remove_file(&beside);
    }
    written
}

fn failed(what: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::caused(&format!("{what} {}", path.display()), error)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::os::unix::fs::PermissionsExt;

    use tug_api::token::TokenKind;

    use super::*;

    pub(crate) fn surroundings() -> (tempfile::TempDir, Surroundings) {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().to_str().unwrap().to_owned();
        let environment = [("HOME".to_owned(), home)].into();
        (folder, Surroundings { environment, ..Surroundings::default() })
    }

    pub(crate) fn saved(name: &str) -> Saved {
        let authority = "ab".repeat(32);
        let token = TokenText::new(TokenKind::Access, &authority, [7; 36]).unwrap();
        let servers = vec!["tug.example.org:7443".to_owned(), "192.0.2.1:7443".to_owned()];
        Saved { name: name.to_owned(), servers, authority, cluster: "c1".to_owned(), token }
    }

    #[test]
    fn a_context_is_kept_for_its_owner_only_and_found_again() {
        let (folder, surroundings) = surroundings();
        let store = Store::require(&surroundings).unwrap();
        assert_eq!((store.names().unwrap(), store.current().unwrap()), (Vec::new(), None));
        store.write(&saved("prod")).unwrap();
        store.write(&saved("prod")).unwrap();
        store.set_current("prod").unwrap();
        assert_eq!(store.read("prod").unwrap(), saved("prod"));
        assert_eq!(
            (store.names().unwrap(), store.current().unwrap()),
            (vec!["prod".into()], Some("prod".into()))
        );
        let mode = |path: &str| fs::metadata(folder.path().join(path)).unwrap().mode() & 0o777;
        assert_eq!(mode(".config/tug/contexts/prod.json"), 0o600);
        assert_eq!((mode(".config/tug"), mode(".config/tug/contexts")), (0o700, 0o700));
        assert!(!format!("{:?}", saved("prod")).contains(&saved("prod").token.expose()));
        store.remove("prod").unwrap();
        assert_eq!((store.names().unwrap(), store.current().unwrap()), (Vec::new(), None));
        assert_eq!(store.remove("prod").unwrap_err().message, "there is no context `prod`");
    }

    #[test]
    fn what_others_may_read_or_write_is_not_used() {
        let (folder, surroundings) = surroundings();
        let store = Store::require(&surroundings).unwrap();
        store.write(&saved("prod")).unwrap();
        let path = folder.path().join(".config/tug/contexts/prod.json");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let failure = store.read("prod").unwrap_err();
        assert!(failure.message.contains("mode 0640") && failure.hint.unwrap().contains("tug logout prod"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "{\"token\": \"tug_access_secret\"}").unwrap();
        let failure = store.read("prod").unwrap_err();
        assert!(failure.message.ends_with("is damaged") && !format!("{failure:?}").contains("secret"));
        let contexts = folder.path().join(".config/tug/contexts");
        fs::set_permissions(&contexts, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(store.write(&saved("prod")).unwrap_err().message.contains("mode 0777"));
    }

    #[test]
    fn a_name_is_no_path() {
        let (_folder, surroundings) = surroundings();
        let store = Store::require(&surroundings).unwrap();
        for name in ["", "..", "../x", "a/b", "-x", ".x", "local", &"x".repeat(65)] {
            assert!(store.read(name).is_err() && check(name).is_err(), "{name}");
        }
        store.write(&saved("tug.example.org")).unwrap();
        let failure = store.read("tug.exampel.org").unwrap_err();
        assert_eq!(failure.hint.unwrap(), "did you mean `tug.example.org`?");
        assert!(Store::of(&Surroundings::default()).is_none());
    }
}
