//! `tug volume`: where data is, and forgetting it.

use tug_api::user::VolumeStatus;

use super::{confirm, settle};
use crate::arguments::{ForgetArguments, ListArguments, VolumeArguments, VolumeCommand};
use crate::context::Context;
use crate::failure::Failure;
use crate::names;
use crate::render::style::{self, paint};
use crate::render::{structured, volume};

/// Does what is asked about volumes.
pub(crate) async fn run(context: &mut Context, arguments: &VolumeArguments) -> Result<(), Failure> {
    match &arguments.command {
        VolumeCommand::Ls(arguments) => list(context, arguments).await,
        VolumeCommand::Forget(arguments) => forget(context, arguments).await,
    }
}

async fn list(context: &mut Context, arguments: &ListArguments) -> Result<(), Failure> {
    let volumes = context.client.volumes().await?;
    let facts = context.screen.facts;
    let text =
        structured::listed(&volumes, arguments.output.format, |wide| volume::volumes(&volumes, facts, wide))?;
    if text.is_empty() {
        context.screen.note("no volume has data on any node");
    }
    context.screen.data(&text)
}

/// Forgets where data is. Without a terminal to ask on, it must be confirmed by `-y`.
async fn forget(context: &mut Context, arguments: &ForgetArguments) -> Result<(), Failure> {
    let volumes = context.client.volumes().await?;
    let VolumeStatus { name, node, .. } =
        names::volume(&volumes, &arguments.volume, arguments.node.as_deref())?;
    if !arguments.yes {
        if !context.screen.facts.can_ask() {
            return Err(Failure::usage(format!(
                "where {name} has its data is forgotten only when that is confirmed"
            ))
            .hint("say -y, or run this on a terminal"));
        }
        let question = format!(
            "Forget that {name} has its data on {node}? The data stays there, and nothing will use it"
        );
        if !confirm(context, &question, false)? {
            return Err(settle::declined());
        }
    }
    context.client.forget_volume(node, name).await?;
    let done = paint(style::GOOD, "✓");
    context.screen.note(&format!("{done} it is forgotten that {name} has its data on {node}"));
    context.screen.note(&format!("the data is still there: `docker volume rm {name}` on {node} removes it"));
    Ok(())
}
