//! Tells the holder until when what is exclusive may run, so that it ends also when this agent is dead or stopped then.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tug_api::error::chain;
use tug_model::NodeId;

use crate::holder::{Client, ClientError, HolderConfig};
use crate::lease::LeaseBook;

/// The wait after a holder that was not told. Leases last for longer.
const AGAIN: Duration = Duration::from_secs(2);

/// What the holder needs for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The holder.
    pub holder: HolderConfig,
    /// The Engine's socket.
    pub engine: PathBuf,
}

/// Tells the holder.
#[derive(Debug)]
pub(crate) struct Guard {
    config: Config,
    node: NodeId,
    leases: Arc<LeaseBook>,
}

// === impl Guard ===

impl Guard {
    /// One that speaks for the node.
    pub(crate) fn new(config: Config, node: &NodeId, leases: &Arc<LeaseBook>) -> Self {
        Self { config, node: node.clone(), leases: Arc::clone(leases) }
    }

    /// Tells it of every lease until `stop`. Without leases there needs to be no holder.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut changes = self.leases.changes();
        let (mut client, mut failed_at) = (None, None);
        loop {
            changes.borrow_and_update();
            if failed_at.is_none_or(|at: Instant| at.elapsed() >= AGAIN) {
                let told = self.tell(&mut client).await;
                if let Err(error) = &told {
                    client = None;
                    if failed_at.is_none() {
                        let reason = chain(error);
                        tracing::warn!(reason, "should the agent die, what is exclusive may run on");
                    }
                }
                failed_at = told.is_err().then(Instant::now);
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                told = changes.changed() => if told.is_err() { return },
            }
        }
    }

    async fn tell(&self, client: &mut Option<Client>) -> Result<(), ClientError> {
        let Config { holder, engine } = &self.config;
        for (task, until) in self.leases.now().ends() {
            let holder = match client {
                Some(client) => client,
                None => client.insert(Client::find_or_start(holder).await?),
            };
            holder.charge(engine, &self.node, task, until).await?;
        }
        Ok(())
    }
}
