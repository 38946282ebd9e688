//! Events, one line each.

use anstyle::Style;
use tug_model::event::{Event, EventKind};
use tug_model::{Millis, Timestamp};

use super::escape::printable;
use super::style;

/// One event as a line without its end.
pub(crate) fn line(event: &Event) -> String {
    let time = style::paint(style::DIM, seconds(event.at));
    let kind = style::paint(colour(event.kind), format_args!("{:<9}", event.kind.as_str()));
    let whose = event.task.as_ref().map_or_else(|| whose(event), |task| format!("{task}  "));
    format!("{time}  {kind}  {whose}{}", printable(&event.message))
}

fn whose(event: &Event) -> String {
    match (&event.project, &event.service) {
        (Some(project), Some(service)) => format!("{project}/{service}  "),
        (Some(project), None) => format!("{project}  "),
        (None, Some(service)) => format!("{service}  "),
        (None, None) => event.node.as_ref().map(|node| format!("{node}  ")).unwrap_or_default(),
    }
}

/// A point in time to the second.
pub(crate) fn seconds(at: Timestamp) -> String {
    let at = std::time::UNIX_EPOCH + Millis(at.0).duration();
    humantime::format_rfc3339_seconds(at).to_string()
}

fn colour(kind: EventKind) -> Style {
    match kind {
        EventKind::Healthy | EventKind::Completed => style::GOOD,
        EventKind::Unhealthy | EventKind::Failed => style::BAD,
        EventKind::Project | EventKind::Node | EventKind::Token => style::HINT,
        EventKind::Planned => style::PLAIN,
    }
}

#[cfg(test)]
mod tests {
    use anstream::adapter::strip_str;
    use tug_model::{NodeId, ProjectName, Revision};

    use super::*;

    #[test]
    fn an_event_is_a_line() {
        let mut event = Event {
            revision: Revision(3),
            at: crate::sample::NOW,
            kind: EventKind::Project,
            project: Some(ProjectName::parse("shop").unwrap()),
            service: None,
            task: None,
            node: Some(NodeId::parse("n1").unwrap()),
            message: "accepted\nversion 2".into(),
        };
        assert_eq!(
            strip_str(&line(&event)).to_string(),
            r"2026-01-01T00:00:00Z  project    shop  accepted\nversion 2"
        );
        event.project = None;
        assert!(strip_str(&line(&event)).to_string().contains("n1  accepted"));
    }
}
