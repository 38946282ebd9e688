//! How a mutation is made: once, only on what it was meant for, and answered only when it is on disk.
//!
//! The answer is kept in the same commit as the change, under the idempotency key that came with the request, so there
//! is no moment at which one is there without the other.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};
use tug_api::error::chain;
use tug_api::user::Accepted;
use tug_api::{ApiError, Code};
use tug_model::{ProjectName, Revision, Timestamp};

use super::Context;
use super::accept::Decided;
use super::extract::Guarded;
use crate::store::{Change, CommitError, Remembered, State};

/// After this long it is not known whether the disk will ever answer.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(30);

/// A mutation of one project.
#[derive(Debug)]
pub(super) struct Mutation {
    project: ProjectName,
    guarded: Guarded,
    fingerprint: String,
}

/// Why nothing is written.
#[derive(Debug)]
enum Stop {
    /// The same request was answered before, with this.
    Replay(Accepted),
    /// It is wrong.
    Refused(ApiError),
}

// === impl Mutation ===

impl Mutation {
    /// With `body`, what `guarded` says makes a request the same as another one.
    pub(super) fn new(project: ProjectName, guarded: Guarded, body: &Bytes) -> Self {
        let mut hasher = blake3::Hasher::new();
        let condition = guarded.if_revision.map(|revision| revision.to_string()).unwrap_or_default();
        for part in [guarded.method.as_str().as_bytes(), guarded.path.as_bytes(), condition.as_bytes(), body]
        {
            hasher.update(&(part.len() as u64).to_be_bytes());
            hasher.update(part);
        }
        let fingerprint = hasher.finalize().to_hex().chars().take(32).collect();
        Self { project, guarded, fingerprint }
    }

    /// Commits what `decide` makes of the state.
    pub(super) async fn make<D>(self, context: &Context, decide: D) -> Result<Accepted, ApiError>
    where
        D: FnOnce(&State, Timestamp) -> Result<Decided, ApiError> + Send + 'static,
    {
        let started = Instant::now();
        let now = context.clock.now();
        let answer = Arc::new(OnceLock::new());
        let given = Arc::clone(&answer);
        let build = move |revision: Revision, state: &State| {
            let (changes, accepted) = self.build(revision, state, now, decide)?;
            given.get_or_init(|| accepted);
            Ok::<_, Stop>(changes)
        };
        let made = timeout(COMMIT_TIMEOUT, context.store.try_commit(now, build)).await;
        let result = match made {
            Err(_) => Err(unknown("the disk did not answer in time")),
            Ok(Err(error)) => Err(refused(&error)),
            Ok(Ok(Err(Stop::Refused(error)))) => Err(error),
            Ok(Ok(Err(Stop::Replay(accepted)))) => Ok(accepted),
            Ok(Ok(Ok(_))) => answer.get().cloned().ok_or_else(|| unknown("the store gave no answer")),
        };
        let label = result.as_ref().map_or_else(|error| error.code.status(), |_| http::StatusCode::OK);
        context.metrics.committed(if label.is_success() { "ok" } else { "refused" }, started.elapsed());
        result
    }

    fn build<D>(
        self,
        revision: Revision,
        state: &State,
        now: Timestamp,
        decide: D,
    ) -> Result<(Vec<Change>, Accepted), Stop>
    where
        D: FnOnce(&State, Timestamp) -> Result<Decided, ApiError>,
    {
        if let Some(earlier) = self.guarded.key.as_ref().and_then(|key| state.idempotency.get(key))
            && now.since(earlier.at) <= State::REMEMBERED_FOR
        {
            return Err(self.again(earlier));
        }
        self.check_revision(state).map_err(Stop::Refused)?;
        let Decided { mut changes, number } = decide(state, now).map_err(Stop::Refused)?;
        let changed = !changes.is_empty();
        let revision = if changed { revision } else { state.revision };
        let accepted = Accepted { revision, number, changed };
        if let Some(key) = self.guarded.key.filter(|_| changed) {
            let body = serde_json::to_value(&accepted).expect("an answer is plain JSON");
            let remembered = Remembered { key, fingerprint: self.fingerprint, status: 200, body, at: now };
            changes.push(Change::Remember(Arc::new(remembered)));
        }
        Ok((changes, accepted))
    }

    fn again(&self, earlier: &Remembered) -> Stop {
        if earlier.fingerprint != self.fingerprint {
            let message = "this idempotency key came with another request before";
            let hint = "use a new key for every new request";
            return Stop::Refused(ApiError::new(Code::IdempotencyMismatch, message).hint(hint));
        }
        match serde_json::from_value(earlier.body.clone()) {
            Ok(accepted) => Stop::Replay(accepted),
            Err(_) => Stop::Refused(ApiError::new(
                Code::Conflict,
                "this request was answered before, by another version of Tug; look at what there is now",
            )),
        }
    }

    fn check_revision(&self, state: &State) -> Result<(), ApiError> {
        let Some(wanted) = self.guarded.if_revision else { return Ok(()) };
        let found = state.projects.get(&self.project).map_or(Revision(0), |project| project.revision);
        if wanted == found {
            return Ok(());
        }
        let name = &self.project;
        let message = match (wanted.0, found.0) {
            (_, 0) => format!("there is no project `{name}` any more; it was expected at revision {wanted}"),
            (0, _) => format!("there is a project `{name}` already, at revision {found}"),
            (..) => format!("`{name}` changed meanwhile: it is at revision {found}, expected was {wanted}"),
        };
        Err(ApiError::new(Code::Conflict, message).hint("look at what changed, then ask again"))
    }
}

/// Commits what `decide` makes of the state, and gives what else it says. For what is not a mutation of a project.
pub(super) async fn commit<T, D>(context: &Context, decide: D) -> Result<T, ApiError>
where
    T: Send + Sync + 'static,
    D: FnOnce(&State) -> Result<(Vec<Change>, T), ApiError> + Send + 'static,
{
    let (tell, told) = oneshot::channel();
    let build = move |_: Revision, state: &State| {
        let (changes, answer) = decide(state)?;
        // Whoever asked waits below; without it nobody wants to know.
        drop(tell.send(answer));
        Ok::<_, ApiError>(changes)
    };
    let now = context.clock.now();
    match timeout(COMMIT_TIMEOUT, context.store.try_commit(now, build)).await {
        Err(_) => Err(unknown("the disk did not answer in time")),
        Ok(Err(error)) => Err(refused(&error)),
        Ok(Ok(Err(error))) => Err(error),
        Ok(Ok(Ok(_))) => told.await.map_err(|_| unknown("the store gave no answer")),
    }
}

/// Why the store took nothing, for the caller.
fn refused(error: &CommitError) -> ApiError {
    match error {
        CommitError::Full => {
            ApiError::new(Code::StoreFull, error.to_string()).hint("make room, or remove projects")
        }
        CommitError::TooLarge { .. } => ApiError::new(Code::TooLarge, error.to_string()),
        CommitError::ReadOnly { .. } => ApiError::new(Code::Unavailable, error.to_string())
            .hint("the orchestrator's log says why; it has to be restarted"),
        CommitError::Unknown { .. } | CommitError::Closed => unknown(&chain(error)),
    }
}

fn unknown(reason: &str) -> ApiError {
    ApiError::new(Code::OutcomeUnknown, format!("it is not known whether this was done: {reason}"))
        .hint("ask again with the same idempotency key")
}
