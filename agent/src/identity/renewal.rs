//! Keeps the node's certificate valid: a new one is asked for at a random point between a half and four fifths of the
//! life of the last one, so that nodes that joined together do not ask together, and again until it is there.

use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tug_api::Clock;
use tug_api::client::{CallError, Client};
use tug_api::error::chain;
use tug_api::join::{CertificateRequest, Joined};
use tug_api::tls::TlsError;
use tug_api::transport::{Channel, TlsServer};
use tug_model::{Millis, NodeId, Timestamp};

use super::{Error, Folder, Member, Membership, Origin};
use crate::plan::spread;

/// The longest wait before another try, and the shortest.
const LONGEST_RETRY: Duration = Duration::from_secs(60);
const SHORTEST_RETRY: Duration = Duration::from_millis(200);
/// The clock may be set while this waits, or the machine join again, so it looks this often.
const LOOK: Duration = Duration::from_secs(2);

/// Whom a certificate is asked of.
#[derive(Debug, Clone)]
pub(crate) enum Way {
    /// The control plane on this machine, behind its socket.
    Socket(PathBuf),
    /// Those that the node was told of.
    Servers,
}

/// Keeps a certificate valid.
#[derive(Debug)]
pub(crate) struct Keeper {
    folder: Folder,
    way: Way,
    node: NodeId,
    clock: Clock,
    seed: u64,
    membership: Option<Membership>,
    member: watch::Sender<Option<Member>>,
    servers: watch::Sender<Vec<String>>,
}

/// Why there is no new certificate.
#[derive(Debug, thiserror::Error)]
enum RenewalError {
    #[error(transparent)]
    Own(#[from] Error),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Ask(#[from] CallError),
}

// === impl Keeper ===

impl Keeper {
    /// For `node`, with what is in `folder`. Whoever is asked by a socket may find nothing there yet.
    pub(crate) fn open(
        folder: Folder,
        way: Way,
        node: NodeId,
        clock: Clock,
        seed: u64,
    ) -> Result<Self, Error> {
        let kept = folder.load()?;
        // What another node or the other way once had here is no identity of this one.
        let membership = kept.filter(|it| it.facts.node == node && way.is_of(&it.facts.origin));
        if membership.is_none() && matches!(way, Way::Servers) {
            return Err(Error::NotJoined(folder.path().to_path_buf()));
        }
        let member = membership.as_ref().map(Membership::member).transpose()?;
        let servers = membership.as_ref().map(Membership::addresses).unwrap_or_default();
        let (member, servers) = (watch::Sender::new(member), watch::Sender::new(servers));
        Ok(Self { folder, way, node, clock, seed, membership, member, servers })
    }

    /// The control plane, as the node shows itself to it; an error where it is known by its socket only.
    pub(crate) fn server(&self) -> Result<TlsServer, Error> {
        let member = self.member.borrow();
        let known = self.membership.as_ref().zip(member.as_ref());
        let (membership, member) = known.ok_or_else(|| Error::NotJoined(self.folder.path().to_path_buf()))?;
        Ok(membership.server(Some(&member.credentials))?)
    }

    /// What the node is in its cluster; `None` as long as nobody has said so.
    pub(crate) fn member(&self) -> watch::Receiver<Option<Member>> {
        self.member.subscribe()
    }

    /// Where the control plane is reached, as far as it was told.
    pub(crate) fn servers(&self) -> watch::Receiver<Vec<String>> {
        self.servers.subscribe()
    }

