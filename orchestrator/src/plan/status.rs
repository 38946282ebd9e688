//! How things stand, for people and tools: intent, decision and observation in one view.

use std::collections::{BTreeMap, BTreeSet};

use tug_model::name::{NodeId, ProjectName, ServiceName, TaskId};
use tug_model::project::ServiceRef;
use tug_model::quantity::{Revision, Slot, Timestamp};
use tug_model::report::{Engine, Report};
use tug_model::spec::service::{PortMode, RestartOn};
use tug_model::status::{ProjectStatus, ServiceState, ServiceStatus, TaskStatus};
use tug_model::task::Desired;

use super::fleet::{Fleet, Presence};
use super::index::{Index, Key, Seen, SlotTasks, Standing};
use super::wanted::{Services, Wanted};
use super::{View, World};

/// How one project stands; `None` when there is no such project and nothing is left of it.
pub fn project(view: &View, name: &ProjectName) -> Option<ProjectStatus> {
    all(view).into_iter().find(|status| status.name == *name)
}

/// How every project stands, sorted by name; a removed one is there until its last task has gone.
pub fn all(view: &View) -> Vec<ProjectStatus> {
    let fleet = Fleet::new(&view.world, view.at);
    let index = Index::new(&view.world, &fleet);
    let services = Services::new(&view.world, &index, &fleet);
    let stand = Stand { view, index: &index, services: &services };
    let mut names: BTreeMap<&ProjectName, BTreeSet<&ServiceName>> = BTreeMap::new();
    for ((project, service), _) in index.services() {
        names.entry(project).or_default().insert(service);
    }
    for (project, stored) in &view.world.projects {
        names.entry(project).or_default().extend(stored.spec.services.keys());
    }
    names.into_iter().map(|(project, services)| stand.project(project, services)).collect()
}

/// Everything that a status is made of.
struct Stand<'v> {
    view: &'v View,
    index: &'v Index<'v>,
    services: &'v Services<'v>,
}

// === impl Stand ===

