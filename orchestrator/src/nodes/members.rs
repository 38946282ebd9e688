//! Telling the agents who belongs to the cluster, so that a node that was removed is shut out by its neighbours too: its
//! certificate is good for longer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use imbl::OrdMap;
use tokio::time::{sleep, timeout};
use tug_api::error::chain;
use tug_api::node::MembersText;
use tug_model::NodeId;
use tug_model::node::{KeyId, Node};

use super::session::Session;
use super::{Shared, hints};

/// How long an agent has to take the news.
const TAKE: Duration = Duration::from_secs(5);
/// The wait after the first failure; it doubles up to [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Keeps the list until the sessions end.
pub(super) async fn keep(shared: Arc<Shared>) {
    let mut states = shared.store.watch();
    loop {
        let nodes = states.borrow_and_update().nodes.clone();
        let (members, count) = (MembersText::new(&with_keys(&nodes)), nodes.len());
        let pace = hints::pace(members.size(), count);
        shared.members.send_if_modified(|current| {
            let is_new = **current != members;
            if is_new {
                *current = Arc::new(members);
            }
            is_new
        });
        let news = async {
            sleep(pace).await;
            let others = states.wait_for(|state| !state.nodes.ptr_eq(&nodes)).await.is_ok();
            if !others {
                std::future::pending::<()>().await;
            }
        };
        if shared.closing.run_until_cancelled(news).await.is_none() {
            return;
        }
    }
}

/// All nodes by their keys. One without a key has no certificate.
pub(super) fn with_keys(nodes: &OrdMap<NodeId, Arc<Node>>) -> BTreeMap<&NodeId, &KeyId> {
    nodes.iter().filter_map(|(id, node)| Some((id, node.key.as_ref()?))).collect()
}

impl Session {
    /// Passes the list on, whenever it is new. Does not end by itself.
    pub(super) async fn introduce(&self) {
        let mut members = self.shared.members.subscribe();
        let mut wait = FIRST_WAIT;
        loop {
            let newest = MembersText::clone(&members.borrow_and_update());
            let mut stamp = self.shared.board().stamp();
            stamp.run = Some(self.shared.run);
            let reason = match timeout(TAKE, self.client.introduce(&stamp, newest)).await {
                Ok(Ok(())) => {
                    wait = FIRST_WAIT;
                    if members.changed().await.is_err() {
                        std::future::pending::<()>().await;
                    }
                    continue;
                }
                Ok(Err(error)) => chain(&error),
                Err(_) => "no answer in time".to_owned(),
            };
            tracing::debug!(node = %self.node, reason, "an agent does not take who belongs to the cluster");
            sleep(wait).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }
}
