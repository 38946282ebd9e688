//! What services wait for: it exists, and there is no circle.

use std::collections::BTreeSet;

use tug_model::ServiceName;
use tug_model::spec::Project;

use super::Findings;

pub(super) fn check(project: &Project, findings: &mut Findings) {
    for (name, service) in &project.services {
        for (other, dependency) in &service.depends_on {
            let field = format!("spec.services.{name}.depends_on.{other}");
            if other == name {
                findings.add(field, format!("`{name}` depends on itself"));
            } else if dependency.required && !project.services.contains_key(other) {
                findings
                    .add(field, format!("`{name}` depends on `{other}`, which is no service of the project"));
            }
        }
    }
    let mut done = BTreeSet::new();
    for name in project.services.keys() {
        if let Some(circle) = circle_from(project, name, &mut done) {
            let names: Vec<&str> = circle.iter().map(|name| name.as_str()).collect();
            let field = format!("spec.services.{}.depends_on", names.first().copied().unwrap_or_default());
            findings.add(field, format!("services wait for each other: {}", names.join(" → ")));
        }
    }
}

/// A circle that is reached from `start`, first and last name the same. Without recursion: a project may be one long
/// chain. A service that depends on itself has been told already.
fn circle_from<'a>(
    project: &'a Project,
    start: &'a ServiceName,
    done: &mut BTreeSet<&'a ServiceName>,
) -> Option<Vec<&'a ServiceName>> {
    let next = |name: &'a ServiceName| {
        let service = project.services.get(name);
        service.into_iter().flat_map(|it| it.depends_on.keys()).filter(move |other| *other != name)
    };
    if done.contains(start) {
        return None;
    }
    let mut path = vec![start];
    let mut open = vec![next(start)];
    while let Some(rest) = open.last_mut() {
        let Some(name) = rest.next() else {
            open.pop();
            done.extend(path.pop());
            continue;
        };
        if let Some(at) = path.iter().position(|earlier| *earlier == name) {
            let mut circle = path.split_off(at);
            circle.push(name);
            done.extend(path);
            done.extend(circle.iter().copied());
            return Some(circle);
        }
        if !done.contains(name) && project.services.contains_key(name) {
            path.push(name);
            open.push(next(name));
        }
    }
    None
}
