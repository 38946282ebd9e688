//! How the loop takes in what has happened. Nothing is decided here: it only knows more afterwards.

use std::sync::Arc;

use tokio::time::Instant;
use tug_api::error::chain;
use tug_model::Timestamp;
use tug_model::task::Desired;

use super::work::{self, Done, Look, Made, Note, Outcome};
use super::{Control, MORE, SECOND};
use crate::plan::{self, Memory, View};
use crate::runtime::{EventKind, State};

// === impl Control ===

impl Control {
    /// Takes in what is told while something goes on.
    pub(super) fn note(&mut self, note: Note) {
        match note {
            Note::Listening => self.pulse.look_soon(),
            Note::Deaf => self.pulse.look_now(),
            Note::Progress(image, text) => {
                self.pulling.insert(image, text);
                self.report_soon();
            }
            Note::Event(event) => match event.kind {
                EventKind::Died | EventKind::Paused | EventKind::Removed => {
                    let found = self.sight.found().iter().find(|found| found.id == event.container);
                    // What we stop ourselves is no news.
                    let expected = found.is_none_or(|found| self.jobs.is_busy(&found.identity.task));
                    self.sight.ended(&event.container, self.clock.now());
                    if expected { self.pulse.look_soon() } else { self.pulse.look_now() }
                }
                EventKind::Unpaused => {
                    self.sight.goes_on(&event.container);
                    self.pulse.look_soon();
                }
                EventKind::Created
                | EventKind::Started
                | EventKind::OutOfMemory
                | EventKind::Health
                | EventKind::Renamed => self.pulse.look_soon(),
            },
        }
    }

    /// Takes in what a job has come to.
    pub(super) fn done(&mut self, done: Done) {
        match done {
            Done::Look(look) => self.looked(look),
            Done::Steps(outcome) => self.worked(outcome),
            Done::Words { task, finished_at, words } => {
                if let Some(kept) = self.words.get_mut(&task).filter(|kept| kept.0 == finished_at) {
                    kept.1 = words;
                }
            }
        }
        self.report_soon();
    }

    fn worked(&mut self, outcome: Outcome) {
        let Outcome { key, removed, made, failed } = outcome;
        let now = self.clock.now();
        match made {
            Some(Made::Image(wanted, id)) => {
                self.memory.images.insert(wanted, plan::Image { id, at: now });
            }
            Some(Made::Resource(key, settings)) => {
                self.memory.ensured.insert(key, settings);
                self.more_at = Instant::now();
            }
            Some(Made::Nothing(key)) => {
                if let plan::Key::Network(name) = &key {
                    self.memory.networks.retain(|network| network.engine_name != *name);
                }
                self.memory.ensured.remove(&key);
                self.more_at = Instant::now();
            }
            None => {}
        }
        if let plan::Key::Image(wanted) = &key {
            self.pulling.remove(wanted);
        }
        if let plan::Key::Task(task) = &key {
            self.sight.worked_on(task.clone(), &removed);
            // After the last operation of many there is nothing left to share a look with.
            if self.jobs.is_quiet() {
                self.pulse.look_now();
            } else {
                self.pulse.look_soon();
            }
        }
        match failed {
            None => {
                self.memory.tries.remove(&key);
            }
            Some(failed) => {
                if failed.not_found {
                    // An image or a network was removed by somebody: look for all of them again.
                    self.memory.images.clear();
                    self.memory.ensured.clear();
                }
                self.memory.failed(key, failed.reason, failed.engine_down, (now, self.seed));
            }
        }
    }

    fn looked(&mut self, look: Look) {
        let now = self.clock.now();
        match look.seen {
            Ok(seen) => {
                if seen.info.is_some() {
                    self.more_at = Instant::now() + MORE;
                }
                if self.pulse.succeeded(seen.info, look.took) {
                    tracing::info!("the engine is back");
                    self.memory.engine_is_back();
                    self.memory.ensured.clear();
                }
                if let Some(networks) = seen.networks {
                    self.memory.networks = networks;
                }
                self.sight.take(look.number, seen.containers, now);
                if self.sight.is_behind(|task| self.jobs.is_busy(task)) {
                    self.pulse.look_shortly();
                }
                self.belong();
                self.observe(now);
            }
            Err(error) => {
                if self.pulse.failed(&error, now, look.took) {
                    tracing::warn!(reason = chain(&error), "the engine does not answer");
                }
            }
        }
        if self.sight.has_looked() || self.pulse.is_down() {
            self.opens_at.get_or_insert_with(|| Instant::now() + SECOND);
        }
    }

    /// Without an assignment, the labels say whose node this is.
    fn belong(&mut self) {
        if !self.orders.borrow().cluster().is_empty() {
            return;
        }
        let mut clusters = self.sight.found().iter().map(|found| &found.identity.cluster);
        if let Some(cluster) = clusters.next()
            && clusters.all(|other| other == cluster)
        {
            self.follower.belong_to(cluster);
        }
    }

    /// Takes in how the runs of the tasks go, and asks for the last words of those that ended.
    fn observe(&mut self, now: Timestamp) {
        let orders = Arc::clone(&self.orders.borrow());
        let Self { memory, sight, words, jobs, tools, .. } = self;
        memory.histories.retain(|task, _| {
            orders.tasks().contains_key(task)
                || sight.found().iter().any(|found| found.identity.task == *task)
        });
        words.retain(|task, _| memory.histories.contains_key(task));
        let Memory { histories, .. } = memory;
        let unremembered = Memory::default();
        let view = View { orders: &orders, found: sight.found(), memory: &unremembered, now };
        for task in orders.tasks().values() {
            let Some(template) = orders.template(&task.id) else { continue };
            if matches!(task.desired, Desired::Stop { .. })
                || !sight.is_settled(&task.id)
                || jobs.is_busy(&task.id)
            {
                continue;
            }
            let found = view.container(&task.id);
            let history = histories.entry(task.id.clone()).or_default();
            history.observe(found.map(|found| &found.state), &template.restart, now);
            let Some(found) = found else { continue };
            if let State::Exited { finished_at, .. } = found.state
                && words.get(&task.id).is_none_or(|known| known.0 != finished_at)
            {
                words.insert(task.id.clone(), (finished_at, String::new()));
                let whose = (task.id.clone(), found.id.clone());
                jobs.words(work::last_words(Arc::clone(tools), whose, history.started_at, finished_at));
            }
        }
    }
}
