//! Where the store meets the world: a flat folder of files, and what it means for each call to have returned.
//!
//! Two disks exist: [`FileDisk`] is a folder of the machine; [`MemoryDisk`] is for simulations and tests, and can
//! run full, refuse to sync and lose its power. Everything above this file is the same code on both.

mod file;
mod memory;

use std::fmt;
use std::io;

pub(super) use self::file::FileDisk;
pub use self::memory::MemoryDisk;

/// A folder of files. Names hold no slash.
pub(super) trait Disk: fmt::Debug + Send + Sync {
    /// The names of all files, sorted.
    fn list(&self) -> io::Result<Vec<String>>;
    /// All bytes of a file.
    fn read(&self, name: &str) -> io::Result<Vec<u8>>;
    /// Makes `bytes` the whole content of the file, made where it is missing. When it returns, that survives a power
    /// cut; before that, the file is the old one or the new one, never something between.
    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()>;
    /// Writes at `offset`, which is the end of the file. Nothing is promised until [`Disk::sync`] returns.
    fn append(&self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Waits until what was written to the file survives a power cut. After an error nothing is known about what was
    /// written since the last success, and trying again is no remedy.
    fn sync(&self, name: &str) -> io::Result<()>;
    /// Cuts the file down to its first `length` bytes.
    fn truncate(&self, name: &str, length: u64) -> io::Result<()>;
    /// Gives the file another name.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes the file; a missing one is no error.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes a file that occupies `length` bytes of the disk.
    fn reserve(&self, name: &str, length: u64) -> io::Result<()>;
}

/// Whether an error says that there is no room.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}