    /// Renews until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut failures: u32 = 0;
        // A socket is asked at once: the control plane behind it may have begun anew meanwhile.
        let mut due = match (&self.way, &self.membership) {
            (Way::Servers, Some(membership)) => self.renewal(membership),
            (Way::Socket(_), _) | (Way::Servers, None) => self.clock.now(),
        };
        loop {
            let wait = Duration::from_millis(due.since(self.clock.now()).0).min(LOOK);
            if stop.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
                return;
            }
            if let Some(next) = self.adopt() {
                (due, failures) = (next, 0);
            }
            let now = self.clock.now();
            if now < due {
                continue;
            }
            let Some(renewed) = stop.run_until_cancelled(self.renew()).await else { return };
            match renewed {
                Ok(next) => (due, failures) = (next, 0),
                Err(error) => {
                    self.complain(&error, failures);
                    due = now.plus(Millis::from(self.retry(failures)));
                    failures = failures.saturating_add(1);
                }
            }
        }
    }

    fn complain(&self, error: &RenewalError, failures: u32) {
        let reason = chain(error);
        if failures == 0 && self.membership.is_some() {
            tracing::warn!(reason, "the node's certificate is not renewed; trying again");
        } else {
            tracing::debug!(reason, "no certificate for this node");
        }
    }

    /// Asks, keeps and shows; gives the time of the next renewal.
    async fn renew(&mut self) -> Result<Timestamp, RenewalError> {
        let mut joined = self.ask().await?;
        let known = self.membership.as_ref();
        if let Some(known) = known.filter(|_| joined.servers.is_empty()) {
            joined.servers.clone_from(&known.facts.servers);
        }
        let origin = known.map_or(Origin::Local, |known| known.facts.origin.clone());
        let membership = self.folder.keep(joined, origin, self.clock.now())?;
        tracing::info!(node = %self.node, "this node has a new certificate");
        Ok(self.show(membership)?)
    }

    /// What `tug join` has put into the folder meanwhile: it found the control plane at another address. Gives the time of
    /// the next renewal.
    fn adopt(&mut self) -> Option<Timestamp> {
        let known = self.membership.as_ref().filter(|_| matches!(self.way, Way::Servers))?;
        // One that is about to be written, or damaged, changes nothing.
        let kept = self.folder.load().ok().flatten()?;
        let is_newer = kept.facts.since > known.facts.since && kept.facts.origin != known.facts.origin;
        if !is_newer || kept.facts.node != self.node || kept.facts.cluster != known.facts.cluster {
            return None;
        }
        let due = self.show(kept).ok()?;
        tracing::info!(servers = self.servers.borrow().join(", "), "this node has joined again");
        Some(due)
    }

    /// Shows the certificate from now on, and dials the addresses; gives the time of the next renewal.
    fn show(&mut self, membership: Membership) -> Result<Timestamp, TlsError> {
        let servers = membership.addresses();
        let known = self.membership.as_ref();
        let is_same = known.is_some_and(|it| it.identity.authority_pem == membership.identity.authority_pem);
        let next = membership.member()?;
        self.member.send_if_modified(|member| match member {
            // Everybody who has it shows the new certificate from now on.
            Some(member) if is_same && member.credentials.replace(&membership.identity).is_ok() => false,
            Some(_) | None => {
                *member = Some(next);
                true
            }
        });
        self.servers.send_if_modified(|known| {
            let has_changed = *known != servers;
            *known = servers;
            has_changed
        });
        let due = self.renewal(&membership);
        self.membership = Some(membership);
        Ok(due)
    }

    async fn ask(&self) -> Result<Joined, RenewalError> {
        let request = CertificateRequest { csr: self.folder.request()? };
        let joined = match &self.way {
            Way::Socket(path) => Client::new(Channel::unix(path)).certificate(&self.node, &request).await?,
            Way::Servers => {
                let membership = self.membership.as_ref();
                let membership =
                    membership.ok_or_else(|| Error::NotJoined(self.folder.path().to_path_buf()))?;
                // The key is proven by the request; a certificate that has ended would be refused.
                let server = membership.server(None)?;
                Client::new(Channel::tls(server)).renew(&request).await?
            }
        };
        Ok(joined)
    }

    /// When to ask for the next certificate.
    fn renewal(&self, membership: &Membership) -> Timestamp {
        let since = membership.facts.since;
        let wait = match membership.ends().since(since).duration() {
            // By our clock it had ended before it began: one of the clocks is wrong.
            Duration::ZERO => LONGEST_RETRY,
            life => life.mul_f64(share(&self.node, self.seed)).max(SHORTEST_RETRY),
        };
        since.plus(wait.into())
    }

    fn retry(&self, failures: u32) -> Duration {
        let longest = (SHORTEST_RETRY * 2_u32.saturating_pow(failures.min(16))).min(LONGEST_RETRY);
        longest.mul_f64(spread(failures, self.node.as_str(), self.seed))
    }
}

// === impl Way ===

impl Way {
    fn is_of(&self, origin: &Origin) -> bool {
        match self {
            Self::Socket(_) => *origin == Origin::Local,
            Self::Servers => matches!(origin, Origin::Joined { .. }),
        }
    }
}

/// The part of a certificate's life after which it is renewed.
fn share(node: &NodeId, seed: u64) -> f64 {
    // A spread is between a half and the whole.
    0.5 + (spread(0, node.as_str(), seed) - 0.5) * 0.6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_renew_between_half_and_four_fifths_and_not_together() {
        let shares: Vec<f64> = (0..1000).map(|seed| share(&NodeId::parse("n1").unwrap(), seed)).collect();
        assert!(shares.iter().all(|share| (0.5..=0.8).contains(share)), "{shares:?}");
        let early = shares.iter().filter(|share| **share < 0.65).count();
        assert!((400..600).contains(&early), "{early} of 1000 in the first half");
    }
}
