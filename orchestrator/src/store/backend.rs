//! The disk side of the store: what is done with a group, in which order, and what a full disk means.

mod open;
mod restore;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;

use tug_model::Revision;

use super::change::Committed;
use super::disk::{Disk, is_full};
use super::entry::Mark;
use super::export;
use super::journal::{self, AppendError, Journal};
use super::sentinel::{self, Sentinel};
use super::state::State;
use super::tree::Tree;

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
    /// Whether only commits that make room are taken.
    pub(super) fn is_full(&self) -> bool {
        self.full
    }

    /// Takes the ballast back if there is room for it again.
    pub(super) fn take_room(&mut self, state: &State) {
        if self.full && take_room(&*self.disk, self.ballast_bytes) {
            tracing::info!("the disk of the store has room again");
            self.full = false;
            self.rebuild_tree(state);
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

    /// Whether the newest export is older than `state`, and there is room for another.
    pub(super) fn lacks_export(&self, state: &State) -> bool {
        !self.full && self.exports.last().is_none_or(|mark| mark.revision < state.revision)
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
        if self.tree.is_none() {
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

    /// Makes a new tree, unless its room is needed for commits.
    fn rebuild_tree(&mut self, state: &State) {
        let Some(folder) = self.tree_folder.as_ref().filter(|_| !self.full) else { return };
        match Tree::rebuild(folder, state, self.journal.end()) {
            Ok(tree) => self.tree = Some(tree),
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "there is no tree for now");
            }
        }
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
        // The room is for the journal; whatever the tree lacks now is made up for later.
        drop_tree(self.tree.take());
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

/// Takes room that can be given back when the disk is full; `false`: there is none.
fn take_room(disk: &dyn Disk, bytes: u64) -> bool {
    if disk.list().is_ok_and(|names| names.iter().any(|name| name == BALLAST)) {
        return true;
    }
    match disk.reserve(BALLAST, bytes) {
        Err(error) if is_full(&error) => false,
        Err(error) => {
            tracing::warn!(%error, "no room can be kept back for a full disk");
            true
        }
        Ok(()) => true,
    }
}

/// sled flushes when it is dropped, and may panic over it.
fn drop_tree(tree: Option<Tree>) {
    drop(catch_unwind(AssertUnwindSafe(|| drop(tree))));
}

fn append_error(source: io::Error) -> AppendError {
    if is_full(&source) { AppendError::Full } else { AppendError::Broken { source } }
}
