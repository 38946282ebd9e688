//! `tug scale`: more or fewer replicas.

use std::collections::{BTreeMap, BTreeSet};

use tug_api::user::ScaleRequest;
use tug_model::status::ProjectStatus;
use tug_model::{ProjectName, ServiceName};

use super::settle;
use crate::arguments::{Replicas, ScaleArguments};
use crate::context::{Context, guard};
use crate::failure::Failure;
use crate::names::{self, Kind, resolve};
use crate::watch::repeat;

/// Scales services of one project, all at once.
pub(crate) async fn run(context: &mut Context, arguments: &ScaleArguments) -> Result<(), Failure> {
    let projects = context.client.projects().await?;
    let (project, replicas) = wanted(&projects, &arguments.replicas, arguments.project.as_deref())?;
    let services: BTreeSet<ServiceName> = replicas.keys().cloned().collect();
    let request = ScaleRequest { replicas };
    let guard = guard(None)?;
    let client = &context.client;
    let accepted = repeat(async || client.scale(&project, &request, &guard).await).await?;
    settle::settle(context, &project, &accepted, Some(services), &arguments.waiting).await
}

fn wanted(
    projects: &[ProjectStatus],
    asked: &[Replicas],
    project: Option<&str>,
) -> Result<(ProjectName, BTreeMap<ServiceName, u32>), Failure> {
    let project = project.map(|name| names::project(projects, name)).transpose()?;
    let mut found: Option<ProjectName> = None;
    let mut replicas = BTreeMap::new();
    for Replicas { name, count } in asked {
        let full = match &project {
            Some(project) if !name.contains('/') => format!("{project}/{name}"),
            _ => name.clone(),
        };
        let target = resolve(projects, &full, Kind::Service)?;
        let first = found.get_or_insert_with(|| target.project().clone());
        if first != target.project() || project.as_ref().is_some_and(|project| project != target.project()) {
            let other = project.as_ref().unwrap_or(first);
            let message = format!("{target} is not a service of {other}");
            return Err(
                Failure::usage(message).hint("scale one project at a time: it is done all or not at all")
            );
        }
        let service = target.service().cloned().ok_or_else(|| Failure::usage("name a service"))?;
        if replicas.insert(service.clone(), *count).is_some_and(|before| before != *count) {
            return Err(Failure::usage(format!("{service} is given two numbers")));
        }
    }
    found.map(|project| (project, replicas)).ok_or_else(|| Failure::usage("name a service"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    fn asked(names: &[(&str, u32)], project: Option<&str>) -> Result<String, String> {
        let projects = [sample::project("blog", &["db", "web"]), sample::project("shop", &["api", "web"])];
        let names: Vec<Replicas> =
            names.iter().map(|(name, count)| Replicas { name: (*name).into(), count: *count }).collect();
        wanted(&projects, &names, project)
            .map(|(project, replicas)| {
                let all: Vec<String> =
                    replicas.iter().map(|(name, count)| format!("{name}={count}")).collect();
                format!("{project}: {}", all.join(" "))
            })
            .map_err(|failure| failure.message)
    }

    #[test]
    fn services_of_one_project_are_scaled_together() {
        assert_eq!(asked(&[("api", 2), ("shop/web", 5)], None).unwrap(), "shop: api=2 web=5");
        assert_eq!(asked(&[("web", 5)], Some("blog")).unwrap(), "blog: web=5");
        assert_eq!(asked(&[("web", 5)], None).unwrap_err(), "`web` is ambiguous: blog/web, shop/web");
        assert_eq!(asked(&[("api", 1), ("db", 1)], None).unwrap_err(), "blog/db is not a service of shop");
        assert_eq!(asked(&[("shop/api", 1)], Some("blog")).unwrap_err(), "shop/api is not a service of blog");
        assert_eq!(asked(&[("api", 1), ("api", 2)], None).unwrap_err(), "api is given two numbers");
        assert!(asked(&[("api", 1)], Some("shp")).unwrap_err().contains("no project"));
    }
}
