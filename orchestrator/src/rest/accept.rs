//! What a user's request changes, decided from the state alone: pure, and run by the store's writer, so that nothing
//! can come between the look and the commit.

use std::sync::Arc;

use tug_api::user::{ApplyRequest, RestartRequest, ScaleRequest};
use tug_api::{ApiError, Code};
use tug_model::event::{Event, EventKind};
use tug_model::project::{SourceFile, StoredProject};
use tug_model::spec::deploy::Mode;
use tug_model::spec::rule;
use tug_model::{ProjectName, Revision, ServiceName, Timestamp, spec};

use super::authorise::Who;
use crate::plan::ports;
use crate::store::{Change, State};
use crate::world::world;

/// What is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Decided {
    /// What to commit; empty when everything is as asked already.
    pub(super) changes: Vec<Change>,
    /// The version that is wanted then.
    pub(super) number: Option<u64>,
}

/// The project becomes what `request` says.
pub(super) fn apply(
    state: &State,
    request: &ApplyRequest,
    who: &Who,
    now: Timestamp,
) -> Result<Decided, ApiError> {
    let ApplyRequest { spec, source } = request;
    let old = state.projects.get(&spec.name).map(|old| &**old);
    let spec = complete(state, spec, who)?;
    if let Some(old) = old.filter(|old| old.spec == spec) {
        return Ok(unchanged(old));
    }
    let message = match old {
        None => format!("accepted: {}", counted(spec.services.len())),
        Some(old) => format!("version {} accepted: {}", old.number + 1, difference(&old.spec, &spec)),
    };
    Ok(written(old, spec, source.clone(), (now, message)))
}

/// `spec` as it would be stored: with the numbers that only the control plane can choose.
pub(super) fn complete(state: &State, spec: &spec::Project, who: &Who) -> Result<spec::Project, ApiError> {
    let mut spec = spec.clone();
    if let Some(old) = state.projects.get(&spec.name) {
        // A restart that was asked for is not in any manifest; forgetting it would be one more restart.
        for (name, service) in &mut spec.services {
            let asked = old.spec.services.get(name).map_or(0, |old| old.restarts_asked);
            service.restarts_asked = service.restarts_asked.max(asked);
        }
    }
    let world = world(state, &Arc::default());
    let taken = ports::conflicts(&world, &spec);
    let taken = taken.into_iter().map(|it| conflict(it, who));
    if let Some(error) = ApiError::all(taken) {
        return Err(error);
    }
    ports::resolve(&world, &mut spec).map_err(|it| conflict(it, who))?;
    Ok(spec)
}

/// Services have another number of replicas.
pub(super) fn scale(
    state: &State,
    name: &ProjectName,
    request: &ScaleRequest,
    now: Timestamp,
) -> Result<Decided, ApiError> {
    let old = existing(state, name)?;
    let mut spec = old.spec.clone();
    let (mut errors, mut done) = (Vec::new(), Vec::new());
    for (service, wanted) in &request.replicas {
        let field = format!("replicas.{service}");
        match spec.services.get_mut(service) {
            None => errors.push(unknown_service(&old.spec, service).field(field)),
            Some(_) if *wanted > Mode::MOST_REPLICAS => {
                let message = format!("{wanted} replicas are too many: use 0 to {}", Mode::MOST_REPLICAS);
                errors.push(ApiError::new(Code::Invalid, message).field(field));
            }
            Some(found) if found.exclusive && *wanted > 1 => {
                let message = rule::exclusive(Mode::Replicated(*wanted)).err().unwrap_or_default();
                let hint = "take `x-exclusive` out of the manifest first, if several may run at once";
                errors.push(ApiError::new(Code::Invalid, message).field(field).hint(hint));
            }
            Some(found) => match found.deploy.mode {
                Mode::Global => {
                    let message = format!("`{service}` runs once on every node; it cannot be scaled");
                    let hint = "change `deploy.mode` to `replicated` in the manifest first";
                    errors.push(ApiError::new(Code::Invalid, message).field(field).hint(hint));
                }
                Mode::Replicated(before) if before != *wanted => {
                    found.deploy.mode = Mode::Replicated(*wanted);
                    done.push(format!("{service} {before} → {wanted}"));
                }
                Mode::Replicated(_) => {}
            },
        }
    }
    if let Some(error) = ApiError::all(errors) {
        return Err(error);
    }
    if done.is_empty() {
        return Ok(unchanged(old));
    }
    let message = format!("scaled: {}", done.join(", "));
    Ok(written(Some(old), spec, old.source.clone(), (now, message)))
}

