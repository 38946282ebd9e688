//! Watching: events as they come and how projects stand whenever that changes, resumable by revision.
//!
//! A watch keeps what it sent last and compares it with what is now, so a slow reader gets fewer and newer states,
//! never a growing queue. Events are never left out: a reader that is so slow that they are no longer kept is cut off,
//! and told so when it resumes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use futures_util::stream::unfold;
use tokio::time::{Instant, sleep_until};
use tug_api::client::WatchQuery;
use tug_api::user::WatchItem;
use tug_api::{ApiError, Code, lines};
use tug_model::event::Event;
use tug_model::status::ProjectStatus;
use tug_model::{ProjectName, Revision};

use super::authorise::Who;
use super::extract::Asked;
use super::stand::{Changes, Statuses};
use super::{Place, Shared};
use crate::store::{Change, Committed, HistoryError};

/// States are looked at this often at most.
const PACE: Duration = Duration::from_millis(100);
/// A bookmark comes this often at least.
const BOOKMARK: Duration = Duration::from_secs(10);

/// Events and states as they come.
#[utoipa::path(get, path = "/v1/watch", tag = "look",
    params(("since" = Option<u64>, Query, description = "Events after this commit; from now on unless told otherwise"),
        ("project" = Option<String>, Query, description = "Only this project")),
    responses(
        (status = 200, description = "JSON lines", body = WatchItem, content_type = "application/x-ndjson"),
        (status = 400, description = "There is no such revision yet", body = tug_api::error::ErrorBody),
        (status = 410, description = "The events after it are no longer kept", body = tug_api::error::ErrorBody),
        (status = 429, description = "Too many streams are open", body = tug_api::error::ErrorBody)))]
pub(super) async fn watch(
    State(context): State<Shared>,
    who: Who,
    Asked(query): Asked<WatchQuery>,
) -> Result<Response, ApiError> {
    if let Some(foreign) = query.project.as_ref().filter(|project| !who.sees(project)) {
        return Err(ApiError::not_found(format_args!("project `{foreign}`")));
    }
    let place = context.place("watch", &who)?;
    let after = query.since.unwrap_or_else(|| context.store.snapshot().revision);
    let missed = context.store.changes_since(after).map_err(|error| refused(&error))?;
    let mut watching = Watching {
        changes: context.stand.changes(),
        after,
        project: query.project,
        who,
        sent: BTreeMap::new(),
        queue: VecDeque::new(),
        looked: Instant::now(),
        is_cut: false,
        context,
        _place: place,
    };
    watching.begin(&missed, query.since.is_some());
    Ok(lines::response(unfold(watching, async |mut watching| {
        let item = watching.next().await?;
        Some((item, watching))
    })))
}

struct Watching {
    context: Shared,
    changes: Changes,
    /// Every event up to this commit is sent or in the queue.
    after: Revision,
    project: Option<ProjectName>,
    who: Who,
    sent: Statuses,
    queue: VecDeque<WatchItem>,
    looked: Instant,
    /// Events were missed: nothing more is sent.
    is_cut: bool,
    _place: Place,
}

// === impl Watching ===

impl Watching {
    /// What is sent first: what was missed, then how everything stands, what has gone meanwhile included.
    fn begin(&mut self, missed: &[Arc<Committed>], is_resumed: bool) {
        self.take(missed);
        let statuses = self.context.stand.statuses();
        self.compare(&statuses);
        if is_resumed {
            let mut named: BTreeSet<&ProjectName> = missed.iter().flat_map(|it| named(it)).collect();
            named.extend(&self.project);
            let gone = named.into_iter().filter(|name| self.shows(name) && !statuses.contains_key(*name));
            let gone: Vec<_> = gone.map(|name| WatchItem::Gone { project: name.clone() }).collect();
            self.queue.extend(gone);
        }
        self.queue.push_back(WatchItem::Bookmark { revision: self.after });
    }

