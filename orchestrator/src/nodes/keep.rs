//! Keeping what an agent says about its machine: the first word registers the node, a changed one changes it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tug_api::error::chain;
use tug_model::NodeId;
use tug_model::event::{Event, EventKind};
use tug_model::node::{Node, NodeInfo};
use tug_model::{Revision, Timestamp};

use super::session::Session;
use crate::store::{Change, State};

/// How long to wait before a commit that failed is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// So much of what an agent says about its machine is kept, in bytes: more is nonsense.
const LARGEST: usize = 64 << 10;

impl Session {
    /// Commits what the agent says about itself, whenever that is new. Does not end by itself.
    ///
    /// A node that is removed meanwhile is not registered again by what is left of its session.
    pub(super) async fn keep(&self, mut said: watch::Receiver<Option<NodeInfo>>) {
        let mut is_known = self.shared.store.snapshot().nodes.contains_key(&self.node);
        loop {
            if said.changed().await.is_err() {
                return std::future::pending().await;
            }
            loop {
                let Some(info) = said.borrow_and_update().clone() else { break };
                if serde_json::to_vec(&info).is_ok_and(|text| text.len() > LARGEST) {
                    tracing::warn!(node = %self.node, "what the agent says about its machine is too long");
                    break;
                }
                let (node, now) = (self.node.clone(), self.shared.clock.now());
                let build = move |_: Revision, state: &State| {
                    let is_removed = is_known && !state.nodes.contains_key(&node);
                    if is_removed { Vec::new() } else { changes(state, &node, info, now) }
                };
                match self.shared.store.commit(now, build).await {
                    Ok(_) => {
                        is_known = true;
                        break;
                    }
                    Err(error) => {
                        tracing::warn!(node = %self.node, error = chain(&error), "keep what a node says");
                        tokio::time::sleep(RETRY).await;
                    }
                }
            }
        }
    }

    /// Records that the agent does not obey. It is worth no second try: the node's status says it too.
    pub(super) async fn record_refusal(&self, reason: &str) {
        let now = self.shared.clock.now();
        let event = event(&self.node, now, format!("the agent does not obey: {reason}"));
        let build = move |_: Revision, _: &State| vec![Change::Record(Arc::new(event))];
        if let Err(error) = self.shared.store.commit(now, build).await {
            tracing::warn!(node = %self.node, error = chain(&error), "record a refusal");
        }
    }
}

fn changes(state: &State, id: &NodeId, info: NodeInfo, now: Timestamp) -> Vec<Change> {
    let (node, message) = match state.nodes.get(id) {
        Some(known) if known.info == info => return Vec::new(),
        // It has its key from joining, and says for the first time what it is.
        Some(known) if known.info.agent_version.is_empty() => {
            (Node { info: info.clone(), ..Node::clone(known) }, format!("joined: {}", summary(&info)))
        }
        Some(known) => {
            let message = format!("the machine changed: {}", difference(&known.info, &info));
            (Node { info, ..Node::clone(known) }, message)
        }
        None => {
            let message = format!("joined: {}", summary(&info));
            (Node::new(id.clone(), info, now), message)
        }
    };
    vec![Change::PutNode(Arc::new(node)), Change::Record(Arc::new(event(id, now, message)))]
}

fn event(node: &NodeId, at: Timestamp, message: String) -> Event {
    Event {
        revision: Revision(0),
        at,
        kind: EventKind::Node,
        project: None,
        service: None,
        task: None,
        node: Some(node.clone()),
        message,
    }
}

fn summary(info: &NodeInfo) -> String {
    let NodeInfo { hostname, os, arch, capacity, engine_version, .. } = info;
    format!(
        "{hostname}, {os}/{arch}, {} processors, {}, Engine {engine_version}",
        capacity.cpus, capacity.memory
    )
}

fn difference(old: &NodeInfo, new: &NodeInfo) -> String {
    let mut parts = Vec::new();
    let mut compare = |what: &str, old: String, new: String| {
        if old != new {
            parts.push(format!("{what} {old} → {new}"));
        }
    };
    compare("host name", old.hostname.clone(), new.hostname.clone());
    compare("platform", format!("{}/{}", old.os, old.arch), format!("{}/{}", new.os, new.arch));
    compare("processors", old.capacity.cpus.to_string(), new.capacity.cpus.to_string());
    compare("memory", old.capacity.memory.to_string(), new.capacity.memory.to_string());
    compare("Engine", old.engine_version.clone(), new.engine_version.clone());
    compare("agent", old.agent_version.clone(), new.agent_version.clone());
    let address = |info: &NodeInfo| info.address.clone().unwrap_or_else(|| "none".to_owned());
    compare("address", address(old), address(new));
    if old.labels != new.labels {
        parts.push("its labels".to_owned());
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use tug_model::node::Capacity;
    use tug_model::{Bytes, NanoCpus};

    fn info(engine: &str) -> NodeInfo {
        NodeInfo {
            hostname: "attic".into(),
            os: "linux".into(),
            arch: "amd64".into(),
            capacity: Capacity { cpus: NanoCpus(4_000_000_000), memory: Bytes(8 << 30) },
            labels: [].into(),
            engine_version: engine.into(),
            agent_version: "0.1.0".into(),
            address: None,
        }
    }

    #[test]
    fn the_first_word_registers_and_only_news_is_written() {
        let id = NodeId::parse("n1").unwrap();
        let mut state = State::new("c", 1);
        let first = changes(&state, &id, info("20.10"), Timestamp(5));
        assert!(
            matches!(&*first, [Change::PutNode(node), Change::Record(event)]
                if node.joined_at == Timestamp(5)
                    && event.message == "joined: attic, linux/amd64, 4.000 processors, 8.0 GiB, Engine 20.10"),
            "{first:?}"
        );
        state.apply(Revision(1), &first);
        assert_eq!(changes(&state, &id, info("20.10"), Timestamp(6)), []);
        let second = changes(&state, &id, info("28.0"), Timestamp(7));
        assert!(
            matches!(&*second, [Change::PutNode(node), Change::Record(event)]
                if node.joined_at == Timestamp(5)
                    && event.message == "the machine changed: Engine 20.10 → 28.0"),
            "{second:?}"
        );
    }
}
