//! What a store is found to be when it is opened: reads, and changes nothing.
//!
//! Every copy of the state (the tree, each export, the empty beginning) says how far into the journal it goes. The
//! newest copy is taken from which the journal can be followed, record by record and hash by hash, to its end. If
//! there is none, commits would be missing, and the store is refused.

use std::collections::BTreeMap;
use std::sync::Arc;

use tug_model::Revision;

use super::change::Committed;
use super::disk::Disk;
use super::entry::Mark;
use super::error::OpenError;
use super::export::{self, Copy, ExportError};
use super::journal;
use super::record::{self, Chain, End, Payload, Scan};
use super::sentinel::{self, Sentinel};
use super::state::State;

/// What was found.
#[derive(Debug)]
pub(super) struct Found {
    /// Every promised commit is in it.
    pub(super) state: State,
    /// Where the journal goes on.
    pub(super) end: Mark,
    /// The newest commits that the journal still has, oldest first.
    pub(super) commits: Vec<Arc<Committed>>,
    /// What `cluster.json` says.
    pub(super) sentinel: Option<Sentinel>,
    /// How far each good export goes, oldest first.
    pub(super) exports: Vec<Mark>,
    /// Files that are damaged and no longer needed.
    pub(super) damaged: Vec<String>,
    /// The journal cannot go on in its last file.
    pub(super) needs_segment: bool,
}

/// The files that there are.
#[derive(Debug)]
struct Files {
    segments: BTreeMap<u64, Segment>,
    exports: BTreeMap<Revision, Vec<u8>>,
}

/// A file of the journal.
#[derive(Debug)]
struct Segment {
    bytes: Vec<u8>,
    scan: Scan,
}

/// How far the journal could be followed.
#[derive(Debug)]
struct Followed {
    state: State,
    end: Mark,
    needs_segment: bool,
}

/// Looks at the files and at what the tree holds. `None`: there is nothing, and never was.
pub(super) fn recover(
    disk: &dyn Disk,
    tree: Option<&Copy>,
    history: usize,
) -> Result<Option<Found>, OpenError> {
    let sentinel = Sentinel::load(disk)?;
    let files = Files::load(disk)?;
    let cluster = files.cluster(sentinel.as_ref(), tree)?;
    if files.segments.is_empty() && files.exports.is_empty() && tree.is_none() {
        let names = disk.list().map_err(|source| read_error("the folder", source))?;
        if sentinel.is_none() && !names.iter().any(|name| name == sentinel::FILE) {
            return Ok(None);
        }
        let reason = format!("{} is there, but no journal and no state", sentinel::FILE);
        return Err(OpenError::Damaged { cluster, reason });
    }
    let (exports, mut damaged) = files.check_exports(&cluster)?;
    let followed = files
        .best(&cluster, sentinel.as_ref(), tree, &exports)
        .map_err(|reason| OpenError::Damaged { cluster, reason })?;
    let bad_segments = files.bad_segments(followed.end.segment);
    damaged.extend(bad_segments.iter().map(|segment| journal::file_name(*segment)));
    Ok(Some(Found {
        commits: files.newest_commits(history),
        needs_segment: followed.needs_segment || !bad_segments.is_empty(),
        state: followed.state,
        end: followed.end,
        sentinel,
        exports: exports.into_values().collect(),
        damaged,
    }))
}

// === impl Files ===

impl Files {
    fn load(disk: &dyn Disk) -> Result<Self, OpenError> {
        let mut files = Self { segments: BTreeMap::new(), exports: BTreeMap::new() };
        for name in disk.list().map_err(|source| read_error("the folder", source))? {
            let read = || disk.read(&name).map_err(|source| read_error(&name, source));
            if let Some(segment) = journal::segment_of(&name) {
                let bytes = read()?;
                let scan = record::scan(&bytes, 0);
                if let Some(newer) = scan.records.iter().find(|it| it.header.format > record::FORMAT) {
                    let found = u32::from(newer.header.format);
                    return Err(OpenError::Newer { file: name, found, known: u32::from(record::FORMAT) });
                }
                files.segments.insert(segment, Segment { bytes, scan });
            } else if let Some(revision) = export::revision_of(&name) {
                files.exports.insert(revision, read()?);
            }
        }
        Ok(files)
    }

