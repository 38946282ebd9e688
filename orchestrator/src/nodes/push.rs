//! Telling an agent what its node shall run, whenever that is something new.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;
use tug_api::client::CallError;
use tug_api::error::chain;
use tug_model::assignment::Assignment;

use super::session::Session;
use crate::plan;
use crate::store::State;
use crate::world::world;

/// How long an agent has to acknowledge.
const ACKNOWLEDGE: Duration = Duration::from_secs(10);
/// The wait after the first failure; it doubles up to [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// What an agent has acknowledged.
#[derive(Debug)]
struct Acknowledged {
    /// The state that it was computed from, or a later one that gives the same.
    state: Arc<State>,
    assignment: Assignment,
}

/// What came of one look at the state.
enum Outcome {
    /// The agent follows this state.
    Follows,
    /// It does not: it refused or could not be reached.
    Failed,
}

impl Session {
    /// Keeps the agent at the newest assignment. Does not end by itself.
    pub(super) async fn push(&self) {
        let mut states = self.shared.store.watch();
        let mut acknowledged = None;
        let mut wait = FIRST_WAIT;
        loop {
            let state = Arc::clone(&states.borrow_and_update());
            match self.bring_to(state, &mut acknowledged).await {
                Outcome::Follows => {
                    wait = FIRST_WAIT;
                    tokio::select! {
                        biased;
                        () = self.again.notified() => acknowledged = None,
                        () = changed(&mut states) => {}
                    }
                }
                // The next try takes the newest state, so nothing is lost by waiting it out.
                Outcome::Failed => {
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(LONGEST_WAIT);
                }
            }
        }
    }

    async fn bring_to(&self, state: Arc<State>, acknowledged: &mut Option<Acknowledged>) -> Outcome {
        if let Some(known) = acknowledged
            && known.state.tasks.ptr_eq(&state.tasks)
            && known.state.projects.ptr_eq(&state.projects)
            && known.state.templates.ptr_eq(&state.templates)
        {
            self.shared.acknowledged(self, None, state.revision);
            return Outcome::Follows;
        }
        let wanted =
            plan::assignment(&world(&state, &Arc::default()), &state.cluster, state.epoch, &self.node);
        if let Some(known) = acknowledged
            && known.assignment.same_content(&wanted)
        {
            self.shared.acknowledged(self, None, state.revision);
            known.state = state;
            return Outcome::Follows;
        }
        // Until the answer is here it is not known which of the two the agent follows.
        *acknowledged = None;
        match timeout(ACKNOWLEDGE, self.client.assign(&wanted)).await {
            Ok(Ok(())) => {
                self.shared.acknowledged(self, Some(wanted.generation), state.revision);
                *acknowledged = Some(Acknowledged { state, assignment: wanted });
                Outcome::Follows
            }
            // Whatever the agent says, people must hear of it: it will not do what it is told.
            Ok(Err(CallError::Api(error))) => {
                self.shared.deaf(self, &error.message);
                if self.shared.refused(self, &error.message) {
                    tracing::warn!(node = %self.node, reason = error.message, "an agent does not obey");
                    self.record_refusal(&error.message).await;
                }
                Outcome::Failed
            }
            Ok(Err(error)) => {
                self.shared.deaf(self, &chain(&error));
                tracing::warn!(node = %self.node, error = chain(&error), "send an assignment");
                Outcome::Failed
            }
            Err(_) => {
                self.shared.deaf(self, "it did not acknowledge it in time");
                tracing::warn!(node = %self.node, "an agent did not acknowledge its assignment in time");
                Outcome::Failed
            }
        }
    }
}

async fn changed(states: &mut watch::Receiver<Arc<State>>) {
    if states.changed().await.is_err() {
        // The store is closed; the session will be, too.
        std::future::pending::<()>().await;
    }
}
