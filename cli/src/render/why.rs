//! `tug why`: how a service stands, what was decided about it, and what happened.

use std::fmt::Write;

use tug_api::user::Why;
use tug_model::Timestamp;
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
    for task in &why.status.tasks {
        self::task(&mut text, &why.status, task, now);
    }
    let reasons: Vec<&String> = why.status.reasons.iter().chain(&why.explanations).collect();
    if !reasons.is_empty() {
        lines::add(&mut text, &style::paint(style::HEAD, "why"));
        let mut said: Vec<&String> = Vec::new();
        for reason in reasons {
            if !said.contains(&reason) {
                lines::add(&mut text, &format!("  - {}", printable(reason)));
                said.push(reason);
            }
        }
    }
    if !why.events.is_empty() {
        lines::add(&mut text, &style::paint(style::HEAD, "events"));
        for one in &why.events {
            lines::add(&mut text, &format!("  {}", event::line(one)));
        }
    }
    text
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
    let (state, colour, detail) = task_state(task);
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
    if let Some(words) = task.phase.as_ref().and_then(last_words) {
        lines::add(text, &style::paint(style::DIM, "    its last words:"));
        for word in printable_lines(words.trim_end()).lines() {
            lines::add(text, &format!("      {word}"));
        }
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
    use tug_model::event::{Event, EventKind};

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
}
