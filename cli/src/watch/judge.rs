//! Whether a project has got where it was asked to go, decided from whole statuses and the time they came.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;
use tug_model::ServiceName;
use tug_model::report::Phase;
use tug_model::status::{ProjectStatus, ServiceState, ServiceStatus};

/// How long a service may keep failing before the waiting is given up: what waits for a database that is still
/// starting recovers within it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// What shall be true.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Goal {
    /// This version of the project, or a later one, is in place and healthy.
    Settled {
        /// The version.
        number: u64,
        /// Only these services matter; `None`: all of them.
        services: Option<BTreeSet<ServiceName>>,
    },
    /// The project is gone, its last container too.
    Gone,
}

/// What a status means for the goal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Not there yet.
    Wait,
    /// There.
    Reached,
    /// It will not get there.
    Failed,
}

/// Judges statuses in the order in which they come.
#[derive(Debug)]
pub(crate) struct Judge {
    goal: Goal,
    failing_since: BTreeMap<ServiceName, Instant>,
}

// === impl Judge ===

impl Judge {
    /// A judge who has seen nothing yet.
    pub(crate) fn new(goal: Goal) -> Self {
        Self { goal, failing_since: BTreeMap::new() }
    }

    /// What `status`, seen `now`, means.
    pub(crate) fn see(&mut self, status: &ProjectStatus, now: Instant) -> Verdict {
        let Goal::Settled { number, services } = &self.goal else { return Verdict::Wait };
        if status.number.is_none_or(|seen| seen < *number) {
            self.failing_since.clear();
            return Verdict::Wait;
        }
        let matters =
            |service: &&ServiceStatus| services.as_ref().is_none_or(|of| of.contains(&service.name));
        let is_there =
            |service: &ServiceStatus| matches!(service.state, ServiceState::Ready | ServiceState::Completed);
        let reached = match services {
            None => status.settled,
            Some(_) => status.services.iter().filter(matters).all(is_there),
        };
        if reached {
            return Verdict::Reached;
        }
        let failing: BTreeMap<ServiceName, Instant> = status
            .services
            .iter()
            .filter(matters)
            .filter(|service| service.state == ServiceState::Failing)
            .map(|service| {
                let since = self.failing_since.get(&service.name).copied().unwrap_or(now);
                (service.name.clone(), since)
            })
            .collect();
        self.failing_since = failing;
        let over = status.services.iter().filter(matters).any(is_over);
        if over || self.wake_at().is_some_and(|wake| wake <= now) { Verdict::Failed } else { Verdict::Wait }
    }

    /// When the same status would mean something else.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        self.failing_since.values().min().map(|since| *since + PATIENCE)
    }
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
        Judge::new(Goal::Settled { number, services: None })
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
        assert_eq!(judge.see(&status, now), Verdict::Wait);
        status.number = Some(2);
        assert_eq!(judge.see(&status, now), Verdict::Reached);
        status.number = Some(3);
        assert_eq!(settled(2).see(&status, now), Verdict::Reached, "somebody applied a newer one");
        status.number = None;
        assert_eq!(settled(2).see(&status, now), Verdict::Wait, "it is being removed");
    }

    #[tokio::test(start_paused = true)]
    async fn a_crash_may_pass_but_a_crash_loop_fails() {
        let start = Instant::now();
        let mut judge = settled(1);
        assert_eq!(judge.see(&crashing(), start), Verdict::Wait);
        assert_eq!(judge.wake_at(), Some(start + PATIENCE));
        assert_eq!(judge.see(&crashing(), start + PATIENCE / 2), Verdict::Wait);

        let mut starting = crashing();
        starting.services[0].state = ServiceState::Progressing;
        assert_eq!(judge.see(&starting, start + PATIENCE / 2), Verdict::Wait);
        assert_eq!(judge.wake_at(), None, "it recovered in between");

        assert_eq!(judge.see(&crashing(), start + PATIENCE), Verdict::Wait);
        assert_eq!(judge.see(&crashing(), start + PATIENCE * 2), Verdict::Failed);
    }

    #[tokio::test(start_paused = true)]
    async fn what_ended_for_good_fails_at_once() {
        let exit = Exit { code: 3, out_of_memory: false, last_words: String::new() };
        let mut web = sample::service("web", &[Phase::Exited { exit }]);
        web.state = ServiceState::Failing;
        let status = sample::project_of("shop", vec![web]);
        assert_eq!(settled(1).see(&status, Instant::now()), Verdict::Failed);
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_services_that_were_asked_for_matter() {
        let only = |name: &str| {
            let services = BTreeSet::from([ServiceName::parse(name).unwrap()]);
            Judge::new(Goal::Settled { number: 1, services: Some(services) })
        };
        assert_eq!(only("db").see(&crashing(), Instant::now()), Verdict::Reached);
        let mut web = only("web");
        assert_eq!(web.see(&crashing(), Instant::now()), Verdict::Wait);
        assert!(web.wake_at().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_but_its_end_satisfies_a_removal() {
        let mut judge = Judge::new(Goal::Gone);
        assert_eq!(judge.see(&crashing(), Instant::now()), Verdict::Wait);
        assert_eq!(judge.wake_at(), None);
    }
}
