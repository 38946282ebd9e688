//! A disk in memory that fails on request: for simulations and tests.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Disk;

const SECTOR: usize = 512;

/// A disk in memory. Clones are the same disk, so it outlives the store that is opened on it, as a real one does.
#[derive(Debug, Clone, Default)]
pub struct MemoryDisk(Arc<Mutex<Inner>>);

#[derive(Debug, Clone, Default)]
struct Inner {
    files: BTreeMap<String, Contents>,
    /// No file may make the sum of all larger than this.
    capacity: Option<usize>,
    sync_fails: bool,
    /// So many more calls that write succeed, then the power is gone.
    calls_left: Option<u64>,
}

#[derive(Debug, Clone, Default)]
struct Contents {
    /// What a reader sees.
    bytes: Vec<u8>,
    /// So much of it a power cut leaves for certain.
    synced: usize,
    /// Room taken without content.
    reserved: usize,
}

impl MemoryDisk {
    /// An empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    /// From now on all files together hold at most so many bytes; `None` is no limit.
    pub fn limit(&self, capacity: Option<usize>) {
        self.inner().capacity = capacity;
    }

    /// How many bytes all files hold together.
    pub fn used(&self) -> usize {
        self.inner().used()
    }

    /// From now on every sync fails, or none.
    pub fn fail_syncs(&self, fail: bool) {
        self.inner().sync_fails = fail;
    }

    /// The power goes after so many more calls that write; every call after that fails.
    pub fn cut_power_after(&self, calls: u64) {
        self.inner().calls_left = Some(calls);
    }

    /// What a disk that lost its power now may hold when it is back: of what was not synced, any part, in sectors of
    /// 512 bytes and in any order. `chance` gives a number below its argument.
    #[must_use]
    pub fn after_power_cut(&self, mut chance: impl FnMut(usize) -> usize) -> Self {
        let mut files = self.inner().files.clone();
        for contents in files.values_mut() {
            contents.survive(&mut chance);
        }
        Self(Arc::new(Mutex::new(Inner { files, ..Inner::default() })))
    }

    /// The names of all files and what is in them, for tests that damage them.
    pub fn files(&self) -> BTreeMap<String, Vec<u8>> {
        self.inner().files.iter().map(|(name, contents)| (name.clone(), contents.bytes.clone())).collect()
    }

    /// Puts a file there as if it had always been so; `None` removes it.
    pub fn overwrite(&self, name: &str, bytes: Option<Vec<u8>>) {
        let mut inner = self.inner();
        match bytes {
            Some(bytes) => {
                inner.files.insert(name.to_owned(), Contents::durable(bytes));
            }
            None => {
                inner.files.remove(name);
            }
        }
    }

    /// An independent copy of the disk as it is now, without its faults.
    #[must_use]
    pub fn copy(&self) -> Self {
        let files = self.inner().files.clone();
        Self(Arc::new(Mutex::new(Inner { files, ..Inner::default() })))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a call that writes. The one in which the power goes may or may not have had its effect.
    fn write(&self, work: impl FnOnce(&mut Inner) -> io::Result<()>) -> io::Result<()> {
        let mut inner = self.inner();
        match inner.calls_left {
            Some(0) => Err(io::Error::other("the disk has no power")),
            Some(left) => {
                inner.calls_left = Some(left - 1);
                let result = work(&mut inner);
                if left == 1 { Err(io::Error::other("the power went")) } else { result }
            }
            None => work(&mut inner),
        }
    }
}

// === impl Inner ===

impl Inner {
    fn used(&self) -> usize {
        self.files.values().map(|contents| contents.bytes.len() + contents.reserved).sum()
    }

    fn file(&mut self, name: &str) -> io::Result<&mut Contents> {
        self.files.get_mut(name).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    fn make_room(&self, more: usize) -> io::Result<()> {
        match self.capacity {
            Some(capacity) if self.used() + more > capacity => Err(io::ErrorKind::StorageFull.into()),
            Some(_) | None => Ok(()),
        }
    }
}

// === impl Contents ===

impl Contents {
    fn durable(bytes: Vec<u8>) -> Self {
        Self { synced: bytes.len(), bytes, reserved: 0 }
    }

    fn survive(&mut self, chance: &mut impl FnMut(usize) -> usize) {
        let length = self.synced + chance(self.bytes.len() - self.synced + 1);
        self.bytes.truncate(length);
        let mut start = self.synced;
        while start < length {
            let end = length.min((start / SECTOR + 1) * SECTOR);
            if chance(2) == 0
                && let Some(sector) = self.bytes.get_mut(start..end)
            {
                sector.fill(0);
            }
            start = end;
        }
        self.synced = length;
    }
}

// === impl Disk ===

impl Disk for MemoryDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.inner().files.keys().cloned().collect())
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        Ok(self.inner().file(name)?.bytes.clone())
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.write(|inner| {
            inner.make_room(bytes.len())?;
            inner.files.insert(name.to_owned(), Contents::durable(bytes.to_vec()));
            Ok(())
        })
    }

    fn append(&self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write(|inner| {
            let offset = usize::try_from(offset).map_err(io::Error::other)?;
            let full = inner.make_room(bytes.len());
            let contents = inner.file(name)?;
            contents.bytes.resize(offset, 0);
            contents.synced = contents.synced.min(offset);
            let written = if full.is_err() { bytes.len() / 2 } else { bytes.len() };
            contents.bytes.extend(bytes.iter().take(written));
            full
        })
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        self.write(|inner| {
            if inner.sync_fails {
                return Err(io::Error::other("the disk does not sync"));
            }
            let contents = inner.file(name)?;
            contents.synced = contents.bytes.len();
            Ok(())
        })
    }

    fn truncate(&self, name: &str, length: u64) -> io::Result<()> {
        self.write(|inner| {
            let length = usize::try_from(length).map_err(io::Error::other)?;
            let contents = inner.file(name)?;
            contents.bytes.truncate(length);
            contents.synced = contents.synced.min(length);
            Ok(())
        })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.write(|inner| {
            let contents =
                inner.files.remove(from).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
            inner.files.insert(to.to_owned(), contents);
            Ok(())
        })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.write(|inner| {
            inner.files.remove(name);
            Ok(())
        })
    }

    fn reserve(&self, name: &str, length: u64) -> io::Result<()> {
        self.write(|inner| {
            let length = usize::try_from(length).map_err(io::Error::other)?;
            inner.make_room(length)?;
            inner.files.insert(name.to_owned(), Contents { reserved: length, ..Contents::default() });
            Ok(())
        })
    }
}
