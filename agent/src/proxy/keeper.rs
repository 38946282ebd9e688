//! The balancer's side of the holder: what it keeps for us, and how we come back to it after it was lost.
//!
//! Without a holder, or with one that cannot be reached, everything works but the survival of the sockets.

use std::collections::BTreeSet;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use tokio::time::Instant;
use tug_api::error::chain;

use crate::holder::{Client, ClientError, HolderConfig, Place};

/// The wait after the first failure to reach a holder; it doubles up to [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Keeps duplicates of listening sockets in the holder.
#[derive(Debug)]
pub(super) struct Keeper {
    config: Option<HolderConfig>,
    client: Option<Client>,
    kept: BTreeSet<Place>,
    /// What a holder that we came back to has from before.
    stale: BTreeSet<Place>,
    has_inherited: bool,
    wait: Duration,
    not_before: Instant,
}

// === impl Keeper ===

impl Keeper {
    pub(super) fn new(config: Option<HolderConfig>) -> Self {
        let has_inherited = config.is_none();
        let (kept, stale) = <_>::default();
        Self {
            config,
            client: None,
            kept,
            stale,
            has_inherited,
            wait: FIRST_WAIT,
            not_before: Instant::now(),
        }
    }

    /// Whether it is known what an earlier agent left: if not, ports may seem to be in use that are our own.
    pub(super) fn has_inherited(&self) -> bool {
        self.has_inherited
    }

    /// The sockets that a running holder has, from an earlier agent. Starts none: without one there are no sockets.
    pub(super) async fn inherit(&mut self) -> Vec<(Place, OwnedFd)> {
        let Some(config) = self.config.as_ref().filter(|_| Instant::now() >= self.not_before) else {
            return Vec::new();
        };
        let inherited: Result<_, ClientError> = async {
            let Some(mut client) = Client::find(config).await? else {
                return Ok((None, Vec::new()));
            };
            let sockets = client.kept().await?;
            Ok((Some(client), sockets))
        }
        .await;
        match inherited {
            Ok((client, sockets)) => {
                self.client = client;
                self.has_inherited = true;
                self.kept = sockets.iter().map(|(place, _)| *place).collect();
                sockets
            }
            Err(error) => {
                self.fail(&error);
                Vec::new()
            }
        }
    }

    /// Whether the holder has the socket of `place`, or nobody asks for it.
    pub(super) fn keeps(&self, place: Place) -> bool {
        self.config.is_none() || self.kept.contains(&place)
    }

    /// Gives the holder a duplicate of the socket of `place`. Starts the holder if need be.
    pub(super) async fn keep(&mut self, place: Place, socket: BorrowedFd<'_>) {
        if self.client.is_none() && !self.connect().await {
            return;
        }
        let Some(client) = &mut self.client else {
            return;
        };
        match client.keep(place, socket).await {
            Ok(()) => {
                self.stale.remove(&place);
                self.kept.insert(place);
            }
            Err(error) => self.fail(&error),
        }
    }

    /// Lets the holder close its duplicate of the socket of `place`.
    pub(super) async fn forget(&mut self, place: Place) {
        self.kept.remove(&place);
        if let Some(client) = &mut self.client
            && let Err(error) = client.forget(place).await
        {
            self.fail(&error);
        }
    }

    /// Lets a holder that we came back to close what it was not given again.
    pub(super) async fn forget_stale(&mut self) {
        while let Some(place) = self.stale.pop_first() {
            self.forget(place).await;
        }
    }

    /// Lets the holder end.
    pub(super) async fn release(&mut self) {
        self.kept.clear();
        if let Some(mut client) = self.client.take()
            && let Err(error) = client.release().await
        {
            tracing::warn!(error = %chain(&error), "the holder of the listening sockets was not told to end");
        }
    }

    /// Returns when a holder that was there is gone.
    pub(super) async fn lost(&mut self) {
        match &self.client {
            Some(client) => client.closed().await,
            None => return std::future::pending().await,
        }
        tracing::warn!("the holder of the listening sockets is gone: another is started");
        self.client = None;
        self.kept.clear();
        self.not_before = Instant::now();
    }

    async fn connect(&mut self) -> bool {
        let Some(config) = &self.config else {
            return false;
        };
        if Instant::now() < self.not_before {
            return false;
        }
        match connect(config).await {
            Ok((client, stale)) => {
                self.client = Some(client);
                self.kept.clear();
                self.stale = stale;
                self.wait = FIRST_WAIT;
                true
            }
            Err(error) => {
                self.fail(&error);
                false
            }
        }
    }

    fn fail(&mut self, error: &ClientError) {
        tracing::warn!(
            error = %chain(error),
            "the listening sockets are not held: should the agent die, they close"
        );
        self.client = None;
        self.kept.clear();
        self.not_before = Instant::now() + self.wait;
        self.wait = LONGEST_WAIT.min(self.wait * 2);
    }
}

/// A holder, and what it has from before.
async fn connect(config: &HolderConfig) -> Result<(Client, BTreeSet<Place>), ClientError> {
    let mut client = Client::find_or_start(config).await?;
    let stale = client.kept().await?.into_iter().map(|(place, _)| place).collect();
    Ok((client, stale))
}
