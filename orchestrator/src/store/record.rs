//! How a group of commits is written in the journal, and how the journal is read: bytes in, records out, no IO.
//!
//! A record is `mark u8 | payload length u32 | payload CRC u32 | format u8 | epoch u64 | revision u64 | previous
//! hash [16] | header CRC u32 | payload`, little-endian. The payload is JSON and so holds no zero byte.
//!
//! The last group may have been written in part when the power went: that is a *torn* tail, which nobody was
//! promised, and is cut off. What was promised and is broken is *damage*, and is never cut off. The two look
//! different. Nothing is written before the group before it is synced, so what is torn is the last record, and the
//! part of it that is missing was never written: the file ends before it, or a whole sector reads as zeros.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use tug_model::Revision;

use std::sync::Arc;

use super::change::Committed;

/// The format that is written; a higher one is refused.
pub(super) const FORMAT: u8 = 1;
/// The first byte of every record.
const MARK: u8 = 0xA7;
const HEADER: usize = 46;
/// What a disk writes whole or not at all.
const SECTOR: usize = 512;

/// The hash that chains each record to the one before it.
pub(super) type Chain = [u8; 16];

/// What a record says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// How long the payload is.
    pub(super) length: usize,
    payload_crc: u32,
    /// How it is written.
    pub(super) format: u8,
    /// The epoch of the store.
    pub(super) epoch: u64,
    /// The newest commit once this record is applied.
    pub(super) revision: Revision,
    /// The hash of the record before.
    pub(super) previous: Chain,
}

/// What a record holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Payload {
    /// The first record of a file of the journal.
    Opening {
        /// The cluster's id.
        cluster: String,
    },
    /// Commits that were made together.
    Group(Vec<Arc<Committed>>),
}

/// A record whose checksums are right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    /// Its header.
    pub(super) header: Header,
    /// Where it stands.
    pub(super) range: Range<usize>,
    /// Its own hash.
    pub(super) hash: Chain,
}

/// What stands in a file of the journal from some offset on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Scan {
    /// The records up to `end`.
    pub(super) records: Vec<Record>,
    /// Why there are no more.
    pub(super) end: End,
}

/// Why a scan ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The file ends there.
    Whole,
    /// What follows was never written to the end.
    Torn {
        /// Where it begins.
        at: usize,
    },
    /// What follows is not what was written.
    Damaged {
        /// Where it begins.
        at: usize,
    },
}

/// The bytes of a record, and its hash.
pub(super) fn encode(payload: &[u8], epoch: u64, revision: Revision, previous: Chain) -> (Vec<u8>, Chain) {
    let length = u32::try_from(payload.len()).expect("a group is far smaller than 4 GiB");
    let mut bytes = Vec::with_capacity(HEADER + payload.len());
    bytes.push(MARK);
    bytes.extend(length.to_le_bytes());
    bytes.extend(crc32fast::hash(payload).to_le_bytes());
    bytes.push(FORMAT);
    bytes.extend(epoch.to_le_bytes());
    bytes.extend(revision.0.to_le_bytes());
    bytes.extend(previous);
    bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    bytes.extend(payload);
    let hash = hash(&bytes);
    (bytes, hash)
}

/// Reads records from `start` on.
pub(super) fn scan(bytes: &[u8], start: usize) -> Scan {
    let mut records = Vec::new();
    let mut at = start;
    while at < bytes.len() {
        let Some(record) = read(bytes, at) else {
            let torn = is_torn(bytes, at) && !(at + 1..bytes.len()).any(|next| read(bytes, next).is_some());
            return Scan { records, end: if torn { End::Torn { at } } else { End::Damaged { at } } };
        };
        at = record.range.end;
        records.push(record);
    }
    Scan { records, end: End::Whole }
}

// === impl Scan ===

impl Scan {
    /// The hash of the record that ends at `offset`, if one does.
    pub(super) fn hash_before(&self, offset: usize) -> Option<Chain> {
        let at = self.records.binary_search_by_key(&offset, |record| record.range.end).ok()?;
        self.records.get(at).map(|record| record.hash)
    }
}

// === impl Record ===

impl Record {
    /// What it holds; `bytes` are those that were scanned.
    pub(super) fn payload(&self, bytes: &[u8]) -> Result<Payload, serde_json::Error> {
        let payload = bytes.get(self.range.start + HEADER..self.range.end).unwrap_or_default();
        serde_json::from_slice(payload)
    }
}

/// The record at `at`, if it is whole and its checksums are right.
fn read(bytes: &[u8], at: usize) -> Option<Record> {
    let header = header_at(bytes, at)?;
    let end = at.checked_add(HEADER)?.checked_add(header.length)?;
    let payload = bytes.get(at + HEADER..end)?;
    if crc32fast::hash(payload) != header.payload_crc {
        return None;
    }
    Some(Record { header, range: at..end, hash: hash(bytes.get(at..end)?) })
}

/// The header at `at`, if its checksum is right.
pub(super) fn header_at(bytes: &[u8], at: usize) -> Option<Header> {
    if *bytes.get(at)? != MARK {
        return None;
    }
    let header = bytes.get(at..at.checked_add(HEADER)?)?;
    let (checked, crc) = header.split_at(HEADER - 4);
    if crc32fast::hash(checked) != u32::from_le_bytes(crc.try_into().ok()?) {
        return None;
    }
    Some(Header {
        length: usize::try_from(u32::from_le_bytes(field(header, 1)?)).ok()?,
        payload_crc: u32::from_le_bytes(field(header, 5)?),
        format: *header.get(9)?,
        epoch: u64::from_le_bytes(field(header, 10)?),
        revision: Revision(u64::from_le_bytes(field(header, 18)?)),
        previous: field(header, 26)?,
    })
}

fn field<const N: usize>(header: &[u8], at: usize) -> Option<[u8; N]> {
    header.get(at..at + N)?.try_into().ok()
}

/// Whether what stands at `at` looks like a record of which a part was never written.
fn is_torn(bytes: &[u8], at: usize) -> bool {
    let known = match header_at(bytes, at) {
        Some(header) => at.saturating_add(HEADER).saturating_add(header.length),
        None => at.saturating_add(HEADER),
    };
    if known > bytes.len() {
        return true;
    }
    let mut start = at;
    while start < known {
        let boundary = (start / SECTOR + 1) * SECTOR;
        // Without a header it is not known where the record ends; it goes on at least into this sector.
        let end = boundary.min(bytes.len());
        if bytes.get(start..end).is_some_and(|piece| piece.iter().all(|byte| *byte == 0)) {
            return true;
        }
        start = boundary;
    }
    false
}

fn hash(bytes: &[u8]) -> Chain {
    let mut chain = Chain::default();
    chain.copy_from_slice(blake3::hash(bytes).as_bytes().split_at(16).0);
    chain
}
