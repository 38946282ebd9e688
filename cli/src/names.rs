//! What a name on the command line means: `service`, `project/service`, or `project`.
//!
//! A bare service name is looked for in every project. Where it fits several things, the user is shown all of them;
//! where it fits none, the nearest ones.

mod replica;

use std::fmt;

use tug_api::user::{NodeStatus, VolumeStatus};
use tug_model::project::ServiceRef;
use tug_model::status::{ProjectStatus, ServiceStatus};
use tug_model::{ProjectName, ServiceName};

pub(crate) use replica::replica;

use crate::failure::{Failure, USAGE};

/// What a name may stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A service only.
    Service,
    /// A service, or a whole project.
    Either,
}

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Target {
    /// All services of a project.
    Project(ProjectName),
    /// One service.
    Service(ServiceRef),
}

// === impl Target ===

impl Target {
    fn service_of(project: &ProjectStatus, service: &ServiceStatus) -> Self {
        Self::Service(ServiceRef { project: project.name.clone(), service: service.name.clone() })
    }

    /// The project it is, or is in.
    pub(crate) fn project(&self) -> &ProjectName {
        match self {
            Self::Project(project) => project,
            Self::Service(service) => &service.project,
        }
    }

    /// The service, where it is one.
    pub(crate) fn service(&self) -> Option<&ServiceName> {
        match self {
            Self::Project(_) => None,
            Self::Service(service) => Some(&service.service),
        }
    }

    /// Whether `service` of `project` is meant.
    pub(crate) fn covers(&self, project: &ProjectName, service: &ServiceName) -> bool {
        self.project() == project && self.service().is_none_or(|wanted| wanted == service)
    }
}

impl fmt::Display for Target {
    /// In the words of the API: `project` or `project/service`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Project(project) => project.fmt(f),
            Self::Service(service) => service.fmt(f),
        }
    }
}

/// What `name` means among `projects`.
///
/// `project/` is the whole project. Where a project is named like one of its own services, the bare name is the
/// project.
pub(crate) fn resolve(projects: &[ProjectStatus], name: &str, kind: Kind) -> Result<Target, Failure> {
    let candidates = candidates(projects, kind);
    if let Some(project) = name.strip_suffix('/').filter(|_| kind == Kind::Either) {
        let whole = |target: &&Target| target.service().is_none() && target.project().as_str() == project;
        return candidates.iter().find(whole).cloned().ok_or_else(|| unknown(name, &candidates));
    }
    let fitting: Vec<&Target> = candidates.iter().filter(|target| fits(target, name)).collect();
    match fitting.as_slice() {
        [] => Err(unknown(name, &candidates)),
        [one] => Ok((*one).clone()),
        [first @ Target::Project(project), rest @ ..]
            if rest.iter().all(|other| other.project() == project) =>
        {
            Ok((*first).clone())
        }
        several => Err(ambiguous(name, several)),
    }
}

/// The project named `name`.
pub(crate) fn project(projects: &[ProjectStatus], name: &str) -> Result<ProjectName, Failure> {
    let candidates: Vec<Target> = projects.iter().map(|one| Target::Project(one.name.clone())).collect();
    let found = candidates.iter().find(|target| target.project().as_str() == name);
    found.map(|target| target.project().clone()).ok_or_else(|| {
        let nearest = nearest(name, &candidates);
        not_found(format!("there is no project `{}`", name.escape_default()), nearest, candidates.is_empty())
    })
}

/// The node named `name`. A host's name is no node's name, but tells which one is meant.
pub(crate) fn node<'a>(nodes: &'a [NodeStatus], name: &str) -> Result<&'a NodeStatus, Failure> {
    if let Some(found) = nodes.iter().find(|status| status.node.id.as_str() == name) {
        return Ok(found);
    }
    let failure = Failure::new(format!("there is no node `{}`", name.escape_default()));
    let on_host = |status: &&NodeStatus| status.node.info.hostname == name;
    let near = suggest(name, nodes.iter().map(|status| status.node.id.as_str()));
    Err(match (nodes.iter().find(on_host).map(|status| status.node.id.as_str()).or(near), nodes) {
        (Some(meant), _) => failure.hint(format!("did you mean `{meant}`?")),
        (None, []) => failure.hint("no node has joined yet"),
        (None, _) => failure.hint("`tug node ls` shows them"),
    })
}

