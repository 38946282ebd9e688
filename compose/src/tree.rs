//! The manifest as a tree in which every key and every value knows where it was written.
//!
//! Text becomes a tree in `tree/parse.rs`; `tree/merge_keys.rs` resolves `<<`. Everything after that — interpolation,
//! merging of files, reading into types — works on [`Node`]s, so a mistake found late still has its line and column.

mod merge_keys;
mod parse;

pub(crate) use merge_keys::{join, resolve};
pub(crate) use parse::parse;

/// The deepest nesting of lists and maps that is read.
pub(crate) const DEEPEST: usize = 64;

/// Where something was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Place {
    /// The number of the file in the report.
    pub(crate) file: u16,
    /// The line, from 1; 0 is the file as a whole.
    pub(crate) line: u32,
    /// The column in characters, from 1.
    pub(crate) column: u32,
}

/// A value and where it was written; with an alias or a merge key, where the anchor has it.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) place: Place,
    pub(crate) tag: Option<Tag>,
    pub(crate) value: Value,
}

/// The tags that the Compose Specification gives a meaning when files are merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tag {
    /// `!reset`: take away what earlier files say.
    Reset,
    /// `!override`: replace what earlier files say.
    Override,
}

/// What a node holds.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    Null,
    Scalar(Scalar),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// One key of a map.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) place: Place,
    pub(crate) value: Node,
}

/// A text, or a number or boolean as it was written.
#[derive(Debug, Clone)]
pub(crate) struct Scalar {
    pub(crate) text: String,
    pub(crate) kind: Kind,
    /// The text before interpolation, where it was another.
    pub(crate) written: Option<String>,
}

/// What YAML takes a scalar for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Boolean,
    Number,
}

// === impl Node ===

impl Node {
    pub(crate) fn text(place: Place, text: impl Into<String>) -> Self {
        let scalar = Scalar { text: text.into(), kind: Kind::Text, written: None };
        Self { place, tag: None, value: Value::Scalar(scalar) }
    }

    pub(crate) fn list(place: Place, items: Vec<Self>) -> Self {
        Self { place, tag: None, value: Value::List(items) }
    }

    pub(crate) fn map(place: Place, entries: Vec<Entry>) -> Self {
        Self { place, tag: None, value: Value::Map(entries) }
    }

    pub(crate) fn null(place: Place) -> Self {
        Self { place, tag: None, value: Value::Null }
    }

    /// The value under `key`, if this is a map that has it.
    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        self.entries().iter().find(|entry| entry.key == key).map(|entry| &entry.value)
    }

    pub(crate) fn get_mut(&mut self, key: &str) -> Option<&mut Self> {
        match &mut self.value {
            Value::Map(entries) => {
                entries.iter_mut().find(|entry| entry.key == key).map(|entry| &mut entry.value)
            }
            Value::Null | Value::Scalar(_) | Value::List(_) => None,
        }
    }

    /// The entries of a map; none where this is something else.
    pub(crate) fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Map(entries) => entries,
            Value::Null | Value::Scalar(_) | Value::List(_) => &[],
        }
    }

    /// The text of a scalar.
    pub(crate) fn as_text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar(scalar) => Some(&scalar.text),
            Value::Null | Value::List(_) | Value::Map(_) => None,
        }
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(self.value, Value::Null)
    }

    /// What this is, for a message: `a list`, `"text"`, `true`, `3`.
    pub(crate) fn shown(&self) -> String {
        match &self.value {
            Value::Null => "nothing".to_owned(),
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "a map".to_owned(),
            Value::Scalar(scalar) => scalar.shown(),
        }
    }
}

impl Scalar {
    /// The scalar for a message.
    pub(crate) fn shown(&self) -> String {
        let short: String = self.text.chars().take(80).collect();
        match self.kind {
            Kind::Text => format!("\"{short}\""),
            Kind::Boolean | Kind::Number => short,
        }
    }
}

/// The tree in one line, for tests.
#[cfg(test)]
pub(crate) fn shape(node: &Node) -> String {
    match &node.value {
        Value::Null => "null".to_owned(),
        Value::Scalar(scalar) => match scalar.kind {
            Kind::Text => format!("{:?}", scalar.text),
            Kind::Boolean | Kind::Number => scalar.text.clone(),
        },
        Value::List(items) => format!("[{}]", items.iter().map(shape).collect::<Vec<_>>().join(", ")),
        Value::Map(entries) => {
            let shown: Vec<String> =
                entries.iter().map(|entry| format!("{}: {}", entry.key, shape(&entry.value))).collect();
            format!("{{{}}}", shown.join(", "))
        }
    }
}
