//! `tug logs`: what containers wrote, several services merged, through restarts of the server.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::time::sleep;
use tug_api::user::{LogQuery, LogRecord};
use tug_model::status::ProjectStatus;
use tug_model::{Slot, TaskId, Timestamp};

use crate::arguments::{Format, LogArguments};
use crate::context::Context;
use crate::failure::Failure;
use crate::names::{self, Kind, Target};
use crate::render::log::{LogLines, LogStyle};
use crate::render::structured;
use crate::watch::may_pass;

/// The wait before a lost connection is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Where a stream that was lost is taken up again: lines of the last moment come twice, and are shown once.
#[derive(Debug, Default)]
pub(crate) struct Resume {
    at: Timestamp,
    seen: BTreeSet<(TaskId, String)>,
    /// What is left of `seen` to be dropped when the moment is sent again.
    again: BTreeSet<(TaskId, String)>,
}

/// Whose lines are shown; nothing: everybody's.
#[derive(Debug, Default)]
pub(crate) struct Wanted(Vec<(Target, Option<Slot>)>);

/// Shows logs.
pub(crate) async fn run(context: &mut Context, arguments: &LogArguments) -> Result<(), Failure> {
    let projects = context.client.projects().await?;
    let wanted = arguments.names.iter().map(|name| names::replica(&projects, name, Kind::Either));
    let wanted = Wanted(wanted.collect::<Result<_, _>>()?);
    let targets: BTreeSet<Target> = wanted.0.iter().map(|(target, _)| target.clone()).collect();
    let several = targets.iter().map(Target::project).collect::<BTreeSet<_>>().len() > 1;
    let style = LogStyle {
        raw: arguments.raw,
        bare: arguments.no_prefix,
        times: arguments.timestamps,
        plain: !context.screen.facts.stdout_colour,
        projects: several,
    };
    let names: Vec<String> = targets.iter().map(ToString::to_string).collect();
    let query = LogQuery {
        names: names.join(","),
        since: arguments.since.map(|moment| moment.resolve(context.clock.now())),
        tail: arguments.tail,
        follow: arguments.follow,
    };
    let lines = LogLines::new(style, widest(&projects, &targets, several));
    show(context, (query, &wanted), lines, arguments.output.format).await
}

/// Shows what `query` asks for; where it follows, until the user stops it.
pub(crate) async fn show(
    context: &mut Context,
    (mut query, wanted): (LogQuery, &Wanted),
    mut lines: LogLines,
    format: Format,
) -> Result<(), Failure> {
    let mut resume = Resume::default();
    loop {
        match context.client.logs(&query).await {
            Ok(mut records) => {
                let mut lost = false;
                while let Some(record) = records.next().await {
                    match record {
                        Ok(record) if !wanted.covers(&record) => {}
                        Ok(record) if resume.is_new(&record) => line(context, &record, &mut lines, format)?,
                        Ok(_) => {}
                        Err(error) if !query.follow => return Err(error.into()),
                        Err(_) => lost = true,
                    }
                }
                if !query.follow {
                    return Ok(());
                }
                if lost {
                    context.screen.note("the connection to the server was lost, trying again");
                }
            }
            Err(error) if query.follow && resume.has_begun() && may_pass(&error) => {}
            Err(error) => return Err(error.into()),
        }
        resume.apply(&mut query, context.clock.now());
        sleep(RETRY).await;
    }
}

fn line(
    context: &mut Context,
    record: &LogRecord,
    lines: &mut LogLines,
    format: Format,
) -> Result<(), Failure> {
    match format {
        Format::Json => context.screen.data(&structured::json_line(record)?),
        Format::Yaml => context.screen.data(&format!("---\n{}", structured::yaml(record)?)),
        Format::Table | Format::Wide if lines.is_raw() => {
            let text = lines.line(record);
            context.screen.raw(text.as_bytes())
        }
        Format::Table | Format::Wide => context.screen.data(&lines.line(record)),
    }
}

