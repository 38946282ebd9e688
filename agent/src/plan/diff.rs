//! From what is wanted and what is there to the steps that can be taken now.

use std::collections::{BTreeMap, BTreeSet};

use tug_model::assignment::AssignedTask;
use tug_model::task::{Desired, Template};
use tug_model::{Millis, TaskId, Timestamp};

use super::lease::{Overdue, overdue};
use super::memory::Ensured;
use super::restart::Verdict;
use super::step::{ImageWanted, Key, Step, networks_of, volumes_of};
use super::{View, preference};
use crate::runtime::{Found, FoundNetwork, State};

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Steps {
    /// Those of one [`Key`] are to be taken in this order, all others at once.
    pub steps: Vec<Step>,
    /// When to ask again though nothing happened.
    pub wake_at: Option<Timestamp>,
    prepared: BTreeSet<Key>,
}

/// The grace of a container that nothing is known about.
const GRACE: Millis = Millis::from_secs(10);
/// The signal that stops a container whose template does not say another.
const SIGNAL: &str = "SIGTERM";

/// The steps that bring the node nearer to its assignment.
pub fn diff(view: &View<'_>) -> Steps {
    let mut steps = Steps::default();
    let Overdue { steps: halts, next } = overdue(view);
    steps.steps = halts;
    if let Some(until) = next {
        steps.wake(view.now.plus(Millis(until.0.saturating_sub(view.memory.leases.uptime.0))));
    }
    if !view.orders.is_told() {
        return steps;
    }
    let halted: BTreeSet<Key> = steps.steps.iter().map(Step::key).collect();
    let is_halted = |task: &TaskId| halted.contains(&Key::Task(task.clone()));
    let mut containers: BTreeMap<&TaskId, Vec<&Found>> = BTreeMap::new();
    for found in view.ours().filter(|found| !is_halted(&found.identity.task)) {
        containers.entry(&found.identity.task).or_default().push(found);
    }
    for list in containers.values_mut() {
        list.sort_by_key(|found| preference(found));
    }
    for task in view.orders.tasks().values().filter(|task| !is_halted(&task.id)) {
        let theirs = containers.remove(&task.id).unwrap_or_default();
        steps.task(view, task, &theirs);
    }
    for unnamed in containers.values().flatten() {
        steps.stop(view, unnamed);
    }
    for network in &view.memory.networks {
        if !is_needed(view, network) {
            let key = Key::Network(network.engine_name.clone());
            if steps.may_try(view, &key) {
                steps.steps.push(Step::RemoveNetwork { engine_name: network.engine_name.clone() });
            }
        }
    }
    steps
}

/// Whether a task or a container of the network's project is there that may be on it.
fn is_needed(view: &View<'_>, network: &FoundNetwork) -> bool {
    let wanted = view
        .orders
        .tasks()
        .values()
        .any(|task| task.project == network.project && !matches!(task.desired, Desired::Stop { .. }));
    let declared = view
        .orders
        .resources(&network.project)
        .and_then(|resources| resources.networks.get(&network.key))
        .is_some_and(|declared| declared.engine_name == network.engine_name && !declared.external);
    if wanted && declared {
        return true;
    }
    view.found.iter().any(|found| {
        found.identity.project == network.project
            && (!wanted || found.addresses.contains_key(&network.engine_name))
    })
}

// === impl Steps ===

impl Steps {
    fn task(&mut self, view: &View<'_>, task: &AssignedTask, containers: &[&Found]) {
        let is_right = |found: &&&Found| {
            found.identity.template == task.template
                && found.identity.project == task.project
                && found.identity.service == task.service
        };
        let right = containers.iter().find(is_right).copied();
        for other in containers.iter().filter(|found| right.is_none_or(|right| right.id != found.id)) {
            self.stop(view, other);
        }
        match task.desired {
            Desired::Run => match right {
                Some(found) => self.keep(view, task, found),
                None => self.begin(view, task),
            },
            // What ended while it was drained has nothing left to do.
            Desired::Drain { .. } => {
                if let Some(found) = right
                    && found.state == State::Paused
                {
                    self.unpause(view, found);
                }
            }
            Desired::Stop { .. } => {
                if let Some(found) = right {
                    self.stop(view, found);
                }
            }
        }
    }

    /// A container of a task that shall run is there.
    fn keep(&mut self, view: &View<'_>, task: &AssignedTask, found: &Found) {
        let container = || found.id.clone();
        match &found.state {
            State::Running { .. } | State::Restarting | State::Removing => {}
            State::Paused => self.unpause(view, found),
            State::Dead => self.renew(view, task, found),
            State::Created | State::Exited { .. } => {
                if !self.is_due(view, &task.id) || !view.may_start(&task.id) {
                    return;
                }
                let key = Key::Task(task.id.clone());
                // What could not be started as it is, is made anew: its network may have gone, or a mount.
                // What is exclusive is made anew as well: each start has a number of its own.
                let stale = view.memory.tries.get(&key).is_some_and(|failed| !failed.engine_down)
                    || view.needs_lease(&task.id);
                if stale {
                    self.renew(view, task, found);
                } else if self.may_try(view, &key) {
                    self.steps.push(Step::Start { task: task.id.clone(), container: container() });
                }
            }
        }
    }