/// The volume named `name` that has its data on `node`; without that, on the only one.
pub(crate) fn volume<'a>(
    volumes: &'a [VolumeStatus],
    name: &str,
    node: Option<&str>,
) -> Result<&'a VolumeStatus, Failure> {
    let named: Vec<&VolumeStatus> = volumes.iter().filter(|volume| volume.name == name).collect();
    let homes: Vec<&str> = named.iter().map(|volume| volume.node.as_str()).collect();
    let there = named.iter().find(|volume| node.is_none_or(|node| volume.node.as_str() == node));
    match (there, homes.as_slice()) {
        (Some(_), [_, _, ..]) if node.is_none() => {
            Err(Failure::usage(format!("{name} has data on {}", homes.join(", ")))
                .hint("say which with --node"))
        }
        (Some(found), _) => Ok(found),
        (None, []) => {
            let failure = Failure::new(format!("no volume `{}` has data anywhere", name.escape_default()));
            Err(match suggest(name, volumes.iter().map(|volume| volume.name.as_str())) {
                Some(near) => failure.hint(format!("did you mean `{near}`?")),
                None => failure.hint("`tug volume ls` shows them"),
            })
        }
        (None, homes) => {
            let node = node.unwrap_or_default().escape_default();
            Err(Failure::new(format!("{name} has no data on `{node}`"))
                .hint(format!("it has on {}", homes.join(", "))))
        }
    }
}

/// The one of `known` that `name` was most likely meant to be.
pub(crate) fn suggest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let distance = |candidate: &&str| strsim::damerau_levenshtein(name, candidate);
    let near = |candidate: &&str| distance(candidate) <= 1 + name.chars().count() / 4;
    known.into_iter().filter(near).min_by_key(|candidate| (distance(candidate), *candidate))
}

fn candidates(projects: &[ProjectStatus], kind: Kind) -> Vec<Target> {
    let mut targets: Vec<Target> = projects
        .iter()
        .flat_map(|project| {
            let whole = (kind == Kind::Either).then(|| Target::Project(project.name.clone()));
            let services = project.services.iter().map(|service| Target::service_of(project, service));
            whole.into_iter().chain(services)
        })
        .collect();
    targets.sort();
    targets
}

fn fits(target: &Target, name: &str) -> bool {
    match target {
        Target::Project(project) => project.as_str() == name,
        Target::Service(service) => match name.split_once('/') {
            Some((project, of_it)) => {
                service.project.as_str() == project && service.service.as_str() == of_it
            }
            None => service.service.as_str() == name,
        },
    }
}

fn unknown(name: &str, candidates: &[Target]) -> Failure {
    let message = format!("there is no service `{}`", name.escape_default());
    not_found(message, nearest(name, candidates), candidates.is_empty())
}

fn not_found(message: String, nearest: Option<String>, nothing_there: bool) -> Failure {
    let failure = Failure::new(message);
    match nearest {
        Some(nearest) => failure.hint(format!("did you mean `{nearest}`?")),
        None if nothing_there => failure.hint("nothing is deployed yet: `tug apply -f FILE`"),
        None => failure.hint("`tug ls` shows the projects, `tug ps` their services"),
    }
}

fn nearest(name: &str, candidates: &[Target]) -> Option<String> {
    let full: Vec<String> = candidates.iter().map(ToString::to_string).collect();
    let short = candidates.iter().map(|target| match target {
        Target::Project(project) => project.as_str(),
        Target::Service(service) => service.service.as_str(),
    });
    let near = if name.contains('/') {
        suggest(name, full.iter().map(String::as_str))
    } else {
        suggest(name, short)
    };
    near.map(str::to_owned)
}

