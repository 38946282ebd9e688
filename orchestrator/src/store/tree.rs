//! sled: the materialised state, one small batch behind each group. It is never the promise: whatever is wrong with
//! it, it is thrown away and made again.
//!
//! What was learned of sled 0.34.7 and is heeded here: `flush` survives no power cut; a left-over
//! `snap.*.generating` makes it refuse to open; opening a damaged one may panic; values larger than a quarter of a
//! segment go to files that are never synced; several tasks in `flush_async` hang.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::entry::{Delta, Entry, Mark, difference};
use super::export::Copy;
use super::state::State;

/// The folder of sled in that of the store.
pub(super) const FOLDER: &str = "tree";
const SEGMENT_BYTES: usize = 16 << 20;
const CACHE_BYTES: u64 = 64 << 20;
/// How a value is wrapped; another one is thrown away and made again.
const FORMAT: u8 = 1;
const META: &[u8] = b"meta";

/// The open tree.
#[derive(Debug)]
pub(super) struct Tree {
    database: sled::Db,
    /// The sum of the hashes of all entries, so that a lost one is noticed.
    sum: u128,
}

/// What stands under [`META`], written in the same batch as what it speaks of.
#[derive(Debug, Serialize, Deserialize)]
struct Meta {
    cluster: String,
    mark: Mark,
    sum: String,
}

/// Why the tree is of no use.
#[derive(Debug, thiserror::Error)]
pub(super) enum TreeError {
    /// sled refused.
    #[error("use the tree")]
    Sled(#[from] sled::Error),
    /// sled panicked.
    #[error("sled panicked")]
    Panicked,
    /// A value is not what was written.
    #[error("the value of `{key}` is damaged")]
    Value {
        /// Its key.
        key: String,
    },
    /// Entries are missing, or there are too many.
    #[error("its entries are not those that were written")]
    Sum,
    /// The folder cannot be cleaned.
    #[error("clean the folder of the tree")]
    Folder(#[from] std::io::Error),
}

// === impl Tree ===

impl Tree {
    /// Opens the tree and reads it; `None`: it is empty.
    pub(super) fn open(folder: &Path) -> Result<(Self, Option<Copy>), TreeError> {
        let path = folder.to_owned();
        guarded(move || {
            remove_torn_snapshots(&path)?;
            let database = config(path).open()?;
            let copy = load(&database)?;
            let sum = copy.as_ref().map_or(0, |(_, sum)| *sum);
            Ok((Self { database, sum }, copy.map(|(copy, _)| copy)))
        })
    }

    /// Throws the tree in this folder away and makes one that holds `state`.
    pub(super) fn rebuild(folder: &Path, state: &State, mark: Mark) -> Result<Self, TreeError> {
        let path = folder.to_owned();
        let mut tree = guarded(move || {
            if path.exists() {
                std::fs::remove_dir_all(&path)?;
            }
            Ok(Self { database: config(path).open()?, sum: 0 })
        })?;
        tree.apply(&State::default(), state, mark)?;
        Ok(tree)
    }

    /// Makes the tree hold `new` instead of `old`.
    pub(super) fn apply(&mut self, old: &State, new: &State, mark: Mark) -> Result<(), TreeError> {
        let mut batch = sled::Batch::default();
        let mut sum = self.sum;
        for Delta { old, new } in difference(old, new) {
            if let Some(old) = &old {
                sum = sum.wrapping_sub(fingerprint(old.key().as_bytes(), &old.to_json()));
                if new.is_none() {
                    batch.remove(old.key().as_bytes());
                }
            }
            if let Some(new) = &new {
                let (key, json) = (new.key(), new.to_json());
                sum = sum.wrapping_add(fingerprint(key.as_bytes(), &json));
                batch.insert(key.as_bytes(), wrap(key.as_bytes(), mark.revision.0, &json));
            }
        }
        let meta = Meta { cluster: new.cluster.clone(), mark, sum: format!("{sum:032x}") };
        let json = serde_json::to_vec(&meta).expect("numbers and texts are JSON");
        batch.insert(META, wrap(META, mark.revision.0, &json));
        guarded(|| {
            self.database.apply_batch(batch)?;
            self.database.flush()?;
            Ok(())
        })?;
        self.sum = sum;
        Ok(())
    }
}

fn config(folder: PathBuf) -> sled::Config {
    sled::Config::new()
        .path(folder)
        .segment_size(SEGMENT_BYTES)
        .cache_capacity(CACHE_BYTES)
        .flush_every_ms(None)
}

/// sled panics where it should not; what it has in its hands then is thrown away.
fn guarded<T>(work: impl FnOnce() -> Result<T, TreeError>) -> Result<T, TreeError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or(Err(TreeError::Panicked))
}

fn remove_torn_snapshots(folder: &Path) -> std::io::Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    for file in std::fs::read_dir(folder)? {
        let file = file?;
        let name = file.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            std::fs::remove_file(file.path())?;
        }
    }
    Ok(())
}

fn load(database: &sled::Db) -> Result<Option<(Copy, u128)>, TreeError> {
    let mut state = State::default();
    let mut meta = None;
    let mut sum = 0_u128;
    let mut empty = true;
    for pair in database.iter() {
        let (key, value) = pair?;
        empty = false;
        let damaged = || TreeError::Value { key: String::from_utf8_lossy(&key).into_owned() };
        let json = unwrap(&key, &value).ok_or_else(damaged)?;
        if &*key == META {
            meta = Some(serde_json::from_slice::<Meta>(json).map_err(|_| damaged())?);
            continue;
        }
        let entry: Entry = serde_json::from_slice(json).map_err(|_| damaged())?;
        sum = sum.wrapping_add(fingerprint(&key, json));
        entry.put_into(&mut state);
    }
    let Some(meta) = meta else { return if empty { Ok(None) } else { Err(TreeError::Sum) } };
    if meta.sum != format!("{sum:032x}") {
        return Err(TreeError::Sum);
    }
    state.cluster = meta.cluster;
    state.epoch = meta.mark.epoch;
    state.revision = meta.mark.revision;
    Ok(Some((Copy { state, mark: meta.mark }, sum)))
}

/// `format u8 | CRC u32 | revision u64 | JSON`; the checksum is over the key and all that follows it.
fn wrap(key: &[u8], revision: u64, json: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(13 + json.len());
    value.push(FORMAT);
    value.extend([0; 4]);
    value.extend(revision.to_le_bytes());
    value.extend(json);
    let crc = checksum(key, value.get(5..).unwrap_or_default());
    if let Some(place) = value.get_mut(1..5) {
        place.copy_from_slice(&crc.to_le_bytes());
    }
    value
}

fn unwrap<'a>(key: &[u8], value: &'a [u8]) -> Option<&'a [u8]> {
    let (format, rest) = value.split_first()?;
    let (crc, checked) = rest.split_at_checked(4)?;
    if *format != FORMAT || checksum(key, checked).to_le_bytes() != *crc {
        return None;
    }
    checked.get(8..)
}

fn checksum(key: &[u8], checked: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(checked);
    hasher.finalize()
}

/// What an entry adds to the sum of all.
fn fingerprint(key: &[u8], json: &[u8]) -> u128 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(key.len() as u64).to_le_bytes());
    hasher.update(key);
    hasher.update(json);
    let mut half = [0; 16];
    half.copy_from_slice(hasher.finalize().as_bytes().split_at(16).0);
    u128::from_le_bytes(half)
}
