//! The disk side of the store: what is done with a group, in which order, and what a full disk means.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tug_model::Revision;

use super::change::Committed;
use super::disk::{Disk, FileDisk, is_full};
use super::entry::Mark;
use super::error::OpenError;
use super::export;
use super::journal::{self, AppendError, Journal};
use super::record::Chain;
use super::recover::{self, Found};
use super::sentinel::{self, Sentinel};
use super::state::State;
use super::tree::{self, Tree, TreeError};
use super::{Backing, Config, Sync};

const BALLAST: &str = "ballast";
/// So many exports are kept, and the journal from the oldest of them on.
const EXPORTS_KEPT: usize = 2;

/// The files of a store, in the hands of its one writer.
#[derive(Debug)]
pub(super) struct Backend {
    disk: Arc<dyn Disk>,
    journal: Journal,
    sentinel: Sentinel,
    /// The file does not yet say what `sentinel` says; it must before the next append.
    sentinel_is_old: bool,
    tree: Option<Tree>,
    /// Where the tree is; `None`: there shall be none.
    tree_folder: Option<PathBuf>,
    /// How far each good export goes, oldest first.
    exports: Vec<Mark>,
    ballast_bytes: u64,
    /// The ballast was given back.
    full: bool,
}

/// A store that was opened.
#[derive(Debug)]
pub(super) struct Opened {
    /// Its files.
    pub(super) backend: Backend,
    /// What it holds.
    pub(super) state: State,
    /// Its newest commits, oldest first.
    pub(super) commits: Vec<Arc<Committed>>,
}

/// What has to be written, and what that leads to.
#[derive(Debug)]
pub(super) struct Group {
    /// The group as the journal holds it.
    pub(super) payload: Vec<u8>,
    /// The state without it.
    pub(super) before: Arc<State>,
    /// The state with it.
    pub(super) after: Arc<State>,
}

/// The writing of an export, apart from everything else: commits go on meanwhile.
#[derive(Debug)]
pub(super) struct Export {
    disk: Arc<dyn Disk>,
    state: Arc<State>,
    mark: Mark,
}

// === impl Backend ===

impl Backend {
    /// Opens the store, made where there is none.
    pub(super) fn open(config: &Config) -> Result<Opened, OpenError> {
        let (disk, tree_folder) = open_disk(config)?;
        let (tree, copy, tree_folder) = open_tree(tree_folder);
        let found = recover::recover(&*disk, copy.as_ref(), config.history)?;
        let is_new = found.is_none();
        let found = found.unwrap_or_else(|| Found::nothing(&config.new_cluster));
        let Found { state, end, commits, sentinel, exports, damaged, needs_segment } = found;
        let cluster = state.cluster.clone();
        let mut backend = Self {
            journal: Journal::new(Arc::clone(&disk), &cluster, config.segment_bytes, end),
            sentinel_is_old: true,
            sentinel: sentinel.unwrap_or(Sentinel {
                format: sentinel::FORMAT,
                cluster,
                epoch: state.epoch,
                revision: Revision(0),
                segment: 0,
                closed_at: None,
            }),
            disk,
            tree: None,
            tree_folder,
            exports,
            ballast_bytes: config.ballast_bytes,
            full: false,
        };
        backend.take_room();
        if is_new || needs_segment {
            backend.begin(&state, is_new)?;
        } else {
            backend.cut_tail(end)?;
        }
        for name in damaged {
            tracing::error!(file = name, "the file is damaged; it is set aside, nothing of it is missing");
            let aside = format!("{name}.damaged");
            backend.disk.rename(&name, &aside).map_err(|source| write_error(&name, source))?;
        }
        match (tree, copy) {
            (Some(tree), Some(copy)) if copy.mark.revision <= end.revision => {
                backend.tree = Some(tree);
                backend.follow(&copy.state, &state);
            }
            (tree, _) => {
                drop_tree(tree);
                backend.rebuild_tree(&state);
            }
        }
        Ok(Opened { backend, state, commits })
    }

    /// Whether only commits that make room are taken.
    pub(super) fn is_full(&self) -> bool {
        self.full
    }

    /// Takes the ballast back if there is room for it again.
    pub(super) fn take_room(&mut self) {
        let there = self.disk.list().is_ok_and(|names| names.iter().any(|name| name == BALLAST));
        if there && !self.full {
            return;
        }
        match self.disk.reserve(BALLAST, self.ballast_bytes) {
            Ok(()) => self.full = false,
            Err(error) if is_full(&error) => self.full = true,
            Err(error) => tracing::warn!(%error, "no room can be kept back for a full disk"),
        }
    }

