//! Going back to an export: the way out when a store is refused, and the way to bring one to another machine.
//!
//! A restored store has a higher epoch, so that agents follow it although it knows less than they do, and a higher
//! revision than any that was ever given out, so that nobody who watches mistakes new commits for old ones.

use std::io;
use std::path::Path;
use std::sync::Arc;

use tug_model::Revision;

use super::open::{open_disk, write_error};
use super::{Backend, take_room};
use crate::store::Config;
use crate::store::disk::Disk;
use crate::store::entry::Mark;
use crate::store::error::{OpenError, RestoreError};
use crate::store::export;
use crate::store::journal::{self, Journal};
use crate::store::record::{Chain, header_at};
use crate::store::sentinel::{self, Sentinel};
use crate::store::tree;

/// More commits than a store makes between two exports.
const REVISIONS_SKIPPED: u64 = 1_000_000;
/// What files are called that were put aside.
const ASIDE: &str = "replaced";

// === impl Backend ===

impl Backend {
    /// Makes the store in the folder what the export `text` says. What was there is put aside.
    pub(in crate::store) fn restore(config: &Config, text: &[u8]) -> Result<Revision, RestoreError> {
        let copy = export::read(text).map_err(|error| RestoreError::Export { reason: chain(&error) })?;
        let (disk, tree_folder) = open_disk(config)?;
        let old = Sentinel::load(&*disk)?;
        let mut state = copy.state;
        if let Some(old) = old.as_ref().filter(|old| old.cluster != state.cluster) {
            let (found, expected) = (state.cluster, old.cluster.clone());
            return Err(RestoreError::Foreign { found, expected });
        }
        let known = known(&*disk)?;
        state.epoch = state.epoch.max(known.epoch).max(old.as_ref().map_or(0, |old| old.epoch)) + 1;
        state.revision = Revision(state.revision.max(known.revision).0 + REVISIONS_SKIPPED);
        put_aside(&*disk)?;
        if let Some(tree) = tree_folder.as_ref().filter(|tree| tree.exists()) {
            replace_folder(tree).map_err(|source| write_error(tree::FOLDER, source))?;
        }
        let segment = known.segment.max(old.map_or(0, |old| old.segment));
        let (revision, epoch) = (state.revision, state.epoch);
        let end = Mark { revision, epoch, segment, offset: 0, chain: Chain::default() };
        let cluster = state.cluster.clone();
        let full = !take_room(&*disk, config.ballast_bytes);
        let sentinel =
            Sentinel { format: sentinel::FORMAT, cluster, epoch, revision, segment, closed_at: None };
        let mut backend = Self {
            journal: Journal::new(Arc::clone(&disk), &state.cluster, config.segment_bytes, end),
            sentinel,
            sentinel_is_old: true,
            disk,
            tree: None,
            tree_folder,
            exports: Vec::new(),
            ballast_bytes: config.ballast_bytes,
            full,
        };
        backend.begin(&state, false)?;
        Ok(revision)
    }
}

/// The newest of everything that the files there speak of, damaged or not.
fn known(disk: &dyn Disk) -> Result<Mark, OpenError> {
    let mut known = Mark { revision: Revision(0), epoch: 0, segment: 0, offset: 0, chain: Chain::default() };
    let names = disk.list().map_err(|source| read_error("the folder", source))?;
    for name in names.iter().map(|name| name.split('.').take(2).collect::<Vec<_>>().join(".")) {
        if let Some(revision) = export::revision_of(&name) {
            known.revision = known.revision.max(revision);
        }
        known.segment = known.segment.max(journal::segment_of(&name).unwrap_or(0));
    }
    for name in names.iter().filter(|name| name.starts_with("journal-")) {
        let bytes = disk.read(name).map_err(|source| read_error(name, source))?;
        for header in (0..bytes.len()).filter_map(|at| header_at(&bytes, at)) {
            known.revision = known.revision.max(header.revision);
            known.epoch = known.epoch.max(header.epoch);
        }
    }
    Ok(known)
}

/// `cluster.json` stays: until the new one is written, the folder is refused and not taken for a new one.
fn put_aside(disk: &dyn Disk) -> Result<(), OpenError> {
    for name in disk.list().map_err(|source| read_error("the folder", source))? {
        if journal::segment_of(&name).is_some() || export::revision_of(&name).is_some() {
            let aside = format!("{name}.{ASIDE}");
            disk.rename(&name, &aside).map_err(|source| write_error(&name, source))?;
        }
    }
    Ok(())
}

fn replace_folder(folder: &Path) -> io::Result<()> {
    let aside = folder.with_extension(ASIDE);
    if aside.exists() {
        std::fs::remove_dir_all(&aside)?;
    }
    std::fs::rename(folder, aside)
}

fn read_error(file: &str, source: io::Error) -> OpenError {
    OpenError::Read { file: file.to_owned(), source }
}

fn chain(error: &export::ExportError) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}
