//! What is said about a manifest: one line for each mistake, with the place that has to be changed.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;

use crate::tree::Place;

/// One remark about a manifest.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// The file, as it was named.
    pub file: String,
    /// The line, from 1; 0 where the whole file is meant.
    pub line: u32,
    /// The column in characters, from 1; 0 where the whole file is meant.
    pub column: u32,
    /// The way to the value, as in `services.web.ports[0]`; empty where the whole file is meant.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// The manifest cannot be used.
    Error,
    /// It can, but not all of it means what it says.
    Warning,
    /// Worth knowing.
    Note,
}

/// Where findings are collected while a manifest is read. Readers go on after a mistake, so that all are reported.
#[derive(Debug)]
pub(crate) struct Report {
    files: RefCell<Vec<String>>,
    findings: RefCell<Vec<(Place, Finding)>>,
    ignore_unsupported: BTreeSet<String>,
    /// Where a value could not be made out; what follows from that is not said on top.
    broken: RefCell<BTreeSet<Place>>,
}

/// The most findings that are handed out; a manifest with more is not one.
const MOST_FINDINGS: usize = 1000;

// === impl Finding ===

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.level, self.file)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        if !self.path.is_empty() {
            write!(f, ": {}", self.path)?;
        }
        write!(f, ": {}", self.message)?;
        match &self.hint {
            Some(hint) => write!(f, ", {hint}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        })
    }
}

// === impl Report ===

impl Report {
    pub(crate) fn new(ignore_unsupported: BTreeSet<String>) -> Self {
        Self {
            files: RefCell::default(),
            findings: RefCell::default(),
            ignore_unsupported,
            broken: RefCell::default(),
        }
    }

    /// Registers a file; its number is what a [`Place`] holds.
    pub(crate) fn file(&self, name: &str) -> u16 {
        let mut files = self.files.borrow_mut();
        files.push(name.to_owned());
        u16::try_from(files.len() - 1).unwrap_or(u16::MAX)
    }

    /// The names of the files, by number.
    pub(crate) fn files(&self) -> Vec<String> {
        self.files.borrow().clone()
    }

    /// Whether the user said that a key without support may be dropped.
    pub(crate) fn may_drop(&self, key: &str) -> bool {
        self.ignore_unsupported.contains(key)
    }

    pub(crate) fn error(&self, place: Place, path: &str, message: impl AsRef<str>) {
        self.add(Level::Error, (place, path), message.as_ref(), None);
    }

    /// An error that leaves no value at this place: nothing more is said about it.
    pub(crate) fn broken(&self, place: Place, path: &str, message: impl AsRef<str>) {
        self.error(place, path, message);
        self.broken.borrow_mut().insert(place);
    }

    pub(crate) fn error_with_hint(
        &self,
        place: Place,
        path: &str,
        message: impl AsRef<str>,
        hint: impl Into<String>,
    ) {
        self.add(Level::Error, (place, path), message.as_ref(), Some(hint.into()));
    }

    pub(crate) fn warning(&self, place: Place, path: &str, message: impl AsRef<str>) {
        self.add(Level::Warning, (place, path), message.as_ref(), None);
    }

    pub(crate) fn note(&self, place: Place, path: &str, message: impl AsRef<str>) {
        self.add(Level::Note, (place, path), message.as_ref(), None);
    }

    pub(crate) fn add(
        &self,
        level: Level,
        (place, path): (Place, &str),
        message: &str,
        hint: Option<String>,
    ) {
        if self.broken.borrow().contains(&place) {
            return;
        }
        let files = self.files.borrow();
        let file = files.get(usize::from(place.file)).cloned().unwrap_or_default();
        let message = printable(message);
        let finding = Finding {
            level,
            file,
            line: place.line,
            column: place.column,
            path: printable(path),
            message,
            hint,
        };
        self.findings.borrow_mut().push((place, finding));
    }

    pub(crate) fn has_errors(&self) -> bool {
        self.findings.borrow().iter().any(|(_, finding)| finding.level == Level::Error)
    }

    /// All findings in the order of the text, each once: what stands in an anchor is read at every use of it.
    pub(crate) fn into_findings(self) -> Vec<Finding> {
        let mut findings = self.findings.into_inner();
        findings.sort_by(|(a, x), (b, y)| (a, x.level, &x.message).cmp(&(b, y.level, &y.message)));
        findings.dedup_by(|(a, x), (b, y)| a == b && x.level == y.level && x.message == y.message);
        let more = findings.len().saturating_sub(MOST_FINDINGS);
        let last = findings.last().map(|(_, last)| last.clone()).filter(|_| more > 0);
        let findings = findings.into_iter().take(MOST_FINDINGS).map(|(_, finding)| finding);
        let rest = last.map(|last| Finding {
            level: Level::Error,
            message: format!("{more} more findings are not shown; this is the last"),
            hint: None,
            ..last
        });
        findings.chain(rest).collect()
    }
}

/// `text` with control characters escaped and cut at a length that a terminal line can bear.
pub(crate) fn printable(text: &str) -> String {
    const MOST: usize = 400;
    let mut shown = String::with_capacity(text.len().min(MOST));
    for c in text.chars().take(MOST) {
        if c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    if text.chars().nth(MOST).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_sorted_by_place_and_said_once() {
        let report = Report::new(BTreeSet::new());
        let file = report.file("a.yaml");
        let at = |line| Place { file, line, column: 3 };
        report.error(at(9), "b", "late");
        report.warning(at(2), "a", "early");
        report.error(at(9), "c", "late");
        assert!(report.has_errors());
        let lines: Vec<String> = report.into_findings().iter().map(ToString::to_string).collect();
        assert_eq!(lines, ["warning: a.yaml:2:3: a: early", "error: a.yaml:9:3: b: late"]);
    }

    #[test]
    fn control_characters_never_reach_the_terminal() {
        assert_eq!(printable("a\u{1b}[1mb\u{202e}c"), "a\\u{1b}[1mb\\u{202e}c");
        assert_eq!(printable(&"x".repeat(500)).chars().count(), 401);
    }
}
