//! Where other machines come in: a TLS listener whose certificate is renewed while it is open.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tug_api::Clock;
use tug_api::error::chain;
use tug_api::serve::HandshakeError;
use tug_api::tls::{self, ClientCertificates, Credentials, TlsError};

use super::Listen;
use crate::authority::{Authority, AuthorityError};
use crate::metrics::Metrics;

/// A renewal that failed is tried again after so long, or sooner where certificates are short-lived.
const RETRY: Duration = Duration::from_secs(60);

/// A listener that does not answer yet.
#[derive(Debug)]
pub(super) struct Entrance {
    listener: TcpListener,
    /// Where it listens.
    pub(super) address: SocketAddr,
}

/// Why there is no entrance.
#[derive(Debug, thiserror::Error)]
pub enum EntranceError {
    /// The control plane has no authority.
    #[error("make a certificate for the control plane")]
    Certificate(#[from] AuthorityError),
    /// Its certificate is of no use.
    #[error("prepare TLS")]
    Tls(#[from] TlsError),
}

// === impl Entrance ===

impl Entrance {
    pub(super) async fn open(listen: &Listen) -> io::Result<Self> {
        let listener = TcpListener::bind(listen.address).await?;
        Ok(Self { address: listener.local_addr()?, listener })
    }

    /// Serves until `stop`, and counts who is not served.
    pub(super) async fn serve(
        self,
        (router, metrics): (Router, Metrics),
        authority: Arc<Authority>,
        clock: Clock,
        stop: CancellationToken,
    ) -> Result<io::Result<()>, EntranceError> {
        let identity = authority.server(clock.now())?;
        let credentials = Credentials::new(&identity)?;
        let config: Arc<ServerConfig> =
            tls::server_config(&credentials, authority.pem(), ClientCertificates::Optional)?;
        let unserved = move |error: &HandshakeError| metrics.not_served(error);
        let served = tug_api::serve::tls(self.listener, router, config, unserved, stop);
        Ok(tokio::select! {
            biased;
            served = served => served,
            () = renew(&authority, &credentials, clock) => Ok(()),
        })
    }
}

/// Shows a new certificate whenever half of the life of the last one has passed. Does not end.
async fn renew(authority: &Authority, credentials: &Credentials, clock: Clock) {
    let half = Duration::from_millis(authority.life().0 / 2);
    let mut wait = half;
    loop {
        tokio::time::sleep(wait).await;
        let renewed = authority.server(clock.now()).map_err(EntranceError::from);
        let renewed = renewed.and_then(|identity| Ok(credentials.replace(&identity)?));
        wait = match renewed {
            Ok(()) => half,
            Err(error) => {
                tracing::warn!(error = chain(&error), "renew the control plane's certificate");
                RETRY.min(half)
            }
        };
    }
}
