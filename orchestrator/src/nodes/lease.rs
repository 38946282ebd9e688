//! Answering the reports of an agent with leases of its node's exclusive tasks.
//!
//! A lease is noted before it is sent, and only while the newest pass of the planner knows this session: so the planner
//! knows of every lease that there can be on a node which it takes for silent. See `plan::exclusive`.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::timeout;
use tug_api::client::CallError;
use tug_api::error::chain;
use tug_model::Millis;
use tug_model::lease::{Lease, Leased};

use super::Shared;
use super::session::{Ended, SILENCE, Session};
use crate::plan::Grants;

impl Session {
    /// Answers every report, and when another task needs a lease, the newest report once more. Ends when the agent does
    /// not take a lease in time: who can be told nothing is not connected, whatever he says.
    pub(super) async fn lease(&self, mut reports: watch::Receiver<Option<Millis>>) -> Ended {
        let Some(mut grants) = self.shared.grants.get().cloned() else {
            return std::future::pending().await;
        };
        let mut sent: Vec<Leased> = Vec::new();
        let mut complaint = String::new();
        loop {
            let is_report = tokio::select! {
                biased;
                Ok(()) = reports.changed() => true,
                Ok(()) = grants.changed() => false,
                else => return std::future::pending().await,
            };
            let newest = Arc::clone(&grants.borrow_and_update());
            let Some(uptime) = *reports.borrow_and_update() else { continue };
            let Some(lease) = self.shared.grant(self, &newest, uptime) else { continue };
            if !is_report && lease.tasks == sent {
                continue;
            }
            match timeout(SILENCE, self.client.lease(&lease)).await {
                Err(_) => return Ended::Unanswered,
                Ok(Ok(())) => {
                    complaint.clear();
                    sent = lease.tasks;
                }
                Ok(Err(error)) => {
                    let reason = if let CallError::Api(refusal) = &error {
                        refusal.message.clone()
                    } else {
                        chain(&error)
                    };
                    if reason != complaint {
                        tracing::warn!(node = %self.node, reason, "an agent does not take its lease");
                        complaint = reason;
                    }
                    sent.clear();
                }
            }
        }
    }
}

impl Shared {
    /// A lease in answer to a report of that `uptime`, noted as given out; `None`: this session gives none out, or there is
    /// nothing to give.
    fn grant(&self, session: &Session, grants: &Grants, uptime: Millis) -> Option<Lease> {
        let grant = grants.0.get(&session.node).filter(|grant| grant.session == session.number)?;
        let state = self.store.snapshot();
        let mut known = self.known();
        // Whose session has ended is silent for the planner from then on.
        known.current(session).filter(|connection| connection.client.is_some())?;
        // The report came before this, and was made before that: the node's time begins earlier than ours.
        let now = self.clock.now();
        known.observed.leased.insert(session.node.clone(), now);
        drop(known);
        // The planner hears of it, although the report may have said nothing new.
        self.changed.notify_one();
        let (cluster, epoch) = (state.cluster.clone(), state.epoch);
        Some(Lease { cluster, epoch, uptime, tasks: grant.tasks.clone() })
    }
}