    /// Removes a container that is of no use, and makes its successor.
    fn renew(&mut self, view: &View<'_>, task: &AssignedTask, found: &Found) {
        if self.may_try(view, &Key::Task(task.id.clone())) {
            self.steps.push(Step::Remove { task: task.id.clone(), container: found.id.clone() });
            self.begin(view, task);
        }
    }

    /// No container of a task that shall run is there.
    fn begin(&mut self, view: &View<'_>, task: &AssignedTask) {
        if !self.is_due(view, &task.id) {
            return;
        }
        let Some(template) = view.orders.template(&task.id) else { return };
        let prepared = self.prepare(view, task, template);
        if let Some(image) = prepared
            && view.may_start(&task.id)
            && self.may_try(view, &Key::Task(task.id.clone()))
        {
            self.steps.push(Step::Create { task: task.id.clone(), image });
        }
    }

    /// The id of the image, once that and everything else is there that the first container needs.
    fn prepare(&mut self, view: &View<'_>, task: &AssignedTask, template: &Template) -> Option<String> {
        let mut ready = true;
        let resources = view.orders.resources(&task.project);
        for key in networks_of(template) {
            let network = resources?.networks.get(key)?;
            let step = Step::EnsureNetwork {
                project: task.project.clone(),
                key: key.clone(),
                engine_name: network.engine_name.clone(),
            };
            ready &= self.ensure(view, step, &Ensured::Network(network.clone()));
        }
        for key in volumes_of(template) {
            let volume = resources?.volumes.get(key)?;
            let step = Step::EnsureVolume {
                project: task.project.clone(),
                key: key.clone(),
                engine_name: volume.engine_name.clone(),
            };
            ready &= self.ensure(view, step, &Ensured::Volume(volume.clone()));
        }
        let wanted = ImageWanted::of(&template.container);
        let image = view.memory.image(&wanted, view.now).map(str::to_owned);
        if image.is_none() {
            self.once(view, Step::Fetch(wanted));
        }
        image.filter(|_| ready)
    }

    fn ensure(&mut self, view: &View<'_>, step: Step, settings: &Ensured) -> bool {
        let there = view.memory.ensured.get(&step.key()) == Some(settings);
        if !there {
            self.once(view, step);
        }
        there
    }

    /// A step that several tasks wait for.
    fn once(&mut self, view: &View<'_>, step: Step) {
        let key = step.key();
        if !self.prepared.contains(&key) && self.may_try(view, &key) {
            self.prepared.insert(key);
            self.steps.push(step);
        }
    }

    fn unpause(&mut self, view: &View<'_>, found: &Found) {
        let task = &found.identity.task;
        if self.may_try(view, &Key::Task(task.clone())) {
            self.steps.push(Step::Unpause { task: task.clone(), container: found.id.clone() });
        }
    }

    /// Stops a container and removes it.
    fn stop(&mut self, view: &View<'_>, found: &Found) {
        let task = found.identity.task.clone();
        if !self.may_try(view, &Key::Task(task.clone())) {
            return;
        }
        let container = found.id.clone();
        match found.state {
            State::Removing => return,
            State::Created | State::Exited { .. } | State::Dead => {}
            State::Running { .. } | State::Restarting | State::Paused => {
                if found.state == State::Paused {
                    // A frozen process hears no signal.
                    self.steps.push(Step::Unpause { task: task.clone(), container: container.clone() });
                }
                let template = view.orders.template(&task).map(|template| &template.container);
                let signal =
                    template.and_then(|container| container.stop_signal.as_deref()).unwrap_or(SIGNAL);
                self.steps.push(Step::Stop {
                    task: task.clone(),
                    container: container.clone(),
                    signal: signal.to_owned(),
                    grace: template.map_or(GRACE, |container| container.stop_grace_period.0),
                });
            }
        }
        self.steps.push(Step::Remove { task, container });
    }

    /// Whether the restart policy lets a run begin now.
    fn is_due(&mut self, view: &View<'_>, task: &TaskId) -> bool {
        match view.memory.histories.get(task).map_or(Verdict::Start, |history| history.verdict(view.now)) {
            Verdict::Start => true,
            Verdict::Over => false,
            Verdict::Wait(until) => {
                self.wake(until);
                false
            }
        }
    }

    /// Whether `key` has no failure to wait out.
    fn may_try(&mut self, view: &View<'_>, key: &Key) -> bool {
        match view.memory.waits(key, view.now) {
            None => true,
            Some(failed) => {
                self.wake(failed.retry_at);
                false
            }
        }
    }

    fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |earlier| earlier.min(at)));
    }
}
