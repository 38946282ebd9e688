//! A folder of the machine, held by one process at a time.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{FallocateFlags, FlockOperation};

use super::Disk;

const LOCK: &str = "lock";
const TEMPORARY: &str = ".tmp";

/// A folder of the machine.
#[derive(Debug)]
pub(in crate::store) struct FileDisk {
    folder: PathBuf,
    /// The file that was last appended to, kept open.
    tail: Mutex<Option<(String, File)>>,
    /// Without it nothing is synced: for simulations that cut no power.
    syncing: bool,
    /// Held until the process ends, however it ends.
    _lock: File,
}

impl FileDisk {
    /// Takes the folder, made where it is missing. An error of the kind `WouldBlock` says that another process has
    /// it, `PermissionDenied` that others may write to it.
    pub(in crate::store) fn open(folder: &Path, syncing: bool) -> io::Result<Self> {
        if !folder.exists() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        let mode = fs::metadata(folder)?.permissions().mode();
        let empty = fs::read_dir(folder)?.next().is_none();
        if mode & 0o022 != 0 && !empty {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!("the folder may be written to by others (mode {:o}); chmod 700 it", mode & 0o7777),
            ));
        }
        if mode & 0o077 != 0 {
            fs::set_permissions(folder, Permissions::from_mode(0o700))?;
        }
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(folder.join(LOCK))?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        // Only for the message that a second daemon ends with; on a full disk it does without.
        drop(lock.set_len(0).and_then(|()| lock.write_all_at(std::process::id().to_string().as_bytes(), 0)));
        Ok(Self { folder: folder.to_owned(), tail: Mutex::new(None), syncing, _lock: lock })
    }

    /// The process that has the folder, as far as it says so.
    pub(in crate::store) fn holder(folder: &Path) -> Option<u32> {
        fs::read_to_string(folder.join(LOCK)).ok()?.parse().ok()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn sync_folder(&self) -> io::Result<()> {
        if self.syncing { File::open(&self.folder)?.sync_all() } else { Ok(()) }
    }

    /// Runs `work` on the open file `name`.
    fn with_tail(&self, name: &str, work: impl FnOnce(&File) -> io::Result<()>) -> io::Result<()> {
        let mut tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((open, file)) = tail.as_ref()
            && open == name
        {
            return work(file);
        }
        let file = OpenOptions::new().write(true).open(self.path(name))?;
        let result = work(&file);
        *tail = Some((name.to_owned(), file));
        result
    }

    /// Closes the file `name` if it is the one kept open: its name is about to mean something else.
    fn close_tail(&self, name: &str) {
        let mut tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        if tail.as_ref().is_some_and(|(open, _)| open == name) {
            *tail = None;
        }
    }
}

impl Disk for FileDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            if entry.file_type()?.is_file()
                && let Ok(name) = entry.file_name().into_string()
                && name != LOCK
                && !name.ends_with(TEMPORARY)
            {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        fs::read(self.path(name))
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.close_tail(name);
        let temporary = self.path(&format!("{name}{TEMPORARY}"));
        let written = (|| {
            let mut file =
                OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&temporary)?;
            file.write_all(bytes)?;
            if self.syncing {
                file.sync_all()?;
            }
            fs::rename(&temporary, self.path(name))
        })();
        if written.is_err() {
            // Half a file is of no use, and its room may be what is missing.
            drop(fs::remove_file(&temporary));
        }
        written?;
        self.sync_folder()
    }

    fn append(&self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.with_tail(name, |file| file.write_all_at(bytes, offset))
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        if self.syncing { self.with_tail(name, File::sync_data) } else { Ok(()) }
    }

    fn truncate(&self, name: &str, length: u64) -> io::Result<()> {
        self.with_tail(name, |file| file.set_len(length))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.close_tail(from);
        fs::rename(self.path(from), self.path(to))?;
        self.sync_folder()
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.close_tail(name);
        match fs::remove_file(self.path(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => self.sync_folder(),
        }
    }

    fn reserve(&self, name: &str, length: u64) -> io::Result<()> {
        let path = self.path(name);
        let file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&path)?;
        let reserved = match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, length) {
            // Not every file system can; there the room is taken by writing.
            Err(rustix::io::Errno::OPNOTSUPP) => write_zeros(&file, length),
            result => result.map_err(io::Error::from),
        };
        if reserved.is_err() {
            drop(fs::remove_file(&path));
        }
        reserved
    }
}

fn write_zeros(mut file: &File, length: u64) -> io::Result<()> {
    let zeros = [0; 1 << 12];
    let mut left = length;
    while left > 0 {
        let piece = zeros.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        file.write_all(zeros.get(..piece).unwrap_or(&zeros))?;
        left -= piece as u64;
    }
    Ok(())
}