/// Services get new containers.
pub(super) fn restart(
    state: &State,
    name: &ProjectName,
    request: &RestartRequest,
    now: Timestamp,
) -> Result<Decided, ApiError> {
    let old = existing(state, name)?;
    let mut spec = old.spec.clone();
    let unknown = request.services.iter().enumerate().filter(|(_, name)| !spec.services.contains_key(*name));
    let unknown =
        unknown.map(|(index, name)| unknown_service(&spec, name).field(format!("services[{index}]")));
    if let Some(error) = ApiError::all(unknown) {
        return Err(error);
    }
    let mut done = Vec::new();
    for (name, service) in &mut spec.services {
        if request.services.is_empty() || request.services.contains(name) {
            service.restarts_asked += 1;
            done.push(name.as_str());
        }
    }
    let message = format!("restart asked for: {}", done.join(", "));
    Ok(written(Some(old), spec.clone(), old.source.clone(), (now, message)))
}

/// The project is no longer wanted.
pub(super) fn remove(state: &State, name: &ProjectName, now: Timestamp) -> Result<Decided, ApiError> {
    existing(state, name)?;
    let event = event(name, now, "removed; its volumes stay".to_owned());
    Ok(Decided { changes: vec![Change::RemoveProject(name.clone()), Change::Record(event)], number: None })
}

/// The project, or that there is none.
pub(super) fn existing<'a>(state: &'a State, name: &ProjectName) -> Result<&'a StoredProject, ApiError> {
    state.projects.get(name).map(|project| &**project).ok_or_else(|| unknown_project(state, name))
}

/// There is no such project, but these.
pub(super) fn unknown_project(state: &State, name: &ProjectName) -> ApiError {
    let error = ApiError::not_found(format_args!("project `{name}`"));
    match candidates(state.projects.keys().map(ProjectName::as_str)) {
        None => error,
        Some(names) => error.hint(format!("there is {names}")),
    }
}

/// The project has no such service, but these.
pub(super) fn unknown_service(spec: &spec::Project, name: &ServiceName) -> ApiError {
    let error = ApiError::new(Code::Invalid, format!("`{}` has no service `{name}`", spec.name));
    match candidates(spec.services.keys().map(ServiceName::as_str)) {
        None => error,
        Some(names) => error.hint(format!("it has {names}")),
    }
}

fn candidates<'a>(names: impl Iterator<Item = &'a str>) -> Option<String> {
    const SHOWN: usize = 12;
    let names: Vec<&str> = names.collect();
    let shown = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    match names.len() {
        0 => None,
        count if count > SHOWN => Some(format!("{shown} and {} more", count - SHOWN)),
        _ => Some(shown),
    }
}

fn unchanged(old: &StoredProject) -> Decided {
    Decided { changes: Vec::new(), number: Some(old.number) }
}

fn written(
    old: Option<&StoredProject>,
    spec: spec::Project,
    source: Vec<SourceFile>,
    (now, message): (Timestamp, String),
) -> Decided {
    let number = old.map_or(1, |old| old.number + 1);
    let event = event(&spec.name, now, message);
    let project = StoredProject { spec, source, number, revision: Revision(0), accepted_at: now };
    Decided {
        changes: vec![Change::PutProject(Arc::new(project)), Change::Record(event)],
        number: Some(number),
    }
}

fn event(project: &ProjectName, at: Timestamp, message: String) -> Arc<Event> {
    Arc::new(Event {
        revision: Revision(0),
        at,
        kind: EventKind::Project,
        project: Some(project.clone()),
        service: None,
        task: None,
        node: None,
        message,
    })
}

/// Whose port it is, is said to those who see that project.
fn conflict(conflict: ports::Conflict, who: &Who) -> ApiError {
    let ports::Conflict { field, message, owner } = conflict;
    let message = match owner {
        Some(owner) if !who.sees(&owner) => "another project publishes this port already".to_owned(),
        Some(_) | None => message,
    };
    ApiError::new(Code::Conflict, message).field(format!("spec.{field}"))
}

fn counted(services: usize) -> String {
    if services == 1 { "1 service".to_owned() } else { format!("{services} services") }
}

fn difference(old: &spec::Project, new: &spec::Project) -> String {
    let mut parts = Vec::new();
    let mut list = |what: &str, names: Vec<&ServiceName>| {
        if !names.is_empty() {
            let names: Vec<&str> = names.into_iter().map(ServiceName::as_str).collect();
            parts.push(format!("{what} {}", names.join(", ")));
        }
    };
    let (before, after) = (&old.services, &new.services);
    list("new", after.keys().filter(|name| !before.contains_key(*name)).collect());
    let changed = |name: &&ServiceName| before.get(*name).is_some_and(|old| after.get(*name) != Some(old));
    list("changed", after.keys().filter(changed).collect());
    list("gone", before.keys().filter(|name| !after.contains_key(*name)).collect());
    if parts.is_empty() { "networks, volumes or configs changed".to_owned() } else { parts.join("; ") }
}
