//! The control plane of a simulated cluster: it dies, comes back, comes back as another, or goes back in time.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;

use anyhow::{Context, Result};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tug_api::Clock;
use tug_api::client::Client;
use tug_api::transport::Channel;
use tug_model::{ProjectName, Revision};
use tug_orchestrator::app::{self as orchestrator, Orchestrator};
use tug_orchestrator::plan::View;
use tug_orchestrator::store::{self, MemoryDisk};

use super::machine::kill;

/// The cluster that everything here is about.
pub(super) const OURS: &str = "simulated";
const THEIRS: &str = "another";

/// What was acknowledged, by project: the newest of it.
pub(super) type Acknowledged = BTreeMap<ProjectName, Revision>;

/// The orchestrator and its disks.
#[derive(Debug)]
pub(super) struct Plane {
    /// Its time of day when it starts next.
    pub(super) clock: Clock,
    disk: MemoryDisk,
    running: Option<Running>,
    /// While another cluster's control plane is in the place of ours: its disk.
    foreign: Option<MemoryDisk>,
    copy: Option<Copy>,
}

#[derive(Debug)]
struct Running {
    handle: orchestrator::Handle,
    running: JoinHandle<Result<(), orchestrator::Error>>,
}

/// What was kept of the store at some time.
#[derive(Debug)]
struct Copy {
    disk: MemoryDisk,
    acknowledged: Acknowledged,
}

// === impl Plane ===

impl Plane {
    /// One that was never started.
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, disk: MemoryDisk::default(), running: None, foreign: None, copy: None }
    }

    /// Whether it runs.
    pub(super) fn is_up(&self) -> bool {
        self.running.is_some()
    }

    /// Whether what runs, or would run, is not ours.
    pub(super) fn is_foreign(&self) -> bool {
        self.foreign.is_some()
    }

    pub(super) fn handle(&self) -> Option<&orchestrator::Handle> {
        self.running.as_ref().map(|running| &running.handle)
    }

    /// The store's newest state, while it runs and is ours.
    pub(super) fn state(&self) -> Option<Arc<store::State>> {
        self.handle().filter(|_| !self.is_foreign()).map(|handle| handle.store.snapshot())
    }

    /// What was looked at and decided last, under the same conditions.
    pub(super) fn view(&self) -> Option<Arc<View>> {
        self.handle().filter(|_| !self.is_foreign()).map(|handle| Arc::clone(&handle.view.borrow()))
    }

    /// A client of whatever runs.
    pub(super) fn client(&self) -> Option<Client> {
        Some(Client::new(Channel::service(self.handle()?.router.clone())))
    }

    /// It starts, unless it runs.
    pub(super) async fn start(&mut self) -> Result<()> {
        if self.running.is_some() {
            return Ok(());
        }
        let (disk, cluster) = match &self.foreign {
            Some(disk) => (disk, THEIRS),
            None => (&self.disk, OURS),
        };
        let config = orchestrator::Config::simulated(disk, cluster, self.clock);
        let opened = Orchestrator::open(config).await;
        let (orchestrator, handle) = opened.context("the orchestrator opens its store")?;
        let running = tokio::spawn(orchestrator.run(CancellationToken::new()));
        self.running = Some(Running { handle, running });
        Ok(())
    }

    /// It dies in the middle of whatever it does.
    pub(super) async fn crash(&mut self) {
        if let Some(running) = self.running.take() {
            kill(running.running).await;
        }
    }

    /// That it has not ended by itself, which it never does.
    pub(super) async fn is_sound(&mut self) -> Result<()> {
        match self.running.take_if(|running| running.running.is_finished()) {
            None => Ok(()),
            Some(ended) => ended.running.await?.context("the orchestrator ended by itself"),
        }
    }

    /// In its place comes one with an empty store, and so with another cluster's id.
    pub(super) async fn usurp(&mut self) -> Result<()> {
        self.crash().await;
        self.foreign.get_or_insert_default();
        self.start().await
    }

    /// Ours comes back.
    pub(super) async fn return_ours(&mut self) -> Result<()> {
        if self.foreign.is_some() {
            self.crash().await;
            self.foreign = None;
        }
        self.start().await
    }

    /// Somebody makes a copy of the store.
    pub(super) fn back_up(&mut self, acknowledged: &Acknowledged) {
        self.copy = Some(Copy { disk: self.disk.copy(), acknowledged: acknowledged.clone() });
    }

    /// Somebody brings the copy back as an export should be: under a new epoch. Gives what it knows of.
    pub(super) async fn restore(&mut self) -> Result<Option<Acknowledged>> {
        let Some(copy) = &self.copy else { return Ok(None) };
        let (acknowledged, export) = (copy.acknowledged.clone(), export(&copy.disk).await?);
        self.crash().await;
        self.foreign = None;
        let mut file = tempfile::NamedTempFile::new().context("make a file")?;
        file.write_all(&export).context("write the export")?;
        let config = store::Config::memory(&self.disk, OURS);
        store::restore(&config, file.path()).context("restore an export")?;
        self.start().await?;
        Ok(Some(acknowledged))
    }
}

/// The export that an orderly end leaves on a copy of `disk`.
async fn export(disk: &MemoryDisk) -> Result<Vec<u8>> {
    let disk = disk.copy();
    let (_store, writer) = store::open(store::Config::memory(&disk, OURS)).await.context("open a copy")?;
    let stop = CancellationToken::new();
    stop.cancel();
    writer.run(stop).await;
    let files = disk.files();
    let newest = files.into_iter().filter(|(name, _)| name.starts_with("export-")).max_by_key(|(name, _)| {
        name.trim_start_matches("export-").trim_end_matches(".jsonl").parse::<u64>().unwrap_or_default()
    });
    newest.map(|(_, text)| text).context("an orderly end leaves an export")
}