/// The length of the longest name that lines will begin with, as far as it is known.
fn widest(projects: &[ProjectStatus], targets: &BTreeSet<Target>, with_project: bool) -> usize {
    let names = projects.iter().flat_map(|project| {
        let covered =
            project.services.iter().filter(|one| targets.iter().any(|t| t.covers(&project.name, &one.name)));
        covered.flat_map(|service| {
            service.tasks.iter().map(|task| {
                let project = if with_project { project.name.as_str().len() + 1 } else { 0 };
                project + service.name.as_str().len() + 1 + task.slot.to_string().len()
            })
        })
    });
    names.max().unwrap_or(0)
}

// === impl Wanted ===

impl Wanted {
    /// The server knows services, not replicas: it may send more than was asked for.
    fn covers(&self, record: &LogRecord) -> bool {
        let is_one = |(target, slot): &(Target, Option<Slot>)| {
            target.covers(&record.project, &record.service) && slot.is_none_or(|slot| slot == record.slot)
        };
        self.0.is_empty() || self.0.iter().any(is_one)
    }
}

// === impl Resume ===

impl Resume {
    fn has_begun(&self) -> bool {
        self.at > Timestamp(0)
    }

    /// Whether `record` was not shown before.
    fn is_new(&mut self, record: &LogRecord) -> bool {
        let key = (record.task.clone(), record.line.clone());
        if record.at <= self.at && self.again.remove(&key) {
            return false;
        }
        if record.at > self.at {
            self.at = record.at;
            self.seen.clear();
        }
        if record.at == self.at {
            self.seen.insert(key);
        }
        true
    }

    /// Makes `query` go on where the stream broke; `now` where nothing had come yet.
    fn apply(&mut self, query: &mut LogQuery, now: Timestamp) {
        if self.has_begun() {
            query.since = Some(self.at);
            query.tail = None;
            self.again = self.seen.clone();
        } else if query.since.is_none() && query.tail.is_none() {
            query.since = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::log::tests::record;
    use crate::sample;

    #[test]
    fn a_stream_goes_on_where_it_broke() {
        let mut resume = Resume::default();
        let first = [record("web", 1, 5, "a"), record("web", 1, 7, "b"), record("web", 2, 7, "c")];
        assert!(first.iter().all(|record| resume.is_new(record)));
        let mut query = LogQuery { tail: Some(10), follow: true, ..LogQuery::default() };
        resume.apply(&mut query, Timestamp(99));
        assert_eq!((query.since, query.tail), (Some(Timestamp(7)), None));
        assert!(!resume.is_new(&first[1]) && !resume.is_new(&first[2]), "shown already");
        assert!(resume.is_new(&record("web", 1, 7, "b")), "the same words once more");
        assert!(resume.is_new(&record("web", 1, 8, "b")));
    }

    #[test]
    fn a_stream_that_brought_nothing_begins_again() {
        let mut query = LogQuery { tail: Some(10), ..LogQuery::default() };
        Resume::default().apply(&mut query, Timestamp(99));
        assert_eq!((query.since, query.tail), (None, Some(10)));
        let mut query = LogQuery::default();
        Resume::default().apply(&mut query, Timestamp(99));
        assert_eq!(query.since, Some(Timestamp(99)));
    }

    #[test]
    fn of_a_replica_that_is_named_only_its_own_lines_are_shown() {
        let web = sample::service("web", &[sample::healthy(), sample::healthy()]);
        let projects = [sample::project_of("shop", vec![web]), sample::project("blog", &["db"])];
        let wanted = |names: &[&str]| {
            let found = names.iter().map(|name| names::replica(&projects, name, Kind::Either).unwrap());
            let wanted = Wanted(found.collect());
            [1, 2].map(|slot| wanted.covers(&record("web", slot, 5, "a")))
        };
        assert_eq!(wanted(&["web.2"]), [false, true]);
        assert_eq!(wanted(&["web.2", "shop/"]), [true, true]);
        assert_eq!(wanted(&["blog/db"]), [false, false]);
        assert_eq!(wanted(&[]), [true, true]);
    }

    #[test]
    fn the_first_line_is_aligned_already() {
        let projects =
            [sample::project("shop", &["a", "website"]), sample::project("blog", &["longest-of-all"])];
        let targets = BTreeSet::from([names::replica(&projects, "shop", Kind::Either).unwrap().0]);
        assert_eq!(widest(&projects, &targets, false), "website.1".len());
        assert_eq!(widest(&projects, &targets, true), "shop/website.1".len());
    }
}
