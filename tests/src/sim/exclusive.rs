//! Stories of one exclusive service: a real orchestrator, real agents and fake engines, on a paused clock, and everything
//! between them that breaks, in particular cables: both ways, one way, and late. Whatever happens, no two of its processes
//! ever run at the same time, and each has a greater fencing number than the one before.
//!
//! What was said before a cable broke arrives when it is mended, as with TCP, even if nobody waits for it any more. Each
//! machine has a clock of its own, up to a tenth faster or slower than the orchestrator's: two clocks of 5 % each.

mod cable;
mod judge;
mod machine;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tug_api::Clock;
use tug_api::client::{CallError, Client, Guard};
use tug_api::transport::Channel;
use tug_api::user::{ApplyRequest, RestartRequest};
use tug_model::{Millis, ProjectName, Timestamp};
use tug_orchestrator::app::{self as orchestrator, Orchestrator};
use tug_orchestrator::store::MemoryDisk;

use self::judge::Verdict;
use self::machine::Machine;
use crate::fake::Faults;

/// The day on which every story begins: 2026-01-01.
const BEGINNING: Timestamp = Timestamp(1_767_225_600_000);
const MACHINES: usize = 3;
/// So much happens in a story.
const STEPS: usize = 30;
/// Agents dial again after so long.
const DIAL: Duration = Duration::from_millis(500);
/// A healed cluster needs at most so long, a crash loop's wait included.
const HEALED: Duration = Duration::from_secs(400);

/// What one story was about, and how it ended.
#[derive(Debug)]
pub struct Story {
    /// Everything that happened, a line each: the same for the same seed.
    pub trace: Vec<String>,
    /// How often a cable broke.
    pub partitions: usize,
    /// How often the service went on on another machine.
    pub moves: usize,
    /// What was violated, if anything.
    pub result: Result<()>,
}

/// Something that happens. Numbers name machines.
#[derive(Debug, Clone, Copy)]
enum Event {
    /// A cable breaks: the way to the machine, the way back, or both.
    Cut {
        machine: usize,
        there: bool,
        back: bool,
    },
    /// Every cable is mended.
    Mend,
    /// A machine is suspended, or goes on.
    Sleep(usize),
    Wake,
    /// The agent dies; the system starts it again after so many milliseconds.
    Crash(usize, u64),
    /// The machine is switched off and on.
    Reboot(usize),
    /// The orchestrator dies, and is back after so many milliseconds.
    Orchestrator(u64),
    /// An engine is slow, or fails now and then.
    Slow(usize),
    Clumsy(usize),
    /// A user changes or restarts the service.
    Change(u8),
    Restart,
}

struct World {
    clock: Clock,
    disk: MemoryDisk,
    /// Mostly so short that only the leases are in the way of a replacement.
    lost_after: Millis,
    orchestrator: Option<(orchestrator::Handle, JoinHandle<()>)>,
    machines: Vec<Machine>,
    dice: fastrand::Rng,
    trace: Vec<String>,
    partitions: usize,
}

/// Tells the story of `seed`.
pub fn tell(seed: u64) -> Story {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .expect("a runtime can be made");
    runtime.block_on(async {
        let mut world = World::new(seed);
        let told = world.tell().await;
        let judged = judge::judge(&world.machines, world.clock.now());
        let Verdict { moves, overlaps } = judged;
        let result = told.and_then(|()| {
            ensure!(overlaps.is_empty(), "{}", overlaps.join("\n  "));
            Ok(())
        });
        world.stop().await;
        Story { trace: world.trace, partitions: world.partitions, moves, result }
    })
}

/// The message for a story that ended badly.
pub fn explain(seed: u64, story: &Story) -> Option<String> {
    let error = story.result.as_ref().err()?;
    Some(format!("exclusive story {seed}: {error:#}\n  {}\n", story.trace.join("\n  ")))
}

// === impl World ===

impl World {
    fn new(seed: u64) -> Self {
        let mut dice = fastrand::Rng::with_seed(seed ^ 0x0E_C1);
        let clock = Clock::starting_at(BEGINNING);
        let machines =
            (0..MACHINES).map(|number| Machine::new(number, clock.drifting(dice.u32(91..=110)), seed));
        Self {
            clock,
            disk: MemoryDisk::default(),
            lost_after: Millis(if seed.is_multiple_of(4) { 10_000 } else { 200 }),
            orchestrator: None,
            machines: machines.collect(),
            dice,
            trace: Vec::new(),
            partitions: 0,
        }
    }