impl Stand<'_> {
    fn project(&self, name: &ProjectName, services: BTreeSet<&ServiceName>) -> ProjectStatus {
        let services: Vec<ServiceStatus> =
            services.into_iter().map(|service| self.service(name, service)).collect();
        let stored = self.view.world.projects.get(name);
        let tasks = self.view.world.tasks.values().filter(|task| task.project == *name);
        let removed_at = || tasks.filter_map(|task| since(task.desired)).max().unwrap_or_default();
        ProjectStatus {
            name: name.clone(),
            number: stored.map(|stored| stored.number),
            revision: stored.map_or_else(removed_at, |stored| stored.revision),
            settled: stored.is_some() && services.iter().all(|service| is_settled(service.state)),
            services,
        }
    }

    fn service(&self, project: &ProjectName, name: &ServiceName) -> ServiceStatus {
        let key = (project, name);
        match self.services.get(key) {
            Some(service) => self.wanted(service),
            None => self.unwanted(key),
        }
    }

    fn wanted(&self, service: &Wanted<'_>) -> ServiceStatus {
        let (slots, surplus) = self.index.slots(service, &BTreeSet::new());
        let tasks = self.index.of(service.key());
        let serves = |slot: &&SlotTasks<'_>| slot.current.iter().chain(&slot.outdated).any(Seen::is_ready);
        let closed = closed_ports(&self.view.world, service);
        let nothing_stale =
            surplus.is_empty() && slots.values().all(|s| s.outdated.is_empty() && s.leaving.is_empty());
        let updated = slots.values().filter(|slot| slot.is_updated()).count();
        let failing =
            slots.values().flat_map(|slot| &slot.current).any(|seen| seen.keeps_failing().is_some());
        let as_wanted = nothing_stale && updated == slots.len() && closed.is_empty();
        let state = match (failing, as_wanted) {
            (true, _) => ServiceState::Failing,
            (false, true) if is_complete(service, &slots) => ServiceState::Completed,
            (false, true) => ServiceState::Ready,
            (false, false) => ServiceState::Progressing,
        };
        let mut reasons = if state == ServiceState::Ready || state == ServiceState::Completed {
            Vec::new()
        } else {
            self.reasons(service, &slots, &surplus)
        };
        reasons.extend(closed);
        ServiceStatus {
            name: service.name.clone(),
            state,
            image: service.spec.container.image.clone(),
            wanted: count(slots.len()),
            ready: count(slots.values().filter(serves).count()),
            updated: count(updated),
            ports: service.spec.ports.clone(),
            tasks: self.tasks(tasks, |seen| seen.task.template == service.hash),
            reasons,
        }
    }

    fn unwanted(&self, key: Key<'_>) -> ServiceStatus {
        let tasks = self.index.of(key);
        let template = tasks.last().and_then(|seen| self.view.world.templates.get(&seen.task.template));
        ServiceStatus {
            name: key.1.clone(),
            state: ServiceState::Removing,
            image: template.map(|template| template.container.image.clone()).unwrap_or_default(),
            wanted: 0,
            ready: 0,
            updated: 0,
            ports: Vec::new(),
            tasks: self.tasks(tasks, |_| false),
            reasons: tasks.iter().map(|seen| leaving(&self.view.world, seen)).collect(),
        }
    }

    /// By slot, the newest first within one.
    fn tasks(&self, tasks: &[Seen<'_>], updated: impl Fn(&Seen<'_>) -> bool) -> Vec<TaskStatus> {
        let mut all: Vec<TaskStatus> = Vec::with_capacity(tasks.len());
        let mut slot_begins = 0;
        for seen in tasks {
            if all.last().is_some_and(|last| last.slot != seen.task.slot) {
                slot_begins = all.len();
            }
            all.insert(slot_begins, self.task(seen, updated(seen)));
        }
        all
    }

    fn task(&self, seen: &Seen<'_>, updated: bool) -> TaskStatus {
        let task = seen.task;
        let observed = self.view.world.observed.nodes.get(&task.node).filter(|it| it.report.is_some());
        let unknown = unknown(&self.view.world, seen);
        let since = observed.and_then(|observed| match seen.report {
            Some(report) => Some(Timestamp(observed.received_at.0.saturating_sub(report.age.0))),
            None => unknown.is_some().then(|| observed.spoke_at()),
        });
        TaskStatus {
            id: task.id.clone(),
            slot: task.slot,
            node: task.node.clone(),
            desired: task.desired,
            updated,
            phase: seen.phase().cloned(),
            unknown,
            since,
            restarts: seen.report.map_or(0, |report| report.restarts),
            connections: seen.report.map_or(0, |report| report.connections),
            created_at: task.created_at,
        }
    }

    /// Why the service is not as wanted. Slots with one reason share a sentence.
    fn reasons(
        &self,
        service: &Wanted<'_>,
        slots: &BTreeMap<Slot, SlotTasks<'_>>,
        surplus: &[Seen<'_>],
    ) -> Vec<String> {
        let key = ServiceRef { project: service.project.clone(), service: service.name.clone() };
        let mut by_reason: Vec<(String, Vec<Slot>)> = Vec::new();
        let mut places: BTreeMap<String, usize> = BTreeMap::new();
        for (slot, obstacle) in self.view.plan.obstacles.get(&key).into_iter().flatten() {
            for reason in obstacle.reasons.iter() {
                let place = *places.entry(reason.clone()).or_insert(by_reason.len());
                match by_reason.get_mut(place) {
                    Some((_, slots)) => slots.push(*slot),
                    None => by_reason.push((reason.clone(), vec![*slot])),
                }
            }
        }
        let mut reasons: Vec<String> = by_reason
            .into_iter()
            .map(|(reason, slots)| format!("{}: {reason}", name_slots(service.name, &slots)))
            .collect();
        let unready = slots.values().flat_map(|slot| &slot.current).filter(|seen| !seen.is_ready());
        reasons.extend(unready.map(|seen| unready_reason(&self.view.world, seen)));
        let leavers = slots.values().flat_map(|slot| &slot.leaving);
        reasons.extend(leavers.chain(surplus).map(|seen| leaving(&self.view.world, seen)));
        reasons
    }
}

fn since(desired: Desired) -> Option<Revision> {
    match desired {
        Desired::Run => None,
        Desired::Drain { since, .. } | Desired::Stop { since } => Some(since),
    }
}

fn is_settled(state: ServiceState) -> bool {
    match state {
        ServiceState::Ready | ServiceState::Completed => true,
        ServiceState::Progressing | ServiceState::Failing | ServiceState::Removing => false,
    }
}

/// Whether the service runs to its end, and has.
fn is_complete(service: &Wanted<'_>, slots: &BTreeMap<Slot, SlotTasks<'_>>) -> bool {
    let completed = |slot: &SlotTasks<'_>| slot.current.iter().any(|s| s.standing() == Standing::Completed);
    service.spec.restart.condition != RestartOn::Any && !slots.is_empty() && slots.values().all(completed)
}

/// Why a task does not serve yet, in one sentence.
pub(super) fn unready_reason(world: &World, seen: &Seen<'_>) -> String {
    let (id, node) = (&seen.task.id, &seen.task.node);
    match seen.phase() {
        Some(phase) => format!("{id} on node {node}: {phase}"),
        None => format!("{id}: node {node} {}", silence(world, node)),
    }
}

