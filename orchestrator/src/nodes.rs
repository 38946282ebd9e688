//! The nodes: one session for each agent that is connected, and one value that says what all of them observe.
//!
//! A session asks its agent two things: to follow the node's assignment and the endpoints, whenever the `board` has
//! something new (`push`), and for its reports (`session`), which it answers with leases where the node has exclusive
//! tasks (`lease`). What comes of it is one [`Observed`], published whole. Which backends of other nodes do not serve, it
//! is told beside that (`hints`), and who belongs to the cluster (`members`).
//!
//! What an agent acknowledges is on its disk; what it reports as followed is what it acts and routes by. Only the latter
//! counts for the planner.
//!
//! **Guarantees.** An agent is never sent anything that is older than what it has acknowledged. A node that has
//! been silent for three seconds is not connected any more, whatever its connection says.
//!
//! **Assumptions.** There is at most one session of a node; a newer one ends the older. A second machine with the key of one
//! that is connected has been refused before (`origin`).

mod board;
#[cfg(test)]
pub(crate) mod fake;
mod hints;
mod images;
mod keep;
mod lease;
mod members;
mod origin;
mod push;
mod session;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tug_api::Clock;
use tug_api::node::{HintsText, MembersText, NodeClient};
use tug_api::transport::Channel;
use tug_model::assignment::{Hints, Run};
use tug_model::report::{Following, Report};
use tug_model::{Millis, NodeId, Revision, Timestamp};

use self::board::{Board, Touched};
pub use self::origin::Origin;
pub(crate) use self::origin::Rival;
use self::session::Session;
use crate::plan::{Deaf, Grants, NodeObserved, Observed};
use crate::store::Store;

/// At most one publication in this time: reports come in bursts.
const PACE: Duration = Duration::from_millis(10);
/// While a node is missed, that the others speak is published so often.
const SIGNS: Millis = Millis(250);
/// An agent that acknowledged an assignment and after this time still reports another one is told again.
const PATIENCE: Millis = Millis::from_secs(3);

/// The handle: cheap to clone, good from any task.
#[derive(Debug, Clone)]
pub struct Nodes(Arc<Shared>);

/// What publishes: it must run for [`Nodes::observed`] to change.
#[derive(Debug)]
pub struct Publisher(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    store: Store,
    clock: Clock,
    /// What the agents are told about who tells them.
    run: Run,
    closing: CancellationToken,
    sessions: TaskTracker,
    board: Mutex<Board>,
    known: Mutex<Known>,
    changed: Notify,
    published: watch::Sender<Arc<Observed>>,
    hints: watch::Sender<Arc<HintsText>>,
    members: watch::Sender<Arc<MembersText>>,
    /// Which leases may be given out; before the planner is there, none.
    grants: OnceLock<watch::Receiver<Arc<Grants>>>,
}

#[derive(Debug, Default)]
struct Known {
    observed: Observed,
    connections: BTreeMap<NodeId, Connection>,
    last_number: u64,
    /// The nodes whose connections are lost.
    missed: BTreeSet<NodeId>,
    /// When signs were last published.
    signs_at: Timestamp,
}

/// The newest session of a node, connected or not.
#[derive(Debug)]
struct Connection {
    number: u64,
    origin: Origin,
    /// Another machine was found that dials as this node.
    has_rival: bool,
    ending: CancellationToken,
    wake: Arc<Wake>,
    /// `None` when the session has ended.
    client: Option<NodeClient>,
    /// What the agent acknowledged last, and when; `None`: that is not known.
    told: Option<(Told, Timestamp)>,
    /// The newest revision of which the agent was told all that concerns it.
    reached: Revision,
    /// The newest revision that concerns it.
    due: Revision,
    /// What the agent of this session says that it follows; `None` before its first report.
    follows: Option<Told>,
    /// When it said something last.
    heard_at: Timestamp,
    refusal: Option<String>,
}

