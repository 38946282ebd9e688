//! Archives of images: taking one apart that an engine gave, and putting one together for an engine.
//!
//! Nothing is believed of an archive but its contents: a part is what its digest says, whatever its name, so no name can
//! lead anywhere. What is not asked for is not kept.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tar::EntryType;
use tokio::sync::mpsc;
use tug_api::digest::digest_of;
use tug_model::Digest;

use super::spool::{Spool, SpoolError};

/// The largest configuration of an image, in bytes.
pub(super) const LARGEST_CONFIG: u64 = 8 << 20;
/// How much is read at once.
const PIECE: usize = 256 << 10;
/// So many pieces wait for whoever reads.
const QUEUE: usize = 8;

/// Why an archive is of no use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArchiveError {
    #[error("read the image's archive")]
    Read(#[source] io::Error),
    #[error(transparent)]
    Spool(#[from] SpoolError),
    #[error(
        "the engine gives image {image} without {missing}: it keeps images in a way that cannot be shared"
    )]
    Missing { image: Digest, missing: Digest },
}

/// What comes through a queue, to be read as a file is.
pub(super) struct Incoming {
    queue: mpsc::Receiver<io::Result<Bytes>>,
    piece: Bytes,
}

/// The other way: what is written goes through a queue.
struct Outgoing(mpsc::Sender<io::Result<Bytes>>);

/// The part of an image's configuration that matters here.
#[derive(Deserialize)]
struct Configuration {
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Vec<Digest>,
}

/// What says in an archive which of its files are what.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Manifest {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// The layers that a configuration names.
pub(super) fn layers_of(config: &[u8]) -> Result<Vec<Digest>, serde_json::Error> {
    serde_json::from_slice::<Configuration>(config).map(|config| config.rootfs.diff_ids)
}

// === apart ===

/// Keeps the configuration of `image` and those of `layers` that are not there yet, out of an archive. It is read only as
/// far as it takes.
pub(super) fn unpack(
    archive: impl Read,
    image: &Digest,
    layers: &BTreeSet<Digest>,
    spool: &Spool,
) -> Result<(), ArchiveError> {
    let mut missing: BTreeSet<&Digest> = layers.iter().collect();
    missing.insert(image);
    missing.retain(|part| spool.whole(part).is_none());
    if missing.is_empty() {
        return Ok(());
    }
    let mut archive = tar::Archive::new(archive);
    for entry in archive.entries().map_err(ArchiveError::Read)? {
        let mut entry = entry.map_err(ArchiveError::Read)?;
        let is_file = matches!(entry.header().entry_type(), EntryType::Regular | EntryType::Continuous);
        if is_file && may_be_one_of(&entry.path_bytes(), &missing) {
            keep(&mut entry, image, &mut missing, spool)?;
        }
        if missing.is_empty() {
            return Ok(());
        }
    }
    match missing.first() {
        None => Ok(()),
        Some(missing) => Err(ArchiveError::Missing { image: image.clone(), missing: Digest::clone(missing) }),
    }
}

/// Newer engines name the files by their digests: those of others need not be looked at. It is only for speed.
fn may_be_one_of(path: &[u8], missing: &BTreeSet<&Digest>) -> bool {
    let name = std::str::from_utf8(path).ok().and_then(|path| path.strip_prefix("blobs/sha256/"));
    name.is_none_or(|name| missing.iter().any(|part| part.hex() == name))
}

/// Keeps an entry if it is one of `missing`.
fn keep(
    entry: &mut impl Read,
    image: &Digest,
    missing: &mut BTreeSet<&Digest>,
    spool: &Spool,
) -> Result<(), ArchiveError> {
    let mut draft = spool.begin(image, &format!("of-{}", image.hex()))?;
    let mut piece = vec![0; PIECE];
    loop {
        let read = entry.read(&mut piece).map_err(ArchiveError::Read)?;
        match piece.get(..read) {
            Some(read) if !read.is_empty() => draft.write(read)?,
            Some(_) | None => break,
        }
    }
    let digest = draft.digest();
    if missing.remove(&digest) {
        draft.finish_as(&digest, spool)?;
    } else {
        draft.forget()?;
    }
    Ok(())
}

// === together ===

/// An archive of `image`, which is made of `layers`, with the contents of those from `base` on; all of them are in `spool`.
pub(super) fn pack(
    image: &Digest,
    layers: &[Digest],
    base: usize,
    spool: &Arc<Spool>,
) -> mpsc::Receiver<io::Result<Bytes>> {
    let (sender, queue) = mpsc::channel(QUEUE);
    let (image, layers, spool) = (image.clone(), layers.to_vec(), Arc::clone(spool));
    tokio::task::spawn_blocking(move || {
        if let Err(error) = write(&image, &layers, base, &spool, Outgoing(sender.clone())) {
            // Nobody listens any more when the engine has hung up.
            let _ = sender.blocking_send(Err(error));
        }
    });
    queue
}

fn write(image: &Digest, layers: &[Digest], base: usize, spool: &Spool, to: impl Write) -> io::Result<()> {
    let mut archive = tar::Builder::new(io::BufWriter::with_capacity(PIECE, to));
    let config = format!("{}.json", image.hex());
    let path = |layer: &Digest| format!("{}/layer.tar", layer.hex());
    let manifest =
        [Manifest { config: config.clone(), repo_tags: None, layers: layers.iter().map(path).collect() }];
    let manifest = serde_json::to_vec(&manifest).map_err(io::Error::other)?;
    append(&mut archive, "manifest.json", manifest.len() as u64, manifest.as_slice())?;
    let mut parts = vec![(image, config)];
    for layer in layers.iter().skip(base) {
        if parts.iter().all(|(part, _)| *part != layer) {
            parts.push((layer, path(layer)));
        }
    }
    for (part, path) in parts {
        let file = spool.open(part).map_err(io::Error::other)?;
        append(&mut archive, &path, file.metadata()?.len(), file)?;
    }
    archive.into_inner()?.flush()
}

fn append(
    archive: &mut tar::Builder<impl Write>,
    path: &str,
    size: u64,
    content: impl Read,
) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(EntryType::Regular);
    header.set_mode(0o644);
    header.set_size(size);
    archive.append_data(&mut header, path, content)
}

/// Whether `bytes` are the configuration of `image`, and one of those `layers`.
pub(super) fn is_configuration(bytes: &[u8], image: &Digest, layers: &[Digest]) -> bool {
    digest_of(bytes) == *image && layers_of(bytes).is_ok_and(|named| named == layers)
}

// === impl Incoming ===

impl Incoming {
    /// A queue, and what reads it.
    pub(super) fn new() -> (mpsc::Sender<io::Result<Bytes>>, Self) {
        let (sender, queue) = mpsc::channel(QUEUE);
        (sender, Self { queue, piece: Bytes::new() })
    }
}

impl Read for Incoming {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.queue.blocking_recv() {
                Some(piece) => self.piece = piece?,
                None => return Ok(0),
            }
        }
        let taken = self.piece.split_to(self.piece.len().min(into.len()));
        into.iter_mut().zip(&taken).for_each(|(to, from)| *to = *from);
        Ok(taken.len())
    }
}

// === impl Outgoing ===

impl Write for Outgoing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Ok(Bytes::copy_from_slice(bytes)));
        sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
