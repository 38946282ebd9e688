//! Waiting until a project is as it was asked to be, with progress, through lost connections and server restarts.
//!
//! What is seen decides nothing here: [`judge::Judge`] does, from whole statuses. The stream is only a way to get
//! them early; after every (re)connection the status is asked for once, so nothing hangs on a missed item.

pub(crate) mod judge;

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::time::{Instant, sleep, sleep_until};
use tug_api::client::{CallError, Client, WatchQuery};
use tug_api::user::{Accepted, WatchItem};
use tug_api::{ApiError, Clock, Code};
use tug_model::spec::Project;
use tug_model::spec::service::Service;
use tug_model::status::ProjectStatus;
use tug_model::{ProjectName, Revision, ServiceName};

use self::judge::{Goal, Judge, Settled, Verdict};
use crate::context::{Context, Interrupt};
use crate::failure::Failure;
use crate::render::Screen;
use crate::render::progress::Progress;

/// The wait before the first try to connect again; it doubles up to [`LONGEST_RETRY`].
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LONGEST_RETRY: Duration = Duration::from_secs(2);
/// The status is asked for at least so often, whatever the stream says.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// What is waited for.
#[derive(Debug, Clone)]
pub(crate) struct Wait {
    /// The project.
    pub(crate) project: ProjectName,
    /// The commit that everything follows from.
    pub(crate) since: Revision,
    /// What shall be true.
    pub(crate) goal: Goal,
    /// For how long.
    pub(crate) timeout: Duration,
}

/// How the waiting ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The goal is reached.
    Reached,
    /// It will not be reached without a change; how things stand.
    Failed(Box<ProjectStatus>),
    /// It was not reached in time; how things stand, if that is known.
    TimedOut(Option<Box<ProjectStatus>>),
    /// The project went away meanwhile.
    Vanished,
    /// The project was removed, and applied again meanwhile.
    Returned,
    /// The user does not want to wait any longer.
    Interrupted,
}

/// How one connection ended.
enum Broken {
    /// The verdict is final.
    Ended(Ended),
    /// The connection was lost.
    Lost,
    /// The server no longer has the commits that were asked for: begin from now.
    Restart,
}

struct Watcher<'a> {
    client: &'a Client,
    clock: Clock,
    wait: &'a Wait,
    screen: &'a mut Screen,
    progress: Progress,
    judge: Judge,
    since: Option<Revision>,
    latest: Option<Box<ProjectStatus>>,
    lost: bool,
}

// === impl Wait ===

impl Wait {
    /// Waits until `accepted`, a change of `project`, has taken effect.
    pub(crate) fn for_change(project: &ProjectName, accepted: &Accepted, timeout: Duration) -> Self {
        let goal = match accepted.number {
            Some(number) => Goal::Settled(Settled { number, ..Settled::default() }),
            None => Goal::Gone(accepted.revision),
        };
        Self { project: project.clone(), since: accepted.revision, goal, timeout }
    }
}

/// Waits, showing progress.
pub(crate) async fn wait(context: &mut Context, wait: &Wait) -> Result<Ended, Failure> {
    let wait = &mut wait.clone();
    if let Goal::Settled(wanted) = &mut wait.goal
        && let Ok(stored) = context.client.project(&wait.project).await
    {
        wanted.unprobed = unprobed(&stored.spec);
    }
    let interrupt = context.interrupt.clone();
    let progress = Progress::new(context.screen.facts);
    let mut watcher = Watcher {
        client: &context.client,
        clock: context.clock,
        wait,
        screen: &mut context.screen,
        progress,
        judge: Judge::new(wait.goal.clone()),
        since: Some(wait.since),
        latest: None,
        lost: false,
    };
    let ended = watcher.run(&interrupt, Instant::now() + wait.timeout).await;
    watcher.progress.finish(watcher.screen);
    ended
}

/// The services of which only a running process says that they serve. What an image brings along is not known here.
fn unprobed(project: &Project) -> BTreeSet<ServiceName> {
    let is_probed =
        |service: &Service| service.effective_probe().is_some() || service.container.healthcheck.is_some();
    project.services.iter().filter(|(_, service)| !is_probed(service)).map(|(name, _)| name.clone()).collect()
}

// === impl Watcher ===

