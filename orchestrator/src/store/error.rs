//! What can go wrong with the store, in the words of those who use it.

use std::io;
use std::path::PathBuf;

use tug_model::Revision;

/// Why nothing was committed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// There is no room on the disk. Commits that remove or stop something are still taken.
    #[error("the disk of the store is full: only commits that remove or stop something are taken")]
    Full,
    /// The commit is larger than a commit may be.
    #[error("the change is too large: {size} bytes, of at most {limit}")]
    TooLarge {
        /// Its size as JSON.
        size: usize,
        /// The largest.
        limit: usize,
    },
    /// The store takes no commits any more.
    #[error("the store is read-only until it is opened again: {reason}")]
    ReadOnly {
        /// Why.
        reason: String,
    },
    /// The disk failed while this commit was being written: it may be there after a restart, or not.
    #[error("it is not known whether the change was stored: {reason}")]
    Unknown {
        /// What failed.
        reason: String,
    },
    /// The writer has ended.
    #[error("the store is closed")]
    Closed,
}

/// Why the commits after some revision cannot be listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HistoryError {
    /// They are no longer kept: read the whole state and go on from there.
    #[error("the commits after {asked} are no longer kept, only those after {oldest}")]
    Compacted {
        /// What was asked for.
        asked: Revision,
        /// The oldest revision that can be asked for.
        oldest: Revision,
    },
    /// There is no such revision yet.
    #[error("revision {asked} is not there yet, the newest is {newest}")]
    Future {
        /// What was asked for.
        asked: Revision,
        /// The newest.
        newest: Revision,
    },
}

/// Why a store cannot be opened. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another daemon has it.
    #[error("the store in {} is in use by {}", folder.display(), process(*holder))]
    Locked {
        /// The folder.
        folder: PathBuf,
        /// Its process, if that is known.
        holder: Option<u32>,
    },
    /// The folder cannot be used.
    #[error("open the folder {} of the store", folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
    /// A file cannot be read.
    #[error("read {file} of the store")]
    Read {
        /// Which.
        file: String,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("write {file} of the store")]
    Write {
        /// Which.
        file: String,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
    /// It was written by a newer version.
    #[error(
        "{file} has format {found}, this version of Tug knows formats up to {known}: start the version that wrote it"
    )]
    Newer {
        /// Which file.
        file: String,
        /// Its format.
        found: u32,
        /// The newest that this version knows.
        known: u32,
    },
    /// Its files belong to different clusters.
    #[error(
        "{file} belongs to cluster {found}, the store to cluster {expected}: one of them was copied here"
    )]
    Foreign {
        /// Which file.
        file: String,
        /// Its cluster.
        found: String,
        /// The cluster of the rest.
        expected: String,
    },
    /// Commits are missing, and no copy of the state makes up for it.
    #[error(
        "the store of cluster {cluster} is damaged and would lose commits: {reason}. Nothing was changed. Restore a \
         copy with `tug restore FILE`, for example the newest export-*.jsonl of the store's folder or of a backup; \
         to begin a new, empty cluster, move the folder away"
    )]
    Damaged {
        /// The cluster.
        cluster: String,
        /// What is missing.
        reason: String,
    },
    /// Opening it crashed.
    #[error("open the store")]
    Crashed {
        /// How.
        #[source]
        source: tokio::task::JoinError,
    },
}

/// Why an export was not restored. Nothing was changed, unless a file could not be written.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The file cannot be read.
    #[error("read {}", file.display())]
    Read {
        /// Which.
        file: PathBuf,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
    /// It is no export, or a damaged one.
    #[error("this is not a whole export: {reason}")]
    Export {
        /// What is wrong with it.
        reason: String,
    },
    /// It is of another cluster.
    #[error("the export is of cluster {found}, the store of cluster {expected}")]
    Foreign {
        /// The cluster of the export.
        found: String,
        /// The cluster of the store.
        expected: String,
    },
    /// The folder of the store cannot be used.
    #[error("restore the store")]
    Store(#[from] OpenError),
}

fn process(holder: Option<u32>) -> String {
    holder.map_or_else(|| "another process".to_owned(), |id| format!("process {id}"))
}