/// What wakes a session.
#[derive(Debug, Default)]
struct Wake {
    /// There is something new to tell.
    news: Notify,
    /// Everything is to be told again.
    again: Notify,
}

/// Generations, as an agent reports them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Told {
    assignment: Revision,
    endpoints: Revision,
}

// === impl Nodes ===

impl Nodes {
    /// Without any node. What the store has now is what earlier runs left.
    pub fn new(store: Store, clock: Clock) -> (Self, Publisher) {
        let state = store.snapshot();
        let (mut board, mut known) = (Board::default(), Known::default());
        board.follow(&state);
        known.observed.level = state.revision;
        let run = Run { at: clock.now(), found: state.revision };
        let shared = Arc::new(Shared {
            store,
            clock,
            run,
            closing: CancellationToken::new(),
            sessions: TaskTracker::new(),
            board: Mutex::new(board),
            known: Mutex::new(known),
            changed: Notify::new(),
            published: watch::Sender::default(),
            hints: watch::Sender::new(Arc::new(HintsText::new(&Hints::default()))),
            members: watch::Sender::new(Arc::new(MembersText::new(&members::with_keys(&state.nodes)))),
            grants: OnceLock::new(),
        });
        (Self(Arc::clone(&shared)), Publisher(shared))
    }

    /// From now on leases are given out by what the planner says. Only the first planner counts.
    pub fn lease_by(&self, grants: watch::Receiver<Arc<Grants>>) {
        let _first = self.0.grants.set(grants);
    }

    /// From now on the agent of `node` is asked over `channel`. An older session of the node ends.
    pub fn register(&self, node: NodeId, channel: Channel) {
        self.register_from(Origin::default(), node, channel);
    }

    /// The same; it is known where the agent dials from.
    pub fn register_from(&self, origin: Origin, node: NodeId, channel: Channel) {
        let shared = &self.0;
        if shared.closing.is_cancelled() {
            return;
        }
        let client = NodeClient::new(channel);
        let mut known = shared.known();
        known.last_number += 1;
        let connection = Connection {
            number: known.last_number,
            origin,
            has_rival: false,
            ending: shared.closing.child_token(),
            wake: Arc::default(),
            client: Some(client.clone()),
            told: None,
            reached: Revision(0),
            due: known.observed.level,
            follows: None,
            heard_at: Timestamp(0),
            refusal: None,
        };
        let (ending, wake) = (connection.ending.clone(), Arc::clone(&connection.wake));
        let number = connection.number;
        if let Some(older) = known.connections.insert(node.clone(), connection) {
            older.ending.cancel();
            // The agent of a new connection may be another process: it has acknowledged nothing yet.
            known.update(&node, |observed| (observed.acked, observed.is_level) = (Revision(0), false));
        }
        drop(known);
        let session = Session { node, number, client, ending, wake, shared: Arc::clone(shared) };
        shared.sessions.spawn(session.run());
    }

    /// What the agents observe, whole, again whenever that changes.
    pub fn observed(&self) -> watch::Receiver<Arc<Observed>> {
        self.0.published.subscribe()
    }

    /// Asks the agent of `node`; `None` when it is not connected.
    pub fn client(&self, node: &NodeId) -> Option<NodeClient> {
        self.0.known().connections.get(node)?.client.clone()
    }

    /// When the agent of `node` said something last, if only that everything stands as it did.
    pub fn heard_at(&self, node: &NodeId) -> Option<Timestamp> {
        self.0.known().connections.get(node).map(|connection| connection.heard_at)
    }

    /// The node is removed: its session ends, and nothing that it said is kept.
    pub fn forget(&self, node: &NodeId) {
        let mut known = self.0.known();
        if let Some(connection) = known.connections.remove(node) {
            connection.ending.cancel();
        }
        known.observed.nodes.remove(node);
        known.missed.remove(node);
        drop(known);
        self.0.changed.notify_one();
    }

