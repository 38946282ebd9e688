//! `tug apply`: build, show, ask, deploy, wait.

use tug_api::user::Accepted;

use super::{confirm, settle};
use crate::arguments::ApplyArguments;
use crate::build;
use crate::context::{Context, guard};
use crate::failure::Failure;
use crate::manifest::{self, Manifest};
use crate::render::{plan, style};
use crate::watch::repeat;

/// Deploys a manifest.
pub(crate) async fn run(context: &mut Context, arguments: &ApplyArguments) -> Result<(), Failure> {
    let mut manifest = manifest::require(&arguments.manifest, &context.surroundings, &mut context.screen)?;
    build::images(context, &mut manifest, &arguments.engine.docker).await?;
    let Some(accepted) = deploy(context, &manifest, arguments.yes).await? else {
        return Err(Failure::new("nothing was changed: the plan was not confirmed"));
    };
    settle::settle(context, &manifest.request.spec.name, &accepted, None, &arguments.waiting).await
}

/// Shows the plan, asks if it may be carried out, and hands the project over. `None`: it may not.
pub(crate) async fn deploy(
    context: &mut Context,
    manifest: &Manifest,
    yes: bool,
) -> Result<Option<Accepted>, Failure> {
    let project = &manifest.request.spec.name;
    let preview = context.client.plan(&manifest.request).await?;
    let nothing = plan::is_empty(&preview);
    context.screen.note(&plan::plan(project, &preview));
    if !yes && !nothing && context.screen.facts.can_ask() && !confirm(context, "Deploy?", true)? {
        return Ok(None);
    }
    let guard = guard(Some(preview.base))?;
    let client = &context.client;
    let accepted = repeat(async || client.apply(&manifest.request, &guard).await).await.map_err(|error| {
        let failure = Failure::from(error);
        match failure.hint {
            Some(_) => failure,
            None => failure.hint("nothing was changed"),
        }
    })?;
    if let Some(number) = accepted.number.filter(|_| accepted.changed) {
        context.screen.note(&style::paint(style::DIM, format_args!("{project} version {number} accepted")));
    }
    Ok(Some(accepted))
}
