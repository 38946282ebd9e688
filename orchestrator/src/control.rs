//! The one loop: it looks at the world, plans, commits what was planned, and looks again.
//!
//! **Expected flow.** The store has a new revision, an agent says something new, or the time has come that the last plan
//! named: the whole world is read and planned anew. A wake-up carries no data, and several of them make one pass.
//!
//! **Guarantees.** Decisions are committed only if the projects and the nodes that they are about are still what they were
//! when they were made; otherwise the rest of the plan is thrown away and made again. A pass that decides nothing writes
//! nothing.
//!
//! When it notices that it stood still, it counts every silence anew: nobody could be heard meanwhile.
//!
//! **Assumptions.** It is the only one that decides about tasks.
//!
//! **Errors.** When the store takes no commits, the loop goes on looking, tries again ever more slowly, and still carries
//! out what makes room on a full disk.

mod execute;
mod observe;
mod pulse;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tug_api::Clock;
use tug_api::error::chain;
use tug_model::Timestamp;

use self::execute::{Batch, Overtaken};
use self::observe::Observer;
use self::pulse::Pulse;
use crate::metrics::PlannerLevels;
use crate::plan::{self, Grants, Observed, Plan, Timing, View, World};
use crate::store::{CommitError, State, Store};
use crate::world::world;

/// So many decisions are one commit: others' come between, and wait for no longer than for one of these.
const MOST_DECISIONS: usize = 1_000;
/// So many commits are made of one plan; the rest follows in the next pass, which comes at once.
const MOST_COMMITS: usize = 128;
/// What was observed is recorded at most so often.
const RECORD_EVERY: Duration = Duration::from_millis(200);
/// The wait after a commit that failed; it doubles up to [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// After a pass the loop rests for so many times as long as the planning took: it takes half of a processor, and what comes
/// meanwhile makes one pass. A small cluster is planned in a millisecond; a thousand nodes' passes would otherwise
/// follow one upon the other while they are told what the last one decided.
const REST: u32 = 1;
/// It rests no longer than this: somebody waits for what comes next.
const LONGEST_REST: Duration = Duration::from_millis(500);

/// The control loop.
#[derive(Debug)]
pub struct Control {
    store: Store,
    states: watch::Receiver<Arc<State>>,
    observed: watch::Receiver<Arc<Observed>>,
    clock: Clock,
    view: watch::Sender<Arc<View>>,
    levels: watch::Sender<PlannerLevels>,
    grants: watch::Sender<Arc<Grants>>,
    observer: Observer,
    timing: Timing,
    /// Since when it has been looking without a break.
    since: Timestamp,
    pulse: Pulse,
    recorded_at: Option<Instant>,
    /// How long the last pass looked and planned.
    planned_for: Duration,
    most_decisions: usize,
    wait: Duration,
    /// The error that was logged last, so that it is logged once.
    complaint: Option<CommitError>,
}

/// What the loop publishes.
#[derive(Debug, Clone)]
pub struct Handle {
    view: watch::Receiver<Arc<View>>,
    levels: watch::Receiver<PlannerLevels>,
    grants: watch::Receiver<Arc<Grants>>,
}

/// What follows a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// Something may wake the loop; at the latest this does.
    Wait(Option<Instant>),
    /// The store is closed.
    End,
}

/// Why not all of a plan was carried out.
#[derive(Debug, thiserror::Error)]
enum Undone {
    /// What it is about is another one meanwhile.
    #[error("a project or a node changed meanwhile")]
    Overtaken,
    /// The store took no commit.
    #[error(transparent)]
    Refused(#[from] CommitError),
}

// === impl Handle ===

impl Handle {
    /// The world that was looked at last, with what was decided about it.
    pub fn view(&self) -> watch::Receiver<Arc<View>> {
        self.view.clone()
    }

    /// Which leases may be given out by the world that was looked at last.
    pub fn grants(&self) -> watch::Receiver<Arc<Grants>> {
        self.grants.clone()
    }