    /// Why the agent of `node` does not obey its newest assignment; `None` when it does.
    pub fn refusal(&self, node: &NodeId) -> Option<String> {
        self.0.known().connections.get(node)?.refusal.clone()
    }
}

// === impl Publisher ===

impl Publisher {
    /// Publishes until `stop`, then ends the sessions.
    pub async fn run(self, stop: CancellationToken) {
        let shared = &self.0;
        shared.sessions.spawn(board::keep(Arc::clone(shared)));
        shared.sessions.spawn(hints::keep(Arc::clone(shared)));
        shared.sessions.spawn(members::keep(Arc::clone(shared)));
        shared.sessions.spawn(images::keep(Arc::clone(shared)));
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = shared.changed.notified() => {}
            }
            let observed = Arc::new(shared.known().observed.clone());
            shared.published.send_replace(observed);
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = tokio::time::sleep(PACE) => {}
            }
        }
        shared.closing.cancel();
        shared.sessions.close();
        shared.sessions.wait().await;
    }
}

impl Drop for Publisher {
    /// Without a publisher the sessions would talk to nobody.
    fn drop(&mut self) {
        self.0.closing.cancel();
    }
}

// === impl Shared ===

impl Shared {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What `revision` concerns is taken in by the board.
    fn touched(&self, touched: &Touched, revision: Revision) {
        let mut known = self.known();
        let nodes: Vec<NodeId> = match touched {
            Touched { endpoints: true, .. } => known.connections.keys().cloned().collect(),
            Touched { endpoints: false, nodes } => nodes.iter().cloned().collect(),
        };
        for node in &nodes {
            known.concern(node, revision);
        }
        known.observed.level = revision;
        self.changed.notify_one();
    }

    /// The agent is about to be told something new: whatever it reports meanwhile is not a mistake.
    fn telling(&self, session: &Session) {
        if let Some(connection) = self.known().current(session) {
            connection.told = None;
        }
    }

    /// A report came in.
    fn heard(&self, session: &Session, report: Report) {
        let now = self.clock.now();
        let mut known = self.known();
        let Some(connection) = known.current(session) else { return };
        connection.follows = Some(Told::from(&report.following));
        connection.hear(now);
        known.update(&session.node, |observed| {
            if !observed.connected {
                observed.back_at = Some(now);
            }
            observed.connected = true;
            observed.session = session.number;
            observed.report = Some(Arc::new(report));
            observed.received_at = now;
        });
        known.missed.remove(&session.node);
        known.settle(&session.node);
        drop(known);
        self.changed.notify_one();
    }

    /// The agent said that everything stands as it did: nobody need look at anything, unless another node is missed. Then
    /// it counts who has spoken since.
    fn heard_the_same(&self, session: &Session) {
        let now = self.clock.now();
        let mut known = self.known();
        let Some(connection) = known.current(session) else { return };
        connection.hear(now);
        known.update(&session.node, |observed| observed.confirmed_at = now);
        if !known.missed.is_empty() && now.since(known.signs_at) >= SIGNS {
            known.signs_at = now;
            drop(known);
            self.changed.notify_one();
        }
    }

    /// The agent has acknowledged all that concerns it up to `revision`, `told` last.
    fn acknowledged(&self, session: &Session, told: Told, revision: Revision) {
        let now = self.clock.now();
        let mut known = self.known();
        let Some(connection) = known.current(session) else { return };
        if connection.told.is_none_or(|(earlier, _)| earlier != told) {
            connection.told = Some((told, now));
            connection.refusal = None;
        }
        connection.reached = revision;
        known.update_if(&session.node, |observed| observed.deaf.is_some(), |observed| observed.deaf = None);
        known.settle(&session.node);
        drop(known);
        self.changed.notify_one();
    }

