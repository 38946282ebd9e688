//! What the agent keeps on disk: who the node is, its last assignment, the endpoints that it knows, and how the runs of
//! its tasks went.
//!
//! Each file is two lines of JSON: the value, and its checksum. A file is replaced whole: written beside, synced, renamed,
//! and its folder synced. One that is damaged is put aside and counts as missing; the containers' labels say the rest.
//! The assignment holds environments, and with them secrets: nobody but the owner may read it.

mod lease;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tug_api::folder::{self, FolderError};
use tug_model::assignment::Assignment;
use tug_model::endpoints::Endpoints;
use tug_model::{NodeId, TaskId};

use crate::plan::History;

/// The files of one agent.
#[derive(Debug)]
pub struct Ledger {
    folder: PathBuf,
}

/// What one agent tells the others by a lock, for as long as this lives, and at the latest until its process ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Why the ledger could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The folder cannot be made, or is not ours alone.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// A file could not be read.
    #[error("read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file could not be written; the old one is still there.
    #[error("write {}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another agent works on the folder.
    #[error("another agent works on {}: end it, or choose another folder", path.display())]
    Locked {
        /// Which.
        path: PathBuf,
    },
    /// No random number for the id of the node.
    #[error("draw a random number: {0}")]
    Random(getrandom::Error),
}

#[derive(Serialize, Deserialize)]
struct Checksum {
    crc32: u32,
}

#[derive(Serialize, Deserialize)]
struct NodeFile {
    id: NodeId,
}

const ASSIGNMENT: &str = "assignment.json";
const ENDPOINTS: &str = "endpoints.json";
const RESTARTS: &str = "restarts.json";
const NODE: &str = "node.json";
const LOCK: &str = "lock";
const DRAINING: &str = "draining";

// === impl Ledger ===

impl Ledger {
    /// The ledger in `folder`, which is made if need be, for its owner only, and refused if it is not ours alone.
    pub fn open(folder: &Path) -> Result<Self, LedgerError> {
        folder::prepare(folder)?;
        Ok(Self { folder: folder.to_owned() })
    }

    /// Keeps other agents off the folder. An agent that is on its way out may still have it, for a moment.
    pub fn lock(&self) -> Result<Lock, LedgerError> {
        self.take(LOCK, FlockOperation::NonBlockingLockExclusive)
    }

    /// Whether an agent has the folder. A look may be in the way of one that wants it, who tries again.
    pub fn is_locked(&self) -> bool {
        self.take(LOCK, FlockOperation::NonBlockingLockShared).is_err_and(|error| error.is_locked())
    }

    /// Tells later agents, for as long as what it gives lives, that connections are open which they don't count. Only
    /// who has the folder may say so: when [`Ledger::is_draining`] has become untrue for an agent, it stays so.
    pub fn drain(&self) -> Result<Lock, LedgerError> {
        self.take(DRAINING, FlockOperation::NonBlockingLockShared)
    }

    /// Whether an earlier agent has yet to end connections of its own.
    pub fn is_draining(&self) -> bool {
        // Where it cannot be told, caution costs no more than a wait.
        self.take(DRAINING, FlockOperation::NonBlockingLockExclusive).is_err()
    }

    fn take(&self, name: &str, how: FlockOperation) -> Result<Lock, LedgerError> {
        let path = self.folder.join(name);
        let failed = |source| LedgerError::Write { path: path.clone(), source };
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&path).map_err(failed)?;
        match rustix::fs::flock(&file, how) {
            Ok(()) => Ok(Lock { _file: file }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(LedgerError::Locked { path: self.folder.clone() }),
            Err(error) => Err(failed(error.into())),
        }
    }

    /// The node's id as [`Ledger::node`] has it. The folder may be another agent's still: a file is written only where
    /// an id must be made, and then under the lock.
    pub fn node_before_lock(&self, wanted: Option<NodeId>, hostname: &str) -> Result<NodeId, LedgerError> {
        if let Some(wanted) = wanted {
            return Ok(wanted);
        }
        if let Some(NodeFile { id }) = self.load(NODE)? {
            return Ok(id);
        }
        let _lock = self.lock()?;
        self.node(None, hostname)
    }

