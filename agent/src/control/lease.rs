//! Operations on what may run only under a lease: they end with it, and each start has a number of its own.

use std::time::Duration;

use tug_model::lease::FencingNumber;
use tug_model::{Millis, Revision, TaskId};

use super::follow;
use super::work::{Outcome, Place, StepError, Tools, carry_out};
use crate::plan::{Orders, Step};
use crate::runtime::{ContainerId, ContainerRequest};

/// An engine that takes so much longer to stop a container than it should is told to kill it.
const HALTS_WITHIN: Duration = Duration::from_millis(500);

/// Carries a step out; on a container that may run only under a lease, for as long as there is one.
pub(super) async fn under_lease<'a>(
    (tools, place): (&'a Tools, &mut Place<'a>),
    orders: &Orders,
    step: &Step,
    outcome: &mut Outcome,
) -> Result<(), StepError> {
    let task = match step {
        Step::Create { task, .. }
        | Step::Start { task, .. }
        | Step::Unpause { task, .. }
        | Step::Stop { task, .. }
        | Step::Remove { task, .. } => task,
        Step::Halt { .. }
        | Step::Fetch(_)
        | Step::EnsureNetwork { .. }
        | Step::EnsureVolume { .. }
        | Step::RemoveNetwork { .. } => return carry_out((tools, place), orders, step, outcome).await,
    };
    let is_exclusive = orders.tasks().get(task).is_some_and(|task| task.exclusive.is_some());
    // What has no lease does not run, or is being halted: it may be tidied up.
    if !is_exclusive || (tools.leases.now().until(task).is_none() && is_tidying(step)) {
        return carry_out((tools, place), orders, step, outcome).await;
    }
    tokio::select! {
        biased;
        () = tools.leases.ended(task) => Err(StepError::LeaseEnded(task.clone())),
        done = carry_out((tools, place), orders, step, outcome) => done,
    }
}

/// Whether nothing runs because of a step that did not run before.
fn is_tidying(step: &Step) -> bool {
    matches!(step, Step::Stop { .. } | Step::Remove { .. })
}

/// Makes a container and starts it; an exclusive one only if its lease lasts long enough when it has been made.
pub(super) async fn run(tools: &Tools, request: &ContainerRequest) -> Result<(), StepError> {
    let runtime = &tools.runtime;
    if request.identity.fencing.is_none() {
        runtime.run(request).await?;
        return Ok(());
    }
    let task = &request.identity.task;
    let id = runtime.create(request).await?;
    let started = if tools.leases.now().may_start(task) {
        runtime.start(&id).await.map_err(StepError::from)
    } else {
        Err(StepError::LeaseEnded(task.clone()))
    };
    if started.is_err() {
        // What cannot be removed now is seen by the next list.
        let _ = runtime.remove(&id).await;
    }
    started
}

/// Stops a container that has no lease any more. It waits for no place, and no longer than it must.
pub(super) async fn halt(tools: &Tools, container: &ContainerId, grace: Millis) -> Result<(), StepError> {
    // The engine counts in seconds.
    let grace = Millis(grace.0 / 1000 * 1000);
    let runtime = &tools.runtime;
    if grace.0 > 0 {
        let patience = grace.duration() + HALTS_WITHIN;
        if let Ok(Ok(())) = tokio::time::timeout(patience, runtime.stop(container, grace)).await {
            return Ok(());
        }
    }
    Ok(runtime.kill(container, None).await?)
}

/// The number of the next start of an exclusive task, never to be given again.
pub(super) fn number(
    tools: &Tools,
    orders: &Orders,
    task: &TaskId,
    made: Revision,
) -> Result<FencingNumber, StepError> {
    let wanted = |task: &TaskId| orders.tasks().contains_key(task);
    let count = follow::unhurried(|| tools.ledger.count_start(task, wanted));
    Ok(FencingNumber::of(made, count.map_err(|error| StepError::Count(task.clone(), error))?))
}
