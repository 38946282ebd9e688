//! Merged logs: every line with the replica that wrote it in front, aligned, in a colour of its own.

use std::collections::BTreeMap;

use tug_api::user::LogRecord;
use tug_model::{ProjectName, ServiceName};

use super::escape::printable;
use super::style::{self, paint};

/// How lines are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct LogStyle {
    /// The lines as they are, control characters and all.
    pub(crate) raw: bool,
    /// Without the replica in front.
    pub(crate) bare: bool,
    /// With the time in front.
    pub(crate) times: bool,
    /// Without colours: only raw lines are told, the others lose theirs where nobody would see them.
    pub(crate) plain: bool,
    /// The project belongs to the name.
    pub(crate) projects: bool,
}

/// Shows lines; it remembers how wide names have been and which colour a service has.
#[derive(Debug, Default)]
pub(crate) struct LogLines {
    style: LogStyle,
    width: usize,
    colours: BTreeMap<(ProjectName, ServiceName), usize>,
}

// === impl LogLines ===

impl LogLines {
    /// Lines in this style. `widest` is the longest name that is expected: the first lines are aligned already.
    pub(crate) fn new(style: LogStyle, widest: usize) -> Self {
        Self { style, width: widest, colours: BTreeMap::new() }
    }

    /// Whether lines are shown as they were written.
    pub(crate) fn is_raw(&self) -> bool {
        self.style.raw
    }

    /// One line with its end.
    pub(crate) fn line(&mut self, record: &LogRecord) -> String {
        let mut text = String::new();
        if self.style.times {
            text.push_str(&self.paint(style::DIM, &record.at.to_string()));
            text.push(' ');
        }
        if !self.style.bare {
            text.push_str(&self.prefix(record));
        }
        if self.style.raw {
            text.push_str(&record.line);
        } else {
            text.push_str(&printable(&record.line));
        }
        text.push('\n');
        text
    }

    fn prefix(&mut self, record: &LogRecord) -> String {
        let name = if self.style.projects {
            format!("{}/{}.{}", record.project, record.service, record.slot)
        } else {
            format!("{}.{}", record.service, record.slot)
        };
        self.width = self.width.max(name.len());
        let next = self.colours.len();
        let key = (record.project.clone(), record.service.clone());
        let number = *self.colours.entry(key).or_insert(next);
        let padded = format!("{name:width$} |", width = self.width);
        format!("{} ", self.paint(style::of_number(number), &padded))
    }

    fn paint(&self, colour: anstyle::Style, text: &str) -> String {
        if self.style.plain { text.to_owned() } else { paint(colour, text) }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use anstream::adapter::strip_str;
    use tug_api::user::LogStream;
    use tug_model::{Slot, TaskId, Timestamp};

    use super::*;

    pub(crate) fn record(service: &str, slot: u32, at: u64, line: &str) -> LogRecord {
        LogRecord {
            at: Timestamp(at),
            project: ProjectName::parse("shop").unwrap(),
            service: ServiceName::parse(service).unwrap(),
            slot: Slot(slot),
            task: TaskId::parse(&format!("shop.{service}.{slot}.1")).unwrap(),
            stream: LogStream::Stdout,
            line: line.into(),
        }
    }

    fn shown(style: LogStyle, widest: usize) -> String {
        let mut lines = LogLines::new(style, widest);
        let records = [
            record("web", 1, 1, "GET /"),
            record("cache", 10, 2, "\u{1b}[2Jwiped\ttab"),
            record("web", 2, 3, "done"),
        ];
        records.iter().map(|record| lines.line(record)).collect()
    }

    #[test]
    fn names_are_aligned_and_escapes_are_shown() {
        insta::assert_snapshot!(strip_str(&shown(LogStyle::default(), 8)).to_string(), @r"
        web.1    | GET /
        cache.10 | \u{1b}[2Jwiped	tab
        web.2    | done
        ");
        let style = LogStyle { projects: true, times: true, ..LogStyle::default() };
        insta::assert_snapshot!(strip_str(&shown(style, 0)).to_string().lines().next().unwrap(),
            @"1970-01-01T00:00:00.001Z shop/web.1 | GET /");
    }

    #[test]
    fn raw_lines_are_as_they_were_written() {
        let style = LogStyle { raw: true, bare: true, ..LogStyle::default() };
        assert_eq!(shown(style, 8), "GET /\n\u{1b}[2Jwiped\ttab\ndone\n");
    }

    #[test]
    fn a_service_keeps_its_colour() {
        let text = shown(LogStyle::default(), 8);
        let colour = |line: &str| line.split("web").next().unwrap().to_owned();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(colour(lines[0]), colour(lines[2]));
        assert!(!lines[1].starts_with(&colour(lines[0])));
    }
}
