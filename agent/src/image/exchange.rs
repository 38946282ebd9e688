//! What the node lacks, and what the control plane says about it: who has an image, and who may have one of ours.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::watch;
use tug_api::image::{Exchange as Told, Source};
use tug_model::{Digest, NodeId};

/// What is wanted and what is told. Shared by all that goes on.
#[derive(Debug, Default)]
pub(crate) struct Exchange {
    state: watch::Sender<State>,
}

#[derive(Debug, Default)]
struct State {
    told: Told,
    wanted: BTreeMap<Digest, usize>,
}

/// As long as it lives, the node says that it lacks an image.
#[derive(Debug)]
pub(crate) struct Wish {
    exchange: Arc<Exchange>,
    news: watch::Receiver<State>,
    image: Digest,
}

// === impl Exchange ===

impl Exchange {
    /// From now on this holds.
    pub(crate) fn tell(&self, told: Told) {
        self.state.send_if_modified(|state| {
            let is_new = state.told != told;
            state.told = told;
            is_new
        });
    }

    /// Everything that is wanted.
    pub(crate) fn lacks(&self) -> BTreeSet<Digest> {
        self.state.borrow().wanted.keys().cloned().collect()
    }

    /// Wants `image`, until the answer is dropped.
    pub(crate) fn want(self: &Arc<Self>, image: &Digest) -> Wish {
        self.state.send_modify(|state| *state.wanted.entry(image.clone()).or_default() += 1);
        Wish { exchange: Arc::clone(self), news: self.state.subscribe(), image: image.clone() }
    }

    /// Whether `node` may have `image`.
    pub(crate) fn may_read(&self, node: &NodeId, image: &Digest) -> bool {
        self.state.borrow().told.readers.get(image).is_some_and(|readers| readers.contains(node))
    }
}

// === impl Wish ===

impl Wish {
    /// Who has the image, as soon as that is told. None: nobody.
    pub(crate) async fn sources(&mut self) -> Vec<Source> {
        let image = &self.image;
        let told = self.news.wait_for(|state| state.told.sources.contains_key(image)).await;
        // The sender lives as long as this does.
        told.ok().and_then(|state| state.told.sources.get(image).cloned()).unwrap_or_default()
    }
}

impl Drop for Wish {
    fn drop(&mut self) {
        self.exchange.state.send_modify(|state| {
            let Some(count) = state.wanted.get_mut(&self.image) else { return };
            *count -= 1;
            if *count == 0 {
                state.wanted.remove(&self.image);
                // Whoever wants it again shall hear how it is then.
                state.told.sources.remove(&self.image);
            }
        });
    }
}
