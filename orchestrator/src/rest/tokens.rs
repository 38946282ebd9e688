//! Tokens: making them, listing them, making them worthless. A token's text is told once, to whoever asked for it.

use std::sync::Arc;

use axum::extract::{Path, State};
use tug_api::join::{TokenMade, TokenRequest, Whoami};
use tug_api::token::{TokenKind, TokenText};
use tug_api::{ApiError, Code};
use tug_model::event::{Event, EventKind};
use tug_model::token::{AccessRole, Grant, Token};
use tug_model::{Millis, Revision, Timestamp};

use super::authorise::Who;
use super::extract::Json;
use super::mutate::commit;
use super::{Shared, fleet};
use crate::store::Change;

/// How long a token is good for joining unless told otherwise, and at most.
const JOIN_LIFE: Millis = Millis::from_secs(60 * 60);
const LONGEST_JOIN_LIFE: Millis = Millis::from_secs(24 * 60 * 60);
/// How long one is good for access unless told otherwise, and at most.
const ACCESS_LIFE: Millis = Millis::from_secs(90 * 24 * 60 * 60);
const LONGEST_ACCESS_LIFE: Millis = Millis::from_secs(366 * 24 * 60 * 60);
/// How many nodes may join with one token at most.
const MOST_USES: u32 = 100;
/// The longest name of a token, in characters.
const LONGEST_NAME: usize = 64;
/// A token that has expired is listed for so long.
const LISTED: Millis = Millis::from_secs(7 * 24 * 60 * 60);
/// How many tokens there are at most.
const MOST_TOKENS: usize = 1_000;

/// Every token, without its secret.
#[utoipa::path(get, path = "/v1/tokens", tag = "access",
    responses((status = 200, description = "The tokens, sorted by id; of their secrets only hashes are kept, and not shown", body = Vec<Token>)))]
pub(super) async fn list(State(context): State<Shared>) -> axum::Json<Vec<Token>> {
    let state = context.store.snapshot();
    let shown = state.tokens.values().map(|token| Token { hash: String::new(), ..Token::clone(token) });
    axum::Json(shown.collect())
}

/// Makes a token.
#[utoipa::path(post, path = "/v1/tokens", tag = "access", request_body = TokenRequest,
    responses(
        (status = 200, description = "The token; its text is never told again", body = TokenMade),
        (status = 422, description = "Something is wrong with the request", body = tug_api::error::ErrorBody),
        (status = 503, description = "The control plane has no authority: it keeps no state folder", body = tug_api::error::ErrorBody)))]
pub(super) async fn create(
    State(context): State<Shared>,
    Json { value: request, .. }: Json<TokenRequest>,
) -> Result<axum::Json<TokenMade>, ApiError> {
    check(&request)?;
    let authority = context.authority()?;
    let kind = match request.grant {
        Grant::Join { .. } => TokenKind::Join,
        Grant::Access { .. } => TokenKind::Access,
    };
    let mut random = [0; 36];
    getrandom::fill(&mut random)
        .map_err(|_| ApiError::new(Code::Internal, "no random number could be drawn"))?;
    let text = TokenText::new(kind, &authority.key().0, random)
        .ok_or_else(|| ApiError::new(Code::Internal, "the authority's key has no name"))?;
    let now = context.clock.now();
    let token = token(&text, request, now);
    let made = TokenMade { id: token.id.clone(), token: text.expose(), servers: context.servers.now() };
    commit(&context, move |state| {
        if state.tokens.contains_key(&token.id) {
            return Err(ApiError::new(Code::Conflict, "this id is taken").hint("try again"));
        }
        if state.tokens.len() >= MOST_TOKENS {
            let message = format!("there are {MOST_TOKENS} tokens already");
            return Err(ApiError::new(Code::TooMany, message).hint("remove some: tug token rm"));
        }
        let event = event(now, format!("token {} made: {}", token.id, described(&token)));
        let is_old = |old: &&Arc<Token>| old.expires_at.is_some_and(|at| now.since(at) > LISTED);
        let old = state.tokens.values().filter(is_old).map(|old| Change::RemoveToken(old.id.clone()));
        Ok((old.chain([Change::PutToken(Arc::new(token)), event]).collect(), ()))
    })
    .await?;
    Ok(axum::Json(made))
}