    /// The cluster that all files agree on.
    fn cluster(&self, sentinel: Option<&Sentinel>, tree: Option<&Copy>) -> Result<String, OpenError> {
        let mut cluster: Option<String> = None;
        let mut check = |file: String, found: String| match &cluster {
            Some(expected) if *expected != found => {
                Err(OpenError::Foreign { file, found, expected: expected.clone() })
            }
            Some(_) => Ok(()),
            None => {
                cluster = Some(found);
                Ok(())
            }
        };
        if let Some(sentinel) = sentinel {
            check(sentinel::FILE.to_owned(), sentinel.cluster.clone())?;
        }
        for (number, segment) in &self.segments {
            if let Some(found) = segment.cluster() {
                check(journal::file_name(*number), found)?;
            }
        }
        if let Some(tree) = tree {
            check(super::tree::FOLDER.to_owned(), tree.state.cluster.clone())?;
        }
        Ok(cluster.unwrap_or_else(|| "unknown".to_owned()))
    }

    /// The good exports, and the names of the others.
    fn check_exports(&self, cluster: &str) -> Result<(BTreeMap<Revision, Mark>, Vec<String>), OpenError> {
        let mut good = BTreeMap::new();
        let mut bad = Vec::new();
        for (revision, text) in &self.exports {
            let file = export::file_name(*revision);
            match export::check(text) {
                Ok((found, _)) if found != cluster && cluster != "unknown" => {
                    return Err(OpenError::Foreign { file, found, expected: cluster.to_owned() });
                }
                Ok((_, mark)) if mark.revision == *revision => {
                    good.insert(*revision, mark);
                }
                Err(ExportError::Newer { found }) => {
                    return Err(OpenError::Newer { file, found, known: export::FORMAT });
                }
                Ok(_) | Err(ExportError::Checksum | ExportError::Line { .. }) => bad.push(file),
            }
        }
        Ok((good, bad))
    }

    /// Follows the journal from the newest copy from which that can be done.
    fn best(
        &self,
        cluster: &str,
        sentinel: Option<&Sentinel>,
        tree: Option<&Copy>,
        exports: &BTreeMap<Revision, Mark>,
    ) -> Result<Followed, String> {
        let known = sentinel.map_or(Revision(0), |it| it.revision.max(it.closed_at.unwrap_or_default()));
        let mut reasons = Vec::new();
        let mut attempt = |name: &str, copy: Copy, is_tree: bool| {
            let followed = self.follow(copy, is_tree, sentinel).and_then(|followed| {
                let newest = followed.state.revision;
                let reason = format!("it ends at commit {newest}, but commit {known} was there");
                if newest < known { Err(reason) } else { Ok(followed) }
            });
            followed.map_err(|reason| reasons.push(format!("from {name}: {reason}"))).ok()
        };
        let tree_at = tree.map_or(Revision(0), |copy| copy.mark.revision);
        let newer = exports.keys().rev().take_while(|revision| **revision > tree_at);
        let older = exports.keys().rev().skip_while(|revision| **revision > tree_at);
        let export = |revision: &Revision| self.exports.get(revision).and_then(|it| export::read(it).ok());
        for copy in newer.filter_map(export) {
            if let Some(followed) = attempt(&export::file_name(copy.mark.revision), copy, false) {
                return Ok(followed);
            }
        }
        if let Some(followed) = tree.and_then(|copy| attempt("the tree", copy.clone(), true)) {
            return Ok(followed);
        }
        for copy in older.filter_map(export) {
            if let Some(followed) = attempt(&export::file_name(copy.mark.revision), copy, false) {
                return Ok(followed);
            }
        }
        if let Some(followed) = self.beginning(cluster).and_then(|copy| attempt("the beginning", copy, false))
        {
            return Ok(followed);
        }
        Err(if reasons.is_empty() {
            "the journal does not go back to the beginning, and there is no copy of the state".to_owned()
        } else {
            reasons.join("; ")
        })
    }

    /// The empty state before the first commit, if the journal goes back so far.
    fn beginning(&self, cluster: &str) -> Option<Copy> {
        let first = self.segments.get(&1)?.scan.records.first()?;
        if first.header.previous != Chain::default() || first.header.revision != Revision(0) {
            return None;
        }
        let epoch = first.header.epoch;
        let chain = Chain::default();
        let mark = Mark { revision: Revision(0), epoch, segment: 1, offset: 0, chain };
        Some(Copy { state: State::new(cluster, epoch), mark })
    }

