//! The store: everything that must survive, and the only place where it changes.
//!
//! One writer takes the commits that wait, up to 64 at once, and makes them one group: one append to a checksummed
//! journal and one `fdatasync`, then sled (the materialised state, which can be rebuilt), then memory, then the
//! answers. Reads are of memory and never touch the disk. sled alone is no promise: its `flush` survives no power
//! cut, so what is answered is what is in the journal.
//!
//! | file | what | if it is lost |
//! |---|---|---|
//! | `journal-N.log` | every commit, in groups, each checked and chained to the one before | the tree or an export, if one of them covers it; else the store refuses to open |
//! | `tree/` | sled: the state as of some commit | rebuilt |
//! | `export-R.jsonl` | the state as of commit R, for rebuilding and for people | the older export, or the tree |
//! | `cluster.json` | whose store this is and how far it once was | rewritten, unless all is lost |
//! | `ballast` | room that is given back when the disk is full | made again |
//!
//! [`Store`] is the handle, [`Writer`] the component that runs, [`State`] what is read.

mod backend;
mod change;
mod disk;
mod entry;
mod error;
mod export;
mod history;
mod journal;
mod record;
mod recover;
mod sentinel;
mod state;
#[cfg(test)]
mod tests;
mod tree;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};
use tug_model::{Revision, Timestamp};

pub use self::change::{Change, Committed, Remembered};
pub use self::disk::MemoryDisk;
pub use self::error::{CommitError, HistoryError, OpenError, RestoreError};
pub use self::state::State;
pub use self::writer::Writer;

use self::history::History;
use self::writer::{Build, Request};

/// Where a store is kept, and how.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where.
    pub backing: Backing,
    /// The id of the cluster, if the store is new; otherwise the store knows.
    pub new_cluster: String,
    /// Who does the disk work.
    pub blocking: Blocking,
    /// What a commit waits for.
    pub sync: Sync,
    /// The size at which a new file of the journal is begun.
    pub segment_bytes: u64,
    /// An export is written every so many commits.
    pub export_every: u64,
    /// So many commits are kept in memory for [`Store::changes_since`].
    pub history: usize,
    /// The room kept back for a full disk.
    pub ballast_bytes: u64,
}

/// Where a store is kept.
#[derive(Debug, Clone)]
pub enum Backing {
    /// In a folder of this machine.
    Folder(PathBuf),
    /// In memory, without sled: for simulations.
    Memory(MemoryDisk),
}

/// Who does the disk work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blocking {
    /// The threads of the runtime that may block.
    Thread,
    /// The writer's own task: a paused clock stays paused meanwhile, and every run is the same.
    Inline,
}

/// What a commit waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sync {
    /// Until it survives a power cut.
    Full,
    /// For nothing: only for simulations that cut no power.
    None,
}

/// How well the store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// It takes every commit.
    Writable,
    /// The disk is full: it takes commits that remove or stop something.
    Full,
    /// It takes no commit any more, until it is opened again.
    ReadOnly {
        /// Why.
        reason: String,
    },
}

/// The handle: cheap to clone, good from any task.
#[derive(Debug, Clone)]
pub struct Store {
    requests: mpsc::Sender<Request>,
    state: watch::Receiver<Arc<State>>,
    condition: watch::Receiver<Condition>,
    history: Arc<History>,
}

/// Opens a store, made where there is none. It is read at once; commits wait until [`Writer::run`] runs.
pub async fn open(config: Config) -> Result<(Store, Writer), OpenError> {
    let opened = match config.blocking {
        Blocking::Inline => backend::Backend::open(&config)?,
        Blocking::Thread => {
            let config = config.clone();
            tokio::task::spawn_blocking(move || backend::Backend::open(&config))
                .await
                .map_err(|source| OpenError::Crashed { source })??
        }
    };
    Ok(Writer::new(&config, opened))
}

/// Makes the store what an export says, under a new epoch; what was there is put aside. It must not be open. Returns
/// the revision at which it goes on. This blocks.
pub fn restore(config: &Config, file: &Path) -> Result<Revision, RestoreError> {
    let text = std::fs::read(file).map_err(|source| RestoreError::Read { file: file.to_owned(), source })?;
    backend::Backend::restore(config, &text)
}

// === impl Config ===

impl Config {
    /// A store in a folder, as a daemon has it.
    pub fn folder(folder: impl Into<PathBuf>, new_cluster: impl Into<String>) -> Self {
        Self {
            backing: Backing::Folder(folder.into()),
            new_cluster: new_cluster.into(),
            blocking: Blocking::Thread,
            sync: Sync::Full,
            segment_bytes: 16 << 20,
            export_every: 10_000,
            history: 4_096,
            ballast_bytes: 8 << 20,
        }
    }

    /// A store in memory, as a simulation has it. Opened again on the same disk, it has what it had.
    pub fn memory(disk: &MemoryDisk, new_cluster: impl Into<String>) -> Self {
        Self {
            backing: Backing::Memory(disk.clone()),
            blocking: Blocking::Inline,
            sync: Sync::None,
            ..Self::folder(PathBuf::new(), new_cluster)
        }
    }
}

// === impl Store ===

impl Store {
    /// The newest state that is on disk.
    pub fn snapshot(&self) -> Arc<State> {
        Arc::clone(&self.state.borrow())
    }

    /// The newest state, again whenever it is another: once for each group of commits, after they are on disk.
    pub fn watch(&self) -> watch::Receiver<Arc<State>> {
        self.state.clone()
    }

    /// How well the store is.
    pub fn condition(&self) -> watch::Receiver<Condition> {
        self.condition.clone()
    }

    /// Commits what `build` makes of the revision that the commit will have and of the state that it will change.
    /// When this returns, it is on disk. No changes are no commit: the newest revision is returned.
    ///
    /// `build` runs in the writer, after every earlier commit: it must be quick, and pure.
    pub async fn commit(
        &self,
        now: Timestamp,
        build: impl FnOnce(Revision, &State) -> Vec<Change> + Send + 'static,
    ) -> Result<Revision, CommitError> {
        let build: Build = Box::new(move |revision, state| Some(build(revision, state)));
        let revision = self.send(now, build).await?;
        Ok(revision.expect("this build always makes changes, and never refuses"))
    }

    /// As [`Store::commit`], for a `build` that may refuse: then nothing is committed, and its error is the answer.
    pub async fn try_commit<E: Send + 'static>(
        &self,
        now: Timestamp,
        build: impl FnOnce(Revision, &State) -> Result<Vec<Change>, E> + Send + 'static,
    ) -> Result<Result<Revision, E>, CommitError> {
        let (refuse, mut refusal) = oneshot::channel();
        let build: Build = Box::new(move |revision, state| match build(revision, state) {
            Ok(changes) => Some(changes),
            Err(error) => {
                // The receiver waits below for as long as the answer is waited for; without it nobody asks.
                drop(refuse.send(error));
                None
            }
        });
        match self.send(now, build).await? {
            Some(revision) => Ok(Ok(revision)),
            None => refusal.try_recv().map(Err).map_err(|_| CommitError::Closed),
        }
    }

    /// Every commit after `revision`, oldest first.
    pub fn changes_since(&self, revision: Revision) -> Result<Vec<Arc<Committed>>, HistoryError> {
        self.history.since(revision)
    }

    async fn send(&self, now: Timestamp, build: Build) -> Result<Option<Revision>, CommitError> {
        let (answer, answered) = oneshot::channel();
        let request = Request { now, build, answer };
        self.requests.send(request).await.map_err(|_| CommitError::Closed)?;
        answered.await.map_err(|_| CommitError::Closed)?
    }
}