    /// Makes a group durable. On [`AppendError::Full`] everything is as it was.
    pub(super) fn store(&mut self, group: &Group) -> Result<(), AppendError> {
        match self.promise(group) {
            Err(AppendError::Full) if self.give_room() => self.promise(group)?,
            result => result?,
        }
        self.follow(&group.before, &group.after);
        Ok(())
    }

    /// The commit up to which there is an export.
    pub(super) fn exported(&self) -> Revision {
        self.exports.last().map_or(Revision(0), |mark| mark.revision)
    }

    /// Whether the newest export is older than `state`.
    pub(super) fn lacks_export(&self, state: &State) -> bool {
        self.exports.last().is_none_or(|mark| mark.revision < state.revision)
    }

    /// An export of `state`, which is what the journal ends with.
    pub(super) fn export(&self, state: &Arc<State>) -> Export {
        Export { disk: Arc::clone(&self.disk), state: Arc::clone(state), mark: self.journal.end() }
    }

    /// Takes note of a written export: what it makes needless goes, and a tree that was given up is made again.
    pub(super) fn exported_to(&mut self, mark: Mark, state: &State) {
        self.exports.retain(|other| other.revision != mark.revision);
        self.exports.push(mark);
        self.sentinel.revision = mark.revision;
        self.sentinel_is_old = true;
        if let Err(error) = self.save_sentinel() {
            tracing::warn!(%error, file = sentinel::FILE, "the file cannot be written yet");
            return;
        }
        if let Err(error) = self.prune() {
            tracing::warn!(%error, "files that are no longer needed cannot be removed");
        }
        if self.tree.is_none() && !self.full {
            self.rebuild_tree(state);
        }
    }

    /// Writes down that nothing will follow `state`, of which there is an export.
    pub(super) fn close(mut self, state: &State) -> io::Result<()> {
        drop_tree(self.tree.take());
        self.sentinel.closed_at = Some(state.revision);
        self.save_sentinel()
    }

    fn promise(&mut self, group: &Group) -> Result<(), AppendError> {
        if self.journal.is_long() {
            self.journal.begin_segment()?;
        }
        let segment = self.journal.end().segment;
        if self.sentinel_is_old || self.sentinel.segment != segment || self.sentinel.closed_at.is_some() {
            self.sentinel.segment = segment;
            self.sentinel.closed_at = None;
            self.save_sentinel().map_err(append_error)?;
        }
        self.journal.append(&group.payload, group.after.revision)
    }

    /// Brings the tree up to date. It is no promise, so a failure only gives it up.
    fn follow(&mut self, before: &State, after: &State) {
        let Some(tree) = &mut self.tree else { return };
        if let Err(error) = tree.apply(before, after, self.journal.end()) {
            tracing::warn!(error = &error as &dyn std::error::Error, "the tree is given up for now");
            drop_tree(self.tree.take());
        }
    }