    /// The node's id: the one it has had, or `wanted`, or one made from the host's name, once.
    pub fn node(&self, wanted: Option<NodeId>, hostname: &str) -> Result<NodeId, LedgerError> {
        let known = self.load(NODE)?.map(|NodeFile { id }| id);
        if let (Some(wanted), Some(_)) = (&wanted, &known) {
            return Ok(wanted.clone());
        }
        if let Some(known) = known {
            return Ok(known);
        }
        let id = wanted.map_or_else(|| invent(hostname), Ok)?;
        self.save(NODE, &NodeFile { id: id.clone() })?;
        Ok(id)
    }

    /// The last assignment; `None` if there is none, or none that can be trusted.
    pub fn assignment(&self) -> Result<Option<Assignment>, LedgerError> {
        self.load(ASSIGNMENT)
    }

    /// Keeps `assignment`. When this returns it is on disk.
    pub fn keep_assignment(&self, assignment: &Assignment) -> Result<(), LedgerError> {
        self.save(ASSIGNMENT, assignment)
    }

    /// The endpoints that were known last; none if that is not known.
    pub fn endpoints(&self) -> Result<Endpoints, LedgerError> {
        Ok(self.load(ENDPOINTS)?.unwrap_or_default())
    }

    /// Keeps `endpoints`. When this returns they are on disk.
    pub fn keep_endpoints(&self, endpoints: &Endpoints) -> Result<(), LedgerError> {
        self.save(ENDPOINTS, endpoints)
    }

    /// How the runs of the tasks went; empty if that is not known.
    pub fn histories(&self) -> Result<BTreeMap<TaskId, History>, LedgerError> {
        Ok(self.load(RESTARTS)?.unwrap_or_default())
    }

    /// Keeps how the runs of the tasks went.
    pub fn keep_histories(&self, histories: &BTreeMap<TaskId, History>) -> Result<(), LedgerError> {
        self.save(RESTARTS, histories)
    }

    fn load<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, LedgerError> {
        let path = self.folder.join(name);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(LedgerError::Read { path, source }),
        };
        if let Some(value) = parse(&bytes) {
            return Ok(Some(value));
        }
        let aside = self.folder.join(format!("{name}.damaged"));
        tracing::warn!(file = %path.display(), "the file is damaged; it is put aside and counts as missing");
        fs::rename(&path, aside).map_err(|source| LedgerError::Write { path, source })?;
        Ok(None)
    }

    fn save<T: Serialize>(&self, name: &str, value: &T) -> Result<(), LedgerError> {
        let path = self.folder.join(name);
        let written = serialize(value).and_then(|bytes| replace(&path, &bytes, 0o600, (None, None)));
        written.map_err(|source| LedgerError::Write { path, source })
    }
}

// === impl LedgerError ===

impl LedgerError {
    /// Whether the disk is full.
    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::Read { source, .. } | Self::Write { source, .. } => {
                matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            }
            Self::Folder(_) | Self::Locked { .. } | Self::Random(_) => false,
        }
    }

    /// Whether another agent works on the folder, which may end.
    pub fn is_locked(&self) -> bool {
        matches!(self, Self::Locked { .. })
    }
}

// === files ===

/// Puts `bytes` in the place of the file at `path`, so that after a power cut there is the old file or the new one.
pub(crate) fn replace(
    path: &Path,
    bytes: &[u8],
    mode: u32,
    (user, group): (Option<u32>, Option<u32>),
) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    // Left by a crash, and perhaps with another mode.
    match fs::remove_file(&beside) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside)?;
    // The umask takes bits away that a config file may need.
    if user.is_some() || group.is_some() {
        std::os::unix::fs::fchown(&file, user, group)?;
    }
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(mode))?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

/// The file that holds `value`.
pub(crate) fn serialize<T: Serialize>(value: &T) -> io::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(value)?;
    let crc32 = crc32fast::hash(&bytes);
    bytes.push(b'\n');
    serde_json::to_writer(&mut bytes, &Checksum { crc32 })?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// The value in a file; `None`: it is damaged.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let (value, checksum) = (lines.next()?, lines.next()?);
    let Checksum { crc32 } = serde_json::from_slice(checksum).ok()?;
    (crc32fast::hash(value) == crc32).then(|| serde_json::from_slice(value).ok()).flatten()
}

