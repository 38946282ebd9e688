//! How a machine becomes a node and stays one: certificates against a token, against a key that is known, or for the node
//! on the control plane's own machine.
//!
//! A node *is* its key. Whoever proves to have the key of a node that has not been removed gets a new certificate for it,
//! however old the last one is: so a machine that was off for a year comes back by itself.

use std::sync::Arc;

use axum::extract::{Extension, Path, State};
use tug_api::digest;
use tug_api::join::{CertificateRequest, JoinRequest, Joined};
use tug_api::tls::{Caller, node_name};
use tug_api::token::{TokenKind, TokenText};
use tug_api::{ApiError, Code};
use tug_model::node::{Capacity, KeyId, Node, NodeInfo, Role};
use tug_model::token::{Grant, Token};
use tug_model::{NodeId, Timestamp};

use super::authorise::is_valid;
use super::extract::Json;
use super::mutate::commit;
use super::tokens::event;
use super::{Context, Shared};
use crate::authority::{Authority, RequestError};
use crate::store::{Change, State as Stored};

/// The longest host name.
const LONGEST_HOSTNAME: usize = 253;

/// Makes the caller's machine a node, against a token.
#[utoipa::path(post, path = "/v1/join", tag = "access", request_body = JoinRequest,
    responses(
        (status = 200, description = "It is a node from now on", body = Joined),
        (status = 401, description = "The token is not, or no longer, good for this", body = tug_api::error::ErrorBody),
        (status = 409, description = "The id is another node's", body = tug_api::error::ErrorBody),
        (status = 422, description = "The request for a certificate is wrong", body = tug_api::error::ErrorBody),
        (status = 429, description = "Too many tries; wait a minute", body = tug_api::error::ErrorBody)))]
pub(super) async fn join(
    State(context): State<Shared>,
    caller: Option<Extension<Caller>>,
    Json { value: request, .. }: Json<JoinRequest>,
) -> Result<axum::Json<Joined>, ApiError> {
    let address = caller.and_then(|Extension(caller)| caller.address);
    context.gate.enter(address.map(|address| address.ip()))?;
    let authority = context.authority()?;
    let now = context.clock.now();
    let text = request.token.parse::<TokenText>().map_err(|_| "it is no token");
    let text = text.and_then(|text| good(&context.store.snapshot(), &text, now).map(|_| text.clone()));
    let text = text.map_err(|why| {
        // The log is for who runs the cluster; whoever asks learns nothing.
        tracing::info!(address = address.map(tracing::field::display), why, "a token lets nobody join");
        bad_token()
    })?;
    let key = Authority::key_of_request(&request.csr).map_err(|error| wrong_request(&error))?;
    check_hostname(&request.hostname)?;
    let JoinRequest { node: wanted, hostname, csr, .. } = request;
    let node = commit(&context, move |state| {
        let (token, node) = admitted(state, &text, wanted.as_ref(), (&hostname, &key), now)?;
        let message = match address {
            Some(address) => format!("node {node} joined with token {} from {}", token.id, address.ip()),
            None => format!("node {node} joined with token {}", token.id),
        };
        let changes = vec![
            Change::PutNode(Arc::new(with_key(state, &node, &hostname, (key, Role::Worker), now))),
            used(token),
            event(now, message),
        ];
        Ok((changes, node))
    })
    .await?;
    answer(&context, &authority, node, &csr).map(axum::Json)
}

/// A new certificate for a node, against a proof of its key.
#[utoipa::path(post, path = "/v1/renew", tag = "access", request_body = CertificateRequest,
    responses(
        (status = 200, description = "The new certificate", body = Joined),
        (status = 403, description = "No node has this key", body = tug_api::error::ErrorBody),
        (status = 429, description = "Too many tries; wait a minute", body = tug_api::error::ErrorBody)))]
