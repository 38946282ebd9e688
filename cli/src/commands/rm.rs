//! `tug rm`: a project goes, its volumes stay.

use super::{confirm, settle};
use crate::arguments::RemoveArguments;
use crate::context::{Context, guard};
use crate::failure::Failure;
use crate::names;
use crate::render::lines;
use crate::watch::repeat;

/// Removes a project. Without a terminal to ask on, it must be confirmed by `-y`.
pub(crate) async fn run(context: &mut Context, arguments: &RemoveArguments) -> Result<(), Failure> {
    let projects = context.client.projects().await?;
    let project = names::project(&projects, &arguments.project)?;
    if !arguments.yes {
        if !context.screen.facts.can_ask() {
            return Err(Failure::usage(format!("{project} is removed only when that is confirmed"))
                .hint("say -y, or run this on a terminal"));
        }
        let services = projects.iter().find(|one| one.name == project).map_or(0, |one| one.services.len());
        let many = lines::many(services, "service");
        if !confirm(context, &format!("Remove {project} with {many}? Its volumes stay"), false)? {
            return Err(settle::declined());
        }
    }
    let guard = guard(None)?;
    let client = &context.client;
    let accepted = repeat(async || client.remove(&project, &guard).await).await?;
    settle::settle(context, &project, &accepted, None, &arguments.waiting).await
}
