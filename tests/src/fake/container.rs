//! A container that is only a record, and the behaviour that its image's name stands for.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tug_agent::runtime::{ContainerId, EngineHealth, Found, Identity, State};
use tug_model::Timestamp;
use tug_model::task::Template;

/// One container.
#[derive(Debug, Clone)]
pub struct Container {
    /// The engine's id.
    pub id: ContainerId,
    /// Its name.
    pub name: String,
    /// Whose it is; `None`: not ours.
    pub identity: Option<Identity>,
    /// What it was made from; `None`: not ours.
    pub template: Option<Arc<Template>>,
    /// Where it stands.
    pub process: Process,
    /// How often it was started.
    pub starts: u64,
    /// When its process was started last, whatever the time of day was.
    pub started: Option<Instant>,
    /// Whoever started it last was told so: else it is taken for one that could not be started.
    pub confirmed: bool,
    /// It is being removed, and gone at that time.
    pub gone_at: Option<Instant>,
}

/// Where a container's process stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Process {
    /// Never started.
    New,
    /// Runs.
    Running {
        /// Since when.
        since: Timestamp,
    },
    /// Ended.
    Ended {
        /// Its exit code.
        code: i64,
        /// When.
        at: Timestamp,
    },
}

/// What an image does, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    /// `good:…` runs and serves.
    Good,
    /// `slow:…` runs, and serves after three seconds.
    Slow,
    /// `sick:…` runs and never serves.
    Sick,
    /// `crash:…` ends with code 1 after half a second.
    Crash,
    /// `job:…` ends with code 0 after a second.
    Job,
    /// `stubborn:…` runs and serves, and does not end before it is killed.
    Stubborn,
    /// `missing:…` is in no registry.
    Missing,
}

// === impl Behaviour ===

impl Behaviour {
    /// What `image` does.
    pub fn of(image: &str) -> Self {
        match image.split(':').next() {
            Some("slow") => Self::Slow,
            Some("sick") => Self::Sick,
            Some("crash") => Self::Crash,
            Some("job") => Self::Job,
            Some("stubborn") => Self::Stubborn,
            Some("missing") => Self::Missing,
            _ => Self::Good,
        }
    }

    /// How long its process runs, and how it ends; `None` is for ever.
    pub fn life(self) -> Option<(Duration, i64)> {
        match self {
            Self::Crash => Some((Duration::from_millis(500), 1)),
            Self::Job => Some((Duration::from_secs(1), 0)),
            Self::Good | Self::Slow | Self::Sick | Self::Stubborn | Self::Missing => None,
        }
    }

    /// Whether it serves after running for `time`.
    pub fn serves_after(self, time: Duration) -> bool {
        match self {
            Self::Good | Self::Crash | Self::Job | Self::Stubborn => true,
            Self::Slow => time >= Duration::from_secs(3),
            Self::Sick | Self::Missing => false,
        }
    }
}

// === impl Container ===

impl Container {
    /// Somebody else's container.
    pub(super) fn foreign(id: ContainerId, name: &str, now: Timestamp) -> Self {
        let process = Process::Running { since: now };
        Self {
            id,
            name: name.to_owned(),
            identity: None,
            template: None,
            process,
            starts: 1,
            started: None,
            confirmed: true,
            gone_at: None,
        }
    }

    /// Whether its process runs.
    pub fn is_running(&self) -> bool {
        matches!(self.process, Process::Running { .. })
    }

    /// Whether its process runs and answers.
    pub fn serves(&self) -> bool {
        let started = self.started.filter(|_| self.is_running());
        started.is_some_and(|started| self.behaviour().serves_after(started.elapsed()))
    }

    /// Its process begins at `now`, by the machine's time of day.
    pub(super) fn begin(&mut self, now: Timestamp) {
        self.process = Process::Running { since: now };
        self.started = Some(Instant::now());
        self.starts += 1;
    }

    /// What it does.
    pub fn behaviour(&self) -> Behaviour {
        self.template.as_ref().map_or(Behaviour::Good, |template| Behaviour::of(&template.container.image))
    }

    /// Its address while it runs: one that tells containers apart.
    pub fn address(&self) -> IpAddr {
        let number = u64::from_str_radix(self.id.as_str(), 16).unwrap_or_default();
        let [.., b, c, d] = number.to_be_bytes();
        IpAddr::V4(Ipv4Addr::new(10, b, c, d))
    }

    /// Ends its process; false when it does not run.
    pub(super) fn end(&mut self, code: i64, now: Timestamp) -> bool {
        let ran = self.is_running();
        if ran {
            self.process = Process::Ended { code, at: now };
        }
        ran
    }

    /// As a listing shows it; `None` for a container that is not ours.
    pub(super) fn found(&self) -> Option<Found> {
        let state = match self.process {
            Process::New | Process::Running { .. } | Process::Ended { .. } if self.gone_at.is_some() => {
                State::Removing
            }
            Process::New => State::Created,
            Process::Running { since } => State::Running { started_at: since },
            Process::Ended { code, at } => State::Exited { code, out_of_memory: false, finished_at: at },
        };
        let mut addresses = BTreeMap::new();
        if self.is_running() {
            addresses.insert("net".to_owned(), self.address());
        }
        Some(Found {
            id: self.id.clone(),
            name: self.name.clone(),
            identity: self.identity.clone()?,
            state,
            health: EngineHealth::None,
            addresses,
        })
    }
}
