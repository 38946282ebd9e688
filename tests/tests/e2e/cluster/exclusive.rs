//! A service that never runs twice at once, on machines that are not well. The evidence is what it writes itself: into
//! one file, wherever it runs.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::time::Instant;
use tug_api::Clock;
use tug_api::user::{NodeState, NodeStatus};
use tug_model::NodeId;
use tug_model::report::Phase;
use tug_model::status::ProjectStatus;
use tug_tests::cluster::{Cluster, Home, IMAGE};
use tug_tests::docker;
use tug_tests::lab::{Host, Lab, Way};
use tug_tests::tug::{PATIENCE, service};
use tug_tests::witness::{Nap, Verdict, judge};

use super::{PROJECT, hosts, project};
use crate::number;

/// `TUG_TEST_ROUNDS` asks for more. Each takes another fault, in turn.
const ROUNDS: usize = 2;
const SERVICE: &str = "ledger";
const FAULTS: [Fault; 7] = [
    Fault::Cut,
    Fault::AgentStopped,
    Fault::Blocked(Way::Out),
    Fault::Frozen,
    Fault::Flapping,
    Fault::AgentDead,
    Fault::Blocked(Way::In),
];
/// How often a cable comes and goes before it is gone, and for how long: leases are renewed in between, or end.
const FLAPS: u32 = 4;
const OUT: Duration = Duration::from_secs(3);
const IN: Duration = Duration::from_secs(1);

/// Removes what is known of all containers. What is mounted there stays.
const FORGET: &str = "rm -rf /run/containerd /run/docker 2>/dev/null || true";

/// What happens to the machine on which it runs.
#[derive(Debug, Clone, Copy)]
enum Fault {
    /// Its cable is out.
    Cut,
    /// Packets do not go this way.
    Blocked(Way),
    /// Nothing of it moves, and then all goes on.
    Frozen,
    /// Its cable comes and goes, and then is out.
    Flapping,
    /// Its agent stands still: nobody ends what has no lease any more but the holder.
    AgentStopped,
    /// Its agent is gone, and nobody starts it again.
    AgentDead,
}

/// The service and who watches it.
struct Ledger<'c, 'l> {
    cluster: &'c Cluster<'l>,
    log: PathBuf,
    clock: Clock,
    naps: Vec<Nap>,
    rounds: Vec<Round>,
}

/// What happened in one round.
struct Round {
    fault: Fault,
    /// The fencing number of what ran.
    number: u64,
    /// When the fault began, as a time of the log.
    at: u64,
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_lab_an_exclusive_service_never_runs_twice_at_once() -> Result<()> {
    let start = Instant::now();
    let lab = Lab::start(3).await?;
    let cluster = Cluster::start(&lab, Home::Together).await?;
    let folder = TempDir::with_prefix("tug-ledger-")?;
    // Not on the machine of the control plane: where that is cut off, it is the others who are gone.
    cluster.apply(&manifest(&folder, "node.hostname != h1")).await?;
    let mut ledger = Ledger::new(&cluster, &folder);
    for fault in FAULTS.into_iter().cycle().take(number("TUG_TEST_ROUNDS").unwrap_or(ROUNDS)) {
        ledger.round(fault).await.with_context(|| format!("{fault:?}"))?;
    }
    let verdict = ledger.judged().await?;
    for round in &ledger.rounds {
        println!("{}", round.told(&verdict)?);
    }
    println!(
        "{} starts, {} overlaps; what woke up wrote for {:?} ms at most; {:?}",
        verdict.runs.len(),
        verdict.wrongs.len(),
        verdict.wakings.iter().max(),
        start.elapsed()
    );
    ensure!(verdict.wrongs.is_empty(), "{:#?}\n{}", verdict, cluster.logs());
    Ok(())
}

fn manifest(folder: &TempDir, constraint: &str) -> String {
    format!(
        "name: {PROJECT}\n\
         services:\n  \
           {SERVICE}:\n    \
             image: {IMAGE}\n    \
             pull_policy: never\n    \
             init: true\n    \
             command: [witness, /witness/log]\n    \
             x-exclusive: true\n    \
             volumes: ['{}:/witness']\n    \
             deploy: {{placement: {{constraints: ['{constraint}']}}}}\n",
        folder.path().display()
    )
}

// === impl Ledger ===

impl<'c, 'l> Ledger<'c, 'l> {
    fn new(cluster: &'c Cluster<'l>, folder: &TempDir) -> Self {
        let log = folder.path().join("log");
        Self { cluster, log, clock: Clock::system(), naps: Vec::new(), rounds: Vec::new() }
    }

