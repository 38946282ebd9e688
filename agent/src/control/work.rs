//! Carries steps out: one call to the engine for each. What to do is decided elsewhere.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc};
use tug_api::error::chain;
use tug_model::{TaskId, Timestamp};

use super::configs::ConfigFiles;
use super::lease;
use super::obtain::{self, ImageError};
use super::private::{OwnState, Private};
use crate::image::Images;
use crate::lease::LeaseBook;
use crate::ledger::Ledger;
use crate::ledger::LedgerError;
use crate::plan::{Ensured, ImageWanted, Key, Orders, Step};
use crate::runtime::{
    ContainerId, ContainerRequest, EngineEvent, EngineInfo, Found, FoundNetwork, Identity, LogQuery, Runtime,
    RuntimeError,
};

/// What jobs need.
#[derive(Debug)]
pub(super) struct Tools {
    pub(super) runtime: Arc<dyn Runtime>,
    pub(super) ledger: Arc<Ledger>,
    pub(super) leases: Arc<LeaseBook>,
    /// How many containers are made, started or removed at once.
    pub(super) engine: Semaphore,
    pub(super) configs: ConfigFiles,
    pub(super) private: Private,
    /// Images that other nodes have.
    pub(super) images: Arc<Images>,
    pub(super) notes: mpsc::UnboundedSender<Note>,
}

/// What is told while something goes on.
#[derive(Debug)]
pub(super) enum Note {
    /// The engine's events flow, from now on; some may have been missed.
    Listening,
    /// They flow no longer: perhaps the engine has ended.
    Deaf,
    /// Something happened to a container.
    Event(EngineEvent),
    /// How far a pull is.
    Progress(ImageWanted, String),
}

/// What a job has come to.
#[derive(Debug)]
pub(super) enum Done {
    /// The steps of one key.
    Steps(Outcome),
    /// A look at the engine.
    Look(Look),
    /// What a container wrote before it ended.
    Words { task: TaskId, finished_at: Timestamp, words: String },
}

/// What became of the steps of one key.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) key: Key,
    pub(super) removed: BTreeSet<ContainerId>,
    pub(super) made: Option<Made>,
    pub(super) failed: Option<Failed>,
}

/// What is known to be there, or gone, from now on.
#[derive(Debug)]
pub(super) enum Made {
    Image(ImageWanted, String),
    Resource(Key, Ensured),
    Nothing(Key),
}

/// Why a step failed.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) reason: String,
    /// The engine did not answer.
    pub(super) engine_down: bool,
    /// Something that was taken to be there is not.
    pub(super) not_found: bool,
}

/// A look at the engine.
#[derive(Debug)]
pub(super) struct Look {
    pub(super) number: u64,
    pub(super) took: Duration,
    pub(super) seen: Result<Seen, RuntimeError>,
}

/// What a look saw.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) containers: Vec<Found>,
    /// Only when they were asked for.
    pub(super) networks: Option<Vec<FoundNetwork>>,
    /// The same.
    pub(super) info: Option<EngineInfo>,
}

