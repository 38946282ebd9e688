//! The one writer: takes what waits, makes it a group, has it written, publishes, answers.

use std::fmt;
use std::io;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::CancellationToken;
use tug_model::{Revision, Timestamp};

use super::backend::{Backend, Group, Opened};
use super::change::{Change, Committed, makes_room};
use super::entry::Mark;
use super::error::CommitError;
use super::history::History;
use super::journal::{self, AppendError, GROUP_BYTES};
use super::state::State;
use super::{Blocking, Condition, Config, Store};

/// So many commits make a group at most.
const GROUP_COMMITS: usize = 64;
/// So many commits may wait before those who bring more wait themselves.
const QUEUE: usize = 1_024;
/// A commit is at most so large as JSON.
pub(super) const COMMIT_BYTES: usize = 4 << 20;

/// Makes changes of the commit's revision and the state; `None` refuses.
pub(super) type Build = Box<dyn FnOnce(Revision, &State) -> Option<Vec<Change>> + Send>;

type Answer = Result<Option<Revision>, CommitError>;

/// A commit that somebody waits for.
pub(super) struct Request {
    pub(super) now: Timestamp,
    pub(super) build: Build,
    pub(super) answer: oneshot::Sender<Answer>,
}

/// The component that makes commits. Without it running, commits wait.
#[derive(Debug)]
pub struct Writer {
    requests: mpsc::Receiver<Request>,
    state: watch::Sender<Arc<State>>,
    condition: watch::Sender<Condition>,
    history: Arc<History>,
    /// `None`: it is being used, or it was lost with a thread that panicked.
    backend: Option<Backend>,
    blocking: Blocking,
    export_every: u64,
    exporting: Option<JoinHandle<io::Result<Mark>>>,
    /// No export is tried before this commit.
    export_from: Revision,
}

/// Commits on their way to the disk.
#[derive(Default)]
struct Pending {
    commits: Vec<Arc<Committed>>,
    /// The same commits as JSON.
    written: Vec<Vec<u8>>,
    bytes: usize,
    /// Who waits, and for what; an answer waits for the commits that it was found behind.
    answers: Vec<(oneshot::Sender<Answer>, Answer)>,
}

/// What a request comes to.
enum Prepared {
    /// It refused itself.
    Refused,
    /// It changes nothing.
    Nothing,
    /// A commit, and the same as JSON.
    Commit(Committed, Vec<u8>),
}

// === impl Writer ===

impl Writer {
    pub(super) fn new(config: &Config, opened: Opened) -> (Store, Self) {
        let Opened { backend, state, commits } = opened;
        let (requests, received) = mpsc::channel(QUEUE);
        let history = Arc::new(History::new(commits, state.revision, config.history));
        let full = if backend.is_full() { Condition::Full } else { Condition::Writable };
        let (condition, condition_watch) = watch::channel(full);
        let export_from = Revision(backend.exported().0 + config.export_every);
        let (state, state_watch) = watch::channel(Arc::new(state));
        let store =
            Store { requests, state: state_watch, condition: condition_watch, history: Arc::clone(&history) };
        let writer = Self {
            requests: received,
            state,
            condition,
            history,
            backend: Some(backend),
            blocking: config.blocking,
            export_every: config.export_every,
            exporting: None,
            export_from,
        };
        (store, writer)
    }

