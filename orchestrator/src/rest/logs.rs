//! What containers wrote: asked of every node that has a matching task, merged, and followed if wanted.
//!
//! A task's output goes on after a broken link, a restarted agent or a restarted container where it was: lines of the
//! last time seen are not sent twice.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use futures_util::stream::{BoxStream, StreamExt, unfold};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::sleep;
use tug_api::error::chain;
use tug_api::lines::{self, LineError};
use tug_api::node::TaskLogLine;
use tug_api::user::{LogQuery, LogRecord};
use tug_api::{ApiError, Code};
use tug_model::task::{Desired, Task};
use tug_model::{ProjectName, ServiceName, TaskId, Timestamp};

use super::authorise::Who;
use super::extract::Asked;
use super::look::no_service;
use super::merge::Merge;
use super::{Place, Shared, accept};
use crate::store;

/// The logs of so many tasks are merged in one answer.
const MOST_TASKS: usize = 256;
/// And of so many in all answers together, so that there is always room for an assignment beside them.
pub(super) const MOST_OUTPUTS: usize = 2_048;
/// How long earlier lines of a source are waited for: while following, and otherwise.
const PATIENCE_FOLLOWING: Duration = Duration::from_millis(300);
const PATIENCE: Duration = Duration::from_secs(10);
/// The first and the longest wait before a source that ended is asked again.
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// What containers wrote.
#[utoipa::path(get, path = "/v1/logs", tag = "inside",
    params(("names" = Option<String>, Query, description = "Comma-separated `project` or `project/service`; everything unless told otherwise"),
        ("since" = Option<u64>, Query, description = "Only lines at or after this time, in milliseconds since 1970"),
        ("tail" = Option<u32>, Query, description = "Only the last lines of each task"),
        ("follow" = Option<bool>, Query, description = "Go on with what is written from now on")),
    responses(
        (status = 200, description = "JSON lines", body = LogRecord, content_type = "application/x-ndjson"),
        (status = 404, description = "There is no such project or service", body = tug_api::error::ErrorBody),
        (status = 429, description = "Too many streams are open", body = tug_api::error::ErrorBody),
        (status = 503, description = "No node that has such a task is connected", body = tug_api::error::ErrorBody)))]
pub(super) async fn logs(
    State(context): State<Shared>,
    who: Who,
    Asked(query): Asked<LogQuery>,
) -> Result<Response, ApiError> {
    let mut states = context.store.watch();
    let state = Arc::clone(&states.borrow_and_update());
    let wanted = Wanted::parse(&query.names, &state, who)?;
    let tasks: Vec<&Arc<Task>> = state.tasks.values().filter(|task| wanted.includes(task)).collect();
    if tasks.len() > MOST_TASKS {
        let message = format!("{} tasks match, at most {MOST_TASKS} can be read at once", tasks.len());
        return Err(ApiError::new(Code::Invalid, message).field("names").hint("name single services"));
    }
    let is_reachable = tasks.iter().any(|task| context.nodes.client(&task.node).is_some());
    if !tasks.is_empty() && !is_reachable {
        return Err(ApiError::new(Code::Unavailable, "no node that has these tasks is connected"));
    }
    if context.outputs.available_permits() < tasks.len() {
        return Err(ApiError::new(Code::TooMany, "too many logs are being read").hint("name single services"));
    }
    let place = context.place("logs", &wanted.who)?;
    let patience = if query.follow { PATIENCE_FOLLOWING } else { PATIENCE };
    let mut reading = Reading {
        merge: Merge::new(patience),
        known: BTreeSet::new(),
        context,
        wanted,
        query,
        states,
        _place: place,
    };
    reading.add_new(&state);
    Ok(lines::response(unfold(reading, async |mut reading| {
        let record = reading.next().await?;
        Some((record, reading))
    })))
}

/// Which tasks are asked for: any of these, or all; of what the caller sees.
struct Wanted {
    names: Vec<(ProjectName, Option<ServiceName>)>,
    who: Who,
}

struct Reading {
    context: Shared,
    merge: Merge,
    wanted: Wanted,
    query: LogQuery,
    known: BTreeSet<TaskId>,
    states: watch::Receiver<Arc<store::State>>,
    _place: Place,
}

/// The output of one task, asked for again after it ended.
struct Output {
    _permit: OwnedSemaphorePermit,
    context: Shared,
    task: Arc<Task>,
    query: LogQuery,
    open: Option<BoxStream<'static, Result<TaskLogLine, LineError>>>,
    /// The newest time seen, and how many lines of it were sent.
    sent: (Timestamp, usize),
    /// So many lines of that time are passed over.
    skip: usize,
    wait: Option<Duration>,
}

// === impl Wanted ===

impl Wanted {
    fn parse(names: &str, state: &store::State, who: Who) -> Result<Self, ApiError> {
        let names = names.split(',').map(str::trim).filter(|name| !name.is_empty());
        let names = names.map(|name| Self::parse_one(name, state, &who)).collect::<Result<_, _>>()?;
        Ok(Self { names, who })
    }

