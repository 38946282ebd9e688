//! A simulated machine: an engine, an agent's folder, an agent if it runs, and the cable to the orchestrator.
//!
//! The agent dials as the real one does: again and again, and what is silent for too long it takes for lost.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::future::BoxFuture;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tug_agent::app::{self as agent, Agent};
use tug_agent::health::{ProbeError, Prober};
use tug_api::Clock;
use tug_api::transport::Channel;
use tug_model::NodeId;
use tug_model::spec::service::ProbeCheck;

use super::link::{Cable, Link};
use super::plane::OURS;
use crate::fake::{Engine, Faults};

/// A connection over which nothing passes is given up after so long, as by the keep-alive of the real one.
const KEEP_ALIVE: Duration = Duration::from_secs(3);
/// A cable that comes and goes is there and away for so long in turn.
const FLAP: Duration = Duration::from_secs(3);

/// A machine.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) id: NodeId,
    pub(super) engine: Engine,
    /// It has been removed from the cluster, and does not dial.
    pub(super) removed: bool,
    /// Its time of day.
    pub(super) clock: Clock,
    folder: TempDir,
    number: u64,
    agent: Option<Running>,
    frozen: watch::Sender<bool>,
    thaws_at: Option<Instant>,
    cable: watch::Sender<Cable>,
    /// What the cable is like, apart from a machine that is frozen or without power.
    wanted: Cable,
    /// Something in between keeps connections up over which nothing passes.
    stubborn: bool,
    flaps_since: Option<Instant>,
    powered: bool,
    closed_since: Option<Instant>,
    link: CancellationToken,
    dials_at: Option<Instant>,
}

#[derive(Debug)]
struct Running {
    handle: agent::Handle,
    running: JoinHandle<()>,
}

/// Asks the fake engine whether a container serves.
struct FakeProber {
    engine: Engine,
}

// === impl Machine ===

impl Machine {
    /// A machine with power, whose agent does not run yet.
    pub(super) fn new(number: usize, clock: Clock, seed: u64) -> Result<Self> {
        let id = NodeId::parse(&format!("n{number}"))?;
        let number = u64::try_from(number)?;
        let link = CancellationToken::new();
        link.cancel();
        Ok(Self {
            engine: Engine::new(id.clone(), clock, seed.wrapping_add(number)),
            id,
            removed: false,
            clock,
            folder: shared_memory()?,
            number,
            agent: None,
            frozen: watch::Sender::new(false),
            thaws_at: None,
            cable: watch::Sender::new(Cable::WHOLE),
            wanted: Cable::WHOLE,
            stubborn: false,
            flaps_since: None,
            powered: true,
            closed_since: None,
            link,
            dials_at: None,
        })
    }

    /// Whether it has power, and may be used.
    pub(super) fn is_on(&self) -> bool {
        self.powered
    }

    /// Whether its agent belongs to our cluster, as far as its disk knows.
    pub(super) fn is_ours(&self) -> bool {
        let assignment = std::fs::read_to_string(self.file("assignment.json")).unwrap_or_default();
        assignment.contains(&format!("\"cluster\":\"{OURS}\""))
    }

    /// Where a file of the agent lies.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// That its agent has not ended by itself, which it never does.
    pub(super) async fn is_sound(&mut self) -> Result<()> {
        match self.agent.take_if(|agent| agent.running.is_finished()) {
            None => Ok(()),
            Some(ended) => {
                ended.running.await.with_context(|| format!("the agent of {} ended by itself", self.id))
            }
        }
    }

    /// The agent starts, if there is power for it and none runs.
    pub(super) async fn start_agent(&mut self) -> Result<()> {
        if self.agent.is_some() || !self.powered {
            return Ok(());
        }
        let config = agent::Config {
            state_dir: self.folder.path().to_owned(),
            private: self.folder.path().to_owned(),
            node: Some(self.id.clone()),
            hostname: self.id.to_string(),
            labels: BTreeMap::new(),
            runtime: Arc::new(self.engine.clone()),
            prober: Arc::new(FakeProber { engine: self.engine.clone() }),
            clock: self.clock,
            server: None,
            balancer: None,
            peer: None,
            guard: None,
            concurrency: agent::Config::CONCURRENCY,
            seed: self.number,
        };
        let (agent, handle) = Agent::open(config).await.context("the agent opens its folder")?;
        let work = freezable(agent.run(CancellationToken::new()), self.frozen.subscribe());
        self.agent = Some(Running { handle, running: tokio::spawn(work) });
        Ok(())
    }

    /// The agent dies in the middle of whatever it does. Its connection ends, as that of any dead process.
    pub(super) async fn crash_agent(&mut self) {
        self.link.cancel();
        self.end_agent().await;
    }

    async fn end_agent(&mut self) {
        self.thaw();
        if let Some(agent) = self.agent.take() {
            kill(agent.running).await;
        }
    }

    /// The machine loses its power: everything on it ends, and nobody is told.
    pub(super) async fn power_off(&mut self) {
        self.powered = false;
        self.show_cable();
        self.end_agent().await;
        self.engine.reboot();
        self.engine.set_faults(Faults { down: true, ..Faults::default() });
    }

    /// It has its power back.
    pub(super) async fn power_on(&mut self) -> Result<()> {
        if !self.powered {
            // What waited in the cable is for a process that is gone.
            self.link.cancel();
            self.powered = true;
            self.engine.set_faults(Faults::default());
            self.show_cable();
        }
        self.start_agent().await
    }

