//! A machine of an exclusive story: an engine, an agent that may die, a clock of its own, and a cable. It may be suspended,
//! and then nothing of it moves.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::future::BoxFuture;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tug_agent::app::{self as agent, Agent};
use tug_agent::health::{ProbeError, Prober};
use tug_api::Clock;
use tug_api::transport::Channel;
use tug_model::spec::service::ProbeCheck;
use tug_model::{NodeId, Timestamp};

use super::cable::Cable;
use crate::fake::{Container, Engine};

/// A machine.
pub(super) struct Machine {
    pub(super) id: NodeId,
    pub(super) engine: Engine,
    /// When it was suspended, and until when.
    pub(super) asleep: Vec<(Timestamp, Option<Timestamp>)>,
    clock: Clock,
    folder: TempDir,
    agent: Option<(agent::Handle, JoinHandle<()>)>,
    there: watch::Sender<bool>,
    back: watch::Sender<bool>,
    /// A cut of the cable, apart from the sleep of the machine.
    cut: (bool, bool),
    is_asleep: watch::Sender<bool>,
    connection: Option<CancellationToken>,
}

/// Nobody probes in these stories.
#[derive(Debug)]
struct NoProber;

// === impl Machine ===

impl Machine {
    pub(super) fn new(number: usize, clock: Clock, seed: u64) -> Self {
        let id = NodeId::parse(&format!("m{number}")).expect("it is an id");
        let memory = std::path::Path::new("/dev/shm");
        let folder = if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() };
        Self {
            engine: Engine::new(id.clone(), clock, seed.wrapping_add(number as u64)),
            id,
            clock,
            asleep: Vec::new(),
            folder: folder.expect("a folder can be made"),
            agent: None,
            there: watch::Sender::new(true),
            back: watch::Sender::new(true),
            cut: (false, false),
            is_asleep: watch::Sender::new(false),
            connection: None,
        }
    }

    /// Whether a container of ours runs here.
    pub(super) fn runs_it(&self) -> bool {
        self.engine.containers().iter().any(Container::is_running)
    }

    pub(super) async fn start_agent(&mut self) -> Result<()> {
        let config = agent::Config {
            state_dir: self.folder.path().to_owned(),
            private: self.folder.path().to_owned(),
            node: Some(self.id.clone()),
            hostname: self.id.to_string(),
            labels: BTreeMap::new(),
            runtime: Arc::new(self.engine.clone()),
            prober: Arc::new(NoProber),
            clock: self.clock,
            server: None,
            balancer: None,
            peer: None,
            guard: None,
            concurrency: agent::Config::CONCURRENCY,
            seed: 1,
        };
        let (agent, handle) = Agent::open(config).await.context("the agent opens its folder")?;
        let running = awake(agent.run(CancellationToken::new()), self.is_asleep.subscribe());
        self.agent = Some((handle, tokio::spawn(running)));
        Ok(())
    }

    pub(super) async fn crash_agent(&mut self) {
        self.hang_up();
        if let Some((_, running)) = self.agent.take() {
            running.abort();
            // The only other way to end is to have panicked, which the test shows.
            let _ = running.await;
        }
    }

    /// The connection is gone, with all that was on its way.
    pub(super) fn hang_up(&mut self) {
        if let Some(connection) = self.connection.take() {
            connection.cancel();
        }
    }

    pub(super) fn cut(&mut self, there: bool, back: bool) {
        self.cut = (self.cut.0 || there, self.cut.1 || back);
        self.wire();
    }

    pub(super) fn mend(&mut self) {
        self.cut = (false, false);
        self.wire();
    }

    pub(super) fn sleep(&mut self, now: Timestamp) {
        if !self.is_asleep.send_replace(true) {
            self.asleep.push((now, None));
        }
        self.wire();
    }

    pub(super) fn wake(&mut self, now: Timestamp) {
        if self.is_asleep.send_replace(false)
            && let Some((_, until)) = self.asleep.last_mut()
        {
            *until = Some(now);
        }
        self.wire();
    }

    fn wire(&mut self) {
        let is_awake = !*self.is_asleep.borrow();
        self.there.send_replace(is_awake && !self.cut.0);
        self.back.send_replace(is_awake && !self.cut.1);
    }

    /// A new connection, if the agent wants one and can have one.
    pub(super) fn dial(&mut self, is_connected: bool, dice: &mut fastrand::Rng) -> Option<Channel> {
        let is_open = *self.there.borrow() && *self.back.borrow();
        let (handle, _) = self.agent.as_ref().filter(|_| is_open)?;
        if is_connected && self.connection.is_some() {
            return None;
        }
        let cable = Cable {
            router: handle.router.clone(),
            there: self.there.subscribe(),
            back: self.back.subscribe(),
            // What was sent over an older connection may still arrive.
            gone: CancellationToken::new(),
            delay: Duration::from_millis(dice.u64(0..200)),
        };
        self.connection = Some(cable.gone.clone());
        Some(cable.channel())
    }
}

/// Polls `running` only while the machine is awake.
async fn awake(running: impl Future<Output = ()>, mut is_asleep: watch::Receiver<bool>) {
    let mut running = std::pin::pin!(running);
    loop {
        tokio::select! {
            biased;
            Ok(_) = is_asleep.wait_for(|asleep| *asleep) => {}
            () = &mut running => return,
        }
        if is_asleep.wait_for(|asleep| !*asleep).await.is_err() {
            return;
        }
    }
}

impl Prober for NoProber {
    fn probe<'a>(
        &'a self,
        _address: std::net::SocketAddr,
        _check: &'a ProbeCheck,
    ) -> BoxFuture<'a, Result<(), ProbeError>> {
        Box::pin(std::future::ready(Ok(())))
    }
}
