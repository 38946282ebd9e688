//! The journal: files of records, appended to and never changed. What is in it is what was promised.

use std::io;
use std::sync::Arc;

use tug_model::Revision;

use super::disk::{Disk, is_full};
use super::entry::Mark;
use super::record::{self, Payload};

/// A group is closed once it is so large.
pub(super) const GROUP_BYTES: usize = 1 << 20;

/// The end of the journal, where groups are added.
#[derive(Debug)]
pub(super) struct Journal {
    disk: Arc<dyn Disk>,
    cluster: String,
    segment_bytes: u64,
    /// Where the next record goes.
    end: Mark,
}

/// Why a group was not added.
#[derive(Debug, thiserror::Error)]
pub(super) enum AppendError {
    /// There is no room. The journal is as it was.
    #[error("the disk is full")]
    Full,
    /// It is not known what the journal holds now.
    #[error("write the journal")]
    Broken {
        /// What went wrong.
        #[source]
        source: io::Error,
    },
}

/// The name of a file of the journal.
pub(super) fn file_name(segment: u64) -> String {
    format!("journal-{segment:010}.log")
}

/// The number of a file of the journal.
pub(super) fn segment_of(name: &str) -> Option<u64> {
    let number = name.strip_prefix("journal-")?.strip_suffix(".log")?;
    (number.len() == 10).then(|| number.parse().ok())?
}

/// A group as it is written, made of its commits as JSON.
pub(super) fn group(commits: &[Vec<u8>]) -> Vec<u8> {
    [&b"{\"group\":["[..], &commits.join(&b','), b"]}"].concat()
}

// === impl Journal ===

impl Journal {
    /// The journal that ends at `end`.
    pub(super) fn new(disk: Arc<dyn Disk>, cluster: &str, segment_bytes: u64, end: Mark) -> Self {
        Self { disk, cluster: cluster.to_owned(), segment_bytes, end }
    }

    /// Where it ends: how far a copy of the state goes that holds all of it.
    pub(super) fn end(&self) -> Mark {
        self.end
    }

    /// Whether the file is so full that a new one should be begun first.
    pub(super) fn is_long(&self) -> bool {
        self.end.offset >= self.segment_bytes
    }

    /// Begins the next file. When this returns, the file and its name survive a power cut.
    pub(super) fn begin_segment(&mut self) -> Result<(), AppendError> {
        let opening = Payload::Opening { cluster: self.cluster.clone() };
        let payload = serde_json::to_vec(&opening).expect("a text is JSON");
        let (bytes, chain) = record::encode(&payload, self.end.epoch, self.end.revision, self.end.chain);
        let segment = self.end.segment + 1;
        self.disk.replace(&file_name(segment), &bytes).map_err(|source| {
            if is_full(&source) { AppendError::Full } else { AppendError::Broken { source } }
        })?;
        self.end = Mark { segment, offset: bytes.len() as u64, chain, ..self.end };
        Ok(())
    }

    /// Adds a group. When this returns, it survives a power cut.
    pub(super) fn append(&mut self, payload: &[u8], revision: Revision) -> Result<(), AppendError> {
        let name = file_name(self.end.segment);
        let offset = self.end.offset;
        let (bytes, chain) = record::encode(payload, self.end.epoch, revision, self.end.chain);
        if let Err(source) = self.disk.append(&name, offset, &bytes) {
            if !is_full(&source) {
                return Err(AppendError::Broken { source });
            }
            return match self.disk.truncate(&name, offset).and_then(|()| self.disk.sync(&name)) {
                Ok(()) => Err(AppendError::Full),
                Err(source) => Err(AppendError::Broken { source }),
            };
        }
        self.disk.sync(&name).map_err(|source| AppendError::Broken { source })?;
        self.end = Mark { revision, offset: offset + bytes.len() as u64, chain, ..self.end };
        Ok(())
    }
}
