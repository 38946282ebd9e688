//! Where each task stands, for the report: what is seen, what is being done and what it waits for.

use tug_model::TaskId;
use tug_model::report::{Exit, Failure, Health, Phase};
use tug_model::task::Desired;

use super::restart::End;
use super::step::{ImageWanted, Key, networks_of, volumes_of};
use super::{Try, View, memory::Memory};
use crate::runtime::{Found, State};

/// What the agent knows of a task beyond its container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doing {
    /// An operation on it is under way.
    pub busy: bool,
    /// How far the pull of its image is.
    pub pulling: Option<String>,
    /// Whether it serves, if it runs.
    pub health: Health,
    /// What it last wrote before its newest end.
    pub last_words: String,
}

/// Where `task` stands; `None` when there is nothing of it on the node and nothing shall be.
pub fn phase(view: &View<'_>, task: &TaskId, doing: &Doing) -> Option<Phase> {
    let found = view.container(task);
    let desired = view.orders.tasks().get(task).map(|assigned| assigned.desired);
    let stopping = match desired {
        None => view.orders.is_told(),
        Some(Desired::Stop { .. }) => true,
        Some(Desired::Run | Desired::Drain { .. }) => false,
    };
    match found {
        Some(_) if stopping => Some(match waiting(view, &Key::Task(task.clone())) {
            Some(failed) if !doing.busy => refused(view, failed),
            Some(_) | None => Phase::Stopping,
        }),
        None if stopping => None,
        Some(found) => Some(standing(view, task, found, doing)),
        None => Some(absent(view, task, doing)),
    }
}

fn standing(view: &View<'_>, task: &TaskId, found: &Found, doing: &Doing) -> Phase {
    match &found.state {
        State::Running { .. } => Phase::Running { health: doing.health.clone(), address: found.address() },
        State::Paused => Phase::Running {
            health: Health::Unhealthy { reason: "somebody paused it".to_owned() },
            address: found.address(),
        },
        State::Exited { .. } => match ended(view.memory, task) {
            Some(end) => after(view, task, end, doing),
            None => Phase::Creating,
        },
        State::Created => match waiting(view, &Key::Task(task.clone())) {
            Some(failed) if !doing.busy => refused(view, failed),
            Some(_) | None => Phase::Creating,
        },
        State::Restarting | State::Dead | State::Removing => Phase::Creating,
    }
}

fn absent(view: &View<'_>, task: &TaskId, doing: &Doing) -> Phase {
    if let Some(end) = ended(view.memory, task) {
        return after(view, task, end, doing);
    }
    if doing.busy {
        return Phase::Creating;
    }
    if let Some(progress) = &doing.pulling {
        return Phase::Pulling { progress: progress.clone() };
    }
    match needs(view, task).iter().find_map(|key| waiting(view, key)) {
        Some(failed) => refused(view, failed),
        None => Phase::Pending,
    }
}

/// A run has ended: what follows.
fn after(view: &View<'_>, task: &TaskId, end: &End, doing: &Doing) -> Phase {
    let exit =
        Exit { code: end.code, out_of_memory: end.out_of_memory, last_words: doing.last_words.clone() };
    let drained =
        matches!(view.orders.tasks().get(task).map(|assigned| assigned.desired), Some(Desired::Drain { .. }));
    let Some(again_at) = end.again_at.filter(|_| !drained) else {
        return Phase::Exited { exit };
    };
    // The restart itself may fail, and that is then what stands in the way.
    match needs(view, task).iter().find_map(|key| waiting(view, key)) {
        Some(failed) if !doing.busy => refused(view, failed),
        Some(_) | None => {
            Phase::Waiting { failure: Failure::Exited { exit }, retry_in: again_at.since(view.now) }
        }
    }
}

/// Everything whose failure keeps a task from running.
fn needs(view: &View<'_>, task: &TaskId) -> Vec<Key> {
    let mut keys = vec![Key::Task(task.clone())];
    let (Some(assigned), Some(template)) = (view.orders.tasks().get(task), view.orders.template(task)) else {
        return keys;
    };
    keys.push(Key::Image(ImageWanted::of(&template.container)));
    if let Some(resources) = view.orders.resources(&assigned.project) {
        let networks = networks_of(template).filter_map(|key| resources.networks.get(key));
        keys.extend(networks.map(|network| Key::Network(network.engine_name.clone())));
        let volumes = volumes_of(template).filter_map(|key| resources.volumes.get(key));
        keys.extend(volumes.map(|volume| Key::Volume(volume.engine_name.clone())));
    }
    keys
}

fn waiting<'a>(view: &View<'a>, key: &Key) -> Option<&'a Try> {
    view.memory.tries.get(key)
}

fn refused(view: &View<'_>, failed: &Try) -> Phase {
    Phase::Waiting {
        failure: Failure::Refused { reason: failed.reason.clone(), tries: failed.failures },
        retry_in: failed.retry_at.since(view.now),
    }
}

fn ended<'a>(memory: &'a Memory, task: &TaskId) -> Option<&'a End> {
    memory.histories.get(task)?.ended.as_ref()
}
