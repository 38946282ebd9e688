//! Replicas by name, as `tug ps` and `tug events` show them: `web.1`, `shop/web.1`, and the task `shop.web.1.7`.

use tug_model::Slot;
use tug_model::status::{ProjectStatus, ServiceStatus};

use super::{Kind, Target, resolve};
use crate::failure::Failure;

/// What `name` means, and which replica of it if it says so. A service that is named like a replica wins over that.
pub(crate) fn replica(
    projects: &[ProjectStatus],
    name: &str,
    kind: Kind,
) -> Result<(Target, Option<Slot>), Failure> {
    let unknown = match resolve(projects, name, kind) {
        Ok(target) => return Ok((target, None)),
        Err(failure) => failure,
    };
    if let Some(found) = task(projects, name) {
        return Ok(found);
    }
    let Some((service, slot)) = split(name) else { return Err(unknown) };
    let target = resolve(projects, service, Kind::Service)?;
    if replicas(projects, &target).all(|other| other != slot) {
        let failure = Failure::new(format!("{target} has no replica {slot}"));
        return Err(failure.hint(format!("`tug ps {target}` shows those that it has")));
    }
    Ok((target, Some(slot)))
}

/// `web.1` in two.
fn split(name: &str) -> Option<(&str, Slot)> {
    let (service, slot) = name.rsplit_once('.')?;
    let is_number = !slot.is_empty() && slot.bytes().all(|byte| byte.is_ascii_digit());
    Some((service, Slot(slot.parse().ok().filter(|_| is_number)?)))
}

fn task(projects: &[ProjectStatus], name: &str) -> Option<(Target, Option<Slot>)> {
    projects.iter().find_map(|project| {
        let mut tasks =
            project.services.iter().flat_map(|service| service.tasks.iter().map(move |it| (service, it)));
        let (service, task) = tasks.find(|(_, task)| task.id.as_str() == name)?;
        Some((Target::service_of(project, service), Some(task.slot)))
    })
}

fn replicas<'p>(projects: &'p [ProjectStatus], target: &'p Target) -> impl Iterator<Item = Slot> + 'p {
    let services = projects.iter().flat_map(|project| project.services.iter().map(move |it| (project, it)));
    let meant = services.filter(|(project, service): &(&ProjectStatus, &ServiceStatus)| {
        target.covers(&project.name, &service.name)
    });
    meant.flat_map(|(_, service)| service.tasks.iter().map(|task| task.slot))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    fn found(name: &str) -> Result<String, String> {
        let web = sample::service("web", &[sample::healthy(), sample::healthy()]);
        let odd = sample::service("web.9", &[sample::healthy()]);
        let projects = [sample::project_of("shop", vec![web, odd]), sample::project("blog", &["db"])];
        replica(&projects, name, Kind::Either)
            .map(|(target, slot)| {
                format!("{target} {}", slot.map_or_else(|| "all".to_owned(), |slot| slot.to_string()))
            })
            .map_err(|failure| format!("{} | {}", failure.message, failure.hint.unwrap_or_default()))
    }

    #[test]
    fn a_replica_is_named_as_it_is_shown() {
        assert_eq!(found("web").unwrap(), "shop/web all");
        assert_eq!(found("web.2").unwrap(), "shop/web 2");
        assert_eq!(found("shop/web.1").unwrap(), "shop/web 1");
        assert_eq!(found("shop.web.2.7").unwrap(), "shop/web 2", "a task, as events name it");
        assert_eq!(found("web.9").unwrap(), "shop/web.9 all", "a service may be named like a replica");
        assert_eq!(found("web.9.1").unwrap(), "shop/web.9 1");
    }

    #[test]
    fn a_replica_that_is_not_there_is_said() {
        insta::assert_snapshot!(found("web.3").unwrap_err(),
            @"shop/web has no replica 3 | `tug ps shop/web` shows those that it has");
        insta::assert_snapshot!(found("wep.1").unwrap_err(),
            @"there is no service `wep` | did you mean `web`?");
        insta::assert_snapshot!(found("web.x").unwrap_err(),
            @"there is no service `web.x` | did you mean `web.9`?");
    }
}
