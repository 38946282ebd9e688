//! What an apply would do, service by service: the differences field by field, and what would stand against it.
//!
//! Values of the environment may be secrets, so only the names of those that differ are shown.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;
use tug_api::user::{Action, Preview, ServicePreview};
use tug_model::name::ServiceName;
use tug_model::project::{ServiceRef, StoredProject};
use tug_model::quantity::{Revision, Timestamp};
use tug_model::spec;
use tug_model::spec::service::Service;
use tug_model::task::Template;

use super::decision::{ObstacleKind, Obstacles};
use super::fleet::Fleet;
use super::index::Index;
use super::wanted::Services;
use super::{World, plan};

/// What accepting `spec` would change, service by service.
pub fn project(world: &World, spec: &spec::Project) -> Preview {
    let stored = world.projects.get(&spec.name);
    let nothing = BTreeMap::new();
    let before = stored.map_or(&nothing, |stored| &stored.spec.services);
    let accepted = accepted(world, spec);
    let obstacles = obstacles(&accepted);
    let (replicas_before, replicas_after) = (replicas(world, spec), replicas(&accepted, spec));
    let names: BTreeSet<&ServiceName> = before.keys().chain(spec.services.keys()).collect();
    let services = names.into_iter().map(|name| {
        let (old, new) = (before.get(name), spec.services.get(name));
        let key = ServiceRef { project: spec.name.clone(), service: name.clone() };
        ServicePreview {
            name: name.clone(),
            action: action((stored.map(|stored| &stored.spec), old), (spec, new)),
            replicas_before: replicas_before.get(name).copied().unwrap_or(0),
            replicas_after: replicas_after.get(name).copied().unwrap_or(0),
            differences: old.zip(new).map(|(old, new)| service_differences(old, new)).unwrap_or_default(),
            obstacles: obstacles.get(&key).cloned().unwrap_or_default(),
        }
    });
    Preview {
        base: stored.map(|stored| stored.revision).unwrap_or_default(),
        services: services.collect(),
        notes: stored.map_or_else(|| notes(None, spec), |stored| notes(Some(&stored.spec), spec)),
    }
}

/// What becomes of a service, whose two versions come with their projects.
fn action(
    (before, old): (Option<&spec::Project>, Option<&Service>),
    (after, new): (&spec::Project, Option<&Service>),
) -> Action {
    let template = |project: &spec::Project, service| Template::of(project, service);
    match (old, new) {
        (_, None) => Action::Remove,
        (None, Some(_)) => Action::Create,
        (Some(old), Some(new))
            if before.map(|before| template(before, old)) != Some(template(after, new)) =>
        {
            Action::Replace
        }
        (Some(old), Some(new)) if old == new => Action::Keep,
        (Some(_), Some(_)) => Action::Change,
    }
}

// === What would stand against it ===

/// The world as it would be with `spec` accepted. Order is left out: what a service waits for is no obstacle to
/// placing it.
fn accepted(world: &World, spec: &spec::Project) -> World {
    let mut spec = spec.clone();
    for service in spec.services.values_mut() {
        service.depends_on.clear();
    }
    let mut accepted = world.clone();
    let revision = Revision(world.revision.0.saturating_add(1));
    let name = spec.name.clone();
    let stored =
        StoredProject { spec, source: Vec::new(), number: 1, revision, accepted_at: Timestamp::default() };
    accepted.projects.insert(name, Arc::new(stored));
    accepted
}

fn obstacles(accepted: &World) -> BTreeMap<ServiceRef, Vec<String>> {
    let found: Obstacles = plan(accepted, Timestamp::default()).obstacles;
    let mut all = BTreeMap::new();
    for (service, slots) in found {
        let places = slots.values().filter(|obstacle| obstacle.kind == ObstacleKind::NoPlace);
        let reasons: BTreeSet<&String> = places.flat_map(|obstacle| obstacle.reasons.iter()).collect();
        if !reasons.is_empty() {
            all.insert(service, reasons.into_iter().cloned().collect());
        }
    }
    all
}

/// How many slots each service of the project has.
fn replicas(world: &World, spec: &spec::Project) -> BTreeMap<ServiceName, u32> {
    let fleet = Fleet::new(world, Timestamp::default());
    let index = Index::new(world, &fleet);
    let services = Services::new(world, &index, &fleet);
    let of_project = services.in_order().filter(|service| *service.project == spec.name);
    of_project
        .map(|service| (service.name.clone(), u32::try_from(service.slots.len()).unwrap_or(u32::MAX)))
        .collect()
}

