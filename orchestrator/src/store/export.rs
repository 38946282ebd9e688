//! Exports: the whole state at one commit as text, to rebuild from and for people to read.
//!
//! The first line says what it is; then one line for each thing, sorted; the last line holds a BLAKE3 hash of all
//! lines before it. An export counts only once it was read back and found equal to what is in memory.

use std::io::Write;

use serde::{Deserialize, Serialize};
use tug_model::Revision;

use super::entry::{Entry, Mark, difference};
use super::state::State;

/// The format that is written; a higher one is refused.
pub(super) const FORMAT: u32 = 1;

/// The first line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Head {
    format: u32,
    cluster: String,
    mark: Mark,
}

/// The last line.
#[derive(Debug, Serialize, Deserialize)]
struct Trailer {
    blake3: String,
}

/// A copy of the state, and how far it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Copy {
    /// The state.
    pub(super) state: State,
    /// How far it goes.
    pub(super) mark: Mark,
}

/// Why a text is not an export.
#[derive(Debug, thiserror::Error)]
pub(super) enum ExportError {
    /// Its last line is missing or does not fit the others.
    #[error("its checksum is wrong: it is damaged or not complete")]
    Checksum,
    /// It was written by a newer version.
    #[error("it has format {found}, newer than {FORMAT}")]
    Newer {
        /// Its format.
        found: u32,
    },
    /// A line says nothing that we know.
    #[error("read line {line}")]
    Line {
        /// Which, from 1.
        line: usize,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
}

/// The name of the export at `revision`.
pub(super) fn file_name(revision: Revision) -> String {
    format!("export-{:020}.jsonl", revision.0)
}

/// The revision of the export with this name.
pub(super) fn revision_of(name: &str) -> Option<Revision> {
    let number = name.strip_prefix("export-")?.strip_suffix(".jsonl")?;
    (number.len() == 20).then(|| number.parse().ok().map(Revision))?
}

/// The state as text.
pub(super) fn write(state: &State, mark: Mark) -> Vec<u8> {
    let mut entries: Vec<(String, Entry)> = difference(&State::default(), state)
        .into_iter()
        .filter_map(|delta| delta.new)
        .map(|entry| (entry.key(), entry))
        .collect();
    entries.sort_by(|(one, _), (other, _)| one.cmp(other));
    let mut text = Vec::new();
    line(&mut text, &Head { format: FORMAT, cluster: state.cluster.clone(), mark });
    for (_, entry) in &entries {
        line(&mut text, entry);
    }
    let trailer = Trailer { blake3: blake3::hash(&text).to_hex().to_string() };
    line(&mut text, &trailer);
    text
}

/// Checks an export without reading its things: its cluster, and how far it goes.
pub(super) fn check(text: &[u8]) -> Result<(String, Mark), ExportError> {
    checked(text).map(|(head, _)| (head.cluster, head.mark))
}

/// Reads an export.
pub(super) fn read(text: &[u8]) -> Result<Copy, ExportError> {
    let (head, lines) = checked(text)?;
    let mut state = State::new(head.cluster, head.mark.epoch);
    state.revision = head.mark.revision;
    for (number, line) in lines.enumerate() {
        parse::<Entry>(line, number + 2)?.put_into(&mut state);
    }
    Ok(Copy { state, mark: head.mark })
}

/// The first line, and those between it and the last.
fn checked(text: &[u8]) -> Result<(Head, impl Iterator<Item = &[u8]>), ExportError> {
    let body = text.strip_suffix(b"\n").ok_or(ExportError::Checksum)?;
    let split = body.iter().rposition(|byte| *byte == b'\n').ok_or(ExportError::Checksum)? + 1;
    let (lines, last) = body.split_at(split);
    let trailer: Trailer = serde_json::from_slice(last).map_err(|_| ExportError::Checksum)?;
    if blake3::hash(lines).to_hex().as_str() != trailer.blake3 {
        return Err(ExportError::Checksum);
    }
    let mut lines = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let head: Head = parse(lines.next().unwrap_or_default(), 1)?;
    if head.format > FORMAT {
        return Err(ExportError::Newer { found: head.format });
    }
    Ok((head, lines))
}

fn line(text: &mut Vec<u8>, value: &impl Serialize) {
    serde_json::to_writer(&mut *text, value).expect("an entry holds nothing that JSON cannot");
    text.write_all(b"\n").expect("memory takes every byte");
}

fn parse<'a, T: Deserialize<'a>>(line: &'a [u8], number: usize) -> Result<T, ExportError> {
    serde_json::from_slice(line).map_err(|source| ExportError::Line { line: number, source })
}