impl Watcher<'_> {
    async fn run(&mut self, interrupt: &Interrupt, deadline: Instant) -> Result<Ended, Failure> {
        let mut retry = FIRST_RETRY;
        loop {
            let was_lost = self.lost;
            let broken = tokio::select! {
                biased;
                () = interrupt.asked() => Ok(Broken::Ended(Ended::Interrupted)),
                broken = self.follow() => broken,
                () = sleep_until(deadline) => Ok(Broken::Ended(Ended::TimedOut(self.latest.take()))),
            };
            match broken? {
                Broken::Ended(ended) => return Ok(ended),
                Broken::Restart => self.since = None,
                Broken::Lost => {
                    if !self.lost {
                        self.progress
                            .note("the connection to the server was lost, trying again", self.screen);
                    }
                    retry = if was_lost { (retry * 2).min(LONGEST_RETRY) } else { FIRST_RETRY };
                    self.lost = true;
                    tokio::select! {
                        biased;
                        () = interrupt.asked() => return Ok(Ended::Interrupted),
                        () = sleep_until(deadline.min(Instant::now() + retry)) => {}
                    }
                }
            }
        }
    }

    /// Follows one stream until it breaks or the goal is decided.
    async fn follow(&mut self) -> Result<Broken, Failure> {
        let query = WatchQuery { since: self.since, project: Some(self.wait.project.clone()) };
        let mut items = match self.client.watch(&query).await {
            Ok(items) => items,
            Err(error) => return self.broken(error),
        };
        loop {
            match self.client.status(&self.wait.project).await {
                Ok(status) => {
                    self.back();
                    if let Some(ended) = self.see(status) {
                        return Ok(Broken::Ended(ended));
                    }
                }
                Err(CallError::Api(error)) if error.code == Code::NotFound => {
                    return Ok(Broken::Ended(self.gone()));
                }
                Err(error) => return self.broken(error),
            }
            let again = Instant::now() + LOOK_AGAIN;
            loop {
                let wake = self.judge.wake_at().map_or(again, |wake| wake.min(again));
                let item = tokio::select! {
                    biased;
                    item = items.next() => item,
                    () = sleep_until(wake) => break,
                };
                match item {
                    Some(Ok(item)) => {
                        if let Some(ended) = self.take(item) {
                            return Ok(Broken::Ended(ended));
                        }
                    }
                    Some(Err(_)) | None => return Ok(Broken::Lost),
                }
            }
        }
    }

    fn take(&mut self, item: WatchItem) -> Option<Ended> {
        match item {
            WatchItem::Status(status) if status.name == self.wait.project => self.see(status),
            WatchItem::Gone { project } if project == self.wait.project => Some(self.gone()),
            WatchItem::Bookmark { revision } => {
                self.since = Some(revision);
                None
            }
            WatchItem::Event(_) | WatchItem::Status(_) | WatchItem::Gone { .. } => None,
        }
    }

    fn see(&mut self, status: ProjectStatus) -> Option<Ended> {
        let verdict = self.judge.see(&status, Instant::now(), self.clock.now());
        self.progress.show(&status, self.screen);
        match verdict {
            Verdict::Wait => {
                self.latest = Some(Box::new(status));
                None
            }
            Verdict::Reached => Some(Ended::Reached),
            Verdict::Returned => Some(Ended::Returned),
            Verdict::Failed => Some(Ended::Failed(Box::new(status))),
        }
    }

    fn gone(&self) -> Ended {
        if matches!(self.wait.goal, Goal::Gone(_)) { Ended::Reached } else { Ended::Vanished }
    }

    fn back(&mut self) {
        if std::mem::take(&mut self.lost) {
            self.progress.note("the server is back", self.screen);
        }
    }

    fn broken(&self, error: CallError) -> Result<Broken, Failure> {
        match &error {
            error if may_pass(error) => Ok(Broken::Lost),
            CallError::Api(said)
                if self.since.is_some() && matches!(said.code, Code::Compacted | Code::FutureRevision) =>
            {
                Ok(Broken::Restart)
            }
            CallError::Transport(_)
            | CallError::Api(_)
            | CallError::Request(_)
            | CallError::Encode(_)
            | CallError::Decode(_) => Err(error.into()),
        }
    }
}

/// Whether what has been answered before may be answered again soon.
pub(crate) fn may_pass(error: &CallError) -> bool {
    match error {
        CallError::Transport(_) => true,
        CallError::Api(said) => matches!(said.code, Code::Unavailable | Code::TooMany | Code::Timeout),
        CallError::Request(_) | CallError::Encode(_) | CallError::Decode(_) => false,
    }
}

/// Makes a mutation, again with the same key while it is not known whether it took place.
pub(crate) async fn repeat<F, T>(mut attempt: F) -> Result<T, CallError>
where
    F: AsyncFnMut() -> Result<T, CallError>,
{
    const ATTEMPTS: u32 = 8;
    let mut wait = FIRST_RETRY;
    for _ in 1..ATTEMPTS {
        match attempt().await {
            Err(CallError::Transport(error)) => {
                // A server that was never reached has seen nothing: the user learns at once.
                if matches!(error, tug_api::transport::TransportError::Connect { .. }) && wait == FIRST_RETRY
                {
                    return Err(error.into());
                }
            }
            Err(CallError::Api(error)) if matches!(error.code, Code::OutcomeUnknown | Code::Unavailable) => {}
            // Other limits do not say when: a person has to make room.
            Err(CallError::Api(ApiError { code: Code::TooMany, retry_after: Some(seconds), .. })) => {
                wait = wait.max(Duration::from_secs(seconds).min(LONGEST_RETRY));
            }
            other => return other,
        }
        sleep(wait).await;
        wait = (wait * 2).min(LONGEST_RETRY);
    }
    attempt().await
}

#[cfg(test)]
mod tests;
