//! The one point at which it is decided who may do what.
//!
//! Every route says what it needs ([`Need`]), and is asked for nothing before that is known to be met. Who asks is what
//! the connection proves, or else a token: see [`Who`]. What is not one's own does not exist: a foreign project is
//! answered 404, as one that is not there.

use std::sync::Arc;

use axum::body::{Body, HttpBody};
use axum::extract::{FromRequestParts, RawPathParams, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use http::request::Parts;
use tug_api::digest;
use tug_api::join::Whoami;
use tug_api::tls::{Caller, Peer};
use tug_api::token::{TokenKind, TokenText};
use tug_api::{ApiError, Code};
use tug_model::event::Event;
use tug_model::node::KeyId;
use tug_model::token::{AccessRole, Grant, Token};
use tug_model::{Millis, NodeId, ProjectName, Timestamp};

use super::{Context, Shared};
use crate::store::{Change, State as Stored};

/// The use of a token is noted this often at most.
const NOTED: Millis = Millis::from_secs(60);

/// What a route asks of its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// Nothing.
    Nothing,
    /// To be known.
    Known,
    /// To be a node's agent.
    Node,
    /// To be a user with this role, for the project in the path if there is one.
    Role(AccessRole),
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Who {
    /// Whoever may open the control plane's socket: may do everything, and speak for the node on this machine.
    Local,
    /// The agent of a node, with the key that the node is known by.
    Node {
        /// Which node.
        node: NodeId,
        /// Its key.
        key: KeyId,
    },
    /// The holder of a token for access.
    Token {
        /// The token.
        token: Arc<Token>,
        /// What it may do.
        role: AccessRole,
        /// With which projects; empty: with all.
        projects: Vec<ProjectName>,
    },
    /// Nobody known.
    Nobody,
}

/// What the layer of one route needs.
#[derive(Debug, Clone)]
pub(super) struct Guard {
    pub(super) need: Need,
    pub(super) context: Shared,
}

/// Lets a request through to its handler, or not.
pub(super) async fn check(
    State(Guard { need, context }): State<Guard>,
    path: RawPathParams,
    mut request: Request,
    next: Next,
) -> Response {
    let project = path.iter().find(|(name, _)| *name == "project").map(|(_, value)| value.to_owned());
    match allow(need, project.as_deref(), &context, &request) {
        Ok(who) => {
            let token = match &who {
                Who::Token { token, .. } => Some(Arc::clone(token)),
                Who::Local | Who::Node { .. } | Who::Nobody => None,
            };
            if let Some(token) = &token {
                note_use(&context, token);
            }
            let is_limited = matches!(&who, Who::Token { projects, .. } if !projects.is_empty());
            request.extensions_mut().insert(who);
            let mut response = next.run(request).await;
            // What else there is, is nobody's business who may not see it.
            if let Some(error) = response.extensions_mut().get_mut::<ApiError>()
                && is_limited
                && error.code == Code::NotFound
            {
                error.hint = None;
            }
            match token {
                Some(token) if response.body().size_hint().exact().is_none() => {
                    response.map(|body| until_worthless(body, &context, token))
                }
                Some(_) | None => response,
            }
        }
        Err(error) => error.into_response(),
    }
}

fn allow(need: Need, project: Option<&str>, context: &Context, request: &Request) -> Result<Who, ApiError> {
    if need == Need::Nothing {
        return Ok(Who::Nobody);
    }
    let state = context.store.snapshot();
    // A request without a caller was made in this process; what comes in from outside always has one.
    let caller = request.extensions().get::<Caller>();
    let who = match caller.map_or(&Peer::Local, |caller| &caller.peer) {
        Peer::Local => Who::Local,
        Peer::Node { node, key } => node_of(&state, node, key)?,
        Peer::Server => Who::Nobody,
        Peer::Nobody => match bearer(request.headers()) {
            Some(text) => token_of(&state, text, context.clock.now())?,
            None => Who::Nobody,
        },
    };
    if let Who::Token { token, .. } = &who {
        context.gate.ask(&token.id)?;
    }
    who.meets(need, project)?;
    Ok(who)
}

/// A certificate of the cluster's is good for as long as its node has not been removed and has no other key.
fn node_of(state: &Stored, node: &NodeId, key: &KeyId) -> Result<Who, ApiError> {
    match state.nodes.get(node) {
        Some(known) if known.key.as_ref() == Some(key) => {
            Ok(Who::Node { node: node.clone(), key: key.clone() })
        }
        Some(_) | None => {
            let message = format!("node {node} with this key is not, or no longer, part of the cluster");
            let hint = "let it join again with a new token: tug token create";
            Err(ApiError::new(Code::Forbidden, message).hint(hint))
        }
    }
}

/// Every bad token is answered in the same words; what is wrong with it is nobody's business who has not a good one.
fn token_of(state: &Stored, text: &str, now: Timestamp) -> Result<Who, ApiError> {
    let text: TokenText = text.parse().map_err(|_| unauthenticated())?;
    let known = state.tokens.get(text.id());
    let fits = |token: &&Arc<Token>| digest::same(&token.hash, &text.hash()) && is_valid(token, now);
    let token =
        known.filter(fits).filter(|_| text.kind() == TokenKind::Access).ok_or_else(unauthenticated)?;
    match &token.grant {
        Grant::Access { role, projects } => {
            Ok(Who::Token { token: Arc::clone(token), role: *role, projects: projects.clone() })
        }
        Grant::Join { .. } => Err(unauthenticated()),
    }
}

/// Whether a token has not expired.
pub(super) fn is_valid(token: &Token, now: Timestamp) -> bool {
    token.expires_at.is_none_or(|at| now < at)
}

/// Nobody known asks.
pub(super) fn unauthenticated() -> ApiError {
    ApiError::new(Code::Unauthenticated, "no valid token came with this request")
        .hint("send one as `Authorization: Bearer …`, or run `tug login`")
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token)
}