    fn rebuild_tree(&mut self, state: &State) {
        let Some(folder) = &self.tree_folder else { return };
        match Tree::rebuild(folder, state, self.journal.end()) {
            Ok(tree) => self.tree = Some(tree),
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "there is no tree for now");
            }
        }
    }

    /// Begins a file of the journal that needs nothing before it: an export stands in for that.
    fn begin(&mut self, state: &State, is_new: bool) -> Result<(), OpenError> {
        self.begin_segment()?;
        let mark = self.journal.end();
        if !is_new {
            let export = Export { disk: Arc::clone(&self.disk), state: Arc::new(state.clone()), mark };
            let name = export::file_name(mark.revision);
            export.write().map_err(|source| write_error(&name, source))?;
            self.exports.retain(|other| other.revision != mark.revision);
            self.exports.push(mark);
            self.sentinel.revision = mark.revision;
        }
        self.sentinel.segment = mark.segment;
        self.sentinel.closed_at = None;
        self.save_sentinel().map_err(|source| write_error(sentinel::FILE, source))
    }

    fn begin_segment(&mut self) -> Result<(), OpenError> {
        let result = match self.journal.begin_segment() {
            Err(AppendError::Full) if self.give_room() => self.journal.begin_segment(),
            result => result,
        };
        result.map_err(|error| match error {
            AppendError::Full => write_error("the journal", io::ErrorKind::StorageFull.into()),
            AppendError::Broken { source } => write_error("the journal", source),
        })
    }

    /// Cuts off what was never promised.
    fn cut_tail(&self, end: Mark) -> Result<(), OpenError> {
        let name = journal::file_name(end.segment);
        let length = self.disk.read(&name).map_err(|source| write_error(&name, source))?.len() as u64;
        if length > end.offset {
            tracing::warn!(file = name, bytes = length - end.offset, "a torn tail is cut off");
            let cut = self.disk.truncate(&name, end.offset).and_then(|()| self.disk.sync(&name));
            cut.map_err(|source| write_error(&name, source))?;
        }
        Ok(())
    }

    fn save_sentinel(&mut self) -> io::Result<()> {
        self.sentinel_is_old = true;
        self.sentinel.save(&*self.disk)?;
        self.sentinel_is_old = false;
        Ok(())
    }

    /// Gives the ballast back; `false`: it was given back already.
    fn give_room(&mut self) -> bool {
        if self.full {
            return false;
        }
        self.full = true;
        tracing::error!("the disk of the store is full");
        match self.disk.remove(BALLAST) {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(%error, "the ballast cannot be removed");
                false
            }
        }
    }

    fn prune(&mut self) -> io::Result<()> {
        let kept = self.exports.split_off(self.exports.len().saturating_sub(EXPORTS_KEPT));
        self.exports = kept;
        let Some(oldest) = self.exports.first().copied() else { return Ok(()) };
        if self.exports.len() < EXPORTS_KEPT {
            return Ok(());
        }
        for name in self.disk.list()? {
            let old_export = export::revision_of(&name).is_some_and(|it| it < oldest.revision);
            let old_segment = journal::segment_of(&name).is_some_and(|it| it < oldest.segment);
            if old_export || old_segment {
                self.disk.remove(&name)?;
            }
        }
        Ok(())
    }
}

// === impl Export ===

impl Export {
    /// Writes it, reads it back and compares.
    pub(super) fn write(&self) -> io::Result<Mark> {
        let name = export::file_name(self.mark.revision);
        self.disk.replace(&name, &export::write(&self.state, self.mark))?;
        match export::read(&self.disk.read(&name)?) {
            Ok(copy) if copy.state == *self.state && copy.mark == self.mark => Ok(self.mark),
            Ok(_) => Err(io::Error::other("it reads back differently from what was written")),
            Err(error) => Err(io::Error::other(error)),
        }
    }
}

// === impl Found ===

impl Found {
    /// A store that is to be made.
    fn nothing(cluster: &str) -> Self {
        let end = Mark { revision: Revision(0), epoch: 1, segment: 0, offset: 0, chain: Chain::default() };
        Self {
            state: State::new(cluster, end.epoch),
            end,
            commits: Vec::new(),
            sentinel: None,
            exports: Vec::new(),
            damaged: Vec::new(),
            needs_segment: false,
        }
    }
}

fn open_disk(config: &Config) -> Result<(Arc<dyn Disk>, Option<PathBuf>), OpenError> {
    match &config.backing {
        Backing::Memory(disk) => Ok((Arc::new(disk.clone()), None)),
        Backing::Folder(folder) => match FileDisk::open(folder, config.sync == Sync::Full) {
            Ok(disk) => Ok((Arc::new(disk), Some(folder.join(tree::FOLDER)))),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Err(OpenError::Locked { folder: folder.clone() })
            }
            Err(source) => Err(OpenError::Folder { folder: folder.clone(), source }),
        },
    }
}

/// Opens the tree if there is one. The folder that is returned is `None` if the tree is to be left alone.
fn open_tree(folder: Option<PathBuf>) -> (Option<Tree>, Option<export::Copy>, Option<PathBuf>) {
    let Some(path) = folder.as_deref().filter(|path: &&Path| path.exists()) else {
        return (None, None, folder);
    };
    match Tree::open(path) {
        Ok((tree, copy)) => (Some(tree), copy, folder),
        Err(TreeError::Sled(sled::Error::Io(error))) if is_full(&error) => (None, None, None),
        Err(error) => {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the tree is of no use and is made again"
            );
            (None, None, folder)
        }
    }
}

/// sled flushes when it is dropped, and may panic over it.
fn drop_tree(tree: Option<Tree>) {
    drop(catch_unwind(AssertUnwindSafe(|| drop(tree))));
}

fn append_error(source: io::Error) -> AppendError {
    if is_full(&source) { AppendError::Full } else { AppendError::Broken { source } }
}

fn write_error(file: &str, source: io::Error) -> OpenError {
    OpenError::Write { file: file.to_owned(), source }
}