    /// Makes commits until `shutdown`; then those that wait already, an export, and an end. What is asked for later is
    /// answered with [`CommitError::Closed`].
    pub async fn run(mut self, shutdown: CancellationToken) {
        loop {
            let request = tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                Some(exported) = wait(&mut self.exporting) => {
                    self.exporting = None;
                    self.finish_export(exported).await;
                    continue;
                }
                request = self.requests.recv() => request,
            };
            let Some(request) = request else { break };
            self.commit_group(request).await;
            self.export_if_due().await;
        }
        self.requests.close();
        while let Ok(request) = self.requests.try_recv() {
            self.commit_group(request).await;
        }
        self.close().await;
    }

    async fn commit_group(&mut self, first: Request) {
        if matches!(*self.condition.borrow(), Condition::Full) {
            let state = Arc::clone(&self.state.borrow());
            self.with_backend(move |backend| backend.take_room(&state)).await;
            self.publish_room();
        }
        let before = Arc::clone(&self.state.borrow());
        let mut after = (*before).clone();
        let mut pending = Pending::default();
        let mut next = Some(first);
        while let Some(request) = next {
            self.prepare(request, &mut after, &mut pending);
            let closed = pending.answers.len() >= GROUP_COMMITS || pending.bytes >= GROUP_BYTES;
            next = if closed { None } else { self.requests.try_recv().ok() };
        }
        if pending.commits.is_empty() {
            return pending.answer(|answer| answer);
        }
        let after = Arc::new(after);
        let group = Group { payload: journal::group(&pending.written), before, after: Arc::clone(&after) };
        let stored = self.with_backend(move |backend| backend.store(&group)).await;
        self.publish_room();
        match stored {
            Some(Ok(())) => {
                self.history.extend(pending.commits.iter().cloned());
                self.state.send_replace(after);
                pending.answer(|answer| answer);
            }
            Some(Err(AppendError::Full)) => pending.answer(|answer| answer.and(Err(CommitError::Full))),
            Some(Err(AppendError::Broken { source })) => self.fail(pending, source.to_string()),
            None => self.fail(pending, "the thread that writes panicked".to_owned()),
        }
    }

    /// Checks a commit, and adds it to the group if it is to be made.
    fn prepare(&self, request: Request, after: &mut State, pending: &mut Pending) {
        let Request { now, build, answer } = request;
        let result = self.try_prepare(now, build, after).map(|prepared| match prepared {
            Prepared::Refused => None,
            Prepared::Nothing => Some(after.revision),
            Prepared::Commit(commit, json) => {
                after.apply(commit.revision, &commit.changes);
                pending.bytes += json.len();
                pending.written.push(json);
                pending.commits.push(Arc::new(commit));
                Some(after.revision)
            }
        });
        pending.answers.push((answer, result));
    }

    fn try_prepare(&self, now: Timestamp, build: Build, state: &State) -> Result<Prepared, CommitError> {
        let condition = self.condition.borrow().clone();
        if let Condition::ReadOnly { reason } = condition {
            return Err(CommitError::ReadOnly { reason });
        }
        let revision = state.revision.next();
        let changes = match build(revision, state) {
            None => return Ok(Prepared::Refused),
            Some(changes) if changes.is_empty() => return Ok(Prepared::Nothing),
            Some(changes) => changes,
        };
        if condition == Condition::Full && !makes_room(state, &changes) {
            return Err(CommitError::Full);
        }
        let changes = changes.into_iter().map(|change| change.stamped(revision)).collect();
        let commit = Committed { revision, at: now, changes };
        let json = serde_json::to_vec(&commit).expect("a commit holds nothing that JSON cannot");
        if json.len() > COMMIT_BYTES {
            return Err(CommitError::TooLarge { size: json.len(), limit: COMMIT_BYTES });
        }
        Ok(Prepared::Commit(commit, json))
    }

    /// After this, nothing is known about the disk, and nothing is committed any more.
    fn fail(&self, pending: Pending, reason: String) {
        tracing::error!(
            reason,
            "the store is read-only from now on: restart the daemon once the disk is well"
        );
        pending.answer(|answer| answer.and_then(|_| Err(CommitError::Unknown { reason: reason.clone() })));
        self.condition.send_replace(Condition::ReadOnly { reason });
    }

    /// Publishes whether there is room, where that changed.
    fn publish_room(&self) {
        let Some(backend) = &self.backend else { return };
        let now = if backend.is_full() { Condition::Full } else { Condition::Writable };
        self.condition.send_if_modified(|condition| {
            let changed = *condition != now && !matches!(condition, Condition::ReadOnly { .. });
            if changed {
                *condition = now;
            }
            changed
        });
    }

    async fn export_if_due(&mut self) {
        let state = Arc::clone(&self.state.borrow());
        let writable = matches!(*self.condition.borrow(), Condition::Writable);
        if state.revision < self.export_from || self.exporting.is_some() || !writable {
            return;
        }
        let Some(export) = self.backend.as_ref().map(|backend| backend.export(&state)) else { return };
        // Should it fail, it is tried again after a while.
        self.export_from = Revision(state.revision.0 + self.export_every.div_ceil(10));
        match self.blocking {
            Blocking::Inline => self.finish_export(export.write()).await,
            Blocking::Thread => self.exporting = Some(tokio::task::spawn_blocking(move || export.write())),
        }
    }

    async fn finish_export(&mut self, exported: io::Result<Mark>) {
        match exported {
            Ok(mark) => {
                self.export_from = Revision(mark.revision.0 + self.export_every);
                let state = Arc::clone(&self.state.borrow());
                self.with_backend(move |backend| backend.exported_to(mark, &state)).await;
            }
            Err(error) => tracing::warn!(%error, "the export cannot be written"),
        }
    }

    async fn close(mut self) {
        if let Some(exported) = wait(&mut self.exporting).await {
            self.finish_export(exported).await;
        }
        if self.is_read_only() {
            return;
        }
        let state = Arc::clone(&self.state.borrow());
        let exported = self
            .with_backend({
                let state = Arc::clone(&state);
                move |backend| backend.lacks_export(&state).then(|| backend.export(&state).write())
            })
            .await;
        if let Some(Some(exported)) = exported {
            self.finish_export(exported).await;
        }
        if let Some(backend) = self.backend.take() {
            let closing = move || backend.close(&state);
            let closed = match self.blocking {
                Blocking::Inline => closing(),
                Blocking::Thread => joined(tokio::task::spawn_blocking(closing).await),
            };
            if let Err(error) = closed {
                tracing::warn!(%error, "the store was not closed well; the next start finds everything");
            }
        }
    }

    fn is_read_only(&self) -> bool {
        matches!(*self.condition.borrow(), Condition::ReadOnly { .. })
    }

    /// Does disk work where the configuration wants it. `None`: there is no backend, or there is none any more.
    async fn with_backend<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Backend) -> T + Send + 'static,
    ) -> Option<T> {
        let mut backend = self.backend.take()?;
        let (backend, result) = match self.blocking {
            Blocking::Inline => {
                let result = work(&mut backend);
                (backend, result)
            }
            Blocking::Thread => {
                let working = move || {
                    let result = work(&mut backend);
                    (backend, result)
                };
                tokio::task::spawn_blocking(working).await.ok()?
            }
        };
        self.backend = Some(backend);
        Some(result)
    }
}

// === impl Pending ===

impl Pending {
    /// Answers everybody; nobody may be waiting any more.
    fn answer(self, settle: impl Fn(Answer) -> Answer) {
        for (waiting, answer) in self.answers {
            drop(waiting.send(settle(answer)));
        }
    }
}

// === impl Debug ===

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request").field("now", &self.now).finish_non_exhaustive()
    }
}

/// The outcome of the running export; at once `None` if there is none.
async fn wait(exporting: &mut Option<JoinHandle<io::Result<Mark>>>) -> Option<io::Result<Mark>> {
    Some(joined(exporting.as_mut()?.await))
}

fn joined<T>(result: Result<io::Result<T>, JoinError>) -> io::Result<T> {
    result.unwrap_or_else(|error| Err(io::Error::other(error)))
}
