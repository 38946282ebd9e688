//! `tug why`: how a service stands, what was decided about it, and what happened.

use std::collections::BTreeMap;
use std::fmt::Write;

use tug_api::user::Why;
use tug_model::Timestamp;
use tug_model::event::{Event, EventKind};
use tug_model::report::{Failure, Phase};
use tug_model::status::{ServiceState, ServiceStatus, TaskStatus};

use super::escape::{printable, printable_lines};
use super::status::task_state;
use super::{event, lines, style};
use crate::time::age;

/// The whole answer.
pub(crate) fn why(why: &Why, now: Timestamp) -> String {
    let mut text = String::new();
    head(&mut text, &why.status);
    let mut words = BTreeMap::new();
    for task in &why.status.tasks {
        self::task(&mut text, &why.status, task, now);
        last(&mut text, &why.status, task, &mut words);
    }
    let mut reasons: Vec<&String> = Vec::new();
    for reason in why.status.reasons.iter().chain(&why.explanations) {
        if !reasons.contains(&reason) && !is_shown(reason, &why.status.tasks) {
            reasons.push(reason);
        }
    }
    if !reasons.is_empty() {
        lines::add(&mut text, &style::paint(style::HEAD, "why"));
        for reason in reasons {
            lines::add(&mut text, &format!("  - {}", printable(reason)));
        }
    }
    if !why.events.is_empty() {
        lines::add(&mut text, &style::paint(style::HEAD, "events"));
        for Told { event: one, times, since } in folded(&why.events) {
            let again = match times {
                1 => String::new(),
                more => format!(" ({more} times since {})", event::seconds(since)),
            };
            lines::add(&mut text, &format!("  {}{again}", event::line(one)));
        }
    }
    text
}

/// Whether the line of a task says it already.
fn is_shown(reason: &str, tasks: &[TaskStatus]) -> bool {
    tasks.iter().any(|task| {
        let Some(phase) = &task.phase else { return false };
        let is_stand = reason == format!("{} on node {}: {phase}", task.id, task.node);
        let said = |words: &str| reason == format!("{} said last: {}", task.id, words.trim_end());
        is_stand || last_words(phase).is_some_and(said)
    })
}

/// An event, and that the same was told before.
struct Told<'e> {
    event: &'e Event,
    times: usize,
    since: Timestamp,
}

/// The events, those that tell the same of one task again and again as one of them, the newest.
fn folded(events: &[Event]) -> Vec<Told<'_>> {
    let mut told: Vec<Told<'_>> = Vec::new();
    for event in events {
        let same = told.iter().position(|earlier| is_same(earlier.event, event));
        let (times, since) = same.map_or((0, event.at), |place| {
            let earlier = told.remove(place);
            (earlier.times, earlier.since)
        });
        told.push(Told { event, times: times + 1, since });
    }
    told
}

/// Whether two events tell the same of one task, only at another time. What it wrote last, and the next try, may differ.
fn is_same(one: &Event, other: &Event) -> bool {
    let what = |event: &Event| {
        let message = event.message.as_str();
        let end = [" (`", ", next try in "].iter().filter_map(|mark| message.find(mark)).min();
        message.get(..end.unwrap_or(message.len())).map(str::to_owned)
    };
    let repeats = matches!(one.kind, EventKind::Healthy | EventKind::Unhealthy | EventKind::Failed);
    repeats
        && one.kind == other.kind
        && one.task.is_some()
        && one.task == other.task
        && what(one) == what(other)
}

fn head(text: &mut String, service: &ServiceStatus) {
    let state = style::paint(style::of_state(service.state), service.state.as_str());
    let name = style::paint(style::HEAD, &service.name);
    let word = if service.state == ServiceState::Completed { "completed" } else { "ready" };
    let count = format!("{} of {} {word}", service.ready, service.wanted);
    let renewed = if service.updated < service.ready {
        format!(", {} of them up to date", service.updated)
    } else {
        String::new()
    };
    lines::add(text, &format!("{name}: {state}, {count}{renewed}, image {}", printable(&service.image)));
}

fn task(text: &mut String, service: &ServiceStatus, task: &TaskStatus, now: Timestamp) {
    let (state, colour, detail) = task_state(task, now);
    let mut shown = format!("  {}.{} {}", service.name, task.slot, style::paint(colour, state));
    let since = age(now.since(task.since.unwrap_or(task.created_at)));
    write!(shown, " for {since} on {}", task.node).expect("a String takes everything");
    if task.restarts > 0 {
        let times = if task.restarts == 1 { "once" } else { "times" };
        match task.restarts {
            1 => write!(shown, ", started again {times}"),
            more => write!(shown, ", started again {more} {times}"),
        }
        .expect("a String takes everything");
    }
    if !detail.is_empty() {
        write!(shown, ": {}", printable(&detail)).expect("a String takes everything");
    }
    lines::add(text, &shown);
}

