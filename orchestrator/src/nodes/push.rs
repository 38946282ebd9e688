//! Telling an agent what its node shall run and who serves behind the published ports, whenever that is something new.

use std::time::Duration;

use tokio::time::{sleep, timeout};
use tug_api::client::CallError;
use tug_api::error::chain;
use tug_model::Revision;
use tug_model::endpoints::Stamp;

use super::Told;
use super::session::Session;
use crate::plan;
use crate::world::world;

/// How long an agent has to answer.
const ACKNOWLEDGE: Duration = Duration::from_secs(10);
/// The wait after the first failure; it doubles up to [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// After an agent was told something, its session rests for so long for each agent that is connected, and what is new
/// meanwhile is told together: about as much time as it takes to tell all of them. A few agents hear of everything at once;
/// of a thousand, each would otherwise be told its whole assignment once for every commit.
const REST_FOR_EACH: Duration = Duration::from_millis(1);
/// It rests no longer than this.
const LONGEST_REST: Duration = Duration::from_secs(1);

/// What the agent of a session is known to have.
#[derive(Debug, Default)]
struct Had {
    /// The generation of its assignment.
    assignment: Option<Revision>,
    endpoints: Option<HadEndpoints>,
}

/// The endpoints that an agent is known to have.
#[derive(Debug, Clone, Copy)]
struct HadEndpoints {
    /// Their generation, as the agent reports it.
    generation: Revision,
    /// The newest commit as of which they are complete.
    complete: Revision,
}

/// Why an agent was not told something.
#[derive(Debug, thiserror::Error)]
enum Untold {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("it did not answer in time")]
    Silent(#[from] tokio::time::error::Elapsed),
}

impl Session {
    /// Keeps the agent at the newest state. Does not end by itself.
    pub(super) async fn push(&self) {
        let mut had = Had::default();
        let mut wait = FIRST_WAIT;
        loop {
            match self.level(&mut had).await {
                Ok(()) => {
                    wait = FIRST_WAIT;
                    sleep(self.rest()).await;
                    tokio::select! {
                        biased;
                        () = self.wake.again.notified() => had = Had::default(),
                        () = self.wake.news.notified() => {}
                    }
                }
                // The next try takes the newest state, so nothing is lost by waiting it out.
                Err(untold) => {
                    self.complain(&untold).await;
                    sleep(wait).await;
                    wait = (wait * 2).min(LONGEST_WAIT);
                }
            }
        }
    }

    fn rest(&self) -> Duration {
        let connected = self.shared.known().connected();
        u32::try_from(connected).map_or(LONGEST_REST, |count| (REST_FOR_EACH * count).min(LONGEST_REST))
    }

    /// Tells the agent everything that it does not know yet.
    async fn level(&self, had: &mut Had) -> Result<(), Untold> {
        let revision = self.shared.board().revision();
        let assignment = self.tell_assignment(had).await?;
        let endpoints = self.tell_endpoints(had).await?;
        self.shared.acknowledged(self, Told { assignment, endpoints }, revision);
        Ok(())
    }

    /// Says which assignment the agent has afterwards.
    async fn tell_assignment(&self, had: &mut Had) -> Result<Revision, Untold> {
        let news = self.shared.board().tasks(&self.node, had.assignment);
        let Some((state, ids)) = news else { return Ok(had.assignment.unwrap_or_default()) };
        let tasks = ids.iter().filter_map(|id| state.tasks.get(id)).map(AsRef::as_ref);
        let nothing_observed = std::sync::Arc::default();
        let world = world(&state, &nothing_observed);
        let mut wanted = plan::assignment(&world, &state.cluster, state.epoch, &self.node, tasks);
        wanted.run = Some(self.shared.run);
        // Until the answer is here it is not known which of the two the agent follows.
        had.assignment = None;
        self.shared.telling(self);
        timeout(ACKNOWLEDGE, self.client.assign(&wanted)).await??;
        had.assignment = Some(wanted.generation);
        Ok(wanted.generation)
    }

    /// Says which endpoints the agent has afterwards.
    async fn tell_endpoints(&self, had: &mut Had) -> Result<Revision, Untold> {
        let (mut stamp, news) = self.new_endpoints(had).await?;
        stamp.run = Some(self.shared.run);
        let known = had.endpoints.take();
        let complete = stamp.generation;
        let generation = match known {
            Some(known) if news.is_empty() => known.generation,
            Some(_) | None => {
                self.shared.telling(self);
                timeout(ACKNOWLEDGE, self.client.tell_endpoints(&stamp, news)).await??;
                complete
            }
        };
        had.endpoints = Some(HadEndpoints { generation, complete });
        Ok(generation)
    }

    /// The endpoints that the agent lacks, and as of which commit they are. Of an agent of which nothing is known, it is
    /// asked.
    async fn new_endpoints(
        &self,
        had: &mut Had,
    ) -> Result<(Stamp, Vec<tug_api::node::EndpointsLine>), Untold> {
        if let Some(known) = had.endpoints {
            let mut board = self.shared.board();
            if let Some(news) = board.endpoints_since(known.complete) {
                return Ok((board.stamp(), news));
            }
        }
        let known = timeout(ACKNOWLEDGE, self.client.known_endpoints()).await??;
        let mut board = self.shared.board();
        let generation = known.generation;
        had.endpoints = Some(HadEndpoints { generation, complete: Revision(0) });
        Ok((board.stamp(), board.endpoints_beside(&known)))
    }

    /// Whatever the agent says, people must hear of it: it will not do what it is told.
    async fn complain(&self, untold: &Untold) {
        let Untold::Call(CallError::Api(error)) = untold else {
            self.shared.deaf(self, &chain(untold));
            tracing::warn!(node = %self.node, error = chain(untold), "tell an agent what to do");
            return;
        };
        self.shared.deaf(self, &error.message);
        if self.shared.refused(self, &error.message) {
            tracing::warn!(node = %self.node, reason = error.message, "an agent does not obey");
            self.record_refusal(&error.message).await;
        }
    }
}
