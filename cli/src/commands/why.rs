//! `tug why`: a service and its reasons.

use std::collections::BTreeSet;

use crate::arguments::WhyArguments;
use crate::context::Context;
use crate::failure::Failure;
use crate::names::{self, Kind};
use crate::render::{structured, why};

/// Explains a service; of a replica that is named, only what is that one's beside what the service's reasons are.
pub(crate) async fn run(context: &mut Context, arguments: &WhyArguments) -> Result<(), Failure> {
    let projects = context.client.projects().await?;
    let (target, slot) = names::replica(&projects, &arguments.name, Kind::Service)?;
    let Some(service) = target.service() else {
        return Err(Failure::usage(format!("`{}` is a project: name a service", arguments.name)));
    };
    let mut answer = context.client.why(target.project(), service).await?;
    if let Some(slot) = slot {
        let others = answer.status.tasks.iter().filter(|task| task.slot != slot);
        let others: BTreeSet<_> = others.map(|task| task.id.clone()).collect();
        answer.events.retain(|event| event.task.as_ref().is_none_or(|task| !others.contains(task)));
        answer.status.tasks.retain(|task| task.slot == slot);
    }
    let now = context.clock.now();
    let text = structured::listed(&answer, arguments.output.format, |_| why::why(&answer, now))?;
    context.screen.data(&text)
}
