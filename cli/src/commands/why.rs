//! `tug why`: a service and its reasons.

use crate::arguments::WhyArguments;
use crate::context::Context;
use crate::failure::Failure;
use crate::names::{Kind, resolve};
use crate::render::{structured, why};

/// Explains a service.
pub(crate) async fn run(context: &mut Context, arguments: &WhyArguments) -> Result<(), Failure> {
    let projects = context.client.projects().await?;
    let target = resolve(&projects, &arguments.name, Kind::Service)?;
    let Some(service) = target.service() else {
        return Err(Failure::usage(format!("`{}` is a project: name a service", arguments.name)));
    };
    let answer = context.client.why(target.project(), service).await?;
    let now = context.clock.now();
    let text = structured::listed(&answer, arguments.output.format, |_| why::why(&answer, now))?;
    context.screen.data(&text)
}
