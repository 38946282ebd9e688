//! Probes over the network: a TCP connection, or a GET over it.

use std::net::SocketAddr;

use futures_util::future::BoxFuture;
use http::Request;
use http::header::{HOST, USER_AGENT};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tug_api::Body;
use tug_model::spec::service::ProbeCheck;

use super::{ProbeError, Prober};

/// Probes containers at their addresses.
#[derive(Debug, Clone, Copy, Default)]
pub struct Network;

// === impl Prober ===

impl Prober for Network {
    fn probe<'a>(
        &'a self,
        address: SocketAddr,
        check: &'a ProbeCheck,
    ) -> BoxFuture<'a, Result<(), ProbeError>> {
        Box::pin(async move {
            let stream = TcpStream::connect(address)
                .await
                .map_err(|source| ProbeError::Connect { address, source })?;
            match check {
                ProbeCheck::Tcp => Ok(()),
                ProbeCheck::Http(path) => get(stream, address, path).await,
            }
        })
    }
}

async fn get(stream: TcpStream, address: SocketAddr, path: &str) -> Result<(), ProbeError> {
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| ProbeError::Http {
        address,
        path: path.to_owned(),
        source,
    };
    let request = Request::get(path)
        .header(HOST, address.to_string())
        .header(USER_AGENT, concat!("tug/", env!("CARGO_PKG_VERSION")))
        .body(Body::empty())
        .map_err(|error| failed(error.into()))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| failed(error.into()))?;
    let exchange = sender.send_request(request);
    tokio::pin!(exchange, connection);
    let response = tokio::select! {
        biased;
        response = &mut exchange => response,
        ended = &mut connection => match ended {
            Ok(()) => exchange.await,
            Err(error) => Err(error),
        },
    };
    let status = response.map_err(|error| failed(error.into()))?.status();
    if status.as_u16() < 400 {
        return Ok(());
    }
    Err(ProbeError::Status { path: path.to_owned(), status: status.as_u16() })
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::routing::get;
    use http::StatusCode;
    use tug_api::error::chain;

    use super::*;

    #[tokio::test]
    async fn tcp_and_http_are_asked_for_real() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new()
            .route("/ready", get(async || "yes"))
            .route("/moved", get(async || StatusCode::FOUND))
            .route("/broken", get(async || StatusCode::SERVICE_UNAVAILABLE));
        let server = tokio::spawn(async move { axum::serve(listener, router).await });

        let http = |path: &str| ProbeCheck::Http(path.to_owned());
        Network.probe(address, &ProbeCheck::Tcp).await.unwrap();
        Network.probe(address, &http("/ready")).await.unwrap();
        Network.probe(address, &http("/moved")).await.unwrap();
        let error = Network.probe(address, &http("/broken")).await.unwrap_err();
        assert_eq!(error.to_string(), "/broken answered with status 503");
        let error = Network.probe(address, &http("no path")).await.unwrap_err();
        assert!(chain(&error).contains("invalid uri"), "{}", chain(&error));

        server.abort();
        assert!(server.await.unwrap_err().is_cancelled());
        let error = Network.probe(address, &ProbeCheck::Tcp).await.unwrap_err();
        assert!(chain(&error).contains("refused"), "{}", chain(&error));
    }
}
