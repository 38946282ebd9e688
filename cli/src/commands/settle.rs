//! The end of every command that changes something: wait, and say how it ended.

use std::collections::BTreeSet;

use futures_util::StreamExt;
use tug_api::user::{Accepted, LogQuery};
use tug_model::status::{ProjectStatus, ServiceState, ServiceStatus};
use tug_model::{ProjectName, ServiceName, Timestamp};

use crate::arguments::WaitArguments;
use crate::context::Context;
use crate::failure::{FAILED, Failure};
use crate::render::escape::{printable, printable_lines};
use crate::render::lines;
use crate::render::log::{LogLines, LogStyle};
use crate::render::status::task_state;
use crate::render::style::{self, paint};
use crate::render::why::last_words;
use crate::time::age;
use crate::watch::judge::Goal;
use crate::watch::{Ended, Wait, wait};

/// How many lines of each replica are shown of a service that failed.
const LAST_LINES: u32 = 10;

/// Waits until `accepted` has taken effect on `services` (all of them if `None`). The result is the truth.
pub(crate) async fn settle(
    context: &mut Context,
    project: &ProjectName,
    accepted: &Accepted,
    services: Option<BTreeSet<ServiceName>>,
    waiting: &WaitArguments,
) -> Result<(), Failure> {
    if waiting.detach {
        return Ok(());
    }
    let mut wanted = Wait::for_change(project, accepted, waiting.timeout);
    if let Goal::Settled(settled) = &mut wanted.goal {
        settled.services = services;
    }
    let removal = matches!(wanted.goal, Goal::Gone(_));
    match wait(context, &wanted).await? {
        Ended::Reached => {
            let done = if removal { "is gone; its volumes stay" } else { "is healthy" };
            context.screen.note(&format!("{} {project} {done}", paint(style::GOOD, "✓")));
            Ok(())
        }
        Ended::Failed(status) => {
            explain(context, &status).await;
            Err(Failure::new(format!("{project} failed")).hint(advice(&status)))
        }
        Ended::TimedOut(status) => {
            if let Some(status) = &status {
                explain(context, status).await;
            }
            let within = age(waiting.timeout.into());
            let what = if removal { "gone" } else { "healthy" };
            let failure = Failure::new(format!("{project} is not {what} after {within}"));
            let is_behind = |state| matches!(state, ServiceState::Progressing | ServiceState::Failing);
            let why = status.filter(|_| !removal).map(|status| first(&status, is_behind));
            let why =
                why.map_or_else(String::new, |name| format!("`tug why {name}` says what it waits for, "));
            Err(failure.hint(format!("it goes on; {why}--timeout waits longer")))
        }
        Ended::Returned => {
            context.screen.note(&format!("{project} was removed, and applied again meanwhile: it stays"));
            Ok(())
        }
        Ended::Vanished => Err(Failure::new(format!("{project} was removed meanwhile"))),
        Ended::Interrupted => {
            let goes_on = if removal { "the removal" } else { "the deployment" };
            Err(context.interrupt.failure(&format!("stopped waiting; {goes_on} of {project} goes on")))
        }
    }
}

fn advice(status: &ProjectStatus) -> String {
    let name = first(status, |state| state == ServiceState::Failing);
    format!("`tug why {name}` says more; the deployment stays as it is until the next apply")
}

/// The name of the first service in such a state.
fn first(status: &ProjectStatus, is: impl Fn(ServiceState) -> bool) -> String {
    let found = status.services.iter().find(|service| is(service.state));
    found.map_or_else(|| "SERVICE".to_owned(), |service| format!("{}/{}", status.name, service.name))
}

/// Says what is wrong with each service that is not as wanted, with the last lines of what failed.
pub(crate) async fn explain(context: &mut Context, status: &ProjectStatus) {
    let wrong =
        |service: &&ServiceStatus| !matches!(service.state, ServiceState::Ready | ServiceState::Completed);
    for service in status.services.iter().filter(wrong) {
        context.screen.note(&reasons(service, context.clock.now()));
        if service.state != ServiceState::Removing {
            last_lines(context, status, service).await;
        }
    }
}

/// A service and everything that is wrong with it.
fn reasons(service: &ServiceStatus, now: Timestamp) -> String {
    let state = paint(style::of_state(service.state), service.state.as_str());
    let mut text = format!("{}: {state}, {} of {} ready\n", service.name, service.ready, service.wanted);
    for reason in &service.reasons {
        lines::add(&mut text, &format!("  - {}", printable(reason)));
    }
    for task in service.tasks.iter().filter(|task| !task.phase.as_ref().is_some_and(is_fine)) {
        let (word, colour, detail) = task_state(task, now);
        let detail = if detail.is_empty() { String::new() } else { format!(": {}", printable(&detail)) };
        let word = paint(colour, word);
        lines::add(&mut text, &format!("  {}.{} {word}{detail}", service.name, task.slot));
    }
    text
}

fn is_fine(phase: &tug_model::report::Phase) -> bool {
    phase.is_healthy() || phase.has_succeeded()
}

async fn last_lines(context: &mut Context, status: &ProjectStatus, service: &ServiceStatus) {
    let query = LogQuery {
        names: format!("{}/{}", status.name, service.name),
        tail: Some(LAST_LINES),
        ..LogQuery::default()
    };
    let mut shown = false;
    if let Ok(mut records) = context.client.logs(&query).await {
        let mut lines = LogLines::new(LogStyle::default(), service.name.as_str().len() + 2);
        while let Some(Ok(record)) = records.next().await {
            context.screen.note(&format!("  {}", lines.line(&record)));
            shown = true;
        }
    }
    if shown {
        return;
    }
    for task in &service.tasks {
        for line in
            task.phase.as_ref().and_then(last_words).map(printable_lines).iter().flat_map(|s| s.lines())
        {
            context.screen.note(&format!("  {}.{} | {line}", service.name, task.slot));
        }
    }
}

/// The exit code of a question that was answered with no.
pub(crate) fn declined() -> Failure {
    Failure { code: FAILED, ..Failure::new("nothing was changed") }
}

#[cfg(test)]
mod tests {
    use anstream::adapter::strip_str;

    use super::*;
    use crate::sample;

    #[test]
    fn the_reasons_of_a_failure_are_listed() {
        let mut web = sample::service("web", &[sample::healthy(), sample::crashed(2, "boom")]);
        web.reasons = vec!["web.2 keeps failing".into()];
        insta::assert_snapshot!(strip_str(&reasons(&web, sample::NOW)).to_string(), @r"
        web: failing, 1 of 2 ready
          - web.2 keeps failing
          web.2 waiting: exited with code 2, next try in 5s
        ");
        assert!(advice(&sample::project_of("shop", vec![web])).contains("tug why shop/web"));
    }
}