/// Makes a token worthless.
#[utoipa::path(delete, path = "/v1/tokens/{token}", tag = "access",
    params(("token" = String, Path, description = "The token's id")),
    responses(
        (status = 200, description = "It is good for nothing any more"),
        (status = 404, description = "There is no such token", body = tug_api::error::ErrorBody)))]
pub(super) async fn remove(
    State(context): State<Shared>,
    Path(id): Path<String>,
) -> Result<axum::Json<serde_json::Value>, ApiError> {
    let now = context.clock.now();
    commit(&context, move |state| {
        let Some(token) = state.tokens.get(&id) else {
            let shown: String = id.chars().take(64).flat_map(char::escape_default).collect();
            return Err(ApiError::not_found(format_args!("token `{shown}`")).hint("list them: tug token ls"));
        };
        let event = event(now, format!("token {} removed: {}", token.id, described(token)));
        Ok((vec![Change::RemoveToken(id), event], ()))
    })
    .await?;
    Ok(axum::Json(serde_json::json!({})))
}

/// Who asks.
#[utoipa::path(get, path = "/v1/whoami", tag = "access",
    responses((status = 200, description = "Who the caller is, and what it may do", body = Whoami)))]
pub(super) async fn whoami(State(context): State<Shared>, who: Who) -> Result<axum::Json<Whoami>, ApiError> {
    let mut told = who.whoami()?;
    // A machine that has just joined wants to know whether its agent was heard of.
    if let Whoami::Node { node, status } = &mut told {
        let view = context.stand.view();
        *status = view.world.nodes.get(node).map(|node| Box::new(fleet::one(&context, &view, node, &who)));
    }
    Ok(axum::Json(told))
}

fn check(request: &TokenRequest) -> Result<(), ApiError> {
    let wrong = |field: &str, message: String| ApiError::new(Code::Invalid, message).field(field);
    let mut errors = Vec::new();
    let name = &request.name;
    if name.chars().count() > LONGEST_NAME || name.chars().any(char::is_control) {
        errors.push(wrong("name", format!("a token's name has at most {LONGEST_NAME} printable characters")));
    }
    let longest = match &request.grant {
        Grant::Join { node, uses } => {
            let most = if node.is_some() { 1 } else { MOST_USES };
            if !(1..=most).contains(uses) {
                errors.push(wrong("grant.uses", format!("{uses} uses are out of range: use 1 to {most}")));
            }
            LONGEST_JOIN_LIFE
        }
        Grant::Access { role, projects } => {
            if *role == AccessRole::Admin && !projects.is_empty() {
                let message = "an admin is one for everything: name no projects, or choose another role";
                errors.push(wrong("grant.projects", message.to_owned()));
            }
            LONGEST_ACCESS_LIFE
        }
    };
    if let Some(life) = request.life.filter(|life| life.0 == 0 || *life > longest) {
        errors.push(wrong("life", format!("{life} is out of range: use up to {longest}")));
    }
    ApiError::all(errors).map_or(Ok(()), Err)
}

fn token(text: &TokenText, request: TokenRequest, now: Timestamp) -> Token {
    let TokenRequest { name, grant, life } = request;
    let usual = match grant {
        Grant::Join { .. } => JOIN_LIFE,
        Grant::Access { .. } => ACCESS_LIFE,
    };
    Token {
        id: text.id().to_owned(),
        name,
        hash: text.hash(),
        grant,
        created_at: now,
        expires_at: Some(now.plus(life.unwrap_or(usual))),
        used_at: None,
    }
}

fn described(token: &Token) -> String {
    match &token.grant {
        Grant::Join { node: Some(node), .. } => format!("to join as {node}"),
        Grant::Join { node: None, uses: 1 } => "to join, once".to_owned(),
        Grant::Join { node: None, uses } => format!("to join, {uses} times at most"),
        Grant::Access { role, projects } if projects.is_empty() => format!("{role}"),
        Grant::Access { role, projects } => {
            let names: Vec<&str> = projects.iter().map(AsRef::as_ref).collect();
            format!("{role} of {}", names.join(", "))
        }
    }
}

/// An event about tokens; its revision is that of its commit.
pub(super) fn event(at: Timestamp, message: String) -> Change {
    Change::Record(Arc::new(Event {
        revision: Revision(0),
        at,
        kind: EventKind::Token,
        project: None,
        service: None,
        task: None,
        node: None,
        message,
    }))
}
