//! `GET /tasks/{id}/logs`: what a task's container wrote, across its restarts when it is followed.

use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::response::Response;
use futures_util::{StreamExt, stream};
use tug_api::error::chain;
use tug_api::node::TaskLogLine;
use tug_api::user::{LogQuery, LogStream};
use tug_api::{ApiError, Code, lines};
use tug_model::{TaskId, Timestamp};

use super::{Shared, Snapshots};
use crate::control::Inside;
use crate::runtime::{self, Feed, LogLine, RuntimeError, Stream};

/// A log that is being read.
struct Reading {
    shared: Shared,
    task: TaskId,
    follow: bool,
    /// The container that is read, and which run of it.
    inside: Inside,
    feed: Feed<LogLine>,
    /// When the newest line was written.
    newest: Option<Timestamp>,
    /// So many lines of that very millisecond were read.
    read_then: u32,
    /// So many of them come once more, after the feed was opened again.
    again: u32,
}

/// So long after a feed broke the same run is read on, if it is no other by then.
const REOPEN: Duration = Duration::from_secs(1);

pub(super) async fn logs(
    State(shared): State<Shared>,
    path: Path<String>,
    query: Result<Query<LogQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, ApiError> {
    let task = super::task(path)?;
    let Query(query) = query.map_err(|error| ApiError::new(Code::BadRequest, error.body_text()))?;
    let inside = shared.inside(&task)?;
    let asked = runtime::LogQuery { since: query.since, tail: query.tail, follow: query.follow };
    let feed = shared.asked.runtime.logs(&inside.container, asked).await.map_err(|error| failed(&error))?;
    let reading = Reading {
        shared,
        task,
        follow: query.follow,
        inside,
        feed,
        newest: query.since,
        read_then: 0,
        again: 0,
    };
    Ok(lines::response(stream::unfold(reading, async |mut reading| {
        let line = reading.next().await?;
        Some((line, reading))
    })))
}

pub(super) fn failed(error: &RuntimeError) -> ApiError {
    let code = if error.is_not_found() {
        Code::NotFound
    } else if error.is_engine_down() {
        Code::Unavailable
    } else {
        Code::Internal
    };
    ApiError::new(code, chain(error))
}

// === impl Reading ===

impl Reading {
    async fn next(&mut self) -> Option<TaskLogLine> {
        loop {
            match self.feed.next().await {
                Some(Ok(line)) if self.was_read(&line) => {}
                Some(Ok(line)) => {
                    return Some(TaskLogLine {
                        at: line.at,
                        stream: match line.stream {
                            Stream::Stdout => LogStream::Stdout,
                            Stream::Stderr => LogStream::Stderr,
                        },
                        line: String::from_utf8_lossy(&line.text).into_owned(),
                    });
                }
                Some(Err(_)) | None if self.follow => self.resume().await?,
                Some(Err(error)) => {
                    tracing::debug!(reason = chain(&error), task = %self.task, "a log ended early");
                    return None;
                }
                None => return None,
            }
        }
    }

    /// Whether the line had been read before the feed was opened again; notes it if not.
    fn was_read(&mut self, line: &LogLine) -> bool {
        let is_of_the_newest = self.newest == Some(line.at);
        if is_of_the_newest && self.again > 0 {
            self.again -= 1;
            return true;
        }
        self.read_then = if is_of_the_newest { self.read_then.saturating_add(1) } else { 1 };
        (self.newest, self.again) = (Some(line.at), 0);
        false
    }

    /// Waits for the next run of the task and reads on, or goes on with the same one where only the feed broke;
    /// `None` when the task has gone.
    async fn resume(&mut self) -> Option<()> {
        loop {
            let next = next_run(&mut self.shared.snapshots, &self.task, &self.inside);
            let inside = match tokio::time::timeout(REOPEN, next).await {
                Ok(next) => next?,
                Err(_) if self.goes_on() => self.inside.clone(),
                Err(_) => continue,
            };
            let query = runtime::LogQuery { since: self.newest, tail: None, follow: true };
            let feed = self.shared.asked.runtime.logs(&inside.container, query).await;
            self.inside = inside;
            if let Ok(feed) = feed {
                (self.feed, self.again) = (feed, self.read_then);
                return Some(());
            }
        }
    }

    /// Whether the run that is read still goes on.
    fn goes_on(&self) -> bool {
        let snapshot = self.shared.snapshots.borrow();
        let now = snapshot.as_ref().and_then(|snapshot| snapshot.containers.get(&self.task));
        self.inside.running.is_some() && now == Some(&self.inside)
    }
}

/// The next run of `task` after `last`, or `None` when the node has nothing of it any more.
async fn next_run(snapshots: &mut Snapshots, task: &TaskId, last: &Inside) -> Option<Inside> {
    loop {
        let snapshot = snapshots.borrow_and_update().clone()?;
        match snapshot.containers.get(task) {
            Some(inside) if inside.running.is_some() && inside != last => return Some(inside.clone()),
            Some(_) => {}
            None if snapshot.report.tasks.iter().any(|report| report.id == *task) => {}
            None => return None,
        }
        snapshots.changed().await.ok()?;
    }
}