    /// The agent does not obey. Says whether that is news.
    fn refused(&self, session: &Session, reason: &str) -> bool {
        let mut known = self.known();
        let Some(connection) = known.current(session) else { return false };
        let is_new = connection.refusal.as_deref() != Some(reason);
        connection.refusal = Some(reason.to_owned());
        is_new
    }

    /// The agent does not take its newest assignment, though it may well report.
    fn deaf(&self, session: &Session, reason: &str) {
        let now = self.clock.now();
        let mut known = self.known();
        if known.current(session).is_none() {
            return;
        }
        known.update(&session.node, |observed| {
            let since = observed.deaf.as_ref().map_or(now, |deaf| deaf.since);
            observed.deaf = Some(Deaf { since, reason: reason.to_owned() });
        });
        drop(known);
        self.changed.notify_one();
    }

    /// The session has ended.
    fn ended(&self, session: &Session) {
        let now = self.clock.now();
        let mut known = self.known();
        let Some(connection) = known.current(session) else { return };
        connection.client = None;
        connection.told = None;
        known.update(&session.node, |observed| observed.lose(now));
        known.missed.insert(session.node.clone());
        drop(known);
        self.changed.notify_one();
    }
}

// === impl Connection ===

impl Connection {
    /// The agent said something. If it has not followed for long what it acknowledged, it is told again.
    fn hear(&mut self, now: Timestamp) {
        self.heard_at = now;
        let strays = |(told, at): (Told, Timestamp)| self.follows != Some(told) && now.since(at) > PATIENCE;
        if self.told.is_some_and(strays) {
            self.told = None;
            self.wake.again.notify_one();
        }
    }
}

// === impl Known ===

impl Known {
    /// The session's own connection; `None` when a newer session has taken its place.
    fn current(&mut self, session: &Session) -> Option<&mut Connection> {
        self.connections.get_mut(&session.node).filter(|connection| connection.number == session.number)
    }

    /// How many agents are connected.
    fn connected(&self) -> usize {
        self.connections.values().filter(|connection| connection.client.is_some()).count()
    }

    /// There is something new to tell `node`, as of `revision`.
    fn concern(&mut self, node: &NodeId, revision: Revision) {
        let level = self.observed.level;
        let Some(connection) = self.connections.get_mut(node) else { return };
        connection.due = revision;
        connection.wake.news.notify_one();
        if connection.reached < revision {
            self.update_if(
                node,
                |observed| observed.is_level,
                |observed| (observed.acked, observed.is_level) = (observed.acked.max(level), false),
            );
        }
    }

    /// What the agent of `node` acknowledged counts from when it says that it follows it.
    fn settle(&mut self, node: &NodeId) {
        let Some(connection) = self.connections.get(node) else { return };
        let (told, reached) = (connection.told.map(|(told, _)| told), connection.reached);
        if told.is_none() || connection.follows != told {
            return;
        }
        let is_level = reached >= connection.due;
        self.update_if(
            node,
            |observed| observed.acked < reached || observed.is_level != is_level,
            |observed| (observed.acked, observed.is_level) = (observed.acked.max(reached), is_level),
        );
    }

    /// As [`Known::update`], where there is need.
    fn update_if(
        &mut self,
        node: &NodeId,
        is_due: impl FnOnce(&NodeObserved) -> bool,
        change: impl FnOnce(&mut NodeObserved),
    ) {
        if self.observed.nodes.get(node).is_none_or(|observed| is_due(observed)) {
            self.update(node, change);
        }
    }

    fn update(&mut self, node: &NodeId, change: impl FnOnce(&mut NodeObserved)) {
        let mut observed =
            self.observed.nodes.get(node).map_or_else(NodeObserved::default, |it| NodeObserved::clone(it));
        change(&mut observed);
        self.observed.nodes.insert(node.clone(), Arc::new(observed));
    }
}

// === impl Told ===

impl From<&Following> for Told {
    fn from(following: &Following) -> Self {
        Self { assignment: following.generation, endpoints: following.endpoints }
    }
}

#[cfg(test)]
mod tests;
