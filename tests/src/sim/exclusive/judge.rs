//! Whether two processes of the service ever ran at the same time, by what the engines' witnesses saw.

use tug_model::Timestamp;

use super::machine::Machine;
use crate::fake::Run;

/// A machine that wakes up from suspension stops what has no lease any more within this time, though its engine takes a
/// second to say what there is, and another one to kill it. Until then it runs: nobody can stop what has slept before he
/// wakes up himself.
const WAKING: u64 = 2_500;

/// What was seen.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    /// How often the service went on on another machine.
    pub(super) moves: usize,
    /// What should not have been.
    pub(super) overlaps: Vec<String>,
}

/// A stretch of time in which a process ran and its machine was awake.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stretch {
    machine: usize,
    run: usize,
    from: u64,
    to: u64,
}

/// Looks at every run of every machine.
pub(super) fn judge(machines: &[Machine], now: Timestamp) -> Verdict {
    let mut runs: Vec<(usize, Run)> = Vec::new();
    for (number, machine) in machines.iter().enumerate() {
        runs.extend(machine.engine.runs().into_iter().map(|run| (number, run)));
    }
    runs.sort_by_key(|(_, run)| run.from);
    let mut verdict = Verdict::default();
    for pair in runs.windows(2) {
        let [(one, before), (other, after)] = pair else { continue };
        verdict.moves += usize::from(one != other);
        if before.identity.fencing >= after.identity.fencing {
            let text = format!("{after:?} has no greater fencing number than {before:?}");
            verdict.overlaps.push(text);
        }
    }
    let stretches: Vec<Stretch> = runs
        .iter()
        .enumerate()
        .flat_map(|(index, (machine, run))| {
            let whole = (run.from.0, run.to.unwrap_or(now).0);
            let asleep = machines.get(*machine).map_or(&[][..], |machine| machine.asleep.as_slice());
            awake(whole, asleep, now).into_iter().map(move |(from, to)| Stretch {
                machine: *machine,
                run: index,
                from,
                to,
            })
        })
        .collect();
    verdict.overlaps.extend(overlaps(&stretches).into_iter().map(|(one, other)| {
        let tell = |stretch: &Stretch| {
            let task = runs.get(stretch.run).map(|(_, run)| run.identity.task.to_string());
            format!(
                "{} on m{} from {} to {}",
                task.unwrap_or_default(),
                stretch.machine,
                stretch.from,
                stretch.to
            )
        };
        format!("both ran: {}; and {}", tell(&one), tell(&other))
    }));
    verdict
}

/// The parts of a run in which its machine was awake, and had been for long enough to look round.
fn awake(
    (from, to): (u64, u64),
    asleep: &[(Timestamp, Option<Timestamp>)],
    now: Timestamp,
) -> Vec<(u64, u64)> {
    let mut parts = vec![(from, to)];
    for (since, until) in asleep {
        let (since, until) = (since.0, until.unwrap_or(now).0 + WAKING);
        parts = parts
            .into_iter()
            .flat_map(|(from, to)| [(from, to.min(since)), (from.max(until), to)])
            .filter(|(from, to)| from < to)
            .collect();
    }
    parts
}

/// Every two stretches of different runs that have a moment in common.
fn overlaps(stretches: &[Stretch]) -> Vec<(Stretch, Stretch)> {
    let mut found = Vec::new();
    for (index, one) in stretches.iter().enumerate() {
        for other in stretches.iter().skip(index + 1).filter(|other| other.run != one.run) {
            if one.from.max(other.from) < one.to.min(other.to) {
                found.push((one.clone(), other.clone()));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stretch(run: usize, from: u64, to: u64) -> Stretch {
        Stretch { machine: 0, run, from, to }
    }

    #[test]
    fn a_moment_in_common_is_seen_and_a_touch_is_none() {
        assert!(overlaps(&[stretch(1, 0, 10), stretch(2, 10, 20), stretch(1, 30, 40)]).is_empty());
        assert_eq!(overlaps(&[stretch(1, 0, 10), stretch(2, 9, 20)]).len(), 1);
        assert_eq!(overlaps(&[stretch(1, 0, 100), stretch(2, 5, 6), stretch(3, 7, 8)]).len(), 2);
        assert!(overlaps(&[stretch(1, 0, 100), stretch(1, 5, 6)]).is_empty());
    }

    #[test]
    fn what_sleeps_does_not_run() {
        let (now, asleep) = (Timestamp(10_000), [(Timestamp(1_000), Some(Timestamp(2_000)))]);
        assert_eq!(awake((500, 5_000), &asleep, now), [(500, 1_000), (4_500, 5_000)]);
        assert_eq!(awake((1_200, 1_800), &asleep, now), []);
        assert_eq!(awake((5_000, 6_000), &asleep, now), [(5_000, 6_000)]);
        assert_eq!(awake((500, 4_000), &[(Timestamp(1_000), None)], now), [(500, 1_000)]);
    }
}
