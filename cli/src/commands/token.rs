//! `tug token`: what lets machines join and people in from elsewhere.

use serde::Serialize;
use tug_api::join::{TokenMade, TokenRequest};
use tug_model::token::Grant;
use tug_model::{Millis, NodeId, ProjectName};

use crate::arguments::{
    Format, ListArguments, TokenArguments, TokenCommand, TokenCreateArguments, TokenRemoveArguments,
};
use crate::context::Context;
use crate::failure::Failure;
use crate::render::{structured, token};

/// A new token, for tools.
#[derive(Debug, Serialize)]
struct Made<'a> {
    id: &'a str,
    token: &'a str,
    servers: &'a [String],
    /// What to paste, where it is for joining.
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<String>,
}

/// Does what is asked about tokens.
pub(crate) async fn run(context: &mut Context, arguments: &TokenArguments) -> Result<(), Failure> {
    match &arguments.command {
        TokenCommand::Create(arguments) => create(context, arguments).await,
        TokenCommand::Ls(arguments) => list(context, arguments).await,
        TokenCommand::Rm(arguments) => remove(context, arguments).await,
    }
}

async fn create(context: &mut Context, arguments: &TokenCreateArguments) -> Result<(), Failure> {
    let request = request(arguments)?;
    let made = context.client.make_token(&request).await?;
    let is_join = matches!(request.grant, Grant::Join { .. });
    if is_join && made.servers.is_empty() {
        // Nobody could use it.
        context.client.remove_token(&made.id).await?;
        return Err(Failure::new("the control plane listens for no other machine: nobody can join")
            .hint("start it without `--listen none`"));
    }
    let line = is_join.then(|| line(&made)).flatten();
    let text = match arguments.output.format {
        Format::Table | Format::Wide => format!("{}\n", line.as_ref().unwrap_or(&made.token)),
        Format::Json => structured::json(&shown(&made, line))?,
        Format::Yaml => structured::yaml(&shown(&made, line))?,
    };
    for note in token::explained(&request, &made) {
        context.screen.note(&note);
    }
    context.screen.data(&text)
}

fn shown(made: &TokenMade, line: Option<String>) -> Made<'_> {
    Made { id: &made.id, token: &made.token, servers: &made.servers, line }
}

/// What to paste on the machine that shall join.
fn line(made: &TokenMade) -> Option<String> {
    Some(format!("tug join https://{} {}", made.servers.first()?, made.token))
}

fn request(arguments: &TokenCreateArguments) -> Result<TokenRequest, Failure> {
    let usage = |error: tug_model::name::InvalidName| Failure::usage(error.to_string());
    let grant = if let Some(role) = arguments.role {
        let projects = arguments.projects.iter().map(|name| ProjectName::parse(name).map_err(usage));
        Grant::Access { role: role.into(), projects: projects.collect::<Result<_, _>>()? }
    } else {
        let node = arguments.node.as_deref().map(NodeId::parse).transpose().map_err(usage)?;
        Grant::Join { node, uses: arguments.uses }
    };
    Ok(TokenRequest { name: arguments.name.clone(), grant, life: arguments.life.map(Millis::from) })
}

async fn list(context: &mut Context, arguments: &ListArguments) -> Result<(), Failure> {
    let tokens = context.client.tokens().await?;
    let (now, facts) = (context.clock.now(), context.screen.facts);
    let text = structured::listed(&tokens, arguments.output.format, |wide| {
        token::tokens(&tokens, now, facts, wide)
    })?;
    if text.is_empty() {
        context.screen.note("there are no tokens: make one with `tug token create`");
    }
    context.screen.data(&text)
}

async fn remove(context: &mut Context, arguments: &TokenRemoveArguments) -> Result<(), Failure> {
    // A whole token pasted here is known by its id; nothing of the rest is repeated.
    for id in &arguments.ids {
        let id =
            id.parse::<tug_api::token::TokenText>().map_or_else(|_| id.clone(), |text| text.id().to_owned());
        context.client.remove_token(&id).await?;
        context.screen.note(&format!("token {id} is good for nothing any more"));
    }
    Ok(())
}