    /// Follows the journal from `copy` to its end.
    fn follow(&self, copy: Copy, is_tree: bool, sentinel: Option<&Sentinel>) -> Result<Followed, String> {
        let closed = sentinel.and_then(|it| it.closed_at) == Some(copy.mark.revision);
        let last = self.segments.keys().next_back().copied().unwrap_or(0);
        let known = sentinel.map_or(0, |it| it.segment).max(copy.mark.segment);
        let result = if last < known {
            Err(format!("{} is missing", journal::file_name(known)))
        } else {
            self.walk(&copy, is_tree, last)
        };
        match result {
            // Nothing was committed after the store was closed, so whatever the journal looks like, this is all.
            Err(reason) if closed => {
                tracing::error!(
                    reason,
                    "the journal is damaged; the store was closed, so the copy has everything"
                );
                let end = Mark { segment: last.max(known), ..copy.mark };
                Ok(Followed { state: copy.state, end, needs_segment: true })
            }
            result => result,
        }
    }

    fn walk(&self, copy: &Copy, is_tree: bool, last: u64) -> Result<Followed, String> {
        let (mut state, mut end) = (copy.state.clone(), copy.mark);
        let mut needs_segment = false;
        for number in copy.mark.segment..=last {
            let name = journal::file_name(number);
            let segment = self.segments.get(&number).ok_or_else(|| format!("{name} is missing"))?;
            let start = if number == copy.mark.segment { copy.mark.offset } else { 0 };
            let start = usize::try_from(start).unwrap_or(usize::MAX);
            needs_segment = start > segment.bytes.len();
            // The tree gets every group before it is answered, so what the file has lost is in it. An export is
            // older, and may lack what came after it.
            if needs_segment && !(is_tree && number == last) || start == 0 && segment.scan.records.is_empty()
            {
                return Err(format!("{name} is shorter than it was"));
            }
            if segment.scan.hash_before(start).is_some_and(|hash| hash != end.chain) {
                return Err(format!("{name} holds something else"));
            }
            let scan = record::scan(&segment.bytes, start);
            for it in &scan.records {
                end = step(&mut state, end, it, &segment.bytes)
                    .map_err(|reason| format!("{name}: {reason}"))?;
            }
            end.segment = number;
            end.offset = scan.records.last().map_or(start, |it| it.range.end) as u64;
            match scan.end {
                End::Whole => {}
                End::Torn { .. } if number == last => {}
                End::Torn { at } | End::Damaged { at } => {
                    return Err(format!("{name} is damaged at byte {at}, after commit {}", state.revision));
                }
            }
        }
        Ok(Followed { state, end, needs_segment })
    }

    /// The files that hold damage, or a hole in front of them.
    fn bad_segments(&self, last: u64) -> Vec<u64> {
        let bad = |(number, segment): &(&u64, &Segment)| match segment.scan.end {
            End::Whole => segment.scan.records.is_empty(),
            End::Torn { .. } => **number != last || segment.scan.records.is_empty(),
            End::Damaged { .. } => true,
        };
        self.segments.iter().filter(bad).map(|(number, _)| *number).collect()
    }

    fn newest_commits(&self, most: usize) -> Vec<Arc<Committed>> {
        let mut groups = Vec::new();
        let mut count = 0;
        let records = self.segments.values().rev().flat_map(|segment| {
            segment.scan.records.iter().rev().map(move |record| record.payload(&segment.bytes))
        });
        for payload in records {
            match payload {
                Ok(Payload::Group(commits)) => {
                    count += commits.len();
                    groups.push(commits);
                }
                Ok(Payload::Opening { .. }) => {}
                Err(_) => break,
            }
            if count >= most {
                break;
            }
        }
        groups.into_iter().rev().flatten().collect()
    }
}

// === impl Segment ===

impl Segment {
    fn cluster(&self) -> Option<String> {
        match self.scan.records.first()?.payload(&self.bytes).ok()? {
            Payload::Opening { cluster } => Some(cluster),
            Payload::Group(_) => None,
        }
    }
}

/// Applies one record.
fn step(state: &mut State, end: Mark, record: &record::Record, bytes: &[u8]) -> Result<Mark, String> {
    let header = record.header;
    if header.previous != end.chain || header.epoch != end.epoch {
        return Err(format!("what follows commit {} belongs to another journal", state.revision));
    }
    match record.payload(bytes) {
        Ok(Payload::Opening { .. }) => {}
        Ok(Payload::Group(commits)) => {
            for commit in commits {
                if commit.revision != state.revision.next() {
                    return Err(format!("commit {} follows commit {}", commit.revision, state.revision));
                }
                state.apply(commit.revision, &commit.changes);
            }
        }
        Err(error) => return Err(format!("after commit {}: {error}", state.revision)),
    }
    if header.revision != state.revision {
        return Err(format!("it says commit {}, but holds {}", header.revision, state.revision));
    }
    Ok(Mark { revision: state.revision, chain: record.hash, ..end })
}

fn read_error(file: &str, source: std::io::Error) -> OpenError {
    OpenError::Read { file: file.to_owned(), source }
}
