//! `tug events`: what happened, and what happens.

use std::time::Duration;

use futures_util::StreamExt;
use tokio::time::sleep;
use tug_api::client::{CallError, EventQuery, WatchQuery};
use tug_api::user::WatchItem;
use tug_model::Revision;
use tug_model::event::Event;

use crate::arguments::{EventArguments, Format};
use crate::context::Context;
use crate::failure::Failure;
use crate::names::{Kind, Target, resolve};
use crate::render::{event, structured};
use crate::watch::may_pass;

/// The wait before a lost connection is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Shows events.
pub(crate) async fn run(context: &mut Context, arguments: &EventArguments) -> Result<(), Failure> {
    let target = match &arguments.name {
        Some(name) => Some(resolve(&context.client.projects().await?, name, Kind::Either)?),
        None => None,
    };
    let query = EventQuery {
        project: target.as_ref().map(|target| target.project().clone()),
        service: target.as_ref().and_then(Target::service).cloned(),
        limit: arguments.limit,
    };
    // Asked for first: what happens between the two answers is in the second.
    let revision = context.client.info().await?.revision;
    let past = context.client.events(&query).await?;
    let format = arguments.output.format;
    if !arguments.watch {
        let text = structured::listed(&past, format, |_| past.iter().map(line).collect())?;
        return context.screen.data(&text);
    }
    let since = past.iter().map(|event| event.revision).max().map_or(revision, |last| last.max(revision));
    for event in &past {
        show(context, event, format)?;
    }
    follow(context, target.as_ref(), since, format).await
}

async fn follow(
    context: &mut Context,
    target: Option<&Target>,
    mut since: Revision,
    format: Format,
) -> Result<(), Failure> {
    let mut has_begun = false;
    loop {
        let project = target.map(|target| target.project().clone());
        let query = WatchQuery { since: Some(since), project };
        let mut items = match context.client.watch(&query).await {
            Ok(items) => items,
            Err(error) if matches!(error, CallError::Transport(_)) || has_begun && may_pass(&error) => {
                sleep(RETRY).await;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        has_begun = true;
        while let Some(Ok(item)) = items.next().await {
            match item {
                WatchItem::Event(event) if is_wanted(target, &event) => show(context, &event, format)?,
                WatchItem::Bookmark { revision } => since = revision,
                WatchItem::Event(_) | WatchItem::Status(_) | WatchItem::Gone { .. } => {}
            }
        }
        context.screen.note("the connection to the server was lost, trying again");
        sleep(RETRY).await;
    }
}

fn is_wanted(target: Option<&Target>, event: &Event) -> bool {
    match target {
        None => true,
        Some(Target::Project(project)) => event.project.as_ref() == Some(project),
        Some(Target::Service(service)) => {
            event.project.as_ref() == Some(&service.project)
                && event.service.as_ref() == Some(&service.service)
        }
    }
}

fn show(context: &mut Context, event: &Event, format: Format) -> Result<(), Failure> {
    let text = match format {
        Format::Json => structured::json_line(event)?,
        Format::Yaml => format!("---\n{}", structured::yaml(event)?),
        Format::Table | Format::Wide => line(event),
    };
    context.screen.data(&text)
}

fn line(event: &Event) -> String {
    format!("{}\n", event::line(event))
}
