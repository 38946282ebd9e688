//! Parts of images on disk, each named by its digest, on their way from one engine to another.
//!
//! A part is written to a file of its own that stays when the transfer breaks off, and gets its name only when all of it is
//! there, on disk, and gives its digest. So whatever has a name is right, and what has none can be gone on with. What
//! nobody has used for a while is removed.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tug_api::digest::Hasher;
use tug_model::{Bytes, Digest};

/// What nobody has used for so long is removed.
const KEEP: Duration = Duration::from_secs(10 * 60);
/// So much of the disk is left to others.
const MARGIN: u64 = 256 << 20;
/// How much is read at once.
const PIECE: usize = 256 << 10;

/// The folder of the parts. Shared by all that goes on.
#[derive(Debug)]
pub(crate) struct Spool {
    folder: PathBuf,
    known: Mutex<BTreeMap<Digest, Use>>,
}

/// Who uses a part.
#[derive(Debug)]
struct Use {
    holders: usize,
    /// When the last of them let go.
    last: Instant,
    /// Whoever writes it.
    pen: Arc<tokio::sync::Mutex<()>>,
}

/// As long as it lives, the part is not removed.
#[derive(Debug)]
pub(crate) struct Hold {
    spool: Arc<Spool>,
    digest: Digest,
}

/// A part that is being written.
#[derive(Debug)]
pub(crate) struct Draft {
    file: File,
    hasher: Hasher,
    written: u64,
    from: PathBuf,
    to: PathBuf,
    digest: Digest,
}

/// Why a part is not there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpoolError {
    #[error("{doing} {}", path.display())]
    Disk {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{size} are to come and the disk of {} has {free} left: make room there", path.display())]
    Full { size: Bytes, free: Bytes, path: PathBuf },
    #[error("what came for {wanted} is {came}")]
    Wrong { wanted: Digest, came: Digest },
}

// === impl Spool ===

impl Spool {
    /// The parts in `folder`, which is made when there is something to keep.
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder, known: Mutex::default() }
    }

    /// How large a part is; `None`: it is not there, or not all of it.
    pub(crate) fn whole(&self, digest: &Digest) -> Option<u64> {
        fs::metadata(self.path(digest)).ok().filter(fs::Metadata::is_file).map(|file| file.len())
    }

    /// Keeps a part from being removed, whether it is there yet or not.
    pub(crate) fn hold(self: &Arc<Self>, digest: &Digest) -> Hold {
        self.with(digest, |used| used.holders += 1);
        Hold { spool: Arc::clone(self), digest: digest.clone() }
    }

    /// Waits until nobody else writes the part.
    pub(crate) async fn pen(&self, digest: &Digest) -> tokio::sync::OwnedMutexGuard<()> {
        let pen = self.with(digest, |used| Arc::clone(&used.pen));
        pen.lock_owned().await
    }

    /// A part that is there, to be read.
    pub(crate) fn open(&self, digest: &Digest) -> Result<File, SpoolError> {
        let path = self.path(digest);
        File::open(&path).map_err(|source| SpoolError::Disk { doing: "open", path, source })
    }

    /// A part that is there, if it is no larger than `most` bytes.
    pub(crate) fn read(&self, digest: &Digest, most: u64) -> Result<Vec<u8>, SpoolError> {
        let mut content = Vec::new();
        let read = self.open(digest)?.take(most).read_to_end(&mut content);
        read.map_err(|source| SpoolError::Disk { doing: "read", path: self.path(digest), source })?;
        Ok(content)
    }

    /// Goes on with what is there of a part. Only whoever has its [`Spool::pen`] may.
    pub(crate) fn resume(&self, digest: &Digest) -> Result<Draft, SpoolError> {
        self.draft(digest, self.path(digest).with_extension("part"), false)
    }

    /// Begins a part anew that may turn out to be another one; `name` is nobody else's.
    pub(crate) fn begin(&self, digest: &Digest, name: &str) -> Result<Draft, SpoolError> {
        self.draft(digest, self.folder.join(name).with_extension("part"), true)
    }

    /// Whether there is room for `size` more.
    pub(crate) fn check_room(&self, size: Bytes) -> Result<(), SpoolError> {
        self.prepare()?;
        let failed = |source| SpoolError::Disk { doing: "look at", path: self.folder.clone(), source };
        let system = rustix::fs::statvfs(&self.folder).map_err(|error| failed(error.into()))?;
        let free = system.f_bavail.saturating_mul(system.f_frsize);
        if size.0.saturating_add(MARGIN) > free {
            return Err(SpoolError::Full { size, free: Bytes(free), path: self.folder.clone() });
        }
        Ok(())
    }

    /// Removes those of `parts` that nobody uses.
    pub(crate) fn drop_parts<'a>(&self, parts: impl IntoIterator<Item = &'a Digest>) {
        let mut known = self.known();
        for part in parts {
            if known.get(part).is_none_or(|used| used.holders == 0) {
                known.remove(part);
                self.remove(&self.path(part));
            }
        }
    }

    /// Removes what nobody has used for a while. What an earlier agent left counts as used when this first looks.
    pub(crate) fn sweep(&self) {
        let Ok(entries) = fs::read_dir(&self.folder) else { return };
        let mut known = self.known();
        let now = Instant::now();
        for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
            let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            let Ok(digest) = Digest::parse(&format!("sha256:{stem}")) else {
                // Half of something that an engine gave; it would be asked for anew.
                if known.values().all(|used| used.holders == 0) {
                    self.remove(&path);
                }
                continue;
            };
            let used = known.entry(digest).or_insert_with(|| Use::at(now));
            if used.holders == 0 && now.duration_since(used.last) >= KEEP {
                self.remove(&path);
            }
        }
        known.retain(|_, used| used.holders > 0 || now.duration_since(used.last) < KEEP);
    }

    fn draft(&self, digest: &Digest, from: PathBuf, anew: bool) -> Result<Draft, SpoolError> {
        self.prepare()?;
        let failed = |source| SpoolError::Disk { doing: "write", path: from.clone(), source };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(anew).mode(0o600);
        let mut file = options.open(&from).map_err(failed)?;
        let (mut hasher, mut written) = (Hasher::new(), 0);
        let mut piece = vec![0; PIECE];
        loop {
            let read = file.read(&mut piece).map_err(failed)?;
            let Some(read) = piece.get(..read).filter(|read| !read.is_empty()) else { break };
            hasher.update(read);
            written += read.len() as u64;
        }
        Ok(Draft { file, hasher, written, to: self.path(digest), from, digest: digest.clone() })
    }

    fn prepare(&self) -> Result<(), SpoolError> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder);
        made.map_err(|source| SpoolError::Disk { doing: "make", path: self.folder.clone(), source })
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.folder.join(digest.hex())
    }

    #[expect(clippy::unused_self, reason = "only what is in the folder is removed")]
    fn remove(&self, path: &Path) {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %path.display(), %error, "remove a part of an image");
            }
            Ok(()) | Err(_) => {}
        }
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<Digest, Use>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, digest: &Digest, change: impl FnOnce(&mut Use) -> T) -> T {
        change(self.known().entry(digest.clone()).or_insert_with(|| Use::at(Instant::now())))
    }
}

