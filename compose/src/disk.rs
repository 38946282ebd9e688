//! The seam where the world begins: the only file of this crate that does IO, and the trait that everything else
//! reads files through.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Where manifests, env files and configs are read from.
pub trait Disk: std::fmt::Debug {
    /// The content of the regular file at `path`, if it has no more than `most` bytes.
    fn read(&self, path: &Path, most: usize) -> Result<FileContent, ReadError>;

    /// What is at `path`, symbolic links followed.
    fn kind(&self, path: &Path) -> PathKind;
}

/// A regular file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileContent {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Its permission bits.
    pub mode: u32,
}

/// What a path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A named pipe, a device or a socket.
    Special,
    /// Nothing, or nothing that may be seen.
    Missing,
}

/// Why a file was not read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// There is nothing.
    #[error("there is no such file")]
    Missing,
    /// A directory.
    #[error("this is a directory, not a file")]
    Directory,
    /// Reading it could block for ever or never end.
    #[error("this is a pipe, device or socket, not a regular file")]
    Special,
    /// Larger than is good for it.
    #[error("the file is larger than {most} bytes")]
    TooLarge {
        /// The most bytes that it may have.
        most: usize,
    },
    /// The operating system refused.
    #[error("the file cannot be read")]
    Read(#[source] std::io::Error),
}

/// The file system of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

/// Files in memory, for tests and for manifests that come over a wire.
#[derive(Debug, Clone, Default)]
pub struct MemoryDisk {
    files: BTreeMap<PathBuf, FileContent>,
    special: BTreeMap<PathBuf, PathKind>,
}

// === impl RealDisk ===

impl Disk for RealDisk {
    fn read(&self, path: &Path, most: usize) -> Result<FileContent, ReadError> {
        // Before it is opened: opening a pipe waits for its other end.
        match self.kind(path) {
            PathKind::File => {}
            PathKind::Directory => return Err(ReadError::Directory),
            PathKind::Special => return Err(ReadError::Special),
            PathKind::Missing => return Err(ReadError::Missing),
        }
        let file = File::open(path).map_err(ReadError::Read)?;
        let meta = file.metadata().map_err(ReadError::Read)?;
        if !meta.is_file() {
            return Err(ReadError::Special);
        }
        let mut bytes = Vec::new();
        let limit = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
        file.take(limit).read_to_end(&mut bytes).map_err(ReadError::Read)?;
        if bytes.len() > most {
            return Err(ReadError::TooLarge { most });
        }
        Ok(FileContent { bytes, mode: meta.permissions().mode() & 0o7777 })
    }

    fn kind(&self, path: &Path) -> PathKind {
        match fs::metadata(path) {
            Ok(meta) if meta.is_file() => PathKind::File,
            Ok(meta) if meta.is_dir() => PathKind::Directory,
            Ok(_) => PathKind::Special,
            Err(_) => PathKind::Missing,
        }
    }
}

// === impl MemoryDisk ===

impl MemoryDisk {
    /// A disk with this file too.
    #[must_use]
    pub fn with(mut self, path: &str, content: impl Into<Vec<u8>>) -> Self {
        self.files.insert(PathBuf::from(path), FileContent { bytes: content.into(), mode: 0o644 });
        self
    }

    /// A disk with this too, which is no regular file.
    #[must_use]
    pub fn with_kind(mut self, path: &str, kind: PathKind) -> Self {
        self.special.insert(PathBuf::from(path), kind);
        self
    }
}

impl Disk for MemoryDisk {
    fn read(&self, path: &Path, most: usize) -> Result<FileContent, ReadError> {
        match self.kind(path) {
            PathKind::Directory => return Err(ReadError::Directory),
            PathKind::Special => return Err(ReadError::Special),
            PathKind::File | PathKind::Missing => {}
        }
        let file = self.files.get(path).ok_or(ReadError::Missing)?;
        if file.bytes.len() > most {
            return Err(ReadError::TooLarge { most });
        }
        Ok(file.clone())
    }

    fn kind(&self, path: &Path) -> PathKind {
        if let Some(kind) = self.special.get(path) {
            return *kind;
        }
        if self.files.contains_key(path) {
            return PathKind::File;
        }
        let inside = self.files.keys().any(|file| file.starts_with(path));
        if inside { PathKind::Directory } else { PathKind::Missing }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_of_a_bearable_size_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a");
        fs::write(&file, "abc").unwrap();
        assert_eq!(RealDisk.read(&file, 3).unwrap().bytes, b"abc");
        assert!(matches!(RealDisk.read(&file, 2), Err(ReadError::TooLarge { most: 2 })));
        assert!(matches!(RealDisk.read(folder.path(), 9), Err(ReadError::Directory)));
        assert!(matches!(RealDisk.read(&folder.path().join("b"), 9), Err(ReadError::Missing)));
        assert!(matches!(RealDisk.read(Path::new("/dev/zero"), 9), Err(ReadError::Special)));
    }
}