/// Why a step failed before the engine was asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum StepError {
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    #[error(transparent)]
    Config(#[from] super::configs::ConfigError),
    #[error(transparent)]
    OwnState(#[from] OwnState),
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error("network `{0}` is still in use")]
    NetworkInUse(String),
    #[error("task `{0}` is no longer assigned")]
    Forgotten(TaskId),
    #[error("the node has no lease of task `{0}` any more")]
    LeaseEnded(TaskId),
    #[error("count the start of task `{0}`")]
    Count(TaskId, #[source] LedgerError),
}

/// A place among the operations that the engine is given at once.
pub(super) type Place<'a> = Option<SemaphorePermit<'a>>;

/// What ends within this time when it is asked to is stopped and removed in one place: an engine that has to take down
/// many containers at the same moment takes longer for all of them. What needs more time only waits, and gives its place
/// away.
const PROMPT: Duration = Duration::from_millis(500);
/// So many of the last lines are read when a process has ended.
const LAST_LINES: u32 = 20;
/// And no more than this many bytes of them are kept.
const LAST_BYTES: usize = 2048;
/// The time for that.
const LAST_TIME: Duration = Duration::from_secs(3);

/// Takes the steps of one key, in order, up to the first that fails.
pub(super) async fn take(tools: Arc<Tools>, orders: Arc<Orders>, key: Key, steps: Vec<Step>) -> Done {
    let mut outcome = Outcome { key, removed: BTreeSet::new(), made: None, failed: None };
    let mut place = None;
    for step in steps {
        tracing::debug!(%step, "begin");
        match lease::under_lease((&tools, &mut place), &orders, &step, &mut outcome).await {
            Ok(()) => tracing::info!(%step, "done"),
            Err(error) => {
                let reason = chain(&error);
                tracing::warn!(%step, reason, "failed");
                let runtime = error.runtime();
                outcome.failed = Some(Failed {
                    engine_down: runtime.is_some_and(RuntimeError::is_engine_down),
                    not_found: runtime.is_some_and(RuntimeError::is_not_found),
                    reason,
                });
                break;
            }
        }
    }
    Done::Steps(outcome)
}

pub(super) async fn carry_out<'a>(
    (tools, place): (&'a Tools, &mut Place<'a>),
    orders: &Orders,
    step: &Step,
    outcome: &mut Outcome,
) -> Result<(), StepError> {
    let runtime = &tools.runtime;
    match step {
        Step::Create { task, image } => {
            let request = request(tools, orders, task, image)?;
            tools.take_place(place).await;
            lease::run(tools, &request).await?;
        }
        Step::Start { container, .. } => {
            tools.take_place(place).await;
            runtime.start(container).await?;
        }
        Step::Unpause { container, .. } => runtime.unpause(container).await?,
        Step::Stop { container, grace, .. } => {
            tools.take_place(place).await;
            let mut stopped = runtime.stop(container, *grace);
            if let Ok(stopped) = tokio::time::timeout(PROMPT, &mut stopped).await {
                stopped?;
            } else {
                *place = None;
                stopped.await?;
            }
        }
        Step::Halt { container, grace, .. } => lease::halt(tools, container, *grace).await?,
        Step::Remove { container, .. } => {
            tools.take_place(place).await;
            runtime.remove(container).await?;
            outcome.removed.insert(container.clone());
        }
        Step::Fetch(_)
        | Step::EnsureNetwork { .. }
        | Step::EnsureVolume { .. }
        | Step::RemoveNetwork { .. } => outcome.made = make(tools, orders, step).await?,
    }
    Ok(())
}

/// The steps that are not about one container.
async fn make(tools: &Tools, orders: &Orders, step: &Step) -> Result<Option<Made>, StepError> {
    let runtime = &tools.runtime;
    Ok(match step {
        Step::Fetch(wanted) => Some(Made::Image(wanted.clone(), obtain::image(tools, orders, wanted).await?)),
        Step::EnsureNetwork { project, key, .. } => {
            let network = orders.resources(project).and_then(|all| all.networks.get(key));
            let Some(network) = network else { return Ok(None) };
            runtime.ensure_network(project, key, network).await?;
            Some(Made::Resource(step.key(), Ensured::Network(network.clone())))
        }
        Step::EnsureVolume { project, key, .. } => {
            let volume = orders.resources(project).and_then(|all| all.volumes.get(key));
            let Some(volume) = volume else { return Ok(None) };
            super::follow::unhurried(|| tools.private.check_volume(volume))?;
            runtime.ensure_volume(project, key, volume).await?;
            Some(Made::Resource(step.key(), Ensured::Volume(volume.clone())))
        }
        Step::RemoveNetwork { engine_name } => {
            if !runtime.remove_network(engine_name).await? {
                return Err(StepError::NetworkInUse(engine_name.clone()));
            }
            Some(Made::Nothing(step.key()))
        }
        Step::Create { .. }
        | Step::Start { .. }
        | Step::Unpause { .. }
        | Step::Stop { .. }
        | Step::Halt { .. }
        | Step::Remove { .. } => None,
    })
}

