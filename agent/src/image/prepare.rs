//! Exports: an engine can only give away a whole image, and that takes long. So one export serves all who ask meanwhile, and
//! goes on when they have lost patience.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::StreamExt;
use tokio::sync::{Semaphore, watch};
use tug_api::error::chain;
use tug_api::image::Part;
use tug_model::{Bytes, Digest};

use super::archive::{self, ArchiveError, Incoming};
use super::spool::{Hold, Spool};
use crate::runtime::{Runtime, RuntimeError};

/// So many images are exported at once.
const EXPORTS: usize = 1;

/// What is being exported.
#[derive(Debug)]
pub(super) struct Exports {
    runtime: Arc<dyn Runtime>,
    spool: Arc<Spool>,
    running: Mutex<BTreeMap<Digest, watch::Receiver<Export>>>,
    turns: Semaphore,
}

/// How far an export is.
#[derive(Debug, Clone)]
pub(super) enum Export {
    /// So much has come.
    Going(Bytes),
    /// What was wanted is in the spool.
    Done,
    /// It failed.
    Failed(Arc<ExportError>),
}

/// Why an image was not exported.
#[derive(Debug, thiserror::Error)]
pub(super) enum ExportError {
    #[error("this engine cannot share images")]
    Unable,
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error("the export ended by itself")]
    Ended,
}

// === impl Exports ===

impl Exports {
    pub(super) fn new(runtime: Arc<dyn Runtime>, spool: Arc<Spool>) -> Self {
        Self { runtime, spool, running: Mutex::default(), turns: Semaphore::new(EXPORTS) }
    }

    /// The configuration of `image` and those `layers`, if all of them are in the spool.
    pub(super) fn ready(&self, image: &Digest, layers: &BTreeSet<Digest>) -> Option<Vec<Part>> {
        let part =
            |digest: &Digest| Some(Part { digest: digest.clone(), size: Bytes(self.spool.whole(digest)?) });
        std::iter::once(image).chain(layers).map(part).collect()
    }

    /// Has them exported, or waits for whom has begun with the same image, wherever that ends.
    pub(super) fn begin(
        self: &Arc<Self>,
        image: &Digest,
        layers: &BTreeSet<Digest>,
    ) -> watch::Receiver<Export> {
        let mut running = self.running();
        if let Some(running) = running.get(image) {
            return running.clone();
        }
        let (sender, receiver) = watch::channel(Export::Going(Bytes(0)));
        running.insert(image.clone(), receiver.clone());
        drop(running);
        let held: Vec<Hold> =
            std::iter::once(image).chain(layers).map(|part| self.spool.hold(part)).collect();
        let (exports, image, layers) = (Arc::clone(self), image.clone(), layers.clone());
        tokio::spawn(async move {
            let exported = exports.export(&image, layers, &sender).await;
            exports.running().remove(&image);
            drop(held);
            sender.send_replace(match exported {
                Ok(()) => Export::Done,
                Err(error) => {
                    tracing::warn!(%image, reason = chain(&error), "an image cannot be given away");
                    Export::Failed(Arc::new(error))
                }
            });
        });
        receiver
    }

    async fn export(
        &self,
        image: &Digest,
        layers: BTreeSet<Digest>,
        progress: &watch::Sender<Export>,
    ) -> Result<(), ExportError> {
        let Some(store) = self.runtime.images() else { return Err(ExportError::Unable) };
        let _turn = self.turns.acquire().await.map_err(|_| ExportError::Ended)?;
        tracing::info!(%image, layers = layers.len(), "exporting an image for another node");
        let mut archive = store.export(image).await?;
        let (sender, incoming) = Incoming::new();
        let (spool, wanted) = (Arc::clone(&self.spool), image.clone());
        let unpacking =
            tokio::task::spawn_blocking(move || archive::unpack(incoming, &wanted, &layers, &spool));
        let mut done = 0;
        while let Some(piece) = archive.next().await {
            let is_last = piece.is_err();
            let piece = piece.map_err(std::io::Error::other);
            done += piece.as_ref().map_or(0, |piece| piece.len() as u64);
            // Who unpacks has found out that the archive is of no use, and says why below.
            if sender.send(piece).await.is_err() || is_last {
                break;
            }
            progress.send_replace(Export::Going(Bytes(done)));
        }
        drop(sender);
        Ok(unpacking.await.map_err(|_| ExportError::Ended)??)
    }

    fn running(&self) -> MutexGuard<'_, BTreeMap<Digest, watch::Receiver<Export>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
