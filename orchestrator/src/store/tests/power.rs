//! Power cuts on a real file system: a child commits on an ext4 in a file and is frozen at some moment; what the file
//! holds then is what reached the disk. A copy of it is mounted, and every commit that the child was promised is there.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use rustix::process::{Pid, Signal, kill_process};
use tug_model::Revision;

use super::mount::{Mount, make_ext4};
use super::support::{Chance, Running, series};
use crate::store::{Config, State};

const FOLDER: &str = "TUG_TEST_POWER_FOLDER";
const CHILD: &str = "store::tests::power::commits_until_it_is_killed";
const CUTS: u64 = 8;

fn small(folder: &Path) -> Config {
    Config { segment_bytes: 20_000, export_every: 40, ..Config::folder(folder, "c1") }
}

fn child_folder() -> Option<std::ffi::OsString> {
    #[expect(clippy::disallowed_methods, reason = "it is how the test below speaks to its child")]
    std::env::var(FOLDER).ok().map(Into::into)
}

/// The child of the test below; without a folder to work in there is nothing to do.
#[tokio::test(flavor = "multi_thread")]
async fn commits_until_it_is_killed() {
    let Some(folder) = child_folder() else { return };
    let running = Running::open(small(Path::new(&folder))).await.unwrap();
    let mut n = running.state().revision.0;
    loop {
        running.put(series(n)).await.unwrap();
        n += 1;
        // A whole line in one write, so that what was read is what was promised.
        std::io::stdout().write_all(format!("\npromised {n}\n").as_bytes()).unwrap();
        std::io::stdout().flush().unwrap();
    }
}

fn start_child(folder: &Path) -> (Child, mpsc::Receiver<u64>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", CHILD, "--nocapture"])
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let (promise, promised) = mpsc::channel();
    std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            if let Some(Ok(number)) = line.strip_prefix("promised ").map(str::parse) {
                promise.send(number).unwrap_or_default();
            }
        }
    });
    (child, promised)
}

/// Stops the child between two instructions, and waits until it stands still.
fn freeze(child: &Child) {
    let id = i32::try_from(child.id()).unwrap();
    kill_process(Pid::from_raw(id).unwrap(), Signal::STOP).unwrap();
    let stands = || {
        let tasks = std::fs::read_dir(format!("/proc/{id}/task")).unwrap();
        tasks.into_iter().all(|task| {
            let stat = std::fs::read_to_string(task.unwrap().path().join("stat")).unwrap();
            stat.rsplit(')').next().unwrap().trim().starts_with('T')
        })
    };
    while !stands() {
        std::thread::yield_now();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn as_root_a_power_cut_on_ext4_loses_no_promise() {
    let files = tempfile::tempdir().unwrap();
    let image = files.path().join("disk");
    make_ext4(&image, 96);
    for cut in 0..CUTS {
        let mut chance = Chance::new(cut);
        let mount = Mount::image(&image);
        let (mut child, promised) = start_child(&mount.path().join("state"));
        let wait_for = 1 + chance.below(150);
        let mut newest = promised.iter().nth(wait_for).expect("the child commits");
        freeze(&child);
        let copy = files.path().join("copy");
        std::fs::copy(&image, &copy).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        newest = promised.iter().last().unwrap_or(newest);
        drop(mount);
        std::fs::rename(&copy, &image).unwrap();

        let mount = Mount::image(&image);
        let running = Running::open(small(&mount.path().join("state"))).await.unwrap();
        let state = running.kill().await;
        assert!(state.revision.0 >= newest, "cut {cut}: {} of {newest} commits", state.revision);
        let mut expected = State::new("c1", 1);
        for n in 0..state.revision.0 {
            let changes: Vec<_> =
                series(n).into_iter().map(|change| change.stamped(Revision(n + 1))).collect();
            expected.apply(Revision(n + 1), &changes);
        }
        assert_eq!(*state, expected, "cut {cut}");
    }
}