// === impl StepError ===

impl StepError {
    /// The engine's error, if it is one.
    fn runtime(&self) -> Option<&RuntimeError> {
        if let Self::Runtime(error)
        | Self::Image(ImageError::Runtime(error) | ImageError::NotPulled { source: error, .. }) = self
        {
            Some(error)
        } else {
            None
        }
    }
}

// === impl Tools ===

impl Tools {
    /// Waits for a place, unless there is one from the step before.
    async fn take_place<'a>(&'a self, place: &mut Place<'a>) {
        if place.is_none() {
            *place = Some(self.engine.acquire().await.expect("the semaphore is never closed"));
        }
    }
}

fn request(
    tools: &Tools,
    orders: &Orders,
    task: &TaskId,
    image: &str,
) -> Result<ContainerRequest, StepError> {
    let forgotten = || StepError::Forgotten(task.clone());
    let assigned = orders.tasks().get(task).ok_or_else(forgotten)?;
    let template = orders.template(task).ok_or_else(forgotten)?;
    let fencing = assigned.exclusive.map(|made| lease::number(tools, orders, task, made)).transpose()?;
    super::follow::unhurried(|| tools.private.check_container(&template.container))?;
    let files = if template.container.configs.is_empty() {
        std::collections::BTreeMap::new()
    } else {
        super::follow::unhurried(|| tools.configs.prepare(template, &orders.assignment().configs))?
    };
    Ok(ContainerRequest {
        identity: Identity {
            cluster: orders.cluster().to_owned(),
            node: orders.assignment().node.clone(),
            task: task.clone(),
            project: assigned.project.clone(),
            service: assigned.service.clone(),
            slot: assigned.slot,
            template: assigned.template.clone(),
            fencing,
        },
        template: Arc::clone(template),
        resources: orders.resources(&assigned.project).cloned().unwrap_or_default(),
        config_files: files,
        image: image.to_owned(),
    })
}

/// Looks at the engine; `more` asks for its networks and for how it is, too.
pub(super) async fn look(tools: Arc<Tools>, number: u64, more: bool) -> Done {
    let began = tokio::time::Instant::now();
    let seen = async {
        if !more {
            return Ok(Seen { containers: tools.runtime.list().await?, networks: None, info: None });
        }
        let info = tools.runtime.check().await?;
        let networks = tools.runtime.networks().await?;
        Ok(Seen { containers: tools.runtime.list().await?, networks: Some(networks), info: Some(info) })
    }
    .await;
    Done::Look(Look { number, took: began.elapsed(), seen })
}

/// Reads what a container last wrote. What cannot be read is empty.
pub(super) async fn last_words(
    tools: Arc<Tools>,
    (task, container): (TaskId, ContainerId),
    since: Option<Timestamp>,
    finished_at: Timestamp,
) -> Done {
    let query = LogQuery { since, tail: Some(LAST_LINES), follow: false };
    let read = async {
        let mut text = String::new();
        let Ok(mut lines) = tools.runtime.logs(&container, query).await else { return text };
        while let Some(Ok(line)) = lines.next().await {
            text.push_str(&String::from_utf8_lossy(&line.text));
            text.push('\n');
        }
        text
    };
    let text = tokio::time::timeout(LAST_TIME, read).await.unwrap_or_default();
    Done::Words { task, finished_at, words: ending(text.trim_end()).to_owned() }
}

/// The last [`LAST_BYTES`] of `text`, from the start of a character on.
fn ending(text: &str) -> &str {
    let mut from = text.len().saturating_sub(LAST_BYTES);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    text.get(from..).unwrap_or_default()
}

/// Tells the engine's events for ever.
pub(super) async fn listen(tools: Arc<Tools>) {
    loop {
        if let Ok(mut events) = tools.runtime.events().await {
            if tools.notes.send(Note::Listening).is_err() {
                return;
            }
            while let Some(Ok(event)) = events.next().await {
                if tools.notes.send(Note::Event(event)).is_err() {
                    return;
                }
            }
            if tools.notes.send(Note::Deaf).is_err() {
                return;
            }
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
