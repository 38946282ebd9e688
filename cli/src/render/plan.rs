//! What an apply would do: `tug plan`, and the first thing that `tug apply` prints.

use anstyle::Style;
use tug_api::user::{Action, Preview, ServicePreview};
use tug_model::{ProjectName, Revision};

use super::escape::printable;
use super::lines;
use super::style::{self, paint};

/// The plan for `project`.
pub(crate) fn plan(project: &ProjectName, preview: &Preview) -> String {
    let mut text = String::new();
    let new = if preview.base == Revision(0) { " (new)" } else { "" };
    lines::add(&mut text, &format!("{}{new}", paint(style::HEAD, project)));
    let width = preview.services.iter().map(|service| service.name.as_str().len()).max().unwrap_or(0);
    for service in &preview.services {
        text.push_str(&self::service(service, width));
    }
    for note in &preview.notes {
        lines::add(&mut text, &format!("  {} {}", paint(style::DIM, "·"), printable(note)));
    }
    text.push_str(&summary(preview));
    text.push('\n');
    text
}

/// Whether nothing at all would happen.
pub(crate) fn is_empty(preview: &Preview) -> bool {
    preview.base != Revision(0) && preview.services.iter().all(|service| service.action == Action::Keep)
}

fn service(service: &ServicePreview, width: usize) -> String {
    let (sign, colour) = sign(service.action);
    let name = format!("{:width$}", service.name);
    let mut text = format!("  {}  {}\n", paint(colour, format_args!("{sign} {name}")), sentence(service));
    for difference in &service.differences {
        lines::add(&mut text, &format!("      {}", printable(difference)));
    }
    for obstacle in &service.obstacles {
        let label = paint(style::BAD, "cannot be placed:");
        lines::add(&mut text, &format!("      {label} {}", printable(obstacle)));
    }
    text
}

fn sign(action: Action) -> (char, Style) {
    match action {
        Action::Create => ('+', style::GOOD),
        Action::Replace => ('~', style::BUSY),
        Action::Change => ('*', style::HINT),
        Action::Keep => (' ', style::DIM),
        Action::Remove => ('-', style::BAD),
    }
}

fn sentence(service: &ServicePreview) -> String {
    let (before, after) = (service.replicas_before, service.replicas_after);
    match service.action {
        Action::Create => format!("create {}", replicas(after)),
        Action::Replace if before == after => format!("replace {}, one at a time", replicas(before)),
        Action::Replace => format!("replace {}, one at a time; then {after}", replicas(before)),
        Action::Change if before != after => format!("change, {} → {after}", replicas(before)),
        Action::Change => "change, containers stay".to_owned(),
        Action::Keep => format!("keep {}", replicas(after)),
        Action::Remove => format!("remove {}; volumes stay", replicas(before)),
    }
}

fn replicas(count: u32) -> String {
    lines::many(usize::try_from(count).unwrap_or(usize::MAX), "replica")
}

fn summary(preview: &Preview) -> String {
    if is_empty(preview) {
        return "nothing to change".to_owned();
    }
    let parts: Vec<String> = [
        (Action::Create, "create"),
        (Action::Replace, "replace"),
        (Action::Change, "change"),
        (Action::Remove, "remove"),
        (Action::Keep, "keep"),
    ]
    .into_iter()
    .filter_map(|(action, word)| {
        let count = preview.services.iter().filter(|service| service.action == action).count();
        (count > 0).then(|| format!("{count} to {word}"))
    })
    .collect();
    if parts.is_empty() { "no services".to_owned() } else { parts.join(", ") }
}

#[cfg(test)]
mod tests {
    use anstream::adapter::strip_str;
    use tug_model::ServiceName;

    use super::*;

    fn one(name: &str, action: Action, before: u32, after: u32) -> ServicePreview {
        ServicePreview {
            name: ServiceName::parse(name).unwrap(),
            action,
            replicas_before: before,
            replicas_after: after,
            differences: Vec::new(),
            obstacles: Vec::new(),
        }
    }

    #[test]
    fn a_plan_reads_like_a_list_of_changes() {
        let mut api = one("api", Action::Replace, 2, 2);
        api.differences = vec!["image: api:1 → api:2\u{1b}[0m".into()];
        let mut web = one("website", Action::Create, 0, 3);
        web.obstacles = vec!["n1: port 80 is taken".into()];
        let services = vec![
            api,
            one("cache", Action::Keep, 1, 1),
            one("old", Action::Remove, 1, 0),
            one("queue", Action::Change, 1, 2),
            web,
        ];
        let preview = Preview { base: Revision(4), services, notes: vec!["volume shop_data is new".into()] };
        let project = ProjectName::parse("shop").unwrap();
        insta::assert_snapshot!(strip_str(&plan(&project, &preview)).to_string(), @r"
        shop
          ~ api      replace 2 replicas, one at a time
              image: api:1 → api:2\u{1b}[0m
            cache    keep 1 replica
          - old      remove 1 replica; volumes stay
          * queue    change, 1 replica → 2
          + website  create 3 replicas
              cannot be placed: n1: port 80 is taken
          · volume shop_data is new
        1 to create, 1 to replace, 1 to change, 1 to remove, 1 to keep
        ");
        assert!(!is_empty(&preview));
    }

    #[test]
    fn nothing_to_do_is_said() {
        let preview =
            Preview { base: Revision(4), services: vec![one("web", Action::Keep, 1, 1)], notes: Vec::new() };
        let project = ProjectName::parse("shop").unwrap();
        assert!(plan(&project, &preview).ends_with("nothing to change\n"));
        assert!(!is_empty(&Preview { base: Revision(0), services: Vec::new(), notes: Vec::new() }));
    }
}
