//! Who belongs to the cluster, by the word of the control plane: a certificate may be good for longer than its node is one.
//!
//! After each start of the agent, until that is said, every certificate of the cluster's counts: connections go on while the
//! control plane is away.

use std::collections::BTreeMap;

use tokio::sync::watch;
use tug_model::NodeId;
use tug_model::node::KeyId;

/// All nodes by their keys, as far as is known. Cheap to clone; all clones know the same.
#[derive(Debug, Clone, Default)]
pub struct Members(watch::Sender<Option<BTreeMap<NodeId, KeyId>>>);

// === impl Members ===

impl Members {
    /// From now on these are the nodes.
    pub(crate) fn tell(&self, members: BTreeMap<NodeId, KeyId>) {
        self.0.send_replace(Some(members));
    }

    /// Ends when `node` is one, with `key`: who has just joined may be sooner here than the news of it.
    pub(super) async fn admitted(&self, node: &NodeId, key: &KeyId) {
        self.until(|members| members.get(node) == Some(key), true).await;
    }

    /// Ends when `node` is none any more, or has another key.
    pub(super) async fn shut_out(&self, node: &NodeId, key: &KeyId) {
        self.until(|members| members.get(node) != Some(key), false).await;
    }

    async fn until(&self, is_so: impl Fn(&BTreeMap<NodeId, KeyId>) -> bool, unsaid: bool) {
        let mut told = self.0.subscribe();
        // The sender lives as long as this does.
        let _told = told.wait_for(|members| members.as_ref().map_or(unsaid, &is_so)).await;
    }
}
