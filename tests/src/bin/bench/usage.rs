//! What a process has used, as the kernel counts it.

use std::time::Duration;

use anyhow::{Context, Result};

/// The processor time of process `id` so far, that of its threads included.
pub(crate) fn processor_time(id: u32) -> Result<Duration> {
    times(&std::fs::read_to_string(format!("/proc/{id}/stat"))?)
}

/// The processor time so far of the threads of this process that have this name.
pub(crate) fn thread_time(name: &str) -> Result<Duration> {
    let mut all = Duration::ZERO;
    for thread in std::fs::read_dir("/proc/self/task")? {
        let path = thread?.path();
        // A thread may have ended meanwhile.
        let Ok(of) = std::fs::read_to_string(path.join("comm")) else { continue };
        if of.trim_end() == name {
            all += times(&std::fs::read_to_string(path.join("stat"))?)?;
        }
    }
    Ok(all)
}

fn times(stat: &str) -> Result<Duration> {
    // The second field is the name in parentheses, which may hold anything.
    let (_, rest) = stat.rsplit_once(')').context("stat has a name")?;
    let ticks: u64 = rest.split_whitespace().skip(11).take(2).map(str::parse::<u64>).sum::<Result<_, _>>()?;
    Ok(Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second()))
}