pub(super) async fn renew(
    State(context): State<Shared>,
    caller: Option<Extension<Caller>>,
    Json { value: request, .. }: Json<CertificateRequest>,
) -> Result<axum::Json<Joined>, ApiError> {
    let authority = context.authority()?;
    let key = Authority::key_of_request(&request.csr).map_err(|error| wrong_request(&error))?;
    let state = context.store.snapshot();
    let Some(node) = state.nodes.values().find(|node| node.key.as_ref() == Some(&key)) else {
        // Only strangers are counted: nobody keeps a node from its certificate.
        context.gate.enter(caller.and_then(|Extension(caller)| caller.address).map(|it| it.ip()))?;
        let error = ApiError::new(Code::Forbidden, "no node of this cluster has this key");
        return Err(error.hint("let it join again with a new token: tug token create"));
    };
    answer(&context, &authority, node.id.clone(), &request.csr).map(axum::Json)
}

/// A certificate for the node on the control plane's own machine.
#[utoipa::path(post, path = "/v1/nodes/{node}/certificate", tag = "access", request_body = CertificateRequest,
    params(("node" = String, Path, description = "The node's id")),
    responses(
        (status = 200, description = "The certificate", body = Joined),
        (status = 409, description = "The node has another key", body = tug_api::error::ErrorBody)))]
pub(super) async fn certificate(
    State(context): State<Shared>,
    Path(node): Path<String>,
    Json { value: request, .. }: Json<CertificateRequest>,
) -> Result<axum::Json<Joined>, ApiError> {
    let node = NodeId::parse(&node)
        .map_err(|error| ApiError::new(Code::Invalid, error.to_string()).field("node"))?;
    let authority = context.authority()?;
    let key = Authority::key_of_request(&request.csr).map_err(|error| wrong_request(&error))?;
    let now = context.clock.now();
    let (id, hostname) = (node.clone(), rustix::system::uname().nodename().to_string_lossy().into_owned());
    commit(&context, move |state| {
        let known = state.nodes.get(&id);
        if known.is_some_and(|known| known.key.as_ref() == Some(&key)) {
            return Ok((Vec::new(), ()));
        }
        if known.is_some_and(|known| known.role == Role::Worker) {
            let message = format!("node {id} is another machine, which joined with a key of its own");
            return Err(ApiError::new(Code::Conflict, message).hint("choose another id: --node"));
        }
        let node = with_key(state, &id, &hostname, (key, Role::Manager), now);
        Ok((vec![Change::PutNode(Arc::new(node))], ()))
    })
    .await?;
    answer(&context, &authority, node, &request.csr).map(axum::Json)
}

fn answer(context: &Context, authority: &Authority, node: NodeId, csr: &str) -> Result<Joined, ApiError> {
    let signed = authority.node(&node, csr, context.clock.now()).map_err(|error| wrong_request(&error))?;
    Ok(Joined {
        node,
        cluster: context.store.snapshot().cluster.clone(),
        certificate: signed.chain,
        authority: authority.pem().to_owned(),
        servers: context.servers.now(),
    })
}

/// Whether the token lets a machine with this key in, and as which node.
fn admitted<'a>(
    state: &'a Stored,
    text: &TokenText,
    wanted: Option<&NodeId>,
    (hostname, key): (&str, &KeyId),
    now: Timestamp,
) -> Result<(&'a Token, NodeId), ApiError> {
    let (token, only) = good(state, text, now).map_err(|_| bad_token())?;
    if let (Some(only), Some(wanted)) = (only, wanted)
        && only != wanted
    {
        let message = format!("this token is for the node {only}, not for {wanted}");
        return Err(ApiError::new(Code::Forbidden, message).field("node"));
    }
    let has_key = |node: &&Arc<Node>| node.key.as_ref() == Some(key);
    let known = state.nodes.values().find(has_key).map(|node| &node.id);
    let asked = wanted.or(only).or(known);
    let Some(id) = asked else {
        return Ok((token, free_id(hostname, |id| !state.nodes.contains_key(id))));
    };
    let conflict = |message, hint| Err(ApiError::new(Code::Conflict, message).field("node").hint(hint));
    match known {
        Some(known) if known != id => {
            let hint = "a copied disk? remove the copy's folder agent/identity, then let it join again";
            return conflict(format!("this machine's key is that of node {known}"), hint);
        }
        None if state.nodes.contains_key(id) => {
            let hint = "choose another id, or remove the old node first: tug node rm";
            return conflict(format!("there is a node {id} already, with another key"), hint);
        }
        Some(_) | None => {}
    }
    if node_name(id).is_none() {
        let message = format!("node id `{id}` fits into no certificate: it ends with `-`");
        return Err(ApiError::new(Code::Invalid, message).field("node"));
    }
    Ok((token, id.clone()))
}

