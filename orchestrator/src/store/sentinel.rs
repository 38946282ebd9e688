//! `cluster.json`: whose store this is and how far it once was, so that an emptied folder is not taken for a new one.

use std::io;

use serde::{Deserialize, Serialize};
use tug_model::Revision;

use super::disk::Disk;
use super::error::OpenError;

/// The name of the file.
pub(super) const FILE: &str = "cluster.json";
/// The format of the whole folder; a higher one is refused.
pub(super) const FORMAT: u32 = 1;

/// What the file says. Each number is a lower bound of the truth.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sentinel {
    /// The format of the folder.
    pub(super) format: u32,
    /// The cluster's id.
    pub(super) cluster: String,
    /// The epoch of the store.
    pub(super) epoch: u64,
    /// The newest commit that an export has.
    pub(super) revision: Revision,
    /// The newest file of the journal.
    pub(super) segment: u64,
    /// The newest commit at all, if the store was closed and not opened since.
    pub(super) closed_at: Option<Revision>,
}

/// The file: what it says, and a checksum over that.
#[derive(Debug, Serialize, Deserialize)]
struct Checked {
    sentinel: Sentinel,
    crc32: u32,
}

// === impl Sentinel ===

impl Sentinel {
    /// Reads the file. `None`: there is none, or it is damaged.
    pub(super) fn load(disk: &dyn Disk) -> Result<Option<Self>, OpenError> {
        let bytes = match disk.read(FILE) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(OpenError::Read { file: FILE.to_owned(), source }),
        };
        let Some(sentinel) = parse(&bytes) else {
            tracing::error!(file = FILE, "the file is damaged and is made again from the others");
            return Ok(None);
        };
        if sentinel.format > FORMAT {
            let file = FILE.to_owned();
            return Err(OpenError::Newer { file, found: sentinel.format, known: FORMAT });
        }
        Ok(Some(sentinel))
    }

    /// Writes the file.
    pub(super) fn save(&self, disk: &dyn Disk) -> io::Result<()> {
        let checked = Checked { sentinel: self.clone(), crc32: checksum(self) };
        let mut bytes = serde_json::to_vec(&checked).expect("numbers and a text are JSON");
        bytes.push(b'\n');
        disk.replace(FILE, &bytes)
    }
}

fn parse(bytes: &[u8]) -> Option<Sentinel> {
    let Checked { sentinel, crc32 } = serde_json::from_slice(bytes).ok()?;
    (checksum(&sentinel) == crc32).then_some(sentinel)
}

fn checksum(sentinel: &Sentinel) -> u32 {
    crc32fast::hash(&serde_json::to_vec(sentinel).expect("numbers and a text are JSON"))
}
