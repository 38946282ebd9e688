//! The typed cursor over the tree: every reader of a key goes through here, so that wrong types, unknown keys and
//! values that we do not honour are reported in one way, each at its own line and column.

mod fields;
pub(crate) mod quantity;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::str::FromStr;

pub(crate) use fields::Fields;
use tug_model::spec::rule::{self, Verdict};
use tug_model::{Bytes, Millis, NanoCpus};

use crate::finding::{Level, Report};
use crate::schema::{Fate, Schema};
use crate::suggest::nearest;
use crate::tree::{Entry, Kind, Node, Place, Scalar, Value, join};

/// A value of the manifest, the way to it, and where to report what is wrong with it.
#[derive(Debug, Clone)]
pub(crate) struct Cursor<'a> {
    pub(crate) node: &'a Node,
    pub(crate) path: String,
    /// Where its key stands; for an item of a list, where the item does.
    pub(crate) key_place: Place,
    pub(crate) report: &'a Report,
}

// === impl Cursor ===

impl<'a> Cursor<'a> {
    pub(crate) fn root(node: &'a Node, report: &'a Report) -> Self {
        Self { node, path: String::new(), key_place: node.place, report }
    }

    pub(crate) fn place(&self) -> Place {
        self.node.place
    }

    pub(crate) fn error(&self, message: impl AsRef<str>) {
        self.error_with(message, None);
    }

    pub(crate) fn error_with_hint(&self, message: impl AsRef<str>, hint: impl Into<String>) {
        self.error_with(message, Some(hint.into()));
    }

    /// An error; where a variable made the value, it is said how the value was written.
    pub(crate) fn error_with(&self, message: impl AsRef<str>, hint: Option<String>) {
        let mut message = message.as_ref().to_owned();
        if let Value::Scalar(Scalar { written: Some(written), .. }) = &self.node.value {
            let short: String = written.chars().take(80).collect();
            message = format!("{message} (from {short})");
        }
        self.report.add(Level::Error, (self.node.place, &self.path), &message, hint);
    }

    /// An error about the key rather than its value.
    pub(crate) fn key_error(&self, message: impl AsRef<str>) {
        self.report.error(self.key_place, &self.path, message);
    }

    pub(crate) fn warning(&self, message: impl AsRef<str>) {
        self.report.warning(self.node.place, &self.path, message);
    }

    pub(crate) fn note(&self, message: impl AsRef<str>) {
        self.report.note(self.node.place, &self.path, message);
    }

    /// Says that `key`, or this value of it, is not honoured: an error, or a warning where the user said that it may
    /// be dropped.
    pub(crate) fn refuse(&self, key: &str, message: &str) {
        refuse(self.report, self.node.place, &self.path, (key, message));
    }

    /// [`Self::refuse`] at the key rather than at its value.
    pub(crate) fn refuse_key(&self, key: &str, message: &str) {
        refuse(self.report, self.key_place, &self.path, (key, message));
    }

    fn expected(&self, what: &str) {
        self.error(format!("expected {what}, got {}", self.node.shown()));
    }

    // --- scalars ---