/// What it wrote before it ended, unless another one, in `said`, wrote just that.
fn last<'t>(
    text: &mut String,
    service: &ServiceStatus,
    task: &'t TaskStatus,
    said: &mut BTreeMap<&'t str, String>,
) {
    let Some(words) = task.phase.as_ref().and_then(last_words).map(str::trim_end) else { return };
    if let Some(other) = said.get(words) {
        lines::add(text, &style::paint(style::DIM, format_args!("    its last words: those of {other}")));
        return;
    }
    said.insert(words, format!("{}.{}", service.name, task.slot));
    lines::add(text, &style::paint(style::DIM, "    its last words:"));
    for word in printable_lines(words).lines() {
        lines::add(text, &format!("      {word}"));
    }
}

/// What the container wrote before it ended.
pub(crate) fn last_words(phase: &Phase) -> Option<&str> {
    let (Phase::Waiting { failure: Failure::Exited { exit }, .. } | Phase::Exited { exit }) = phase else {
        return None;
    };
    Some(exit.last_words.as_str()).filter(|words| !words.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use anstream::adapter::strip_str;
    use tug_model::Revision;

    use super::*;
    use crate::sample::{self, NOW};

    #[test]
    fn a_crash_is_explained_with_the_container_s_last_words() {
        let mut status = sample::service(
            "web",
            &[sample::healthy(), sample::crashed(1, "panic: no \u{1b}[31mdatabase\nbye\n")],
        );
        status.tasks[1].restarts = 4;
        status.reasons = vec!["web.2 keeps failing".into()];
        let happened = Event {
            revision: Revision(9),
            at: NOW,
            kind: EventKind::Failed,
            project: None,
            service: Some(status.name.clone()),
            task: Some(status.tasks[1].id.clone()),
            node: None,
            message: "exited with code 1".into(),
        };
        let explanations = vec!["web.2 keeps failing".into(), "web.2 stays on n1".into()];
        let text = why(&Why { status, explanations, events: vec![happened] }, NOW);
        insta::assert_snapshot!(strip_str(&text).to_string(), @r"
        web: failing, 1 of 2 ready, image web:1
          web.1 healthy for 1m 1s on n1
          web.2 waiting for 1m 1s on n1, started again 4 times: exited with code 1, next try in 5s
            its last words:
              panic: no \u{1b}[31mdatabase
              bye
        why
          - web.2 keeps failing
          - web.2 stays on n1
        events
          2026-01-01T00:00:00Z  failed     shop.web.2.7  exited with code 1
        ");
    }

    /// Two replicas that crash for one reason, again and again.
    #[test]
    fn a_crash_loop_is_told_once_with_how_often() {
        let mut status = sample::service(
            "web",
            &[sample::crashed(1, "no database\n"), sample::crashed(1, "no database\n")],
        );
        let ids: Vec<_> = status.tasks.iter().map(|task| task.id.clone()).collect();
        status.reasons = ids
            .iter()
            .map(|id| format!("{id} on node n1: exited with code 1, next try in 5s"))
            .chain(["web.2: node n2: is drained".into()])
            .collect();
        let explanations = ids.iter().map(|id| format!("{id} said last: no database")).collect();
        let told = |number: u64, kind, message: &str| Event {
            revision: Revision(number),
            at: Timestamp(NOW.0 + 1000 * number),
            kind,
            project: None,
            service: Some(status.name.clone()),
            task: Some(ids[0].clone()),
            node: None,
            message: message.into(),
        };
        let events = vec![
            told(1, EventKind::Planned, "created on node n1: 0 of 1 running"),
            told(2, EventKind::Healthy, "is healthy"),
            told(3, EventKind::Failed, "exited with code 1 (`12:00 no database`), next try in 1s"),
            told(4, EventKind::Healthy, "is healthy"),
            told(5, EventKind::Failed, "exited with code 1 (`12:01 no database`), next try in 2s"),
            told(6, EventKind::Failed, "exited with code 2, next try in 2s"),
        ];
        let text = why(&Why { status, explanations, events }, NOW);
        insta::assert_snapshot!(strip_str(&text).to_string(), @r"
        web: failing, 0 of 2 ready, image web:1
          web.1 waiting for 1m 1s on n1: exited with code 1, next try in 5s
            its last words:
              no database
          web.2 waiting for 1m 1s on n1: exited with code 1, next try in 5s
            its last words: those of web.1
        why
          - web.2: node n2: is drained
        events
          2026-01-01T00:00:01Z  planned    shop.web.1.7  created on node n1: 0 of 1 running
          2026-01-01T00:00:04Z  healthy    shop.web.1.7  is healthy (2 times since 2026-01-01T00:00:02Z)
          2026-01-01T00:00:05Z  failed     shop.web.1.7  exited with code 1 (`12:01 no database`), next try in 2s (2 times since 2026-01-01T00:00:03Z)
          2026-01-01T00:00:06Z  failed     shop.web.1.7  exited with code 2, next try in 2s
        ");
    }
}