/// A new id for a node on a host of this name: `web-7f3a`.
fn invent(hostname: &str) -> Result<NodeId, LedgerError> {
    let random = getrandom::u32().map_err(LedgerError::Random)?;
    let plain: String = hostname
        .to_ascii_lowercase()
        .chars()
        .map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '-' })
        .skip_while(|letter| *letter == '-')
        .take(50)
        .collect();
    let name = if plain.is_empty() { "node" } else { plain.trim_end_matches('-') };
    Ok(NodeId::parse(&format!("{name}-{random:08x}")).expect("plain letters and eight digits make a node id"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::plan::tests::sample::{assignment, id, run, template};

    #[test]
    fn what_is_kept_comes_back_and_only_its_owner_may_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("deep").join("state");
        let ledger = Ledger::open(&state).unwrap();
        assert_eq!(ledger.assignment().unwrap(), None);
        assert!(ledger.histories().unwrap().is_empty());
        let kept = assignment(3, &template(), &run(&[1, 2]));
        ledger.keep_assignment(&assignment(2, &template(), &[])).unwrap();
        ledger.keep_assignment(&kept).unwrap();
        let histories = BTreeMap::from([(id(1), History { starts: 3, streak: 2, ..History::default() })]);
        ledger.keep_histories(&histories).unwrap();
        let again = Ledger::open(&state).unwrap();
        assert_eq!(again.assignment().unwrap(), Some(kept));
        assert_eq!(again.histories().unwrap(), histories);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&state), mode(&state.join(ASSIGNMENT))), (0o700, 0o600));
    }

    #[test]
    fn a_file_cut_at_any_byte_or_with_any_bit_flipped_counts_as_missing() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(folder.path()).unwrap();
        let histories = BTreeMap::from([(id(1), History { starts: 3, ..History::default() })]);
        ledger.keep_histories(&histories).unwrap();
        let path = folder.path().join(RESTARTS);
        let whole = fs::read(&path).unwrap();
        // The last byte is the end of the line of the checksum, which says nothing.
        for cut in 0..whole.len() - 1 {
            fs::write(&path, &whole[..cut]).unwrap();
            assert!(ledger.histories().unwrap().is_empty(), "cut at {cut}");
        }
        for bit in 0..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, &flipped).unwrap();
            let read = ledger.histories().unwrap();
            assert!(read.is_empty() || read == histories, "bit {bit} gave {read:?}");
        }
        assert!(folder.path().join("restarts.json.damaged").exists());
    }

    #[test]
    fn a_folder_that_others_may_write_to_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o770)).unwrap();
        let error = Ledger::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains("mode 0770") && error.contains("chmod 700"), "{error}");
    }

    #[test]
    fn agents_tell_each_other_who_works_and_who_drains() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = || Ledger::open(folder.path()).unwrap();
        assert!(!ledger().is_locked() && !ledger().is_draining());
        let lock = ledger().lock().unwrap();
        assert!(ledger().is_locked());
        let first = ledger().drain().unwrap();
        drop(lock);
        let _lock = ledger().lock().unwrap();
        let second = ledger().drain().unwrap();
        drop(first);
        assert!(ledger().is_draining(), "one of two");
        drop(second);
        assert!(!ledger().is_draining());
    }

    #[test]
    fn a_node_keeps_the_id_that_it_made() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(folder.path()).unwrap();
        let made = ledger.node(None, "Büro.PC_1--").unwrap();
        assert!(made.as_str().starts_with("b-ro-pc-1-"), "{made}");
        assert_eq!(ledger.node(None, "renamed").unwrap(), made);
        let wanted = NodeId::parse("n1").unwrap();
        assert_eq!(ledger.node(Some(wanted.clone()), "x").unwrap(), wanted);
        assert_eq!(ledger.node_before_lock(None, "x").unwrap(), made);
        for hostname in ["", "---", "é", &"a".repeat(300)] {
            assert!(NodeId::parse(invent(hostname).unwrap().as_str()).is_ok());
        }
    }

    #[test]
    fn nothing_is_written_beside_another_agent() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(folder.path()).unwrap();
        let wanted = NodeId::parse("n1").unwrap();
        let lock = ledger.lock().unwrap();
        assert_eq!(ledger.node_before_lock(Some(wanted.clone()), "x").unwrap(), wanted);
        assert!(ledger.node_before_lock(None, "x").unwrap_err().is_locked());
        assert!(!folder.path().join(NODE).exists());
        drop(lock);
        let made = ledger.node_before_lock(None, "x").unwrap();
        assert_eq!(ledger.node(None, "y").unwrap(), made);
    }
}
