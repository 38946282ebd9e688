//! Three Docker hosts, thirty replicas, and what goes wrong: how long until all is well again, for each system on the
//! same hosts in the same run.
//!
//! What is there is counted on the Engines, not believed of the systems. Only whether a node is out is asked of the
//! system itself: it alone knows.

mod swarm;
mod tug;

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bollard::models::{ContainerSummary, ContainerSummaryStateEnum};
use bollard::query_parameters::{KillContainerOptions, ListContainersOptionsBuilder};
use futures_util::future::{BoxFuture, try_join_all};
use rustix::process::Signal;
use tokio::time::{Instant, timeout};
use tug_tests::cluster::IMAGE;
use tug_tests::image;
use tug_tests::lab::{Host, Lab};

use self::swarm::Swarm;
use self::tug::Tug;
use crate::table::Table;

const HOSTS: u8 = 3;
/// The one that everything happens to; the first is where the system is controlled.
const VICTIM: usize = 3;
const MANY: u32 = 30;
const PATIENCE: Duration = Duration::from_secs(180);
const PAUSE: Duration = Duration::from_millis(100);

/// An orchestrator of containers on all hosts of a lab, with one service of it.
trait System {
    /// What the table calls it.
    fn name(&self) -> &'static str;

    /// The label that the containers of the service carry.
    fn label(&self) -> String;

    /// Asks for so many replicas.
    fn scale(&self, replicas: u32) -> BoxFuture<'_, Result<()>>;

    /// Whether it counts on this host.
    fn is_ready<'a>(&'a self, host: &'a Host) -> BoxFuture<'a, Result<bool>>;

    /// Ends it on all hosts.
    fn leave<'a>(self: Box<Self>) -> BoxFuture<'a, Result<()>>
    where
        Self: 'a;
}

/// Whose turn it is.
#[derive(Debug, Clone, Copy)]
enum Turn {
    Swarm,
    Tug,
}

/// Measures `runs` rounds, the systems in turn.
pub(crate) async fn measure(table: &mut Table, runs: usize) -> Result<()> {
    table.compare_with("swarm");
    let lab = Lab::start(HOSTS).await?;
    let first = lab.host(1).connect()?;
    image::hello_image_of(&first, IMAGE).await;
    try_join_all(lab.hosts().iter().skip(1).map(|host| host.load(IMAGE, &first))).await?;
    for run in 1..=runs {
        eprintln!("run {run} of {runs}");
        // Who is first finds the machine as nobody after it does, so they take turns in that too.
        let mut turns = [Turn::Swarm, Turn::Tug];
        turns.rotate_left(run % 2);
        for turn in turns {
            let system: Box<dyn System + '_> = match turn {
                Turn::Swarm => Box::new(Swarm::start(&lab, IMAGE).await?),
                Turn::Tug => Box::new(Tug::start(&lab).await?),
            };
            Course { lab: &lab, system: &*system, table }.run().await?;
            system.leave().await?;
        }
    }
    Ok(())
}

/// One system's way through all scenarios.
struct Course<'a> {
    lab: &'a Lab,
    system: &'a (dyn System + 'a),
    table: &'a mut Table,
}

// === impl Course ===