    /// What the planner has done so far.
    pub fn levels(&self) -> watch::Receiver<PlannerLevels> {
        self.levels.clone()
    }
}

// === impl Control ===

impl Control {
    /// A loop over a store and over what the nodes observe.
    pub fn new(
        store: Store,
        observed: watch::Receiver<Arc<Observed>>,
        clock: Clock,
        timing: Timing,
    ) -> (Self, Handle) {
        let (view, view_watch) = watch::channel(Arc::default());
        let (levels, levels_watch) = watch::channel(PlannerLevels::default());
        let (grants, grants_watch) = watch::channel(Arc::default());
        let states = store.watch();
        let told = Observer::after(states.borrow().events.values().map(Arc::as_ref));
        let control = Self {
            states,
            store,
            observed,
            clock,
            view,
            levels,
            grants,
            observer: told,
            timing,
            since: clock.now(),
            pulse: Pulse::new(),
            recorded_at: None,
            planned_for: Duration::ZERO,
            most_decisions: MOST_DECISIONS,
            wait: FIRST_WAIT,
            complaint: None,
        };
        (control, Handle { view: view_watch, levels: levels_watch, grants: grants_watch })
    }

    /// Keeps the world as it is wanted, until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        (self.since, self.pulse) = (self.clock.now(), Pulse::new());
        loop {
            let next = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                next = self.pass() => next,
            };
            let Next::Wait(at) = next else { break };
            let rest = (self.planned_for * REST).min(LONGEST_REST);
            let woken = async {
                sleep(rest).await;
                self.wake_up(at).await;
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = woken => {}
            }
        }
    }

    /// Returns when there may be something to do.
    async fn wake_up(&mut self, at: Option<Instant>) {
        let alarm = async {
            match at {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(alarm);
        loop {
            tokio::select! {
                biased;
                true = changed(&mut self.states) => return,
                true = changed(&mut self.observed) => return,
                () = &mut alarm => return,
                () = sleep(pulse::EVERY) => {}
            }
            self.beat();
        }
    }

    /// Notes that time goes on, and whether it went on without us.
    fn beat(&mut self) {
        let Some(gap) = self.pulse.beat() else { return };
        self.since = self.clock.now();
        tracing::warn!(seconds = gap.as_secs(), "the control plane stood still");
        self.observer.stood_still(gap.into(), self.since);
    }

    /// Looks, plans, commits.
    async fn pass(&mut self) -> Next {
        let begun = Instant::now();
        self.beat();
        let state = Arc::clone(&self.states.borrow_and_update());
        let observed = Arc::clone(&self.observed.borrow_and_update());
        let now = self.clock.now();
        let world = World { since: self.since, timing: self.timing, ..world(&state, &observed) };
        self.observer.look(&world, now);
        let plan = Arc::new(plan::plan(&world, now));
        self.grant(plan::grants(&world));
        self.observer.look_at_brake(plan.brake.as_deref(), now);
        self.planned_for = begun.elapsed();
        self.levels.send_modify(|levels| {
            levels.passes += 1;
            levels.last_micros = u64::try_from(self.planned_for.as_micros()).unwrap_or(u64::MAX);
        });
        self.view.send_replace(Arc::new(View { world: world.clone(), plan: Arc::clone(&plan), at: now }));
        match self.carry_out(world, &plan, now).await {
            Ok(()) => {
                self.wait = FIRST_WAIT;
                self.complaint = None;
                Next::Wait(self.next_look(&plan, now))
            }
            Err(Undone::Refused(CommitError::Closed)) => Next::End,
            // What has changed has woken the loop.
            Err(Undone::Overtaken) => Next::Wait(Some(Instant::now() + FIRST_WAIT)),
            Err(Undone::Refused(error)) => Next::Wait(Some(self.after(error))),
        }
    }

    /// Says which leases may be given out. It must be said before anything is committed that was decided on the same world:
    /// from then on nobody goes by an older one.
    fn grant(&self, grants: Grants) {
        self.grants.send_if_modified(|known| {
            let is_new = **known != grants;
            if is_new {
                *known = Arc::new(grants);
            }
            is_new
        });
    }

    /// Commits what was decided, and what was observed along with it or when it is due.
    ///
    /// A large plan is several commits, one after the other, so that others' come between; the first that fails is the last.
    async fn carry_out(&mut self, world: World, plan: &Plan, now: Timestamp) -> Result<(), Undone> {
        if plan.decisions.is_empty() {
            return Ok(self.record(now).await?);
        }
        let mut events = self.observer.pending();
        let mut made = 0;
        for decisions in plan.decisions.chunks(self.most_decisions).take(MOST_COMMITS) {
            for decision in decisions {
                tracing::debug!(%decision, "decided");
            }
            let events = std::mem::take(&mut events);
            match self.commit(Batch::new(world.clone(), decisions.to_vec(), events, now)).await {
                Ok(()) => made += decisions.len(),
                Err(Undone::Refused(CommitError::Full)) if made == 0 => {
                    return self.make_room(world, plan, now).await;
                }
                Err(undone) => return Err(undone),
            }
            self.recorded();
        }
        self.most_decisions = MOST_DECISIONS;
        Ok(())
    }

    /// Commits those decisions that a full disk takes.
    async fn make_room(&mut self, world: World, plan: &Plan, now: Timestamp) -> Result<(), Undone> {
        let batch = Batch::new(world, plan.decisions.clone(), Vec::new(), now);
        match batch.shrinking(self.most_decisions) {
            Some(shrinking) => self.commit(shrinking).await,
            None => Err(CommitError::Full.into()),
        }
    }

    async fn commit(&self, batch: Batch) -> Result<(), Undone> {
        let (count, now) = (batch.len(), batch.now());
        let changes = move |revision, state: &State| batch.changes(revision, state);
        self.store.try_commit(now, changes).await?.map_err(|Overtaken| Undone::Overtaken)?;
        self.levels.send_modify(|levels| levels.decisions += count as u64);
        Ok(())
    }

    /// Commits what was observed, if it is due.
    async fn record(&mut self, now: Timestamp) -> Result<(), CommitError> {
        if self.observer.pending().is_empty() || self.record_due() > Instant::now() {
            return Ok(());
        }
        let events = self.observer.pending();
        let committed = self.store.commit(now, move |_, _| execute::records(events)).await;
        match committed {
            // Events are worth no room that is not there.
            Ok(_) | Err(CommitError::Full) => {
                self.recorded();
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn record_due(&self) -> Instant {
        self.recorded_at.map_or_else(Instant::now, |at| at + RECORD_EVERY)
    }

    fn recorded(&mut self) {
        self.observer.clear();
        self.recorded_at = Some(Instant::now());
    }

    /// When to look again although nothing changed.
    fn next_look(&self, plan: &Plan, now: Timestamp) -> Option<Instant> {
        let planned = plan.wake_at.map(|at| Instant::now() + at.since(now).duration());
        let record = (!self.observer.pending().is_empty()).then(|| self.record_due());
        match (planned, record) {
            (Some(planned), Some(record)) => Some(planned.min(record)),
            (planned, record) => planned.or(record),
        }
    }

    /// When to try again after a commit that failed, if nothing wakes the loop before.
    fn after(&mut self, error: CommitError) -> Instant {
        match &error {
            CommitError::TooLarge { .. } if self.most_decisions > 1 => {
                self.most_decisions /= 2;
                return Instant::now();
            }
            CommitError::TooLarge { .. }
            | CommitError::Full
            | CommitError::ReadOnly { .. }
            | CommitError::Unknown { .. }
            | CommitError::Closed => {}
        }
        if self.complaint.as_ref() != Some(&error) {
            tracing::warn!(error = chain(&error), "carry out a plan");
            self.complaint = Some(error);
        }
        let wait = self.wait;
        self.wait = (wait * 2).min(LONGEST_WAIT);
        Instant::now() + wait
    }
}

/// Whether there is a new value; never returns when there will be none any more.
async fn changed<T>(values: &mut watch::Receiver<T>) -> bool {
    if values.changed().await.is_err() {
        return std::future::pending().await;
    }
    true
}

#[cfg(test)]
mod tests;
