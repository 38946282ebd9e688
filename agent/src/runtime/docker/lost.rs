//! What the Engine lost sight of. It says that a container has ended when what watches the container is gone, with all
//! files about it; the processes live on all the same. The kernel knows them: they are in the container's control group.

use std::fs;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::time::Instant;

use super::ContainerId;

/// What was killed is gone within this time, or it hangs in the kernel.
const GONE: Duration = Duration::from_secs(1);
/// The length of the id of a container.
const LENGTH: usize = 64;

/// Kills every process of a container that the Engine says has ended. Gives how many there were and whether all are gone.
/// Blocks for a moment.
pub(super) fn end(container: &ContainerId) -> (usize, bool) {
    let lost = processes(container);
    for process in &lost {
        // It has gone by itself.
        let _ = pidfd_send_signal(process, Signal::KILL);
    }
    let until = Instant::now() + GONE;
    (lost.len(), lost.iter().all(|process| is_gone(process, until)))
}

/// Every process of a container, by what is never another's.
fn processes(container: &ContainerId) -> Vec<OwnedFd> {
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = all.filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?));
    let of_container = |id: Pid| {
        let groups =
            || fs::read_to_string(format!("/proc/{}/cgroup", id.as_raw_nonzero())).unwrap_or_default();
        // Most are somebody else's. Who has the id may have changed until it was opened.
        if !is_named(&groups(), container) {
            return None;
        }
        let process = pidfd_open(id, PidfdFlags::empty()).ok()?;
        is_named(&groups(), container).then_some(process)
    };
    ids.filter_map(of_container).collect()
}

/// Whether a process of these control groups is in a container: `/docker/ID`, or `/system.slice/docker-ID.scope`.
fn is_named(groups: &str, container: &ContainerId) -> bool {
    container.as_str().len() == LENGTH && groups.contains(container.as_str())
}

fn is_gone(process: &OwnedFd, until: Instant) -> bool {
    let left = until.saturating_duration_since(Instant::now());
    let left = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
    poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&left)).is_ok_and(|count| count > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_in_the_container_that_its_groups_name() {
        let id = "3f".repeat(32);
        let container = ContainerId::new(&id);
        for groups in [
            format!("12:pids:/docker/{id}\n1:name=systemd:/docker/{id}\n"),
            format!("0::/system.slice/docker-{id}.scope\n"),
            format!("0::/docker/{id}/init\n"),
        ] {
            assert!(is_named(&groups, &container), "{groups}");
        }
        assert!(!is_named("0::/user.slice\n", &container));
        assert!(!is_named(&format!("0::/docker/{}\n", "3e".repeat(32)), &container));
        assert!(!is_named("0::/user.slice\n", &ContainerId::new("")), "this is no id");
    }

    #[test]
    fn nothing_is_in_a_container_that_never_was() {
        assert_eq!(end(&ContainerId::new(&"0".repeat(LENGTH))), (0, true));
    }
}