impl Course<'_> {
    async fn run(&mut self) -> Result<()> {
        self.until_running(self.lab.hosts(), 1).await?;
        self.scale("scale 1 -> 30").await?;
        self.kill_container().await?;
        self.cut().await?;
        self.heal().await?;
        // Not every system gives the node that is back its share, so all is placed anew.
        self.system.scale(1).await?;
        self.until_running(self.lab.hosts(), 1).await?;
        self.scale("scale 1 -> 30, again").await?;
        self.kill_engine().await?;
        self.system.scale(0).await?;
        self.until_running(self.lab.hosts(), 0).await
    }

    async fn scale(&mut self, scenario: &str) -> Result<()> {
        let begun = Instant::now();
        self.system.scale(MANY).await?;
        self.until_running(self.lab.hosts(), MANY).await?;
        self.add(scenario, "all run", begun);
        Ok(())
    }

    async fn kill_container(&mut self) -> Result<()> {
        let found = self.running(self.victim()).await?.pop();
        let id = found.and_then(|one| one.id).context("a container on every host")?;
        let begun = Instant::now();
        self.victim().connect()?.kill_container(&id, None::<KillContainerOptions>).await?;
        // The Engine takes a moment to see what it has done.
        let gone = async {
            while self.running(self.victim()).await?.iter().any(|one| one.id.as_ref() == Some(&id)) {
                tokio::time::sleep(PAUSE / 10).await;
            }
            anyhow::Ok(())
        };
        timeout(PATIENCE, gone).await.context("a container outlives SIGKILL")??;
        self.until_running(self.lab.hosts(), MANY).await?;
        self.add("container killed", "replaced", begun);
        Ok(())
    }

    async fn cut(&mut self) -> Result<()> {
        let begun = Instant::now();
        self.lab.cut(self.victim())?;
        self.until_ready(false).await?;
        self.add("cable cut", "node is out", begun);
        self.until_running(self.others(), MANY).await?;
        self.add("cable cut", "all run elsewhere", begun);
        Ok(())
    }

    async fn heal(&mut self) -> Result<()> {
        let doubles = self.count(self.lab.hosts()).await?;
        ensure!(doubles > MANY, "those that were cut off ran on: {doubles}");
        let begun = Instant::now();
        self.lab.heal(self.victim())?;
        self.until_ready(true).await?;
        self.add("cable healed", "node is in", begun);
        self.until_running(self.lab.hosts(), MANY).await?;
        self.add("cable healed", "nothing runs twice", begun);
        Ok(())
    }

    async fn kill_engine(&mut self) -> Result<()> {
        let begun = Instant::now();
        self.victim().end_engine(Signal::KILL).await?;
        self.until_running(self.others(), MANY).await?;
        self.add("engine killed", "all run elsewhere", begun);
        self.victim().start_engine().await?;
        self.until_ready(true).await
    }

    fn victim(&self) -> &Host {
        self.lab.host(VICTIM)
    }

    fn others(&self) -> &[Host] {
        self.lab.hosts().split_at(VICTIM - 1).0
    }

    fn add(&mut self, scenario: &str, metric: &str, begun: Instant) {
        let took = begun.elapsed().as_secs_f64();
        eprintln!("  {}: {scenario}, {metric}: {took:.2} s", self.system.name());
        self.table.add([scenario, self.system.name(), metric, "s"], took);
    }

    // --- what is there ---

    /// Waits until exactly so many run on these hosts.
    async fn until_running(&self, hosts: &[Host], count: u32) -> Result<()> {
        let mut last = 0;
        let reached = async {
            loop {
                // An Engine that has just been started may still end a connection.
                last = self.count(hosts).await.unwrap_or(last);
                if last == count {
                    return anyhow::Ok(());
                }
                tokio::time::sleep(PAUSE).await;
            }
        };
        let reached = timeout(PATIENCE, reached).await;
        reached.with_context(|| format!("{} is at {last}, not at {count}", self.system.name()))?
    }

    async fn until_ready(&self, ready: bool) -> Result<()> {
        let reached = async {
            while self.system.is_ready(self.victim()).await? != ready {
                tokio::time::sleep(PAUSE).await;
            }
            anyhow::Ok(())
        };
        timeout(PATIENCE, reached).await.context("the system does not see what happened to the node")?
    }

    async fn count(&self, hosts: &[Host]) -> Result<u32> {
        let counts = try_join_all(hosts.iter().map(|host| self.running(host))).await?;
        Ok(u32::try_from(counts.iter().map(Vec::len).sum::<usize>())?)
    }

    async fn running(&self, host: &Host) -> Result<Vec<ContainerSummary>> {
        let filters = HashMap::from([("label", vec![self.system.label()])]);
        let options = ListContainersOptionsBuilder::new().filters(&filters).build();
        let mut found = host.connect()?.list_containers(Some(options)).await?;
        found.retain(|one| one.state == Some(ContainerSummaryStateEnum::RUNNING));
        Ok(found)
    }
}
