//! `tug ps`: the replicas.

use tug_model::status::ProjectStatus;

use crate::arguments::PsArguments;
use crate::context::Context;
use crate::failure::Failure;
use crate::names::{self, Kind, Target, resolve};
use crate::render::{node, status, structured};

/// What is said where there is nothing to list.
const NOTHING: &str = "nothing is deployed yet: `tug apply -f FILE`";

/// Lists the replicas of what is named, or all.
pub(crate) async fn run(context: &mut Context, arguments: &PsArguments) -> Result<(), Failure> {
    let projects = context.client.projects().await?;
    let targets: Vec<Target> = arguments
        .names
        .iter()
        .map(|name| resolve(&projects, name, Kind::Either))
        .collect::<Result<_, _>>()?;
    let mut shown = only(projects, &targets);
    if let Some(name) = &arguments.node {
        let nodes = context.client.nodes().await?;
        shown = node::on(&shown, names::node(&nodes, name)?);
    }
    let (facts, now) = (context.screen.facts, context.clock.now());
    let text =
        structured::listed(&shown, arguments.output.format, |wide| status::tasks(&shown, now, facts, wide))?;
    if text.is_empty() {
        let nothing = if arguments.node.is_some() { "nothing of that is there" } else { NOTHING };
        context.screen.note(nothing);
    }
    context.screen.data(&text)
}

/// What `targets` name of `projects`; everything where they name nothing.
fn only(mut projects: Vec<ProjectStatus>, targets: &[Target]) -> Vec<ProjectStatus> {
    if targets.is_empty() {
        return projects;
    }
    for project in &mut projects {
        let name = project.name.clone();
        project.services.retain(|service| targets.iter().any(|target| target.covers(&name, &service.name)));
    }
    projects.retain(|project| {
        !project.services.is_empty()
            || targets.iter().any(|target| *target == Target::Project(project.name.clone()))
    });
    projects
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    #[test]
    fn only_what_is_named_is_shown() {
        let world =
            || vec![sample::project("blog", &["db", "web"]), sample::project("shop", &["api", "web"])];
        let shown = |names: &[&str]| -> Vec<String> {
            let targets: Vec<Target> =
                names.iter().map(|name| resolve(&world(), name, Kind::Either).unwrap()).collect();
            let projects = only(world(), &targets);
            projects
                .iter()
                .flat_map(|project| {
                    project.services.iter().map(|one| format!("{}/{}", project.name, one.name))
                })
                .collect()
        };
        assert_eq!(shown(&["shop/web", "db"]), ["blog/db", "shop/web"]);
        assert_eq!(shown(&["shop"]), ["shop/api", "shop/web"]);
        assert_eq!(shown(&[]).len(), 4);
    }
}
