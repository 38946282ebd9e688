//! Whether a project has got where it was asked to go, decided from whole statuses and the time they came.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;
use tug_model::report::Phase;
use tug_model::status::{ProjectStatus, ServiceState, ServiceStatus};
use tug_model::{Millis, Revision, ServiceName, Timestamp};

/// How long a service may keep failing before the waiting is given up: what waits for a database that is still
/// starting recovers within it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// How long a process must have run before it is believed, where nothing asks it whether it serves: what dies at once
/// counts as healthy until it does.
pub(crate) const STEADY: Millis = Millis::from_secs(2);

/// What shall be true.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Goal {
    /// A version of the project is in place and healthy.
    Settled(Settled),
    /// The project is gone, its last container too, after the commit that removed it.
    Gone(Revision),
}

/// What it takes to be settled.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Settled {
    /// The version, or a later one.
    pub(crate) number: u64,
    /// Only these services matter; `None`: all of them.
    pub(crate) services: Option<BTreeSet<ServiceName>>,
    /// Those of them that nothing probes: they must have run for [`STEADY`].
    pub(crate) unprobed: BTreeSet<ServiceName>,
}

/// What a status means for the goal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Not there yet.
    Wait,
    /// There.
    Reached,
    /// What was removed is there again: somebody applied it meanwhile.
    Returned,
    /// It will not get there.
    Failed,
}

/// Judges statuses in the order in which they come.
#[derive(Debug)]
pub(crate) struct Judge {
    goal: Goal,
    /// Since when each service has failed without having been well in between.
    failing_since: BTreeMap<ServiceName, Instant>,
    wake_at: Option<Instant>,
}

// === impl Judge ===

impl Judge {
    /// A judge who has seen nothing yet.
    pub(crate) fn new(goal: Goal) -> Self {
        Self { goal, failing_since: BTreeMap::new(), wake_at: None }
    }

    /// What `status` means, seen at the instant `now`, which is the time of day `today`.
    pub(crate) fn see(&mut self, status: &ProjectStatus, now: Instant, today: Timestamp) -> Verdict {
        self.wake_at = None;
        let wanted = match &self.goal {
            Goal::Settled(wanted) => wanted,
            Goal::Gone(removed) if status.number.is_some() && status.revision > *removed => {
                return Verdict::Returned;
            }
            Goal::Gone(_) => return Verdict::Wait,
        };
        if status.number.is_none_or(|seen| seen < wanted.number) {
            self.failing_since.clear();
            return Verdict::Wait;
        }
        if wanted.is_reached(status) {
            let missing = wanted.unsteady_for(status, today);
            if missing == Millis(0) {
                return Verdict::Reached;
            }
            self.wake_at = Some(now + missing.duration());
            return Verdict::Wait;
        }
        let services = || status.services.iter().filter(|service| wanted.matters(service));
        self.failing_since = services()
            .filter(|service| !is_there(service))
            .filter_map(|service| {
                let before = self.failing_since.get(&service.name).copied();
                let since = before.or_else(|| (service.state == ServiceState::Failing).then_some(now))?;
                Some((service.name.clone(), since))
            })
            .collect();
        let failing = services().filter(|service| service.state == ServiceState::Failing);
        let gives_up_at = failing
            .filter_map(|service| self.failing_since.get(&service.name))
            .min()
            .map(|since| *since + PATIENCE);
        if services().any(is_over) || gives_up_at.is_some_and(|at| at <= now) {
            return Verdict::Failed;
        }
        self.wake_at = gives_up_at;
        Verdict::Wait
    }

    /// When the status that was seen last would mean something else.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        self.wake_at
    }
}

// === impl Settled ===

impl Settled {
    fn matters(&self, service: &ServiceStatus) -> bool {
        self.services.as_ref().is_none_or(|of| of.contains(&service.name))
    }

    fn is_reached(&self, status: &ProjectStatus) -> bool {
        match self.services {
            None => status.settled,
            Some(_) => status.services.iter().filter(|service| self.matters(service)).all(is_there),
        }
    }

    /// How long it takes until the youngest process that nothing probes has run for long enough.
    fn unsteady_for(&self, status: &ProjectStatus, today: Timestamp) -> Millis {
        let unprobed = |service: &&ServiceStatus| {
            service.state == ServiceState::Ready
                && self.matters(service)
                && self.unprobed.contains(&service.name)
        };
        let tasks = status.services.iter().filter(unprobed).flat_map(|service| &service.tasks);
        let missing = tasks.filter_map(|task| {
            let ran = today.since(task.since?);
            Some(Millis(STEADY.0.saturating_sub(ran.0)))
        });
        missing.max().unwrap_or_default()
    }
}

fn is_there(service: &ServiceStatus) -> bool {
    matches!(service.state, ServiceState::Ready | ServiceState::Completed)
}

/// Whether a task of the newest template ended with an error and is not started again.
fn is_over(service: &ServiceStatus) -> bool {
    service.state == ServiceState::Failing
        && service.tasks.iter().filter(|task| task.updated).any(|task| match &task.phase {
            Some(phase @ Phase::Exited { .. }) => !phase.has_succeeded(),
            _ => false,
        })
}