// === What differs ===

fn service_differences(old: &Service, new: &Service) -> Vec<String> {
    let mut lines = Vec::new();
    differ("", &json(old), &json(new), &mut lines);
    lines
}

fn json<T: serde::Serialize>(value: &T) -> Value {
    serde_json::to_value(value).expect("a specification holds nothing that JSON cannot")
}

/// Appends one line for every leaf that differs.
fn differ(path: &str, old: &Value, new: &Value, lines: &mut Vec<String>) {
    if old == new {
        return;
    }
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
            for key in keys {
                let (old, new) = (old.get(key), new.get(key));
                let (old, new) = (old.unwrap_or(&Value::Null), new.unwrap_or(&Value::Null));
                differ(&join(path, key), old, new, lines);
            }
        }
        (Value::Object(_), Value::Null) | (Value::Null, Value::Object(_)) if !is_leaf(path) => {
            let empty = Value::Object(serde_json::Map::new());
            let (old, new) = (or(old, &empty), or(new, &empty));
            if old == new {
                lines.push(line(path, &Value::Null, new));
            } else {
                differ(path, old, new, lines);
            }
        }
        (old, new) => lines.push(line(path, old, new)),
    }
}

fn or<'a>(value: &'a Value, empty: &'a Value) -> &'a Value {
    if value.is_null() { empty } else { value }
}

/// The path as the manifest has it: what a container is made of stands beside the rest there.
fn join(path: &str, key: &str) -> String {
    match (path, key) {
        ("", "container") => String::new(),
        ("", key) => key.to_owned(),
        (path, key) => format!("{path}.{key}"),
    }
}

/// Whether what stands at the path is shown whole.
fn is_leaf(path: &str) -> bool {
    matches!(path, "healthcheck" | "probe" | "logging")
}

fn line(path: &str, old: &Value, new: &Value) -> String {
    if path.starts_with("environment.") {
        let what = match (old, new) {
            (Value::Null, _) => "added",
            (_, Value::Null) => "removed",
            _ => "changed",
        };
        return format!("{path}: {what}");
    }
    format!("{path}: {} → {}", shown(old), shown(new))
}

fn shown(value: &Value) -> String {
    const LONGEST: usize = 120;
    let text = match value {
        Value::Null => "not set".to_owned(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    };
    if text.chars().count() <= LONGEST {
        return text;
    }
    text.chars().take(LONGEST - 1).chain(['…']).collect()
}

// === What is shared ===

fn notes(old: Option<&spec::Project>, new: &spec::Project) -> Vec<String> {
    let mut notes = Vec::new();
    let names = |spec: Option<&spec::Project>| {
        let networks = spec.into_iter().flat_map(|spec| &spec.networks);
        networks.map(|(name, network)| (name.to_string(), json(network))).collect()
    };
    compare("network", &names(old), &names(Some(new)), "goes when nothing uses it any more", &mut notes);
    let names = |spec: Option<&spec::Project>| {
        let volumes = spec.into_iter().flat_map(|spec| &spec.volumes);
        volumes.map(|(name, volume)| (name.to_string(), json(volume))).collect()
    };
    compare("volume", &names(old), &names(Some(new)), "is no longer used; its data stays", &mut notes);
    let names = |spec: Option<&spec::Project>| {
        let configs = spec.into_iter().flat_map(|spec| &spec.configs);
        configs.map(|(name, config)| (name.clone(), Value::String(config.hash()))).collect()
    };
    compare("config", &names(old), &names(Some(new)), "is no longer used", &mut notes);
    notes
}

fn compare(
    kind: &str,
    old: &BTreeMap<String, Value>,
    new: &BTreeMap<String, Value>,
    gone: &str,
    notes: &mut Vec<String>,
) {
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    for name in names {
        let external = |value: &Value| value.get("external") == Some(&Value::Bool(true));
        match (old.get(name), new.get(name)) {
            (None, Some(new)) if external(new) => {
                notes.push(format!("{kind} {name} is external: it must be there already"));
            }
            (None, Some(_)) => notes.push(format!("{kind} {name} is new")),
            (Some(_), None) => notes.push(format!("{kind} {name} {gone}")),
            (Some(old), Some(new)) if old != new => {
                let existing = if kind == "config" { "" } else { "; one that exists already stays as it is" };
                notes.push(format!("{kind} {name} changes{existing}"));
            }
            (Some(_), Some(_)) | (None, None) => {}
        }
    }
}
