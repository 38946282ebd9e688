//! Where an agent dials in: its connection is upgraded, and then the roles turn round.

use std::sync::Arc;

use axum::extract::{Extension, Request, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{CONNECTION, HeaderMap, UPGRADE};
use hyper_util::rt::TokioIo;
use tokio::sync::watch;
use tug_api::error::chain;
use tug_api::node::{LINK_PROTOCOL, LinkQuery};
use tug_api::tls::Caller;
use tug_api::transport::Channel;
use tug_api::{ApiError, Code};
use tug_model::NodeId;
use tug_model::node::KeyId;

use super::authorise::Who;
use super::extract::Asked;
use super::machines::event;
use super::mutate::commit;
use super::{Context, Shared};
use crate::nodes::{Nodes, Origin, Rival};
use crate::store::State as Stored;

/// Upgrades an agent's connection.
#[utoipa::path(get, path = "/v1/link", tag = "nodes",
    params(("node" = String, Query, description = "The node whose agent dials"),
        ("boot" = Option<String>, Query, description = "The boot id of its machine")),
    responses(
        (status = 101, description = "From here on, the agent serves and the orchestrator asks, in HTTP/2"),
        (status = 400, description = "The request does not ask for the upgrade", body = tug_api::error::ErrorBody),
        (status = 409, description = "Another machine is connected as this node", body = tug_api::error::ErrorBody)))]
pub(super) async fn link(
    State(context): State<Shared>,
    who: Who,
    caller: Option<Extension<Caller>>,
    Asked(LinkQuery { node, boot }): Asked<LinkQuery>,
    mut request: Request,
) -> Result<Response, ApiError> {
    let proven = match who {
        // Who it is says the certificate, never the request.
        Who::Node { node, key } => Some((node, key)),
        Who::Local | Who::Token { .. } | Who::Nobody => None,
    };
    let node = proven.as_ref().map_or(node, |(node, _)| node.clone());
    let upgrade = request.extensions_mut().remove::<hyper::upgrade::OnUpgrade>();
    let Some(upgrade) = upgrade.filter(|_| asks(request.headers())) else {
        let message =
            format!("this route is for agents: ask for the upgrade to `{LINK_PROTOCOL}` over HTTP/1.1");
        return Err(ApiError::new(Code::BadRequest, message));
    };
    let address = caller.and_then(|Extension(caller)| caller.address).map(|address| address.ip());
    let origin = Origin { boot, address };
    only_one(&context, &node, &origin).await?;
    let (nodes, closing) = (context.nodes.clone(), context.closing.clone());
    let states = context.store.watch();
    tokio::spawn(async move {
        tokio::select! {
            biased;
            () = closing.cancelled() => {}
            () = shut_out(states, proven) => tracing::info!(%node, "the node was removed: its link is cut"),
            () = turn_round(upgrade, origin, node.clone(), nodes) => {}
        }
    });
    let answer = [(CONNECTION, "upgrade"), (UPGRADE, LINK_PROTOCOL)];
    Ok((StatusCode::SWITCHING_PROTOCOLS, answer).into_response())
}

/// Refuses a second machine with the key of one that is connected, and tells of it.
async fn only_one(context: &Context, node: &NodeId, origin: &Origin) -> Result<(), ApiError> {
    let Some(Rival { origin: first, is_news }) = context.nodes.rival(node, origin) else { return Ok(()) };
    if is_news {
        let message =
            format!("a second machine, {origin}, has its key and is not let in; the first is {first}");
        let event = event(node, context.clock.now(), message);
        commit(context, move |_| Ok((vec![event], ()))).await?;
    }
    let message = format!("another machine, {first}, is connected as node {node}, with the same key");
    let hint = "a copied disk? remove the copy's folder agent/identity, then let it join again";
    Err(ApiError::new(Code::Conflict, message).hint(hint))
}

/// Ends when the node has been removed or has another key. One that has proven nothing may stay.
async fn shut_out(mut states: watch::Receiver<Arc<Stored>>, proven: Option<(NodeId, KeyId)>) {
    let Some((node, key)) = proven else { return std::future::pending().await };
    let is_gone =
        |state: &Arc<Stored>| state.nodes.get(&node).is_none_or(|known| known.key.as_ref() != Some(&key));
    if states.wait_for(is_gone).await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn asks(headers: &HeaderMap) -> bool {
    headers.get(UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(LINK_PROTOCOL.as_bytes()))
}

/// Registers the connection as the way to `node`, and keeps it until it ends.
async fn turn_round(upgrade: hyper::upgrade::OnUpgrade, origin: Origin, node: NodeId, nodes: Nodes) {
    let connection = match upgrade.await {
        Ok(connection) => TokioIo::new(connection),
        Err(error) => return tracing::warn!(%node, error = chain(&error), "upgrade an agent's connection"),
    };
    match Channel::over(connection).await {
        Ok((channel, ended)) => {
            nodes.register_from(origin, node, channel);
            ended.await;
        }
        Err(error) => tracing::warn!(%node, error = chain(&error), "turn an agent's connection round"),
    }
}
