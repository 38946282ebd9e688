//! Opening: what was found is made good, and only then is anything committed.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tug_model::Revision;

use super::{Backend, Export, Opened, drop_tree, take_room};
use crate::store::disk::{Disk, FileDisk};
use crate::store::entry::Mark;
use crate::store::error::OpenError;
use crate::store::export::{self, Copy};
use crate::store::journal::{self, AppendError, Journal};
use crate::store::record::Chain;
use crate::store::recover::{self, Found};
use crate::store::sentinel::{self, Sentinel};
use crate::store::state::State;
use crate::store::tree::{self, Tree};
use crate::store::{Backing, Config, Sync};

/// What the names of files end with that were set aside because they are damaged.
const DAMAGED: &str = "damaged";
/// So many of them are kept of each kind.
const MOST_DAMAGED: usize = 2;

// === impl Backend ===

impl Backend {
    /// Opens the store, made where there is none.
    pub(in crate::store) fn open(config: &Config) -> Result<Opened, OpenError> {
        let (disk, tree_folder) = open_disk(config)?;
        let full = !take_room(&*disk, config.ballast_bytes);
        // Opening sled takes room, so on a full disk it is opened only if nothing else has every commit.
        let mut found =
            if full { recover::recover(&*disk, None, config.history).unwrap_or(None) } else { None };
        let (mut tree, mut copy) = (None, None);
        if found.is_none() {
            (tree, copy) = open_tree(tree_folder.as_deref());
            found = recover::recover(&*disk, copy.as_ref(), config.history)?;
        }
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
            full,
        };
        if is_new || needs_segment {
            backend.begin(&state, is_new)?;
        } else {
            backend.cut_tail(end)?;
        }
        backend.set_aside(damaged)?;
        backend.take_tree(tree, copy, &state);
        Ok(Opened { backend, state, commits })
    }

    /// Goes on with the tree that was found, or with a new one.
    fn take_tree(&mut self, tree: Option<Tree>, copy: Option<Copy>, state: &State) {
        match (tree, copy) {
            (Some(tree), Some(copy)) if copy.mark.revision <= state.revision && !self.full => {
                self.tree = Some(tree);
                self.follow(&copy.state, state);
            }
            (tree, _) => {
                drop_tree(tree);
                self.rebuild_tree(state);
            }
        }
    }

    /// Begins a file of the journal that needs nothing before it: an export stands in for that.
    pub(super) fn begin(&mut self, state: &State, is_new: bool) -> Result<(), OpenError> {
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

    /// Renames what is damaged and not needed, and keeps the newest few of it for whoever wants to know why.
    fn set_aside(&self, damaged: Vec<String>) -> Result<(), OpenError> {
        for name in damaged {
            tracing::error!(file = name, "the file is damaged; it is set aside, nothing of it is missing");
            let aside = format!("{name}.{DAMAGED}");
            self.disk.rename(&name, &aside).map_err(|source| write_error(&name, source))?;
        }
        let names = self.disk.list().map_err(|source| write_error("the folder", source))?;
        for kind in ["export-", "journal-"] {
            let is_aside = |name: &&String| name.starts_with(kind) && name.ends_with(DAMAGED);
            // The numbers in the names have leading zeros, so the last are the newest.
            for name in names.iter().filter(is_aside).rev().skip(MOST_DAMAGED) {
                self.disk.remove(name).map_err(|source| write_error(name, source))?;
            }
        }
        Ok(())
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

pub(super) fn open_disk(config: &Config) -> Result<(Arc<dyn Disk>, Option<PathBuf>), OpenError> {
    match &config.backing {
        Backing::Memory(disk) => Ok((Arc::new(disk.clone()), None)),
        Backing::Folder(folder) => match FileDisk::open(folder, config.sync == Sync::Full) {
            Ok(disk) => Ok((Arc::new(disk), Some(folder.join(tree::FOLDER)))),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Err(OpenError::Locked { folder: folder.clone(), holder: FileDisk::holder(folder) })
            }
            Err(source) => Err(OpenError::Folder { folder: folder.clone(), source }),
        },
    }
}

/// Opens the tree if there is one.
fn open_tree(folder: Option<&Path>) -> (Option<Tree>, Option<Copy>) {
    let Some(folder) = folder.filter(|folder| folder.exists()) else { return (None, None) };
    match Tree::open(folder) {
        Ok((tree, copy)) => (Some(tree), copy),
        Err(error) => {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the tree is of no use and is made again"
            );
            (None, None)
        }
    }
}

pub(super) fn write_error(file: &str, source: io::Error) -> OpenError {
    OpenError::Write { file: file.to_owned(), source }
}
