//! `tug top`: what the replicas use.

use tokio::time::sleep;

use crate::arguments::{Format, TopArguments};
use crate::context::Context;
use crate::failure::Failure;
use crate::names::{Kind, Target, resolve};
use crate::render::{Facts, structured, usage};

/// Shows the usage once, or again and again.
pub(crate) async fn run(context: &mut Context, arguments: &TopArguments) -> Result<(), Failure> {
    loop {
        let text = look(context, arguments).await?;
        if !arguments.watch {
            return context.screen.data(&text);
        }
        if context.screen.facts.stdout_terminal && arguments.output.format == Format::Table {
            context.screen.facts.width = Facts::of_process().width;
            context.screen.raw(usage::CLEAR.as_bytes())?;
        }
        context.screen.data(&text)?;
        sleep(arguments.interval).await;
    }
}

async fn look(context: &mut Context, arguments: &TopArguments) -> Result<String, Failure> {
    let mut list = context.client.top().await?;
    if !arguments.names.is_empty() {
        let projects = context.client.projects().await?;
        let targets: Vec<Target> = arguments
            .names
            .iter()
            .map(|name| resolve(&projects, name, Kind::Either))
            .collect::<Result<_, _>>()?;
        list.retain(|one| targets.iter().any(|target| target.covers(&one.project, &one.service)));
    }
    let facts = context.screen.facts;
    if arguments.nodes {
        let sums = usage::sums(&context.client.nodes().await?, &list);
        if arguments.watch && arguments.output.format == Format::Json {
            return structured::json_line(&sums);
        }
        return structured::listed(&sums, arguments.output.format, |wide| usage::nodes(&sums, facts, wide));
    }
    if arguments.watch && arguments.output.format == Format::Json {
        return structured::json_line(&list);
    }
    let text = structured::listed(&list, arguments.output.format, |wide| usage::usage(&list, facts, wide))?;
    if text.is_empty() {
        context.screen.note("nothing runs");
    }
    Ok(text)
}