    /// The agent stands still for `time`, and with it everything that it says and hears.
    pub(super) fn freeze(&mut self, time: Duration) {
        self.thaws_at = Some(Instant::now() + time);
        self.frozen.send_replace(true);
        self.show_cable();
    }

    fn thaw(&mut self) {
        self.thaws_at = None;
        self.frozen.send_replace(false);
        self.show_cable();
    }

    /// The machine becomes another one of the same name: nothing of what was on it is left.
    pub(super) async fn reinstall(&mut self, seed: u64) -> Result<()> {
        self.crash_agent().await;
        self.engine = Engine::new(self.id.clone(), self.clock, seed);
        self.folder = shared_memory()?;
        self.removed = false;
        self.powered = true;
        self.show_cable();
        self.start_agent().await
    }

    /// From now on the cable is like this.
    pub(super) fn set_cable(&mut self, cable: Cable, stubborn: bool) {
        (self.wanted, self.stubborn, self.flaps_since) = (cable, stubborn, None);
        self.show_cable();
    }

    /// From now on the cable comes and goes.
    pub(super) fn flap(&mut self) {
        self.set_cable(Cable::WHOLE, false);
        self.flaps_since = Some(Instant::now());
    }

    /// The connection breaks; the agent dials again.
    pub(super) fn disconnect(&self) {
        self.link.cancel();
    }

    fn show_cable(&mut self) {
        let time = self.flaps_since.map_or(0, |since| since.elapsed().as_secs() / FLAP.as_secs());
        let passes = self.powered && !*self.frozen.borrow() && time.is_multiple_of(2);
        let cable = Cable {
            orders: self.wanted.orders && passes,
            reports: self.wanted.reports && passes,
            ..self.wanted
        };
        self.cable.send_if_modified(|shown| std::mem::replace(shown, cable) != cable);
        if cable.is_open() {
            self.closed_since = None;
        } else {
            self.closed_since.get_or_insert_with(Instant::now);
        }
    }

    /// Time has passed: what thaws, thaws; what is silent for too long is lost; what is lost is dialled again. Gives the
    /// new connection, if there is one, to an orchestrator that has ended the last one if `is_known` is false.
    pub(super) fn tick(&mut self, is_known: Option<bool>, dice: &mut fastrand::Rng) -> Option<Channel> {
        let now = Instant::now();
        if self.thaws_at.is_some_and(|at| at <= now) {
            self.thaw();
        }
        self.show_cable();
        let cable = *self.cable.borrow();
        let silent = self.closed_since.is_some_and(|since| now - since >= KEEP_ALIVE);
        let is_ended = is_known != Some(true) && cable.is_open();
        if is_ended || (silent && !self.stubborn) {
            self.link.cancel();
        }
        if !self.link.is_cancelled() || !cable.is_open() || is_known.is_none() || self.removed {
            self.dials_at = None;
            return None;
        }
        let agent = self.agent.as_ref()?;
        let wait = Duration::from_millis(dice.u64(0..2_000));
        if *self.dials_at.get_or_insert_with(|| now + wait) > now {
            return None;
        }
        self.dials_at = None;
        let router = agent.handle.router.clone();
        self.link = CancellationToken::new();
        Some(Link::channel(router, self.link.clone(), self.cable.subscribe(), dice.u64(..)))
    }

    /// Dials at once, also while the last connection is there.
    pub(super) fn dial_now(&mut self) {
        self.dials_at = Some(Instant::now());
        // The old connection is not ended: a machine with a new address leaves it half open.
        self.link = CancellationToken::new();
        self.link.cancel();
    }

    /// Everything that was broken is whole again.
    pub(super) async fn heal(&mut self, clock: Clock) -> Result<()> {
        self.power_on().await?;
        self.thaw();
        self.set_cable(Cable::WHOLE, false);
        self.engine.disarm();
        self.engine.set_faults(Faults::default());
        if self.removed {
            self.reinstall(self.number).await?;
        }
        self.clock = clock;
        self.engine.set_clock(clock);
        Ok(())
    }
}

/// Does `work`, but for the times when it is frozen.
async fn freezable(work: impl Future<Output = ()>, mut frozen: watch::Receiver<bool>) {
    let mut work = Box::pin(work);
    // An end of the channel is the end of the machine.
    while frozen.wait_for(|frozen| !frozen).await.is_ok() {
        tokio::select! {
            biased;
            _ = frozen.wait_for(|frozen| *frozen) => {}
            () = &mut work => return,
        }
    }
}

/// Ends a component in the middle of whatever it does.
pub(super) async fn kill<T>(running: JoinHandle<T>) {
    running.abort();
    // Who looks at it all the while says so if it has ended by itself.
    let _ = running.await;
}

/// A folder that no disk slows down.
fn shared_memory() -> Result<TempDir> {
    let memory = std::path::Path::new("/dev/shm");
    if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() }.context("make a folder")
}

// === impl FakeProber ===

impl fmt::Debug for FakeProber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FakeProber")
    }
}

impl Prober for FakeProber {
    fn probe<'a>(
        &'a self,
        address: SocketAddr,
        _check: &'a ProbeCheck,
    ) -> BoxFuture<'a, Result<(), ProbeError>> {
        let serves = self.engine.serves(address.ip());
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(1)).await;
            if serves {
                return Ok(());
            }
            let source = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
            Err(ProbeError::Connect { address, source })
        })
    }
}