    async fn tell(&mut self) -> Result<()> {
        self.start_orchestrator().await?;
        for machine in &mut self.machines {
            machine.start_agent().await?;
        }
        self.pass(2_000).await?;
        let version = self.dice.u8(0..4);
        self.apply(version).await?;
        self.pass(10_000).await?;
        for _ in 0..STEPS {
            let event = self.draw();
            self.note(&event.to_string());
            self.happen(event).await?;
            let time =
                if self.dice.u8(0..4) == 0 { self.dice.u64(0..40_000) } else { self.dice.u64(0..6_000) };
            self.pass(time).await?;
        }
        self.heal().await
    }

    fn note(&mut self, what: &str) {
        let at = self.clock.now().since(BEGINNING).duration().as_secs_f64();
        self.trace.push(format!("{at:>9.3}s: {what}"));
    }

    /// What happens next: mostly to the machine that has the service.
    fn draw(&mut self) -> Event {
        let holder = self.machines.iter().position(Machine::runs_it);
        let any = self.dice.usize(0..MACHINES);
        let machine = holder.filter(|_| self.dice.u8(0..4) > 0).unwrap_or(any);
        match self.dice.u8(0..100) {
            0..16 => Event::Cut { machine, there: true, back: true },
            16..26 => Event::Cut { machine, there: true, back: false },
            26..36 => Event::Cut { machine, there: false, back: true },
            36..56 => Event::Mend,
            56..62 => Event::Sleep(machine),
            62..70 => Event::Wake,
            70..76 => Event::Crash(machine, self.dice.u64(0..3_000)),
            76..78 => Event::Reboot(machine),
            78..84 => Event::Orchestrator(self.dice.u64(0..20_000)),
            84..88 => Event::Slow(machine),
            88..92 => Event::Clumsy(machine),
            92..97 => Event::Change(self.dice.u8(0..8)),
            _ => Event::Restart,
        }
    }

    async fn happen(&mut self, event: Event) -> Result<()> {
        match event {
            Event::Cut { machine, there, back } => {
                self.partitions += 1;
                self.machines[machine].cut(there, back);
            }
            Event::Mend => self.machines.iter_mut().for_each(Machine::mend),
            Event::Sleep(machine) => self.machines[machine].sleep(self.clock.now()),
            Event::Wake => self.wake(),
            Event::Crash(machine, time) => {
                self.machines[machine].crash_agent().await;
                self.pass(time).await?;
                self.machines[machine].start_agent().await?;
            }
            Event::Reboot(machine) => {
                self.machines[machine].crash_agent().await;
                self.machines[machine].engine.reboot();
                self.pass(3_000).await?;
                self.machines[machine].start_agent().await?;
            }
            Event::Orchestrator(time) => {
                self.stop_orchestrator().await;
                self.pass(time).await?;
                self.start_orchestrator().await?;
            }
            Event::Slow(machine) => {
                let slowness = Duration::from_secs(1);
                self.machines[machine].engine.set_faults(Faults { slowness, ..Faults::default() });
            }
            Event::Clumsy(machine) => {
                let faults = Faults { lost_replies: 20, lost_events: 50, ..Faults::default() };
                self.machines[machine].engine.set_faults(faults);
            }
            Event::Change(version) => self.apply(version).await?,
            Event::Restart => {
                let project = ProjectName::parse("shop")?;
                let request = RestartRequest { services: Vec::new() };
                if let Some(client) = self.client() {
                    answered(client.restart(&project, &request, &Guard::default()).await)?;
                }
            }
        }
        Ok(())
    }

    fn wake(&mut self) {
        let now = self.clock.now();
        self.machines.iter_mut().for_each(|machine| machine.wake(now));
    }

    /// The service in one of its versions: one that ends when asked, one that must be killed, one that crashes.
    async fn apply(&mut self, version: u8) -> Result<()> {
        let kind = match version % 4 {
            1 => "good",
            3 => "crash",
            _ => "stubborn",
        };
        let db = json!({ "container": { "image": format!("{kind}:{version}") }, "exclusive": true });
        let spec = serde_json::from_value(json!({ "name": "shop", "services": { "db": db } }))?;
        let request = ApplyRequest { spec, source: Vec::new() };
        let Some(client) = self.client() else { return Ok(()) };
        answered(client.apply(&request, &Guard::default()).await)
    }

