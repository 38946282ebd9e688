//! Images from node to node: who lacks one, who has it, and who is told so.
//!
//! An agent reports which images it lacks. Those that it may have, because a task of its node is made of them, are looked
//! for: first where tasks run that are made of the same image, then everywhere, a few nodes at a time and until enough
//! are found. Then both sides are told, those that have it before the one that lacks it. Nothing is asked while nothing is
//! lacked, nothing is stored, and no byte of an image passes here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use imbl::OrdMap;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tug_api::error::chain;
use tug_api::image::{Exchange, Source};
use tug_api::node::NodeClient;
use tug_model::task::Task;
use tug_model::{Digest, NodeId, TaskId};

use super::Shared;
use crate::plan::Observed;
use crate::store::State;

/// At most one look in this time.
const PACE: Duration = Duration::from_millis(100);
/// As long as an image is lacked, it is asked anew so often who has it.
const AGAIN: Duration = Duration::from_secs(5);
/// So many nodes are asked at once.
const ASKED: usize = 16;
/// How long an agent has to answer.
const ANSWER: Duration = Duration::from_secs(3);
/// So many nodes that have it are enough for each that lacks it.
const ENOUGH: usize = 3;
/// Of many that lack it, each may have one of its own, up to so many.
const MOST: usize = 16;

/// An agent that still lacks an image is told so often who has it: it may have begun anew, and forgotten.
const REMIND: Duration = Duration::from_secs(2);

/// What is lacked, and what each node was told.
#[derive(Debug, Default)]
struct Desk {
    wanted: BTreeMap<Digest, Wanted>,
    told: BTreeMap<NodeId, Told>,
    tasks: OrdMap<TaskId, Arc<Task>>,
    /// Which nodes have tasks made of an image, as far as somebody lacked it since the tasks last changed.
    homes: BTreeMap<Digest, BTreeSet<NodeId>>,
}

/// What a node was told.
#[derive(Debug)]
struct Told {
    /// In which session.
    number: u64,
    exchange: Exchange,
    at: Instant,
}

/// An image that is lacked.
#[derive(Debug, Default)]
struct Wanted {
    by: BTreeSet<NodeId>,
    /// Who has it; `None`: not asked yet.
    sources: Option<Vec<Source>>,
    asked_at: Option<Instant>,
}

/// Passes on who has what until the sessions end.
pub(super) async fn keep(shared: Arc<Shared>) {
    let mut observed = shared.published.subscribe();
    let mut desk = Desk::default();
    loop {
        let seen = Arc::clone(&observed.borrow_and_update());
        let state = shared.store.snapshot();
        desk.take_in(&state, &seen);
        let now = Instant::now();
        for image in desk.stale(now) {
            let needed = desk.needed(&image);
            let sources = look_for(&shared, &image, desk.homes(&state, &image), needed).await;
            if let Some(wanted) = desk.wanted.get_mut(&image) {
                wanted.sources = Some(sources);
                wanted.asked_at = Some(Instant::now());
            }
        }
        desk.tell(&shared).await;
        let again = (!desk.wanted.is_empty()).then(|| Instant::now() + REMIND);
        let news = async {
            sleep(PACE).await;
            tokio::select! {
                biased;
                Ok(()) = observed.changed() => {}
                () = sleep_until(again.unwrap_or_else(Instant::now)), if again.is_some() => {}
                else => std::future::pending().await,
            }
        };
        if shared.closing.run_until_cancelled(news).await.is_none() {
            return;
        }
    }
}

/// Those of all connected nodes that have `image`: at least as many as are needed, if there are, those of `first` before
/// others.
async fn look_for(shared: &Shared, image: &Digest, first: &BTreeSet<NodeId>, needed: usize) -> Vec<Source> {
    let mut candidates = shared.reachable();
    candidates.sort_by_key(|(source, _)| !first.contains(&source.node));
    let answers = stream::iter(candidates).map(|(source, client)| async move {
        match timeout(ANSWER, client.image(image)).await {
            Ok(Ok(_)) => Some(source),
            Ok(Err(_)) | Err(_) => None,
        }
    });
    let mut answers = answers.buffered(ASKED);
    let mut found = Vec::new();
    while let Some(answer) = answers.next().await {
        found.extend(answer);
        if found.len() >= needed {
            break;
        }
    }
    found
}

// === impl Shared ===

impl Shared {
    /// Every connected agent that others can reach.
    fn reachable(&self) -> Vec<(Source, NodeClient)> {
        let known = self.known();
        let of = |(node, connection): (&NodeId, &super::Connection)| {
            let client = connection.client.clone()?;
            let report = known.observed.nodes.get(node)?.report.as_ref()?;
            let address = report.info.address.clone()?;
            Some((Source { node: node.clone(), address }, client))
        };
        known.connections.iter().filter_map(of).collect()
    }

    fn session(&self, node: &NodeId) -> Option<(u64, NodeClient)> {
        let known = self.known();
        let connection = known.connections.get(node)?;
        Some((connection.number, connection.client.clone()?))
    }
}

// === impl Desk ===