    fn parse_one(
        name: &str,
        state: &store::State,
        who: &Who,
    ) -> Result<(ProjectName, Option<ServiceName>), ApiError> {
        let invalid = |error: tug_model::name::InvalidName| {
            ApiError::new(Code::Invalid, error.to_string()).field("names")
        };
        let (project, service) = match name.split_once('/') {
            Some((project, service)) => (project, Some(ServiceName::parse(service).map_err(invalid)?)),
            None => (name, None),
        };
        let project = ProjectName::parse(project).map_err(invalid)?;
        // Before anything else is said of it.
        if !who.sees(&project) {
            return Err(accept::unknown_project(state, &project));
        }
        let is_meant = |task: &Arc<Task>| service.as_ref().is_none_or(|service| task.service == *service);
        let is_wanted = state.projects.get(&project).is_some_and(|stored| {
            service.as_ref().is_none_or(|service| stored.spec.services.contains_key(service))
        });
        if is_wanted || state.tasks_of(&project).any(is_meant) {
            return Ok((project, service));
        }
        Err(match &service {
            None => accept::unknown_project(state, &project),
            Some(service) => no_service(state, &project, service),
        })
    }

    fn includes(&self, task: &Task) -> bool {
        let is_named = self.names.is_empty()
            || self.names.iter().any(|(project, service)| {
                task.project == *project && service.as_ref().is_none_or(|service| task.service == *service)
            });
        is_named && self.who.sees(&task.project)
    }
}

// === impl Reading ===

impl Reading {
    async fn next(&mut self) -> Option<LogRecord> {
        loop {
            if self.merge.is_empty() && !self.query.follow {
                return None;
            }
            let record = async {
                if self.merge.is_empty() { std::future::pending().await } else { self.merge.next().await }
            };
            tokio::select! {
                biased;
                () = self.context.closing.cancelled() => return None,
                changed = self.states.changed(), if self.query.follow => {
                    if changed.is_err() {
                        return None;
                    }
                }
                record = record => match record {
                    Some(record) => return Some(record),
                    None => continue,
                },
            }
            let state = Arc::clone(&self.states.borrow_and_update());
            self.add_new(&state);
        }
    }

    fn add_new(&mut self, state: &store::State) {
        self.known.retain(|id| state.tasks.contains_key(id));
        for task in state.tasks.values() {
            if self.known.len() >= MOST_TASKS {
                return;
            }
            if !self.wanted.includes(task) || self.known.contains(&task.id) {
                continue;
            }
            // Without room now, there may be some when the next change comes.
            if let Ok(permit) = Arc::clone(&self.context.outputs).try_acquire_owned() {
                self.known.insert(task.id.clone());
                let output = Output {
                    _permit: permit,
                    context: Arc::clone(&self.context),
                    task: Arc::clone(task),
                    query: LogQuery { names: String::new(), ..self.query.clone() },
                    open: None,
                    sent: (Timestamp(0), 0),
                    skip: 0,
                    wait: None,
                };
                self.merge.add(output.records());
            }
        }
    }
}

// === impl Output ===

impl Output {
    fn records(self) -> BoxStream<'static, LogRecord> {
        unfold(self, async |mut output| {
            let record = output.next().await?;
            Some((record, output))
        })
        .boxed()
    }

    async fn next(&mut self) -> Option<LogRecord> {
        loop {
            if self.open.is_none() && !self.ask().await? {
                continue;
            }
            match self.open.as_mut()?.next().await {
                Some(Ok(line)) => {
                    if let Some(record) = self.passed(line) {
                        return Some(record);
                    }
                }
                Some(Err(error)) => {
                    tracing::debug!(task = %self.task.id, error = chain(&error), "a log broke off");
                    self.open = None;
                }
                None => self.open = None,
            }
            if self.open.is_none() && !self.query.follow {
                return None;
            }
        }
    }

    /// Asks the agent, after a wait if it is not the first time. `None`: there is nothing to ask for any more.
    async fn ask(&mut self) -> Option<bool> {
        if let Some(wait) = self.wait {
            sleep(wait).await;
            let state = self.context.store.snapshot();
            let task = state.tasks.get(&self.task.id)?;
            if matches!(task.desired, Desired::Stop { .. }) {
                return None;
            }
        }
        self.wait = Some(self.wait.map_or(FIRST_WAIT, |wait| (wait * 2).min(LONGEST_WAIT)));
        let asked = match self.context.nodes.client(&self.task.node) {
            Some(client) => client.logs(&self.task.id, &self.query).await.map(StreamExt::boxed),
            None if self.query.follow => return Some(false),
            None => return None,
        };
        match asked {
            Ok(lines) => {
                self.open = Some(lines);
                self.skip = self.sent.1;
                // Were it asked again, what it had until now would be no part of the answer.
                self.query.tail = None;
                Some(true)
            }
            Err(error) => {
                tracing::debug!(task = %self.task.id, error = chain(&error), "ask for a log");
                self.query.follow.then_some(false)
            }
        }
    }

    /// The line as a record; `None` when it was sent before.
    fn passed(&mut self, line: TaskLogLine) -> Option<LogRecord> {
        let TaskLogLine { at, stream, line } = line;
        self.wait = Some(FIRST_WAIT);
        if at == self.sent.0 && self.skip > 0 {
            self.skip -= 1;
            return None;
        }
        self.skip = 0;
        self.sent = if at == self.sent.0 { (at, self.sent.1 + 1) } else { (at, 1) };
        self.query.since = Some(at);
        let Task { id, project, service, slot, .. } = &*self.task;
        Some(LogRecord {
            at,
            project: project.clone(),
            service: service.clone(),
            slot: *slot,
            task: id.clone(),
            stream,
            line,
        })
    }
}
