//! Where an agent dials in: its connection is upgraded, and then the roles turn round.

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{CONNECTION, HeaderMap, UPGRADE};
use hyper_util::rt::TokioIo;
use tug_api::error::chain;
use tug_api::node::{LINK_PROTOCOL, LinkQuery};
use tug_api::transport::Channel;
use tug_api::{ApiError, Code};
use tug_model::NodeId;

use super::Shared;
use super::extract::Asked;
use crate::nodes::Nodes;

/// Upgrades an agent's connection.
#[utoipa::path(get, path = "/v1/link", tag = "nodes",
    params(("node" = String, Query, description = "The node whose agent dials")),
    responses(
        (status = 101, description = "From here on, the agent serves and the orchestrator asks, in HTTP/2"),
        (status = 400, description = "The request does not ask for the upgrade", body = tug_api::error::ErrorBody)))]
pub(super) async fn link(
    State(context): State<Shared>,
    Asked(LinkQuery { node }): Asked<LinkQuery>,
    mut request: Request,
) -> Result<Response, ApiError> {
    let upgrade = request.extensions_mut().remove::<hyper::upgrade::OnUpgrade>();
    let Some(upgrade) = upgrade.filter(|_| asks(request.headers())) else {
        let message =
            format!("this route is for agents: ask for the upgrade to `{LINK_PROTOCOL}` over HTTP/1.1");
        return Err(ApiError::new(Code::BadRequest, message));
    };
    let (nodes, closing) = (context.nodes.clone(), context.closing.clone());
    tokio::spawn(async move {
        tokio::select! {
            biased;
            () = closing.cancelled() => {}
            () = turn_round(upgrade, node, nodes) => {}
        }
    });
    let answer = [(CONNECTION, "upgrade"), (UPGRADE, LINK_PROTOCOL)];
    Ok((StatusCode::SWITCHING_PROTOCOLS, answer).into_response())
}

fn asks(headers: &HeaderMap) -> bool {
    headers.get(UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(LINK_PROTOCOL.as_bytes()))
}

/// Registers the connection as the way to `node`, and keeps it until it ends.
async fn turn_round(upgrade: hyper::upgrade::OnUpgrade, node: NodeId, nodes: Nodes) {
    let connection = match upgrade.await {
        Ok(connection) => TokioIo::new(connection),
        Err(error) => return tracing::warn!(%node, error = chain(&error), "upgrade an agent's connection"),
    };
    match Channel::over(connection).await {
        Ok((channel, ended)) => {
            nodes.register(node, channel);
            ended.await;
        }
        Err(error) => tracing::warn!(%node, error = chain(&error), "turn an agent's connection round"),
    }
}