/// A stream ends with the token that opened it.
fn until_worthless(body: Body, context: &Context, token: Arc<Token>) -> Body {
    let (mut states, clock) = (context.store.watch(), context.clock);
    let worthless = async move {
        let removed = async {
            if states.wait_for(|state| !state.tokens.contains_key(&token.id)).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let expired = async {
            match token.expires_at {
                Some(at) => tokio::time::sleep(at.since(clock.now()).duration()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = removed => {}
            () = expired => {}
        }
    };
    Body::from_stream(body.into_data_stream().take_until(worthless))
}

fn note_use(context: &Shared, token: &Arc<Token>) {
    let now = context.clock.now();
    if token.used_at.is_some_and(|at| now.since(at) < NOTED) {
        return;
    }
    let (context, id) = (Arc::clone(context), token.id.clone());
    tokio::spawn(async move {
        let build = move |_, state: &Stored| {
            let token =
                state.tokens.get(&id).filter(|token| token.used_at.is_none_or(|at| now.since(at) >= NOTED));
            let used = token.map(|token| Token { used_at: Some(now), ..Token::clone(token) });
            used.map(|used| Change::PutToken(Arc::new(used))).into_iter().collect()
        };
        if let Err(error) = context.store.commit(now, build).await {
            tracing::debug!(%error, "note the use of a token");
        }
    });
}

// === impl Who ===

impl Who {
    fn meets(&self, need: Need, project: Option<&str>) -> Result<(), ApiError> {
        let wrong_kind = |wanted: &str, is: &str| {
            let message = format!("this route is for {wanted}, and it is {is} that asks");
            Err(ApiError::new(Code::Forbidden, message))
        };
        match (need, self) {
            (Need::Nothing, _)
            | (_, Self::Local)
            | (Need::Known, Self::Node { .. } | Self::Token { .. })
            | (Need::Node, Self::Node { .. }) => Ok(()),
            (_, Self::Nobody) => Err(unauthenticated()),
            (Need::Node, Self::Token { .. }) => wrong_kind("the agents of nodes", "a user"),
            (Need::Role(_), Self::Node { .. }) => wrong_kind("users", "a node's agent"),
            (Need::Role(wanted), Self::Token { role, projects, .. }) => {
                if let Some(project) = project.filter(|_| !projects.is_empty())
                    && !projects.iter().any(|own| own.as_str() == project)
                {
                    return Err(ApiError::not_found(format_args!("project `{project}`"))
                        .hint("tug whoami says which projects your token is for"));
                }
                if wanted == AccessRole::Admin && !projects.is_empty() {
                    return Err(ApiError::new(Code::Forbidden, "this token is for single projects only")
                        .hint("an admin makes one for everything: tug token create --role admin"));
                }
                if *role < wanted {
                    let message = format!("this needs the role {wanted}; this token has the role {role}");
                    let hint = format!("an admin makes one that may: tug token create --role {wanted}");
                    return Err(ApiError::new(Code::Forbidden, message).hint(hint));
                }
                Ok(())
            }
        }
    }

    /// Whether everything is there for the caller, whoever it belongs to.
    pub(super) fn sees_all(&self) -> bool {
        match self {
            Self::Token { projects, .. } => projects.is_empty(),
            Self::Local => true,
            Self::Node { .. } | Self::Nobody => false,
        }
    }

    /// Whether what belongs to `project` is there for the caller.
    pub(super) fn sees(&self, project: &ProjectName) -> bool {
        match self {
            Self::Token { projects, .. } => projects.is_empty() || projects.contains(project),
            Self::Local => true,
            Self::Node { .. } | Self::Nobody => false,
        }
    }

    /// Whether an event is: of those that belong to no project only for who sees all.
    pub(super) fn sees_event(&self, event: &Event) -> bool {
        event.project.as_ref().map_or_else(|| self.sees_all(), |project| self.sees(project))
    }

    /// What the caller is told about itself.
    pub(super) fn whoami(&self) -> Result<Whoami, ApiError> {
        match self {
            Self::Local => Ok(Whoami::Local),
            Self::Node { node, .. } => Ok(Whoami::Node { node: node.clone(), status: None }),
            Self::Token { token, role, projects } => Ok(Whoami::Token {
                id: token.id.clone(),
                name: token.name.clone(),
                role: *role,
                projects: projects.clone(),
            }),
            Self::Nobody => Err(unauthenticated()),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Who {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        Ok(parts.extensions.get().cloned().unwrap_or(Self::Nobody))
    }
}
