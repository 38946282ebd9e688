//! `tug plan`: what an apply would do.

use tug_api::Code;
use tug_api::client::CallError;

use crate::arguments::PlanArguments;
use crate::context::Context;
use crate::failure::Failure;
use crate::manifest::{self, Manifest};
use crate::render::{plan, structured};

/// Shows the plan.
pub(crate) async fn run(context: &mut Context, arguments: &PlanArguments) -> Result<(), Failure> {
    let mut manifest = manifest::require(&arguments.manifest, &context.surroundings, &mut context.screen)?;
    if !manifest.builds.is_empty() {
        assume_built(context, &mut manifest).await?;
    }
    let preview = context.client.plan(&manifest.request).await;
    let preview = preview.map_err(|error| manifest.located(error))?;
    let project = &manifest.request.spec.name;
    let text = structured::listed(&preview, arguments.output.format, |_| plan::plan(project, &preview))?;
    context.screen.data(&text)?;
    for service in manifest.builds.keys() {
        context
            .screen
            .note(&format!("{service} is built by `tug apply`; a new image replaces its containers"));
    }
    Ok(())
}

/// Takes what is to be built for what runs, or for nothing in particular.
pub(super) async fn assume_built(context: &Context, manifest: &mut Manifest) -> Result<(), Failure> {
    let running = match context.client.project(&manifest.request.spec.name).await {
        Ok(stored) => Some(stored.spec),
        Err(CallError::Api(error)) if error.code == Code::NotFound => None,
        Err(error) => return Err(error.into()),
    };
    manifest.assume_built(running.as_ref());
    Ok(())
}
