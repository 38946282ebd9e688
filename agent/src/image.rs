//! Images that come from other nodes and go to them: no registry is needed.
//!
//! A node that lacks an image says so in its reports. The control plane finds out who has it and tells both sides
//! (`exchange`): who to ask, and who may ask. Then the one agent asks the other (`fetch`, `serve`), over the same mutual
//! TLS that all agents speak, but on a connection of its own:
//!
//! 1. Which layers is it made of? Those that lie at the bottom of an image that is already here need not come.
//! 2. The others, please. The asked agent has its engine export the image, once for all who ask, and keeps what is wanted
//!    of it in its `spool`.
//! 3. Each part, from where it broke off last time. It is checked against its digest when it is whole.
//! 4. When all are there, they go to the engine as one archive, which has only what was missing (`archive`).
//!
//! **Guarantees.** Nothing that does not give the digest it should reaches the engine. A broken transfer goes on where it
//! broke off, from the same node or another. What is not moving is given up, however long it has moved before.
//!
//! **Assumptions.** The engine names an image by the digest of its configuration, as Docker's own store does.

mod archive;
mod exchange;
#[cfg(test)]
pub(crate) mod fake;
mod fetch;
mod prepare;
mod serve;
mod spool;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tug_api::error::{ApiError, Code, chain};
use tug_api::image::{Exchange as Told, ResolveRequest, Resolved, Shape};
use tug_model::{Digest, Timestamp};

pub(crate) use self::fetch::{FetchError, Otherwise};

use self::exchange::Exchange;
use self::prepare::Exports;
use self::spool::Spool;
use crate::identity::Member;
use crate::runtime::{ImageStore, Runtime};

/// So many images come at once.
const IN: usize = 2;
/// So many parts go out at once.
const OUT: usize = 4;
/// How often parts that nobody uses are looked for.
const SWEEP: Duration = Duration::from_secs(60);

/// The images of this node, as far as others are concerned.
#[derive(Debug)]
pub(crate) struct Images {
    runtime: Arc<dyn Runtime>,
    member: watch::Receiver<Option<Member>>,
    exchange: Arc<Exchange>,
    spool: Arc<Spool>,
    exports: Arc<Exports>,
    incoming: Semaphore,
    outgoing: Arc<Semaphore>,
}

// === impl Images ===

impl Images {
    /// Keeps what is on its way in `folder`.
    pub(crate) fn new(
        runtime: Arc<dyn Runtime>,
        member: watch::Receiver<Option<Member>>,
        folder: PathBuf,
    ) -> Self {
        let spool = Arc::new(Spool::new(folder));
        Self {
            exports: Arc::new(Exports::new(Arc::clone(&runtime), Arc::clone(&spool))),
            runtime,
            member,
            exchange: Arc::default(),
            spool,
            incoming: Semaphore::new(IN),
            outgoing: Arc::new(Semaphore::new(OUT)),
        }
    }

    /// What other agents may ask.
    pub(crate) fn router(self: &Arc<Self>) -> Router {
        serve::router(Arc::clone(self))
    }

    /// What the control plane says, from now on.
    pub(crate) fn tell(&self, told: Told) {
        self.exchange.tell(told);
    }

    /// What the node waits to be told about.
    pub(crate) fn lacks(&self) -> BTreeSet<Digest> {
        self.exchange.lacks()
    }

    /// What `image` is made of here.
    pub(crate) async fn shape(&self, image: &Digest) -> Result<Shape, ApiError> {
        let shape = match self.store() {
            Some(store) => store.shape(image).await,
            None => Ok(None),
        };
        match shape {
            Ok(Some(shape)) => Ok(shape),
            Ok(None) => Err(ApiError::not_found(format!("image `{image}` on this node"))),
            Err(error) => Err(ApiError::new(Code::Unavailable, chain(&error))),
        }
    }

    /// What names of images mean: here, or at their registries. What cannot be found out means nothing.
    pub(crate) async fn resolve(&self, wanted: &ResolveRequest) -> Vec<Option<Resolved>> {
        let Some(store) = self.store() else { return vec![None; wanted.images.len()] };
        let mut all = Vec::new();
        for name in &wanted.images {
            let resolved = if wanted.registry {
                let known = |digest| Resolved { id: None, digest: Some(digest), tagged_at: Timestamp(0) };
                store.registry_digest(&name.reference).await.map(|digest| digest.map(known))
            } else {
                store.resolve(name).await
            };
            all.push(resolved.unwrap_or_else(|error| {
                tracing::debug!(image = name.reference, reason = chain(&error), "what a name means");
                None
            }));
        }
        all
    }

    /// Tidies up until `stop`.
    pub(crate) async fn run(&self, stop: CancellationToken) {
        loop {
            let spool = Arc::clone(&self.spool);
            if let Err(error) = tokio::task::spawn_blocking(move || spool.sweep()).await {
                tracing::warn!(%error, "look for parts of images that nobody uses");
            }
            if stop.run_until_cancelled(tokio::time::sleep(SWEEP)).await.is_none() {
                return;
            }
        }
    }

    fn store(&self) -> Option<&dyn ImageStore> {
        self.runtime.images()
    }
}
