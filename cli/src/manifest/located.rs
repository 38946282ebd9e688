//! Where in a manifest that was written which the server calls by its way through the project.

use serde_json::Value;
use tug_compose::Places;

/// The place of the value that is called `field` in `spec`, or of the nearest one around it that was written; `None`: of none.
pub(super) fn place(places: &Places, spec: &Value, field: &str) -> Option<String> {
    let (mut way, mut value, rest) = beginning(spec, field)?;
    let mut found = places.find(&way);
    for segment in rest.split('.').filter(|segment| !segment.is_empty()) {
        let (key, index) = split(segment);
        value = value.get(key).unwrap_or(&Value::Null);
        way = match key {
            // A manifest has no such level.
            "container" => continue,
            "mounts" => format!("{way}.volumes"),
            other => format!("{way}.{other}"),
        };
        let Some(place) = places.find(&way) else { break };
        found = Some(place);
        let Some(index) = index else { continue };
        // One item may stand for several, as a range of ports does: then it is not known which one is meant.
        if value.as_array().is_none_or(|items| items.len() != places.items(&way)) {
            break;
        }
        way = format!("{way}[{index}]");
        value = value.get(index).unwrap_or(&Value::Null);
        found = places.find(&way).or(found);
    }
    found
}

/// The part of the way that ends with a name, which may have dots in it; the value there; and the rest of the way.
fn beginning<'a>(spec: &'a Value, field: &'a str) -> Option<(String, &'a Value, &'a str)> {
    let Some((kind, way)) = field.split_once('.') else {
        let (key, _) = split(field);
        return Some((key.to_owned(), spec.get(key)?, ""));
    };
    let names = spec.get(kind)?.as_object()?;
    let fits = |name: &&String| {
        way.strip_prefix(name.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    let name = names.keys().filter(fits).max_by_key(|name| name.len())?;
    Some((format!("{kind}.{name}"), names.get(name)?, way.get(name.len()..).unwrap_or_default()))
}

/// `ports[0]` in two.
fn split(segment: &str) -> (&str, Option<usize>) {
    let parts = segment.strip_suffix(']').and_then(|rest| rest.split_once('['));
    match parts.and_then(|(key, index)| Some((key, index.parse().ok()?))) {
        Some((key, index)) => (key, Some(index)),
        None => (segment, None),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use tug_compose::{MemoryDisk, Request};

    use super::*;

    #[test]
    fn what_was_not_written_is_shown_where_it_would_stand() {
        let text = "name: shop\nservices:\n  web.1:\n    image: a\n    ports:\n      - '8000-8001:80-81'\n      - '90:90'\n";
        let disk = MemoryDisk::default().with("/app/c.yaml", text);
        let outcome = tug_compose::load(&Request {
            files: vec!["c.yaml".into()],
            project_name: None,
            profiles: Vec::new(),
            environment: BTreeMap::new(),
            env_files: Vec::new(),
            ignore_unsupported: BTreeSet::new(),
            working_directory: "/app".into(),
            disk: &disk,
        });
        let loaded = outcome.project.unwrap_or_else(|| panic!("{:?}", outcome.findings));
        let spec = serde_json::to_value(&loaded.project).unwrap();
        let at = |field: &str| place(&loaded.places, &spec, field).unwrap_or_default();
        assert_eq!(
            at("services.web.1.ports[2]"),
            "c.yaml:6:7",
            "which line of a range is meant is not known"
        );
        assert_eq!(at("services.web.1.container.image"), "c.yaml:4:12");
        assert_eq!(at("services.web.1.deploy.resources.limits"), "c.yaml:4:5", "in the service");
        assert_eq!((at("services.db.image"), at("networks.x")), (String::new(), String::new()));
    }
}