fn silence(world: &World, node: &NodeId) -> &'static str {
    match world.observed.nodes.get(node) {
        Some(observed) if observed.connected && observed.report.is_some() => "says nothing about it yet",
        Some(observed) if observed.report.is_some() => "is not connected",
        Some(_) | None => "has not reported since the orchestrator started",
    }
}

/// Why nobody knows how a task stands; `None`: what its node says holds. Of what an Engine that does not answer is to run, it
/// is shown how it was last seen.
fn unknown(world: &World, seen: &Seen<'_>) -> Option<String> {
    let node = &seen.task.node;
    let observed = world.observed.nodes.get(node);
    let engine = observed.and_then(|observed| observed.report.as_ref()).map(|report| &report.engine);
    let is_last_seen = seen.runs() && seen.report.is_some();
    match (seen.node.presence, engine) {
        (Presence::Dead { .. }, _) if !world.nodes.contains_key(node) => {
            Some(format!("node {node} was removed"))
        }
        (Presence::Dead { .. }, _) => Some(format!("node {node} is dead")),
        (Presence::Lost | Presence::Awaited, _) => Some(format!("node {node} is away")),
        (Presence::Connected, Some(Engine::Down { .. })) if !is_last_seen => {
            Some(format!("the Docker Engine of node {node} does not answer"))
        }
        (Presence::Connected, _) => None,
    }
}

fn leaving(world: &World, seen: &Seen<'_>) -> String {
    let id = &seen.task.id;
    if let Some(why) = unknown(world, seen) {
        return format!("{id} is to be stopped, and {why}");
    }
    let connections = seen.report.map_or(0, |report| report.connections);
    match seen.task.desired {
        Desired::Run => format!("{id} is to be stopped"),
        Desired::Drain { .. } if connections == 1 => format!("{id} is draining: 1 connection is open"),
        Desired::Drain { .. } if connections > 1 => {
            format!("{id} is draining: {connections} connections are open")
        }
        Desired::Drain { .. } if seen.may_have_connections() => {
            format!("{id} is draining: an earlier agent of its node may have connections to it")
        }
        Desired::Drain { .. } => format!("{id} is draining"),
        Desired::Stop { .. } => format!("{id} is stopping"),
    }
}

/// The published ports of the service that some node could not open.
fn closed_ports(world: &World, service: &Wanted<'_>) -> Vec<String> {
    let published: Vec<u16> = service
        .spec
        .ports
        .iter()
        .filter(|port| port.mode == PortMode::Ingress)
        .filter_map(|port| port.published)
        .collect();
    let mut closed = Vec::new();
    for (node, report) in reports(world) {
        let ours = report.closed_ports.iter().filter(|closed| published.contains(&closed.port));
        closed.extend(ours.map(|it| format!("port {} is closed on node {node}: {}", it.port, it.reason)));
    }
    closed
}

fn reports(world: &World) -> impl Iterator<Item = (&NodeId, &Report)> {
    let connected = world.observed.nodes.iter().filter(|(_, observed)| observed.connected);
    connected.filter_map(|(node, observed)| Some((node, observed.report.as_deref()?)))
}

/// `web.1`, or `web.1, 2 and 5 to 9`.
pub(super) fn name_slots(service: &ServiceName, slots: &[Slot]) -> String {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for Slot(slot) in slots {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == *slot => *last = *slot,
            Some(_) | None => ranges.push((*slot, *slot)),
        }
    }
    let mut parts: Vec<String> = Vec::new();
    for (first, last) in ranges {
        match last - first {
            0 => parts.push(first.to_string()),
            1 => parts.extend([first.to_string(), last.to_string()]),
            _ => parts.push(format!("{first} to {last}")),
        }
    }
    match parts.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{service}.{} and {last}", rest.join(", ")),
        Some((last, _)) => format!("{service}.{last}"),
        None => service.to_string(),
    }
}

/// The newest words of a task that failed, if it has said anything.
pub(super) fn last_words<'w>(seen: &Seen<'w>) -> Option<(&'w TaskId, &'w str)> {
    use tug_model::report::{Failure, Phase};
    let exit = match seen.phase()? {
        Phase::Exited { exit } | Phase::Waiting { failure: Failure::Exited { exit }, .. } => exit,
        Phase::Pending
        | Phase::Pulling { .. }
        | Phase::Creating
        | Phase::Running { .. }
        | Phase::Waiting { .. }
        | Phase::Stopping => return None,
    };
    (!exit.last_words.trim().is_empty()).then_some((&seen.task.id, exit.last_words.trim_end()))
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
