//! `cargo run -p tug-tests --bin fuzz -- manifest|store SECONDS [SEED]`: mutated input, as much of it as the time allows.
//!
//! A panic, or a store that opens with less than was acknowledged, ends the program and names the seed of the case; a case
//! is told again by giving that seed. Mutations are those of bytes and of lines: what a broken editor, disk or attacker
//! makes of something that was once right.
#![expect(
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a program that talks to the person who runs it"
)]

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tug_api::Clock;
use tug_compose::{MemoryDisk as Files, Request, load};
use tug_model::event::{Event, EventKind};
use tug_model::{Revision, Timestamp};
use tug_orchestrator::store::{self, Change, Config, MemoryDisk};

const MANIFESTS: [&str; 2] = [
    include_str!("../../../manifests/hello/compose.yaml"),
    include_str!("../../../manifests/shop/compose.yaml"),
];

/// Bytes that mean something to YAML, and some that nothing should hold.
const ODD: &[u8] = b"{}[]:,&*!|>'\"%@`#-? \n\t\0\xff$";

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (target, seconds, seed) = match words.as_slice() {
        [target, seconds] => (*target, seconds.parse()?, 0),
        [target, seconds, seed] => (*target, seconds.parse()?, seed.parse()?),
        _ => bail!("Usage: fuzz manifest|store SECONDS [SEED]"),
    };
    let case: fn(&mut fastrand::Rng) -> Result<Outcome> = match target {
        "manifest" => manifest,
        "store" => journal,
        other => bail!("there is no target `{other}`: manifest or store"),
    };
    let start = Instant::now();
    let (mut cases, mut taken) = (0_u64, 0_u64);
    while start.elapsed() < Duration::from_secs(seconds) {
        let number = seed + cases;
        let mut dice = fastrand::Rng::with_seed(number);
        let begun = Instant::now();
        let outcome = std::panic::catch_unwind(move || case(&mut dice));
        let outcome = outcome.map_err(|_| anyhow::anyhow!("a panic")).and_then(|done| done);
        taken += u64::from(outcome.with_context(|| format!("seed {number}"))? == Outcome::Taken);
        ensure!(begun.elapsed() < Duration::from_secs(10), "seed {number} took {:?}", begun.elapsed());
        cases += 1;
    }
    println!("{target}: {cases} cases in {seconds} s, {taken} taken, {} refused, none wrong", cases - taken);
    Ok(())
}

/// What became of a case.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Taken,
    Refused,
}

/// A mutated manifest is read, or refused with a finding; never anything else.
fn manifest(dice: &mut fastrand::Rng) -> Result<Outcome> {
    let mut bytes = MANIFESTS[dice.usize(0..MANIFESTS.len())].as_bytes().to_vec();
    for _ in 0..dice.usize(1..12) {
        mutate(dice, &mut bytes);
    }
    let files = Files::default().with("/m/compose.yaml", bytes).with("/m/banner.txt", "hello");
    let request = Request {
        files: vec!["compose.yaml".to_owned()],
        project_name: None,
        profiles: Vec::new(),
        environment: std::collections::BTreeMap::new(),
        env_files: Vec::new(),
        ignore_unsupported: std::collections::BTreeSet::new(),
        working_directory: "/m".to_owned(),
        disk: &files,
    };
    let outcome = load(&request);
    ensure!(outcome.project.is_some() || !outcome.findings.is_empty(), "refused without a finding");
    Ok(if outcome.project.is_some() { Outcome::Taken } else { Outcome::Refused })
}

/// A store with one damaged file opens with everything that was acknowledged, or not at all.
fn journal(dice: &mut fastrand::Rng) -> Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let disk = MemoryDisk::default();
    let mut config = Config::memory(&disk, "fuzz");
    config.segment_bytes = 2_000;
    config.export_every = dice.u64(5..40);
    let commits = dice.u64(1..60);
    let acknowledged = runtime.block_on(write(&config, commits))?;
    let files: Vec<(String, Vec<u8>)> = disk.files().into_iter().collect();
    let (file, mut content) = files[dice.usize(0..files.len())].clone();
    let length = content.len();
    mutate(dice, &mut content);
    // The end of the newest file, cut off, looks like a write that was never finished, and in memory there is no sled
    // that knows better: what is left must then be a beginning of what was written, whole.
    let shortened = content.len() < length;
    disk.overwrite(&file, Some(content));
    match runtime.block_on(store::open(config)) {
        Ok((store, _writer)) => {
            let state = store.snapshot();
            let found = state.events.len() as u64;
            ensure!(
                found >= acknowledged || shortened,
                "{file} damaged: {found} of {acknowledged} events are left"
            );
            ensure!(
                state.revision == Revision(found),
                "{file} damaged: {found} events at revision {}",
                state.revision
            );
            Ok(Outcome::Taken)
        }
        Err(_) => Ok(Outcome::Refused),
    }
}

async fn write(config: &Config, commits: u64) -> Result<u64> {
    let clock = Clock::starting_at(Timestamp(1));
    let (store, writer) = store::open(config.clone()).await?;
    let stop = CancellationToken::new();
    let running = tokio::spawn(writer.run(stop.clone()));
    for _ in 0..commits {
        let at = clock.now();
        store.commit(at, move |revision, _| vec![event(revision, at)]).await?;
    }
    // As after `kill -9`: nothing is said on the way out.
    running.abort();
    let _ = running.await;
    Ok(commits)
}

fn event(revision: Revision, at: Timestamp) -> Change {
    let message = format!("commit {revision}");
    let kind = EventKind::Project;
    Change::Record(
        Event { revision, at, kind, project: None, service: None, task: None, node: None, message }.into(),
    )
}

/// One change of `bytes`.
fn mutate(dice: &mut fastrand::Rng, bytes: &mut Vec<u8>) {
    if bytes.is_empty() {
        bytes.push(dice.u8(..));
        return;
    }
    let at = dice.usize(0..bytes.len());
    match dice.u8(0..8) {
        0 | 1 => bytes[at] ^= 1 << dice.u8(0..8),
        2 => bytes[at] = ODD[dice.usize(0..ODD.len())],
        3 => bytes.insert(at, dice.u8(..)),
        4 => drop(bytes.remove(at)),
        5 => bytes.truncate(at),
        6 => {
            let end = (at + dice.usize(1..40)).min(bytes.len());
            let piece = bytes[at..end].to_vec();
            let to = dice.usize(0..bytes.len());
            bytes.splice(to..to, piece);
        }
        _ => {
            let end = (at + dice.usize(1..40)).min(bytes.len());
            bytes.drain(at..end);
        }
    }
}
