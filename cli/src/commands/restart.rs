//! `tug restart`: new containers for the same service.

use std::collections::BTreeSet;

use tug_api::user::RestartRequest;

use super::settle;
use crate::arguments::RestartArguments;
use crate::context::{Context, guard};
use crate::failure::{Failure, USAGE};
use crate::names::{Kind, Target, resolve};
use crate::watch::repeat;

/// Replaces the containers of a service, or of all services of a project.
pub(crate) async fn run(context: &mut Context, arguments: &RestartArguments) -> Result<(), Failure> {
    let projects = context.client.projects().await?;
    let target = resolve(&projects, &arguments.name, Kind::Either)?;
    if let Target::Project(project) = &target
        && let Ok(service) = resolve(&projects, &format!("{project}/{}", arguments.name), Kind::Service)
    {
        let name = &arguments.name;
        let failure =
            Failure::new(format!("`{name}` is ambiguous: {project}/ (the whole project), {service}"));
        return Err(Failure { code: USAGE, ..failure });
    }
    let request = RestartRequest { services: target.service().cloned().into_iter().collect() };
    let guard = guard(None)?;
    let client = &context.client;
    let accepted = repeat(async || client.restart(target.project(), &request, &guard).await).await?;
    let only: Option<BTreeSet<_>> = target.service().map(|service| BTreeSet::from([service.clone()]));
    settle::settle(context, target.project(), &accepted, only, &arguments.waiting).await
}