    /// What became of it, once it has ended.
    async fn judged(&self) -> Result<Verdict> {
        self.cluster.ok(&["rm", "--yes", PROJECT]).await?;
        judge(&std::fs::read_to_string(&self.log)?, &self.naps)
    }

    /// Something happens to the machine on which it runs; it goes on elsewhere, and then all is well again.
    async fn round(&mut self, fault: Fault) -> Result<()> {
        let here = self.until_all_is_well().await?;
        let number = self.until_written_after(self.now()).await?;
        let at = self.now();
        self.begin(fault, here).await?;
        let node = self.cluster.node(here);
        let is_elsewhere = |status: &ProjectStatus| runs_on(status).is_some_and(|other| other != node);
        self.cluster.until(&project(), "it to run elsewhere", is_elsewhere).await?;
        let next = self.until_written_by(|other| other > number).await?;
        ensure!(next > number, "{next} follows {number}");
        if let Fault::Frozen = fault {
            // The log counts in hundredths of a second.
            self.naps.push(Nap { number, until: self.now() / 10 * 10 });
        }
        self.end(fault, here).await?;
        self.until_all_is_well().await?;
        self.rounds.push(Round { fault, number, at });
        Ok(())
    }

    async fn begin(&self, fault: Fault, here: usize) -> Result<()> {
        let (lab, host) = (self.cluster.lab(), self.cluster.host(here));
        match fault {
            Fault::Cut => lab.cut(host),
            Fault::Blocked(way) => host.block(way, None),
            Fault::Frozen => host.freeze().await,
            Fault::AgentStopped => self.cluster.signal_agent(here, Signal::STOP),
            Fault::AgentDead => self.cluster.end_agent(here, Signal::KILL).await,
            Fault::Flapping => {
                for _ in 0..FLAPS {
                    lab.cut(host)?;
                    tokio::time::sleep(OUT).await;
                    lab.heal(host)?;
                    tokio::time::sleep(IN).await;
                }
                lab.cut(host)
            }
        }
    }

    async fn end(&self, fault: Fault, here: usize) -> Result<()> {
        let (lab, host) = (self.cluster.lab(), self.cluster.host(here));
        match fault {
            Fault::Cut | Fault::Flapping => lab.heal(host),
            Fault::Blocked(way) => host.unblock(way, None),
            Fault::Frozen => host.thaw().await,
            Fault::AgentStopped => self.cluster.signal_agent(here, Signal::CONT),
            Fault::AgentDead => self.cluster.start_agent(here),
        }
    }

    /// Waits until every machine is there and it runs once. Gives the host.
    async fn until_all_is_well(&self) -> Result<usize> {
        let are_there =
            |nodes: &[NodeStatus]| nodes.iter().all(|node| node.connected && node.state == NodeState::Ready);
        self.cluster.until_nodes("all to be there", are_there).await?;
        let is_settled = |status: &ProjectStatus| status.settled && runs_on(status).is_some();
        let status = self.cluster.until(&project(), "the project to settle", is_settled).await?;
        self.cluster.until_running(&hosts(self.cluster, &[1, 2, 3]), 1).await?;
        let node = runs_on(&status).context("it ran a moment ago")?;
        (1..=3).find(|number| self.cluster.node(*number) == node).context("there are three hosts")
    }

    /// For how long the machine has been up, in milliseconds.
    fn now(&self) -> u64 {
        self.clock.uptime().0
    }

    /// Waits until something was written later than at that time. Gives the number of who wrote it.
    async fn until_written_after(&self, time: u64) -> Result<u64> {
        self.until_line("something newer", |_, at| at > time).await
    }

    /// Waits until somebody has written whose number is right, and gives that.
    async fn until_written_by(&self, is_right: impl Fn(u64) -> bool) -> Result<u64> {
        self.until_line("another one", |number, _| is_right(number)).await
    }

