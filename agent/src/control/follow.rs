//! Whom the node follows: the one place where an assignment and endpoints are accepted or refused.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;
use tug_model::assignment::{Assignment, Refusal};
use tug_model::endpoints::{Known, ServiceEndpoints, Stamp};
use tug_model::report::Following;

use crate::ledger::{self, Ledger};
use crate::plan::{Flaw, Orders};

/// Keeps the orders of the node. Shared by the router, which brings new ones, and the control loop.
#[derive(Debug)]
pub(crate) struct Follower {
    ledger: Arc<Ledger>,
    orders: watch::Sender<Arc<Orders>>,
    /// One change at a time, from the comparison to the disk.
    turn: Mutex<()>,
}

/// Why an assignment, or endpoints, are not followed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Rejection {
    /// It is not for this node to obey.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It makes no sense.
    #[error(transparent)]
    Flawed(#[from] Flaw),
    /// It could not be kept.
    #[error("keep what the node is told")]
    Disk(#[source] ledger::LedgerError),
}

// === impl Follower ===

impl Follower {
    /// Follows what the ledger has.
    pub(crate) fn new(ledger: Arc<Ledger>, node: &tug_model::NodeId) -> Result<Self, ledger::LedgerError> {
        let kept = ledger.assignment()?.filter(|assignment| assignment.node == *node);
        let orders = match kept.map(Orders::new) {
            Some(Ok(orders)) => orders,
            Some(Err(flaw)) => {
                tracing::warn!(%flaw, "the last assignment makes no sense; it counts as missing");
                Orders::none(node.clone(), String::new())
            }
            None => Orders::none(node.clone(), String::new()),
        };
        let orders = if orders.is_told() { orders.with(Arc::new(ledger.endpoints()?)) } else { orders };
        Ok(Self { ledger, orders: watch::Sender::new(Arc::new(orders)), turn: Mutex::new(()) })
    }

    /// What the node follows, now and from now on.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<Orders>> {
        self.orders.subscribe()
    }

    /// Which assignment the node follows.
    pub(crate) fn following(&self) -> Following {
        self.orders.borrow().following()
    }

    /// Follows `assignment` from now on, if it may: it is on disk before anybody acts on it.
    pub(crate) fn accept(&self, assignment: Assignment) -> Result<(), Rejection> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let current = Arc::clone(&self.orders.borrow());
        current.superseded_by(&assignment)?;
        if current.is_told() && *current.assignment() == assignment {
            return Ok(());
        }
        let orders = Orders::new(assignment)?.with(Arc::clone(current.endpoints()));
        unhurried(|| self.ledger.keep_assignment(orders.assignment())).map_err(Rejection::Disk)?;
        tracing::info!(
            generation = %orders.assignment().generation,
            tasks = orders.tasks().len(),
            "following a new assignment"
        );
        self.orders.send_replace(Arc::new(orders));
        Ok(())
    }

    /// Routes by `news` from now on, if it may: they are on disk before anybody acts on them.
    pub(crate) fn accept_endpoints(
        &self,
        stamp: Stamp,
        news: Vec<ServiceEndpoints>,
    ) -> Result<(), Rejection> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let current = Arc::clone(&self.orders.borrow());
        let endpoints = current.updated(stamp, news)?;
        if **current.endpoints() == endpoints {
            return Ok(());
        }
        unhurried(|| self.ledger.keep_endpoints(&endpoints)).map_err(Rejection::Disk)?;
        self.orders.send_replace(Arc::new(Orders::clone(&current).with(Arc::new(endpoints))));
        Ok(())
    }

    /// Whether what is said as of `stamp` counts here, or why not.
    pub(crate) fn knows(&self, stamp: Stamp) -> Result<(), Refusal> {
        self.orders.borrow().updated(stamp, Vec::new()).map(drop)
    }

    /// What the node knows of the endpoints.
    pub(crate) fn known_endpoints(&self) -> Known {
        self.orders.borrow().endpoints().known()
    }

    /// Without an assignment, the cluster that the containers of this node name is the one that may tell it
    /// anything.
    pub(crate) fn belong_to(&self, cluster: &str) {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let current = Arc::clone(&self.orders.borrow());
        if !current.is_told() && current.cluster().is_empty() {
            tracing::info!(cluster, "no assignment is known; the containers name the cluster");
            let node = current.assignment().node.clone();
            self.orders.send_replace(Arc::new(Orders::none(node, cluster.to_owned())));
        }
    }
}

/// Does what may wait for a disk, without holding up other tasks where there are other threads.
pub(super) fn unhurried<T>(work: impl FnOnce() -> T) -> T {
    match tokio::runtime::Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(tokio::runtime::RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        Ok(_) | Err(_) => work(),
    }
}