    fn client(&self) -> Option<Client> {
        let (handle, _) = self.orchestrator.as_ref()?;
        Some(Client::new(Channel::service(handle.router.clone())))
    }

    /// Lets time pass, in which agents that have lost their link dial again.
    async fn pass(&mut self, millis: u64) -> Result<()> {
        let mut left = Duration::from_millis(millis);
        loop {
            self.dial();
            let step = left.min(DIAL);
            tokio::time::sleep(step).await;
            left -= step;
            if left.is_zero() {
                return Ok(());
            }
        }
    }

    fn dial(&mut self) {
        let Some((handle, _)) = &self.orchestrator else { return };
        let observed = Arc::clone(&handle.nodes.observed().borrow());
        for machine in &mut self.machines {
            let is_connected = observed.nodes.get(&machine.id).is_some_and(|node| node.connected);
            if let Some(channel) = machine.dial(is_connected, &mut self.dice) {
                handle.nodes.register(machine.id.clone(), channel);
            }
        }
    }

    /// Everything is whole again: the service runs once, and is healthy.
    async fn heal(&mut self) -> Result<()> {
        self.note("everything heals");
        self.wake();
        for machine in &mut self.machines {
            machine.mend();
            machine.engine.set_faults(Faults::default());
        }
        self.apply(1).await?;
        let until = tokio::time::Instant::now() + HEALED;
        loop {
            self.pass(1_000).await?;
            let running = self.machines.iter().filter(|machine| machine.runs_it()).count();
            let client = self.client().context("the orchestrator runs")?;
            let statuses = client.projects().await.context("ask how it stands")?;
            if running == 1 && statuses.iter().all(|status| status.settled) {
                return Ok(());
            }
            let is_late = tokio::time::Instant::now() > until;
            ensure!(!is_late, "{running} run at the end: {statuses:?}");
        }
    }

    async fn start_orchestrator(&mut self) -> Result<()> {
        let mut config = orchestrator::Config::simulated(&self.disk, "simulated", self.clock);
        config.timing.lost_after = self.lost_after;
        config.timing.closed_after = config.timing.closed_after.min(self.lost_after);
        let (orchestrator, handle) = Orchestrator::open(config).await.context("open the store")?;
        let running = tokio::spawn(async move {
            // It ends only by being killed.
            drop(orchestrator.run(CancellationToken::new()).await);
        });
        self.orchestrator = Some((handle, running));
        self.machines.iter_mut().for_each(Machine::hang_up);
        Ok(())
    }

    async fn stop_orchestrator(&mut self) {
        if let Some((_, running)) = self.orchestrator.take() {
            running.abort();
            // The only other way to end is to have panicked, which the test shows.
            let _ = running.await;
        }
    }

    async fn stop(&mut self) {
        for machine in &mut self.machines {
            machine.crash_agent().await;
        }
        self.stop_orchestrator().await;
    }
}

/// A refusal is an answer too.
fn answered<T>(answer: Result<T, CallError>) -> Result<()> {
    match answer {
        Ok(_) | Err(CallError::Api(_)) => Ok(()),
        Err(error) => Err(error).context("a healthy orchestrator answers"),
    }
}

// === impl Display ===

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cut { machine, there: true, back: true } => write!(f, "the cable of m{machine} is cut"),
            Self::Cut { machine, there: true, .. } => write!(f, "nothing reaches m{machine}"),
            Self::Cut { machine, .. } => write!(f, "nothing comes from m{machine}"),
            Self::Mend => write!(f, "the cables are mended"),
            Self::Sleep(machine) => write!(f, "m{machine} is suspended"),
            Self::Wake => write!(f, "everybody wakes up"),
            Self::Crash(machine, time) => write!(f, "the agent of m{machine} dies for {time} ms"),
            Self::Reboot(machine) => write!(f, "m{machine} is switched off and on"),
            Self::Orchestrator(time) => write!(f, "the orchestrator is away for {time} ms"),
            Self::Slow(machine) => write!(f, "the engine of m{machine} is slow"),
            Self::Clumsy(machine) => write!(f, "the engine of m{machine} loses replies and events"),
            Self::Change(version) => write!(f, "version {version} is applied"),
            Self::Restart => write!(f, "a restart is asked for"),
        }
    }
}