impl Desk {
    /// Takes in what is lacked now.
    fn take_in(&mut self, state: &State, observed: &Observed) {
        if !self.tasks.ptr_eq(&state.tasks) {
            self.tasks = state.tasks.clone();
            self.homes.clear();
        }
        let mut lacked: BTreeMap<Digest, BTreeSet<NodeId>> = BTreeMap::new();
        for (node, seen) in &observed.nodes {
            let Some(report) = seen.report.as_ref().filter(|_| seen.is_heard()) else { continue };
            for image in &report.lacks {
                // What an agent says decides nothing about what it may have.
                if self.homes(state, image).contains(node) {
                    lacked.entry(image.clone()).or_default().insert(node.clone());
                }
            }
        }
        self.wanted.retain(|image, _| lacked.contains_key(image));
        for (image, by) in lacked {
            let wanted = self.wanted.entry(image).or_default();
            if !by.is_subset(&wanted.by) && wanted.sources.as_ref().is_some_and(Vec::is_empty) {
                // Who just came may be told that it is nowhere, but not without a look.
                wanted.asked_at = None;
            }
            wanted.by = by;
        }
    }

    /// The nodes that have tasks made of `image`.
    fn homes(&mut self, state: &State, image: &Digest) -> &BTreeSet<NodeId> {
        self.homes.entry(image.clone()).or_insert_with(|| {
            let is_it = |task: &&Arc<Task>| {
                let container = state.templates.get(&task.template).map(|template| &template.container);
                container.is_some_and(|container| container.image_id.as_deref() == Some(image.as_str()))
            };
            state.tasks.values().filter(is_it).map(|task| task.node.clone()).collect()
        })
    }

    /// What has to be looked for.
    fn stale(&self, now: Instant) -> Vec<Digest> {
        let is_stale = |wanted: &Wanted| wanted.asked_at.is_none_or(|at| now.duration_since(at) >= AGAIN);
        self.wanted.iter().filter(|(_, wanted)| is_stale(wanted)).map(|(image, _)| image.clone()).collect()
    }

    fn needed(&self, image: &Digest) -> usize {
        let lacking = self.wanted.get(image).map_or(0, |wanted| wanted.by.len());
        lacking.clamp(ENOUGH, MOST)
    }

    /// What each node is to be told. Who has nothing to do with any image is told so once.
    fn exchanges(&self) -> BTreeMap<NodeId, Exchange> {
        let mut all: BTreeMap<NodeId, Exchange> =
            self.told.keys().map(|node| (node.clone(), Exchange::default())).collect();
        for (image, wanted) in &self.wanted {
            let Some(sources) = &wanted.sources else { continue };
            for (turn, reader) in wanted.by.iter().enumerate() {
                // Each begins with another one, so that they share the work.
                let others = sources.iter().filter(|source| source.node != *reader);
                let mut theirs: Vec<Source> = others.cloned().collect();
                let begin = turn.checked_rem(theirs.len()).unwrap_or(0);
                theirs.rotate_left(begin);
                theirs.truncate(ENOUGH);
                for source in &theirs {
                    let exchange = all.entry(source.node.clone()).or_default();
                    exchange.readers.entry(image.clone()).or_default().insert(reader.clone());
                }
                all.entry(reader.clone()).or_default().sources.insert(image.clone(), theirs);
            }
        }
        all
    }

    /// Tells those who have not heard it: whoever is to be asked before those who ask.
    async fn tell(&mut self, shared: &Shared) {
        let exchanges = self.exchanges();
        let (asking, asked): (Vec<_>, Vec<_>) =
            exchanges.into_iter().partition(|(_, exchange)| !exchange.sources.is_empty());
        for some in [asked, asking] {
            let told = &self.told;
            let sent = stream::iter(some).map(|(node, exchange)| async move {
                let Some((number, client)) = shared.session(&node) else { return (node, None) };
                let now = Instant::now();
                if told.get(&node).is_some_and(|told| told.holds(number, &exchange, now)) {
                    return (node, None);
                }
                match timeout(ANSWER, client.exchange(&exchange)).await {
                    Ok(Ok(())) => (node, Some(Told { number, exchange, at: now })),
                    Ok(Err(error)) => {
                        tracing::debug!(%node, reason = chain(&error), "an agent is not told about images");
                        (node, None)
                    }
                    Err(_) => (node, None),
                }
            });
            let sent: Vec<_> = sent.buffer_unordered(ASKED).collect().await;
            for (node, told) in sent {
                if let Some(told) = told {
                    self.told.insert(node, told);
                }
            }
        }
        let known = shared.known();
        self.told.retain(|node, told| {
            told.exchange != Exchange::default() && known.connections.contains_key(node)
        });
    }
}

// === impl Told ===

impl Told {
    /// Whether the agent of session `number` need not be told `exchange` now.
    fn holds(&self, number: u64, exchange: &Exchange, now: Instant) -> bool {
        let is_new_enough = exchange.sources.is_empty() || now.duration_since(self.at) < REMIND;
        self.number == number && self.exchange == *exchange && is_new_enough
    }
}

#[cfg(test)]
mod tests;
