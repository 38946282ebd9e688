//! One session with one agent: it ends when the agent is silent, when its connection is lost, or when a newer session
//! of the same node begins.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tug_api::client::CallError;
use tug_api::error::chain;
use tug_api::lines::LineError;
use tug_api::node::NodeClient;
use tug_model::node::NodeInfo;
use tug_model::report::Said;
use tug_model::{Millis, NodeId};

use super::{Shared, Wake};

/// An agent says something every second; after this long without a report its node counts as not connected.
pub(super) const SILENCE: Duration = Duration::from_secs(3);

/// One session.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) node: NodeId,
    pub(super) number: u64,
    pub(super) client: NodeClient,
    pub(super) ending: CancellationToken,
    pub(super) wake: Arc<Wake>,
    pub(super) shared: Arc<Shared>,
}

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    #[error("ask for the reports")]
    Ask(#[source] CallError),
    #[error("read a report")]
    Read(#[source] LineError),
    #[error("the agent ended its reports")]
    Finished,
    #[error("no report for {} s", SILENCE.as_secs())]
    Silent,
    #[error("it reports, and does not take a lease within {} s", SILENCE.as_secs())]
    Unanswered,
}

// === impl Session ===

impl Session {
    pub(super) async fn run(self) {
        tracing::info!(node = %self.node, "an agent connected");
        let (said, info) = watch::channel(None);
        let (made, uptime) = watch::channel(None);
        let ended = tokio::select! {
            biased;
            () = self.ending.cancelled() => None,
            ended = self.read(&said, &made) => Some(ended),
            ended = self.lease(uptime) => Some(ended),
            () = self.keep(info) => None,
            () = self.push() => None,
            () = self.hint() => None,
            () = self.introduce() => None,
        };
        self.shared.ended(&self);
        if let Some(ended) = ended {
            tracing::warn!(node = %self.node, reason = chain(&ended), "an agent's session ended");
        } else {
            tracing::info!(node = %self.node, "an agent's session was closed");
        }
    }

    async fn read(
        &self,
        said: &watch::Sender<Option<NodeInfo>>,
        made: &watch::Sender<Option<Millis>>,
    ) -> Ended {
        let mut reports = match timeout(SILENCE, self.client.brief_reports()).await {
            Err(_) => return Ended::Silent,
            Ok(Err(error)) => return Ended::Ask(error),
            Ok(Ok(reports)) => reports,
        };
        loop {
            let report = match timeout(SILENCE, reports.next()).await {
                Err(_) => return Ended::Silent,
                Ok(None) => return Ended::Finished,
                Ok(Some(Err(error))) => return Ended::Read(error),
                Ok(Some(Ok(Said::Whole(report)))) => report,
                Ok(Some(Ok(Said::Same { uptime }))) => {
                    self.shared.heard_the_same(self);
                    made.send_replace(uptime);
                    continue;
                }
            };
            said.send_if_modified(|info| {
                let is_new = info.as_ref() != Some(&report.info);
                if is_new {
                    *info = Some(report.info.clone());
                }
                is_new
            });
            let uptime = report.uptime;
            self.shared.heard(self, *report);
            made.send_replace(uptime);
        }
    }
}