/// The token of this text and the only node that it is for, if nodes may join with it now; or why not.
fn good<'a>(
    state: &'a Stored,
    text: &TokenText,
    now: Timestamp,
) -> Result<(&'a Token, Option<&'a NodeId>), &'static str> {
    let token =
        state.tokens.get(text.id()).ok_or("there is no such token: it was used, removed or never made")?;
    if !digest::same(&token.hash, &text.hash()) {
        return Err("its secret is wrong");
    }
    if !is_valid(token, now) {
        return Err("it has expired");
    }
    match (&token.grant, text.kind()) {
        (Grant::Join { uses: 0, .. }, TokenKind::Join) => Err("it was used"),
        (Grant::Join { node, .. }, TokenKind::Join) => Ok((token, node.as_ref())),
        (Grant::Access { .. }, _) | (_, TokenKind::Access) => Err("it is for access, not for joining"),
    }
}

/// An id like the host's name that nobody has.
fn free_id(hostname: &str, is_free: impl Fn(&NodeId) -> bool) -> NodeId {
    let name: String = hostname
        .split('.')
        .next()
        .unwrap_or_default()
        .chars()
        .map(|letter| letter.to_ascii_lowercase())
        .map(|letter| if letter.is_ascii_lowercase() || letter.is_ascii_digit() { letter } else { '-' })
        .take(56)
        .collect();
    let name = match name.trim_matches('-') {
        "" => "node",
        name => name,
    };
    let numbered = (2_u32..).map(|number| format!("{name}-{number}"));
    std::iter::once(name.to_owned())
        .chain(numbered)
        .filter_map(|id| NodeId::parse(&id).ok())
        .find(is_free)
        .expect("there are more numbers than nodes")
}

/// The node with its key; what is not known of it yet its agent will say.
fn with_key(state: &Stored, id: &NodeId, hostname: &str, (key, role): (KeyId, Role), now: Timestamp) -> Node {
    let known = state.nodes.get(id).map(|node| Node::clone(node));
    let node = known.unwrap_or_else(|| Node::new(id.clone(), unseen(hostname), now));
    Node { key: Some(key), role, ..node }
}

/// What is known of a machine whose agent has not reported yet.
fn unseen(hostname: &str) -> NodeInfo {
    NodeInfo {
        hostname: hostname.to_owned(),
        os: String::new(),
        arch: String::new(),
        capacity: Capacity::default(),
        labels: [].into(),
        engine_version: String::new(),
        agent_version: String::new(),
        address: None,
    }
}

/// The token after one more node has joined with it.
fn used(token: &Token) -> Change {
    match &token.grant {
        Grant::Join { node, uses } if *uses > 1 => {
            let grant = Grant::Join { node: node.clone(), uses: uses - 1 };
            Change::PutToken(Arc::new(Token { grant, ..token.clone() }))
        }
        Grant::Join { .. } | Grant::Access { .. } => Change::RemoveToken(token.id.clone()),
    }
}

fn check_hostname(hostname: &str) -> Result<(), ApiError> {
    if hostname.is_empty() || hostname.len() > LONGEST_HOSTNAME || hostname.chars().any(char::is_control) {
        let message = format!("a host name has 1 to {LONGEST_HOSTNAME} printable characters");
        return Err(ApiError::new(Code::Invalid, message).field("hostname"));
    }
    Ok(())
}

/// The same words for every token that is not good, whatever is wrong with it.
fn bad_token() -> ApiError {
    let message = "this token lets nobody join: it was used, has expired, or is of another cluster";
    ApiError::new(Code::Unauthenticated, message)
        .hint("make a new one on the control plane: tug token create; each is good for one hour and one node")
}

fn wrong_request(error: &RequestError) -> ApiError {
    ApiError::new(Code::Invalid, error.to_string()).field("csr")
}
