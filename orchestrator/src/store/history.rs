//! The newest commits, in memory, for those who watch: a watch that was cut goes on where it was.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tug_model::Revision;

use super::change::Committed;
use super::error::HistoryError;

/// A bounded, gapless run of commits up to the newest.
#[derive(Debug)]
pub(super) struct History {
    kept: Mutex<Kept>,
    most: usize,
}

#[derive(Debug)]
struct Kept {
    commits: VecDeque<Arc<Committed>>,
    newest: Revision,
}

impl History {
    /// A history that ends at `newest` with these commits, oldest first; those before a gap are left out.
    pub(super) fn new(commits: Vec<Arc<Committed>>, newest: Revision, most: usize) -> Self {
        let mut kept = VecDeque::new();
        let mut wanted = newest;
        for commit in commits.into_iter().rev().take(most) {
            if commit.revision != wanted || wanted == Revision(0) {
                break;
            }
            wanted = Revision(wanted.0 - 1);
            kept.push_front(commit);
        }
        Self { kept: Mutex::new(Kept { commits: kept, newest }), most }
    }

    /// Adds the commits of a group.
    pub(super) fn extend(&self, commits: impl IntoIterator<Item = Arc<Committed>>) {
        let mut kept = self.kept();
        for commit in commits {
            kept.newest = commit.revision;
            kept.commits.push_back(commit);
        }
        while kept.commits.len() > self.most {
            kept.commits.pop_front();
        }
    }

    /// The commits after `revision`.
    pub(super) fn since(&self, revision: Revision) -> Result<Vec<Arc<Committed>>, HistoryError> {
        let kept = self.kept();
        let newest = kept.newest;
        if revision > newest {
            return Err(HistoryError::Future { asked: revision, newest });
        }
        let oldest = Revision(newest.0.saturating_sub(kept.commits.len() as u64));
        if revision < oldest {
            return Err(HistoryError::Compacted { asked: revision, oldest });
        }
        let skipped = usize::try_from(revision.0 - oldest.0).unwrap_or(usize::MAX);
        Ok(kept.commits.iter().skip(skipped).cloned().collect())
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