fn ambiguous(name: &str, several: &[&Target]) -> Failure {
    let shown: Vec<String> = several
        .iter()
        .map(|target| match target {
            Target::Project(project) => format!("{project}/ (the whole project)"),
            Target::Service(service) => service.to_string(),
        })
        .collect();
    let failure = Failure::new(format!("`{name}` is ambiguous: {}", shown.join(", ")));
    Failure { code: USAGE, ..failure.hint("write it as project/service") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    fn world() -> Vec<ProjectStatus> {
        vec![
            sample::project("blog", &["db", "web"]),
            sample::project("hello", &["hello", "db"]),
            sample::project("shop", &["api", "web"]),
        ]
    }

    fn found(name: &str, kind: Kind) -> Result<String, String> {
        resolve(&world(), name, kind)
            .map(|target| target.to_string())
            .map_err(|failure| format!("{} | {}", failure.message, failure.hint.unwrap_or_default()))
    }

    #[test]
    fn names_are_found_with_and_without_their_project() {
        assert_eq!(found("api", Kind::Service).unwrap(), "shop/api");
        assert_eq!(found("blog/web", Kind::Service).unwrap(), "blog/web");
        assert_eq!(found("shop", Kind::Either).unwrap(), "shop");
        assert_eq!(found("shop/", Kind::Either).unwrap(), "shop");
        assert_eq!(found("hello", Kind::Either).unwrap(), "hello", "a project wins over its own service");
        assert_eq!(found("hello", Kind::Service).unwrap(), "hello/hello");
        assert_eq!(project(&world(), "shop").unwrap().as_str(), "shop");
    }

    #[test]
    fn an_ambiguous_name_lists_what_it_may_be() {
        insta::assert_snapshot!(found("web", Kind::Service).unwrap_err(),
            @"`web` is ambiguous: blog/web, shop/web | write it as project/service");
        let mut projects = world();
        projects.push(sample::project("web", &["front"]));
        let failure = resolve(&projects, "web", Kind::Either).unwrap_err();
        insta::assert_snapshot!(failure.message,
            @"`web` is ambiguous: web/ (the whole project), blog/web, shop/web");
        assert_eq!(failure.code, USAGE);
    }

    #[test]
    fn a_node_is_found_by_its_id_and_told_from_its_host() {
        let mut nodes = vec![sample::node("attic"), sample::node("cellar")];
        assert_eq!(node(&nodes, "attic").unwrap().node.id.as_str(), "attic");
        let hint = |nodes: &[NodeStatus], name| node(nodes, name).unwrap_err().hint.unwrap();
        assert_eq!(hint(&nodes, "atic"), "did you mean `attic`?");
        assert_eq!(hint(&nodes, "garden"), "`tug node ls` shows them");
        nodes[1].node.info.hostname = "garden".into();
        assert_eq!(hint(&nodes, "garden"), "did you mean `cellar`?");
        assert_eq!(hint(&[], "attic"), "no node has joined yet");
        assert_eq!(node(&nodes, "x\n").unwrap_err().message, r"there is no node `x\n`");
    }

    #[test]
    fn a_volume_is_found_on_its_only_node_or_on_the_one_that_is_named() {
        let volumes = [
            sample::volume("old_data", "a", &[]),
            sample::volume("old_data", "b", &[]),
            sample::volume("shop_data", "a", &["shop/db"]),
        ];
        let found = |name, node| {
            volume(&volumes, name, node)
                .map(|volume| format!("{} on {}", volume.name, volume.node))
                .map_err(|failure| format!("{} | {}", failure.message, failure.hint.unwrap_or_default()))
        };
        assert_eq!(found("shop_data", None).unwrap(), "shop_data on a");
        assert_eq!(found("old_data", Some("b")).unwrap(), "old_data on b");
        insta::assert_snapshot!(found("old_data", None).unwrap_err(),
            @"old_data has data on a, b | say which with --node");
        insta::assert_snapshot!(found("shop_data", Some("c")).unwrap_err(),
            @"shop_data has no data on `c` | it has on a");
        insta::assert_snapshot!(found("shop_dat", None).unwrap_err(),
            @"no volume `shop_dat` has data anywhere | did you mean `shop_data`?");
    }

    #[test]
    fn an_unknown_name_gets_a_suggestion() {
        insta::assert_snapshot!(found("aip", Kind::Service).unwrap_err(),
            @"there is no service `aip` | did you mean `api`?");
        insta::assert_snapshot!(found("shop/wep", Kind::Service).unwrap_err(),
            @"there is no service `shop/wep` | did you mean `shop/web`?");
        insta::assert_snapshot!(found("zzzzzz", Kind::Either).unwrap_err(),
            @"there is no service `zzzzzz` | `tug ls` shows the projects, `tug ps` their services");
        insta::assert_snapshot!(found("shop", Kind::Service).unwrap_err(),
            @"there is no service `shop` | `tug ls` shows the projects, `tug ps` their services");
        assert_eq!(project(&world(), "shp").unwrap_err().hint.unwrap(), "did you mean `shop`?");
        assert!(resolve(&[], "web", Kind::Either).unwrap_err().hint.unwrap().contains("tug apply"));
    }
}
