//! What the holder ends: containers that may run only until a certain time, when their agent has not done it by then. It
//! may be dead, or stopped.
//!
//! The Engine takes its time, and whoever asks for sockets is not to wait for that: this is a thread of its own.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tug_api::Clock;
use tug_model::{Millis, NodeId, TaskId};

use crate::runtime::docker::Docker;
use crate::runtime::{Runtime, RuntimeError};

/// It is looked so often at the least for what is due: a machine that slept wakes nobody who waits.
const LOOK: Millis = Millis::from_secs(1);
/// The wait after an Engine that did not do it.
const AGAIN: Duration = Duration::from_millis(250);

/// A task that may not run for ever.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Charge {
    /// The Engine's socket.
    pub(super) engine: PathBuf,
    /// The node whose container it is.
    pub(super) node: NodeId,
    /// For how long the machine has been up then.
    pub(super) until: Millis,
}

/// Every task that may not run for ever.
#[derive(Debug, Default)]
pub(super) struct Charges {
    by_task: Mutex<BTreeMap<TaskId, Charge>>,
    news: Condvar,
}

/// Why a task may run on though it is due.
#[derive(Debug, thiserror::Error)]
enum EndError {
    #[error("prepare to ask the engine")]
    Prepare(#[from] io::Error),
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
}

// === impl Charges ===

impl Charges {
    /// From now on the task may run until that time; never less long than was said before.
    pub(super) fn set(&self, task: TaskId, charge: Charge) {
        let mut charges = self.lock();
        let earlier = charges.get(&task).map_or(Millis(0), |charge| charge.until);
        let until = charge.until.max(earlier);
        charges.insert(task, Charge { until, ..charge });
        drop(charges);
        self.news.notify_all();
    }

    /// Whether nothing is to be ended, ever.
    pub(super) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// Ends what is due, for ever.
    pub(super) fn watch(&self) {
        let clock = Clock::system();
        loop {
            self.wait(&clock);
            for (task, charge) in self.due(clock.uptime()) {
                match self.end(&task, &charge) {
                    Ok(()) => self.settle(&task, &charge),
                    // Nobody reads what is said here, and there is nothing else to be done.
                    Err(EndError::Prepare(_) | EndError::Runtime(_)) => std::thread::sleep(AGAIN),
                }
            }
        }
    }

    /// Waits until something may be due.
    fn wait(&self, clock: &Clock) {
        let charges = self.lock();
        let charges = self.news.wait_while(charges, |charges| charges.is_empty());
        let charges = charges.unwrap_or_else(PoisonError::into_inner);
        let next = charges.values().map(|charge| charge.until.0).min().unwrap_or_default();
        let left = Millis(next.saturating_sub(clock.uptime().0)).min(LOOK);
        if left.0 > 0 {
            // What is new may be due sooner.
            let _woken = self.news.wait_timeout(charges, left.duration());
        }
    }

    fn due(&self, now: Millis) -> Vec<(TaskId, Charge)> {
        let charges = self.lock();
        let due = charges.iter().filter(|(_, charge)| charge.until <= now);
        due.map(|(task, charge)| (task.clone(), charge.clone())).collect()
    }

    /// Kills what runs of a task, unless it may run for longer since.
    fn end(&self, task: &TaskId, charge: &Charge) -> Result<(), EndError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let engine = Docker::new(&charge.engine, charge.node.clone());
            for found in engine.list().await? {
                let is_meant = found.identity.task == *task && found.state.may_run();
                if is_meant && self.holds(task, charge) {
                    engine.kill(&found.id, None).await?;
                }
            }
            Ok(())
        })
    }

    /// Whether nothing was said of the task since.
    fn holds(&self, task: &TaskId, charge: &Charge) -> bool {
        self.lock().get(task) == Some(charge)
    }

    /// The task has ended.
    fn settle(&self, task: &TaskId, charge: &Charge) {
        let mut charges = self.lock();
        if charges.get(task) == Some(charge) {
            charges.remove(task);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<TaskId, Charge>> {
        self.by_task.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn charge(until: u64) -> Charge {
        let node = NodeId::parse("n1").unwrap();
        Charge { engine: PathBuf::from("/run/engine"), node, until: Millis(until) }
    }

    #[test]
    fn a_task_is_due_when_nothing_was_said_for_long_enough() {
        let charges = Charges::default();
        let [one, two] = ["shop.db.1.5", "shop.db.1.6"].map(|id| TaskId::parse(id).unwrap());
        charges.set(one.clone(), charge(100));
        charges.set(two.clone(), charge(200));
        assert_eq!(charges.due(Millis(99)), []);
        assert_eq!(charges.due(Millis(100)), [(one.clone(), charge(100))]);
        charges.set(one.clone(), charge(300));
        charges.set(one.clone(), charge(250));
        assert_eq!(charges.due(Millis(299)), [(two.clone(), charge(200))]);
        charges.settle(&two, &charge(150));
        assert!(charges.holds(&two, &charge(200)), "it may run for longer since");
        charges.settle(&two, &charge(200));
        charges.settle(&one, &charge(300));
        assert!(charges.is_empty());
    }
}
