//! What of exclusive tasks must outlive the agent: which leases are held, and how often each was started.
//!
//! A lease need not outlive the machine: after a start of that nothing runs, and nothing may be started under a lease from
//! before. So leases are kept under the id of this run of the machine, and are not synced to the disk, which would be
//! asked for it every second. The number of a start is synced before the start: it must never be given twice.

use std::collections::BTreeMap;
use std::fs;
use std::io;

use serde::{Deserialize, Serialize};
use tug_model::TaskId;

use super::{Ledger, LedgerError};
use crate::plan::Held;

/// The kernel's id of this run of the machine.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const LEASES: &str = "leases.json";
const STARTS: &str = "starts.json";

/// The leases of one run of the machine.
#[derive(Serialize, Deserialize)]
struct Leases {
    boot: String,
    held: BTreeMap<TaskId, Held>,
}

// === impl Ledger ===

impl Ledger {
    /// The leases that an agent before this one held, in the same run of the machine.
    pub fn leases(&self) -> Result<BTreeMap<TaskId, Held>, LedgerError> {
        let kept: Option<Leases> = self.load(LEASES)?;
        let here = boot();
        let kept = kept.filter(|kept| here.is_ok_and(|here| here == kept.boot));
        Ok(kept.map(|kept| kept.held).unwrap_or_default())
    }

    /// Keeps the leases for the next agent, while the machine runs.
    pub fn keep_leases(&self, held: &BTreeMap<TaskId, Held>) -> Result<(), LedgerError> {
        let path = self.folder.join(LEASES);
        let beside = self.folder.join(format!("{LEASES}.new"));
        let written = boot().and_then(|boot| {
            let bytes = super::serialize(&Leases { boot, held: held.clone() })?;
            fs::write(&beside, bytes)?;
            fs::rename(&beside, &path)
        });
        written.map_err(|source| LedgerError::Write { path, source })
    }

    /// Counts a start of `task`: 1 for the first. When this returns, the number is never given again. Tasks that are not
    /// `wanted` any more are forgotten: they are never started again.
    pub fn count_start(&self, task: &TaskId, wanted: impl Fn(&TaskId) -> bool) -> Result<u32, LedgerError> {
        let mut starts: BTreeMap<TaskId, u32> = self.load(STARTS)?.unwrap_or_default();
        starts.retain(|known, _| known == task || wanted(known));
        let count = starts.entry(task.clone()).or_default();
        *count = count.saturating_add(1);
        let count = *count;
        self.save(STARTS, &starts)?;
        Ok(count)
    }
}

fn boot() -> io::Result<String> {
    Ok(fs::read_to_string(BOOT_ID)?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use tug_model::Millis;

    use super::*;

    #[test]
    fn leases_are_those_of_this_run_of_the_machine() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(folder.path()).unwrap();
        assert!(ledger.leases().unwrap().is_empty());
        let held = Held { until: Millis(5), may_start: true };
        let held = BTreeMap::from([(TaskId::parse("shop.db.1.5").unwrap(), held)]);
        ledger.keep_leases(&held).unwrap();
        assert_eq!(ledger.leases().unwrap(), held);
        ledger.save(LEASES, &Leases { boot: "another".to_owned(), held }).unwrap();
        assert!(ledger.leases().unwrap().is_empty());
    }

    #[test]
    fn no_start_has_the_number_of_another() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = || Ledger::open(folder.path()).unwrap();
        let [one, two] = ["shop.db.1.5", "shop.db.1.6"].map(|id| TaskId::parse(id).unwrap());
        assert_eq!(ledger().count_start(&one, |_| true).unwrap(), 1);
        assert_eq!(ledger().count_start(&one, |_| true).unwrap(), 2);
        assert_eq!(ledger().count_start(&two, |_| true).unwrap(), 1);
        assert_eq!(ledger().count_start(&one, |_| false).unwrap(), 3);
    }
}
