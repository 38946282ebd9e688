//! The leases of the node, shared by the router, which takes them, the loop, which stops what has none, and the operations
//! that need one to the end. The rules are in `plan::lease`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tug_api::Clock;
use tug_api::error::chain;
use tug_model::lease::Lease;
use tug_model::report::Following;
use tug_model::{Millis, TaskId};

use crate::ledger::{Ledger, LedgerError};
use crate::plan::Leases;

/// Keeps the leases.
#[derive(Debug)]
pub(crate) struct LeaseBook {
    ledger: Arc<Ledger>,
    clock: Clock,
    leases: Mutex<Leases>,
    changed: watch::Sender<()>,
}

/// Why a lease is not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoLease {
    #[error("the lease is from cluster {theirs}, this node belongs to cluster {ours}")]
    OtherCluster { ours: String, theirs: String },
    #[error(
        "the lease is from a control plane that was replaced: its epoch is {theirs}, this node follows {ours}"
    )]
    Older { ours: u64, theirs: u64 },
}

// === impl LeaseBook ===

impl LeaseBook {
    /// With the leases that the agent before this one held.
    pub(crate) fn open(ledger: Arc<Ledger>, clock: Clock) -> Result<Self, LedgerError> {
        let leases = Leases { uptime: clock.uptime(), held: ledger.leases()? };
        Ok(Self { ledger, clock, leases: Mutex::new(leases), changed: watch::Sender::default() })
    }

    /// Takes a lease from the control plane that is followed.
    pub(crate) fn take(&self, lease: &Lease, following: &Following) -> Result<(), NoLease> {
        let Following { cluster: ours, epoch, generation: _, endpoints: _ } = following;
        if *ours != lease.cluster {
            return Err(NoLease::OtherCluster { ours: ours.clone(), theirs: lease.cluster.clone() });
        }
        if lease.epoch < *epoch {
            return Err(NoLease::Older { ours: *epoch, theirs: lease.epoch });
        }
        let mut leases = self.current();
        leases.take(lease);
        // Without this the next agent would only ask sooner.
        if let Err(error) = self.ledger.keep_leases(&leases.held) {
            tracing::warn!(reason = chain(&error), "the leases are not kept");
        }
        drop(leases);
        self.changed.send_replace(());
        Ok(())
    }

    /// How they stand now.
    pub(crate) fn now(&self) -> Leases {
        self.current().clone()
    }

    /// Told whenever there is a new one.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// How long the machine has been up.
    pub(crate) fn uptime(&self) -> Millis {
        self.clock.uptime()
    }

    /// Returns when the lease of `task` has ended.
    pub(crate) async fn ended(&self, task: &TaskId) {
        let mut changes = self.changes();
        loop {
            changes.borrow_and_update();
            let Some(until) = self.now().until(task) else { return };
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(self.clock.when_up_for(until)) => {}
                _ = changes.changed() => {}
            }
        }
    }

    fn current(&self) -> MutexGuard<'_, Leases> {
        let mut leases = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
        leases.uptime = self.clock.uptime();
        leases
    }
}