// === impl Use ===

impl Use {
    fn at(now: Instant) -> Self {
        Self { holders: 0, last: now, pen: Arc::default() }
    }
}

// === impl Hold ===

impl Drop for Hold {
    fn drop(&mut self) {
        self.spool.with(&self.digest, |used| {
            used.holders -= 1;
            used.last = Instant::now();
        });
    }
}

// === impl Draft ===

impl Draft {
    /// How much of it is there.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// Adds what came.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), SpoolError> {
        self.hasher.update(bytes);
        self.written += bytes.len() as u64;
        self.file.write_all(bytes).map_err(|source| self.failed("write", source))
    }

    /// The digest of what is there.
    pub(crate) fn digest(&self) -> Digest {
        self.hasher.clone().finish()
    }

    /// Gives the part its name, if it is what it should be. If it is not, it is forgotten.
    pub(crate) fn finish(self) -> Result<(), SpoolError> {
        let came = self.digest();
        if came != self.digest {
            let wanted = self.digest.clone();
            self.forget()?;
            return Err(SpoolError::Wrong { wanted, came });
        }
        self.file.sync_all().map_err(|source| self.failed("write", source))?;
        fs::rename(&self.from, &self.to).map_err(|source| self.failed("rename", source))
    }

    /// Gives it another part's name, which it turned out to be.
    pub(crate) fn finish_as(mut self, digest: &Digest, spool: &Spool) -> Result<(), SpoolError> {
        self.digest = digest.clone();
        self.to = spool.path(digest);
        self.finish()
    }

    /// Removes what is there of it.
    pub(crate) fn forget(self) -> Result<(), SpoolError> {
        fs::remove_file(&self.from).map_err(|source| self.failed("remove", source))
    }

    fn failed(&self, doing: &'static str, source: io::Error) -> SpoolError {
        SpoolError::Disk { doing, path: self.from.clone(), source }
    }
}

// === impl SpoolError ===

impl SpoolError {
    /// Whether it is about what another node sent, and not about this one's disk.
    pub(crate) fn is_theirs(&self) -> bool {
        matches!(self, Self::Wrong { .. })
    }
}