#[cfg(test)]
mod tests {
    use tug_model::report::Exit;

    use super::*;
    use crate::sample;

    fn settled(number: u64) -> Judge {
        Judge::new(Goal::Settled(Settled { number, ..Settled::default() }))
    }

    fn see(judge: &mut Judge, status: &ProjectStatus, now: Instant) -> Verdict {
        judge.see(status, now, sample::NOW)
    }

    fn crashing() -> ProjectStatus {
        let web = sample::service("web", &[sample::healthy(), sample::crashed(1, "")]);
        sample::project_of("shop", vec![web, sample::service("db", &[sample::healthy()])])
    }

    #[tokio::test(start_paused = true)]
    async fn an_older_version_that_is_healthy_is_not_the_goal() {
        let now = Instant::now();
        let mut status = sample::project("shop", &["web"]);
        let mut judge = settled(2);
        assert_eq!(see(&mut judge, &status, now), Verdict::Wait);
        status.number = Some(2);
        assert_eq!(see(&mut judge, &status, now), Verdict::Reached);
        status.number = Some(3);
        assert_eq!(see(&mut settled(2), &status, now), Verdict::Reached, "somebody applied a newer one");
        status.number = None;
        assert_eq!(see(&mut settled(2), &status, now), Verdict::Wait, "it is being removed");
    }

    #[tokio::test(start_paused = true)]
    async fn a_crash_may_pass_but_a_crash_loop_fails() {
        let start = Instant::now();
        let mut judge = settled(1);
        assert_eq!(see(&mut judge, &crashing(), start), Verdict::Wait);
        assert_eq!(judge.wake_at(), Some(start + PATIENCE));
        assert_eq!(see(&mut judge, &crashing(), start + PATIENCE / 2), Verdict::Wait);

        let mut starting = crashing();
        starting.services[0].state = ServiceState::Progressing;
        assert_eq!(see(&mut judge, &starting, start + PATIENCE), Verdict::Wait, "it is tried again");
        assert_eq!(judge.wake_at(), None);
        assert_eq!(see(&mut judge, &crashing(), start + PATIENCE), Verdict::Failed, "it was never well");

        let mut judge = settled(1);
        assert_eq!(see(&mut judge, &crashing(), start), Verdict::Wait);
        let mut other_half = crashing();
        other_half.services[0].state = ServiceState::Ready;
        assert_eq!(see(&mut judge, &other_half, start + PATIENCE), Verdict::Wait);
        assert_eq!(see(&mut judge, &crashing(), start + PATIENCE), Verdict::Wait, "it was well in between");
    }

    #[tokio::test(start_paused = true)]
    async fn what_nothing_probes_must_have_run_for_a_while() {
        let now = Instant::now();
        let mut status = sample::project("shop", &["db", "web"]);
        status.services[1].tasks[0].since = Some(Timestamp(sample::NOW.0 - 500));
        assert_eq!(see(&mut settled(1), &status, now), Verdict::Reached, "a probe has said that it serves");
        let unprobed = BTreeSet::from(["db", "web"].map(|name| ServiceName::parse(name).unwrap()));
        let mut judge = Judge::new(Goal::Settled(Settled { number: 1, unprobed, ..Settled::default() }));
        assert_eq!(see(&mut judge, &status, now), Verdict::Wait);
        assert_eq!(judge.wake_at(), Some(now + Duration::from_millis(1500)));
        let later = Timestamp(sample::NOW.0 + 1500);
        assert_eq!(judge.see(&status, now + Duration::from_millis(1500), later), Verdict::Reached);
    }

    #[tokio::test(start_paused = true)]
    async fn what_ended_for_good_fails_at_once() {
        let exit = Exit { code: 3, out_of_memory: false, last_words: String::new() };
        let mut web = sample::service("web", &[Phase::Exited { exit }]);
        web.state = ServiceState::Failing;
        let status = sample::project_of("shop", vec![web]);
        assert_eq!(see(&mut settled(1), &status, Instant::now()), Verdict::Failed);
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_services_that_were_asked_for_matter() {
        let only = |name: &str| {
            let services = Some(BTreeSet::from([ServiceName::parse(name).unwrap()]));
            Judge::new(Goal::Settled(Settled { number: 1, services, ..Settled::default() }))
        };
        assert_eq!(see(&mut only("db"), &crashing(), Instant::now()), Verdict::Reached);
        let mut web = only("web");
        assert_eq!(see(&mut web, &crashing(), Instant::now()), Verdict::Wait);
        assert!(web.wake_at().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_but_its_end_or_its_return_satisfies_a_removal() {
        let mut judge = Judge::new(Goal::Gone(Revision(9)));
        let mut status = crashing();
        assert_eq!(see(&mut judge, &status, Instant::now()), Verdict::Wait, "it was not removed yet");
        (status.number, status.revision) = (None, Revision(12));
        assert_eq!(see(&mut judge, &status, Instant::now()), Verdict::Wait, "it is being removed");
        assert_eq!(judge.wake_at(), None);
        status.number = Some(1);
        assert_eq!(see(&mut judge, &status, Instant::now()), Verdict::Returned, "somebody applied it again");
    }
}
