//! What the example program's `witness FILE` wrote, and whether two of it ever ran at once. Whoever runs it shares one file
//! with all others: each start says there again and again which it is, and when, by the clock of the machine that they all
//! stand on.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

/// Who runs has written within this time, in milliseconds.
const BEAT: u64 = 50;
/// What was asleep may run on for so long after it woke up: it takes its agent that long to look round and its Engine to
/// kill.
pub const WAKING: u64 = 2_500;

/// What one start wrote, from its first line to its last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Its fencing number.
    pub number: u64,
    /// The container's host name.
    pub container: String,
    /// When the machine had been up for so many milliseconds.
    pub from: u64,
    /// The same.
    pub to: u64,
}

/// What slept with its host, so that nobody was able to stop it before both woke up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nap {
    /// The fencing number of what ran there.
    pub number: u64,
    /// When it woke up.
    pub until: u64,
}

/// What became of one service.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verdict {
    /// Every start, by its first line.
    pub runs: Vec<Run>,
    /// What must not have been.
    pub wrongs: Vec<String>,
    /// For how long each that woke up ran on, if it wrote anything.
    pub wakings: Vec<u64>,
}

/// One line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Line<'l> {
    number: u64,
    container: &'l str,
    at: u64,
}

/// Judges by what was written. The last line may not have been written to its end yet.
pub fn judge(log: &str, naps: &[Nap]) -> Result<Verdict> {
    let whole = log.rfind('\n').map_or("", |end| &log[..end]);
    let lines = whole.lines().map(|line| Line::read(line).with_context(|| format!("{line:?}")));
    let mut verdict = Verdict::default();
    let mut awake = Vec::new();
    for line in lines.collect::<Result<Vec<_>>>()? {
        match naps.iter().find(|nap| nap.number == line.number && nap.until <= line.at) {
            Some(nap) if line.at < nap.until + WAKING => verdict.wakings.push(line.at - nap.until),
            Some(_) | None => awake.push(line),
        }
    }
    for pair in awake.windows(2) {
        if let [before, after] = pair
            && after.number < before.number
        {
            verdict.wrongs.push(format!("{after:?} was written after {before:?}"));
        }
    }
    verdict.runs = runs(&awake);
    for (index, one) in verdict.runs.iter().enumerate() {
        for later in verdict.runs.iter().skip(index + 1) {
            if later.number <= one.number {
                verdict.wrongs.push(format!("{later:?} has no greater number than {one:?}"));
            }
            if later.from < one.to + BEAT {
                verdict.wrongs.push(format!("both ran: {one:?} and {later:?}"));
            }
        }
    }
    Ok(verdict)
}

/// The starts, in the order of their first lines.
fn runs(lines: &[Line<'_>]) -> Vec<Run> {
    let mut runs: BTreeMap<(u64, &str), Run> = BTreeMap::new();
    for line in lines {
        let run = runs.entry((line.number, line.container)).or_insert_with(|| Run {
            number: line.number,
            container: line.container.to_owned(),
            from: line.at,
            to: line.at,
        });
        run.from = run.from.min(line.at);
        run.to = run.to.max(line.at);
    }
    let mut runs: Vec<Run> = runs.into_values().collect();
    runs.sort_by_key(|run| run.from);
    runs
}

// === impl Line ===

impl<'l> Line<'l> {
    /// `NUMBER HOST MILLISECONDS`.
    fn read(text: &'l str) -> Result<Self> {
        let mut words = text.split(' ');
        let mut word = || words.next().context("a line has three words");
        Ok(Self { number: word()?.parse()?, container: word()?, at: word()?.parse()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrongs(log: &str) -> usize {
        judge(log, &[]).unwrap().wrongs.len()
    }

    #[test]
    fn one_after_the_other_is_as_it_should_be() {
        let log = "7 a 1000\n7 a 1050\n9 b 5000\n9 b 5050\n12 a 9000\n12 a";
        let verdict = judge(log, &[]).unwrap();
        assert_eq!(verdict.wrongs, Vec::<String>::new());
        let runs: Vec<(u64, u64, u64)> =
            verdict.runs.iter().map(|run| (run.number, run.from, run.to)).collect();
        assert_eq!(runs, [(7, 1000, 1050), (9, 5000, 5050), (12, 9000, 9000)]);
        assert_eq!(judge("", &[]).unwrap(), Verdict::default());
    }

    #[test]
    fn two_at_once_are_seen() {
        assert!(wrongs("7 a 1000\n9 b 1020\n7 a 1050\n9 b 1070\n") > 0, "they take turns");
        assert!(wrongs("7 a 1000\n7 a 1100\n9 b 1100\n") > 0, "one begins with the other's last line");
        assert!(wrongs("7 a 1000\n7 a 1100\n9 b 1149\n") > 0, "the other one would have slept until 1150");
        assert_eq!(wrongs("7 a 1000\n7 a 1100\n9 b 1150\n"), 0);
        assert!(wrongs("7 a 1000\n9 b 2000\n7 a 9000\n") > 0, "the first one comes back");
        assert!(wrongs("7 a 1000\n9 b 2000\n12 c 3000\n7 a 3020\n12 c 3050\n") > 1, "a third one, later");
    }

    #[test]
    fn a_number_that_does_not_grow_is_seen() {
        assert!(wrongs("9 a 1000\n7 b 5000\n") > 0);
        assert!(wrongs("7 a 1000\n7 b 5000\n") > 0);
    }

    #[test]
    fn what_wakes_up_has_a_moment_to_end() {
        let naps = [Nap { number: 7, until: 30_000 }];
        let log = |last: u64| format!("7 a 1000\n9 b 20000\n7 a 30010\n7 a {last}\n9 b 40000\n");
        let verdict = judge(&log(30_000 + WAKING - 1), &naps).unwrap();
        assert_eq!(verdict.wrongs, Vec::<String>::new());
        assert_eq!(verdict.wakings, [10, WAKING - 1]);
        assert!(!judge(&log(30_000 + WAKING), &naps).unwrap().wrongs.is_empty());
        assert!(!judge(&log(30_020), &[]).unwrap().wrongs.is_empty());
        assert!(!judge(&log(30_020), &[Nap { number: 9, until: 30_000 }]).unwrap().wrongs.is_empty());
    }

    #[test]
    fn what_is_no_line_is_no_evidence() {
        for log in ["7 a\n", "x a 1\n", "7 a now\n", "\n"] {
            assert!(judge(log, &[]).is_err(), "{log:?}");
        }
    }
}