    async fn next(&mut self) -> Option<WatchItem> {
        loop {
            if let Some(item) = self.queue.pop_front() {
                return Some(item);
            }
            if self.is_cut {
                return None;
            }
            let bookmark = self.looked + BOOKMARK;
            let is_due = tokio::select! {
                biased;
                () = self.context.closing.cancelled() => return None,
                () = paced(&mut self.changes, self.looked) => false,
                () = sleep_until(bookmark) => true,
            };
            self.look(is_due);
        }
    }

    fn look(&mut self, is_due: bool) {
        self.looked = Instant::now();
        let before = self.after;
        let Ok(commits) = self.context.store.changes_since(before) else {
            self.is_cut = true;
            return;
        };
        self.take(&commits);
        let statuses = self.context.stand.statuses();
        self.compare(&statuses);
        if is_due || self.after != before || !self.queue.is_empty() {
            self.queue.push_back(WatchItem::Bookmark { revision: self.after });
        }
    }

    fn take(&mut self, commits: &[Arc<Committed>]) {
        for commit in commits {
            self.after = commit.revision;
            for change in &commit.changes {
                if let Change::Record(event) = change
                    && self.is_asked(event)
                {
                    self.queue.push_back(WatchItem::Event(Event::clone(event)));
                }
            }
        }
    }

    fn compare(&mut self, statuses: &Statuses) {
        for (name, status) in statuses {
            if !self.shows(name) {
                continue;
            }
            let is_new = self.sent.get(name).is_none_or(|sent| !is_same(sent, status));
            if is_new {
                self.queue.push_back(WatchItem::Status(ProjectStatus::clone(status)));
                self.sent.insert(name.clone(), Arc::clone(status));
            }
        }
        let gone: Vec<_> = self.sent.keys().filter(|name| !statuses.contains_key(*name)).cloned().collect();
        for project in gone {
            self.sent.remove(&project);
            self.queue.push_back(WatchItem::Gone { project });
        }
    }

    fn shows(&self, name: &ProjectName) -> bool {
        self.project.as_ref().is_none_or(|asked| asked == name) && self.who.sees(name)
    }

    fn is_asked(&self, event: &Event) -> bool {
        (self.project.is_none() || event.project == self.project) && self.who.sees_event(event)
    }
}

/// Returns when something changed, but not before the pace allows it.
async fn paced(changes: &mut Changes, looked: Instant) {
    changes.changed().await;
    sleep_until(looked + PACE).await;
}

/// Whether two states say the same. Since when a task is in its phase is computed from an age that a report carried,
/// so it moves a little with every report and is no news by itself.
fn is_same(one: &Arc<ProjectStatus>, other: &Arc<ProjectStatus>) -> bool {
    if Arc::ptr_eq(one, other) {
        return true;
    }
    if one.services.len() != other.services.len() {
        return false;
    }
    let timeless = |status: &ProjectStatus| {
        let mut status = status.clone();
        for task in status.services.iter_mut().flat_map(|service| &mut service.tasks) {
            task.since = None;
        }
        status
    };
    timeless(one) == timeless(other)
}

/// The projects that a commit is about.
fn named(commit: &Committed) -> impl Iterator<Item = &ProjectName> {
    commit.changes.iter().filter_map(|change| match change {
        Change::PutProject(project) => Some(&project.spec.name),
        Change::RemoveProject(name) => Some(name),
        Change::PutTask(task) => Some(&task.project),
        Change::Record(event) => event.project.as_ref(),
        Change::RemoveTask(_)
        | Change::PutTemplate { .. }
        | Change::PutNode(_)
        | Change::RemoveNode(_)
        | Change::PutHome { .. }
        | Change::RemoveHome { .. }
        | Change::PutToken(_)
        | Change::RemoveToken(_)
        | Change::Remember(_) => None,
    })
}

fn refused(error: &HistoryError) -> ApiError {
    let (code, hint) = match error {
        HistoryError::Future { .. } => (Code::FutureRevision, "watch from a revision that you were given"),
        HistoryError::Compacted { .. } => (Code::Compacted, "read how things stand, then watch from now on"),
    };
    ApiError::new(code, error.to_string()).field("since").hint(hint)
}