    fn scalar(&self, what: &str) -> Option<&'a Scalar> {
        if let Value::Scalar(scalar) = &self.node.value {
            return Some(scalar);
        }
        self.expected(what);
        None
    }

    /// A text; numbers and booleans as they were written.
    pub(crate) fn text(&self) -> Option<String> {
        let scalar = self.scalar("a text")?;
        if scalar.text.contains('\0') {
            self.error("the text holds a NUL character");
            return None;
        }
        Some(scalar.text.clone())
    }

    /// A text that is not empty. An empty one, as an unset variable leaves it, counts as absent.
    pub(crate) fn filled(&self) -> Option<String> {
        self.text().filter(|text| !text.is_empty())
    }

    /// A text that `parse` understands.
    pub(crate) fn parsed<T>(&self, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        match parse(&self.text()?) {
            Ok(value) => Some(value),
            Err(message) => {
                self.error(message);
                None
            }
        }
    }

    /// `value`, if the rule for it says so.
    pub(crate) fn kept<T>(&self, value: T, verdict: Verdict) -> Option<T> {
        match verdict {
            Ok(()) => Some(value),
            Err(message) => {
                self.error(message);
                None
            }
        }
    }

    /// A boolean. What came from a variable is a text, and so is YAML 1.1's `yes`.
    pub(crate) fn flag(&self) -> Option<bool> {
        let scalar = self.scalar("true or false")?;
        match scalar.text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "y" | "on" => Some(true),
            "false" | "no" | "n" | "off" => Some(false),
            "" if scalar.written.is_some() => None,
            _ => {
                self.expected("true or false");
                None
            }
        }
    }

    /// A whole number within `range`.
    pub(crate) fn number<T>(&self, range: RangeInclusive<T>) -> Option<T>
    where
        T: FromStr + PartialOrd + std::fmt::Display + Copy,
    {
        let scalar = self.scalar("a number")?;
        if scalar.text.is_empty() && scalar.written.is_some() {
            return None;
        }
        let digits = scalar.text.strip_prefix('-').unwrap_or(&scalar.text);
        let is_whole = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        if !is_whole {
            let what = if digits.parse::<f64>().is_ok() { "a whole number" } else { "a number" };
            self.expected(what);
            return None;
        }
        match scalar.text.parse::<T>() {
            Ok(number) if range.contains(&number) => Some(number),
            _ => {
                let (least, most) = (range.start(), range.end());
                self.error(format!("{} is out of range: use {least} to {most}", scalar.shown()));
                None
            }
        }
    }

    pub(crate) fn duration(&self) -> Option<Millis> {
        self.parsed(quantity::duration)
    }

    /// A duration within `range`.
    pub(crate) fn time(&self, range: &RangeInclusive<Millis>) -> Option<Millis> {
        let length = self.duration()?;
        self.kept(length, rule::within(&length, range))
    }

    pub(crate) fn bytes(&self) -> Option<Bytes> {
        self.parsed(quantity::bytes)
    }

    pub(crate) fn cpus(&self) -> Option<NanoCpus> {
        self.parsed(quantity::cpus)
    }

    /// One of a few words.
    pub(crate) fn choice<T: Copy>(&self, choices: &[(&str, T)]) -> Option<T> {
        let text = self.filled()?;
        if let Some((_, value)) = choices.iter().find(|(word, _)| *word == text) {
            return Some(*value);
        }
        let words: Vec<String> = choices.iter().map(|(word, _)| format!("`{word}`")).collect();
        let message = format!("{} is not one of {}", self.node.shown(), words.join(", "));
        self.error_with(message, nearest(&text, choices.iter().map(|(word, _)| *word)));
        None
    }

    // --- lists and maps ---

    fn at(&self, index: usize, node: &'a Node) -> Self {
        Self { node, path: format!("{}[{index}]", self.path), key_place: node.place, report: self.report }
    }

    pub(crate) fn under(&self, entry: &'a Entry) -> Self {
        Self {
            node: &entry.value,
            path: join(&self.path, &entry.key),
            key_place: entry.place,
            report: self.report,
        }
    }

    /// The items of a list.
    pub(crate) fn items(&self) -> Vec<Self> {
        if let Value::List(items) = &self.node.value {
            return items.iter().enumerate().map(|(index, node)| self.at(index, node)).collect();
        }
        if !self.node.is_null() {
            self.expected("a list");
        }
        Vec::new()
    }

    /// The items of a list, or the one value that stands for a list of one.
    pub(crate) fn one_or_more(&self) -> Vec<Self> {
        if matches!(self.node.value, Value::Scalar(_)) { vec![self.clone()] } else { self.items() }
    }

    /// The texts of a list; each item is checked.
    pub(crate) fn texts(&self) -> Vec<String> {
        self.items().iter().filter_map(Self::filled).collect()
    }

    /// The entries of a map.
    pub(crate) fn entries(&self) -> Vec<(&'a Entry, Self)> {
        if let Value::Map(entries) = &self.node.value {
            return entries.iter().map(|entry| (entry, self.under(entry))).collect();
        }
        if !self.node.is_null() {
            self.expected("a map");
        }
        Vec::new()
    }

    pub(crate) fn is_map(&self) -> bool {
        matches!(self.node.value, Value::Map(_))
    }

    pub(crate) fn is_list(&self) -> bool {
        matches!(self.node.value, Value::List(_))
    }

    pub(crate) fn is_scalar(&self) -> bool {
        matches!(self.node.value, Value::Scalar(_))
    }

    pub(crate) fn is_number(&self) -> bool {
        matches!(&self.node.value, Value::Scalar(Scalar { kind: Kind::Number, .. }))
    }

    /// `KEY: value` of a map or `KEY=value` of a list; `None` is a key without a value. The cursor is at what has to
    /// be changed where the key is wrong.
    pub(crate) fn pairs(&self) -> Vec<(String, Option<String>, Self)> {
        if self.is_map() {
            let read = |(entry, value): (&'a Entry, Self)| {
                if entry.key.contains('\0') {
                    value.key_error("the key holds a NUL character");
                    return None;
                }
                if value.node.is_null() {
                    return Some((entry.key.clone(), None, value));
                }
                value.text().map(|text| (entry.key.clone(), Some(text), value))
            };
            return self.entries().into_iter().filter_map(read).collect();
        }
        let mut pairs = Vec::new();
        if !self.is_list() && !self.node.is_null() {
            self.expected("a map or a list of KEY=value");
            return pairs;
        }
        for item in self.items() {
            let Some(text) = item.text() else { continue };
            match text.split_once('=') {
                Some((key, value)) => pairs.push((key.to_owned(), Some(value.to_owned()), item)),
                None => pairs.push((text, None, item)),
            }
        }
        pairs
    }

    /// [`Self::pairs`] as options of a driver and the like, where a key without a value means an empty one.
    pub(crate) fn options(&self) -> BTreeMap<String, String> {
        self.pairs().into_iter().map(|(key, value, _)| (key, value.unwrap_or_default())).collect()
    }

    /// A command: words of a list, or a text that is split like a shell does. `None` is absent.
    pub(crate) fn words(&self) -> Option<Vec<String>> {
        match &self.node.value {
            Value::Null => None,
            Value::List(_) => Some(self.items().iter().filter_map(Self::text).collect()),
            Value::Scalar(_) | Value::Map(_) => {
                let text = self.text()?;
                if let Ok(words) = shell_words::split(&text) {
                    Some(words)
                } else {
                    self.error("a quote in this command is never closed");
                    None
                }
            }
        }
    }

    /// The map's fields, after every key was held against `schema` and what it does not read was reported.
    pub(crate) fn fields(&self, schema: &'static Schema) -> Option<Fields<'a>> {
        if !self.is_map() {
            self.expected(&format!("a map ({})", schema.what));
            return None;
        }
        for entry in self.node.entries() {
            self.check_key(entry, schema);
        }
        Some(Fields::new(self.clone(), schema))
    }

    fn check_key(&self, entry: &Entry, schema: &'static Schema) {
        let path = join(&self.path, &entry.key);
        let key = entry.key.as_str();
        match schema.fate(key) {
            Some(Fate::Read | Fate::Silent) => {}
            Some(Fate::Noted(reason)) => self.report.note(entry.place, &path, format!("ignored: {reason}")),
            Some(Fate::Ignored(reason)) => {
                self.report.warning(entry.place, &path, format!("ignored: {reason}"));
            }
            Some(Fate::NotYet(reason)) => {
                if !entry.value.is_null() {
                    refuse(self.report, entry.place, &path, (key, &format!("not yet: {reason}")));
                }
            }
            Some(Fate::Refused(reason)) => {
                if !entry.value.is_null() {
                    refuse(self.report, entry.place, &path, (key, &format!("unsupported: {reason}")));
                }
            }
            None if key.starts_with("x-") => {
                // At the top level people keep fragments under names of all sorts.
                let may_be_ours = !self.path.is_empty();
                let ours = schema.names().filter(|name| may_be_ours && name.starts_with("x-"));
                if let Some(hint) = nearest(key, ours) {
                    let message = format!("`{key}` is no key of ours and is ignored");
                    self.report.add(Level::Warning, (entry.place, &path), &message, Some(hint));
                }
            }
            None => {
                let message = format!("unknown key `{key}`");
                self.report.add(Level::Error, (entry.place, &path), &message, nearest(key, schema.names()));
            }
        }
    }
}

fn refuse(report: &Report, place: Place, path: &str, (key, message): (&str, &str)) {
    if report.may_drop(key) {
        report.warning(place, path, format!("dropped, as you asked: {message}"));
    } else {
        let hint = format!("or leave it out with --ignore-unsupported={key}");
        report.error_with_hint(place, path, message, hint);
    }
}