    async fn until_line(&self, what: &str, is_right: impl Fn(u64, u64) -> bool) -> Result<u64> {
        let waited = async {
            loop {
                let lines = last_lines(&self.log)?;
                if let Some((number, _)) = lines.into_iter().find(|(number, at)| is_right(*number, *at)) {
                    return Ok(number);
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let found = tokio::time::timeout(PATIENCE, waited).await;
        found.with_context(|| format!("{what} is not written\n{}", self.cluster.logs()))?
    }
}

/// Where it runs, by what the control plane was told.
fn runs_on(status: &ProjectStatus) -> Option<NodeId> {
    let runs = |phase: &Option<Phase>| phase.as_ref().is_some_and(Phase::is_healthy);
    let task =
        service(status, SERVICE).tasks.iter().find(|task| task.desired.is_routed() && runs(&task.phase))?;
    Some(task.node.clone())
}

/// The numbers and times of the last lines of a file that is being written.
fn last_lines(log: &PathBuf) -> Result<Vec<(u64, u64)>> {
    const ENOUGH: u64 = 1024;
    let mut file = match File::open(log) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        opened => opened?,
    };
    let end = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(end.saturating_sub(ENOUGH)))?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    // Neither the first nor the last is sure to be whole.
    let from = if end > ENOUGH { text.find('\n').unwrap_or(text.len()) } else { 0 };
    let whole = text[from..].rsplit_once('\n').map_or("", |(whole, _)| whole);
    let words = |line: &str| {
        let mut words = line.split(' ');
        Some((words.next()?.parse().ok()?, words.nth(1)?.parse().ok()?))
    };
    Ok(whole.lines().filter_map(words).collect())
}

/// What watches over its container is killed, and the Engine says that it has ended: first that is true, and then, with
/// everything gone that is known about it, its process runs on.
#[tokio::test(flavor = "multi_thread")]
async fn in_a_lab_what_an_engine_lost_sight_of_ends_before_it_is_started_again() -> Result<()> {
    let lab = Lab::start(1).await?;
    let cluster = Cluster::start(&lab, Home::Together).await?;
    let folder = TempDir::with_prefix("tug-ledger-")?;
    cluster.apply(&manifest(&folder, "node.hostname == h1")).await?;
    let ledger = Ledger::new(&cluster, &folder);
    let host = lab.host(1);
    let first = ledger.until_written_after(ledger.now()).await?;
    host.kill_shim(&its_process(host).await?)?;
    let number = ledger.until_written_by(|other| other > first).await?;
    cluster.until_settled(&project()).await?;
    let process = its_process(host).await?;

    host.end_engine(Signal::KILL).await?;
    host.end("containerd", Signal::KILL).await?;
    host.kill_shim(&process)?;
    host.run(&["sh", "-c", FORGET]).await?;
    let still = ledger.until_written_after(ledger.now()).await?;
    assert_eq!(still, number, "nothing but the Engine has lost it");
    host.start_engine().await?;
    ledger.until_written_by(|other| other > number).await?;
    cluster.until_settled(&project()).await?;
    let verdict = ledger.judged().await?;
    ensure!(verdict.wrongs.is_empty() && verdict.runs.len() == 3, "{verdict:#?}\n{}", cluster.logs());
    for (what, pair) in ["its shim was killed", "it was lost"].iter().zip(verdict.runs.windows(2)) {
        println!("{what}: it ran again {} ms after its end", pair[1].from - pair[0].to);
    }
    Ok(())
}

/// The main process of the only container that runs there.
async fn its_process(host: &Host) -> Result<String> {
    let containers = docker::containers_of(&host.connect()?, "tug.task").await?;
    let id = containers.into_iter().find_map(|container| container.id).context("it has a container")?;
    host.process_of(&id).await
}

// === impl Round ===

impl Round {
    /// How it went, in seconds after the fault began.
    fn told(&self, verdict: &Verdict) -> Result<String> {
        let index = verdict.runs.iter().position(|run| run.number == self.number);
        let mut runs = verdict.runs.iter().skip(index.with_context(|| format!("{} ran", self.number))?);
        let (Some(run), Some(next)) = (runs.next(), runs.next()) else {
            anyhow::bail!("nothing follows {}: {verdict:#?}", self.number)
        };
        let seconds = |from: u64, to: u64| Duration::from_millis(to.saturating_sub(from));
        Ok(format!(
            "{:?}: it ran on for {:?}, and ran again after {:?}, {:?} later",
            self.fault,
            seconds(self.at, run.to),
            seconds(self.at, next.from),
            seconds(run.to, next.from),
        ))
    }
}
