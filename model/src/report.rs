//! Everything that one node observes, whole. Reports carry ages, never wall-clock times, so skewed clocks hurt nobody.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::name::{Digest, TaskId};
use crate::node::NodeInfo;
use crate::quantity::{Millis, Revision};

/// What an agent says, whole on every change. While nothing changes it says so every second.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The machine.
    pub info: NodeInfo,
    /// The cluster, epoch and generation of the assignment that the agent acts and routes by.
    pub following: Following,
    /// Whether the Engine answers.
    pub engine: Engine,
    /// Every container of ours on the node, sorted by id, also those that no assignment names any more.
    pub tasks: Vec<TaskReport>,
    /// An earlier agent of the node has yet to end connections of its own: those are counted nowhere.
    #[serde(default)]
    pub uncounted: bool,
    /// Every published port that could not be opened, sorted, with the reason.
    #[serde(default)]
    pub closed_ports: Vec<ClosedPort>,
    /// How long the machine had been up when this was made: what a [lease](crate::lease) counts from. `None`: the agent is
    /// of a version that knows no leases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uptime: Option<Millis>,
    /// The images that the node needs and has not: it waits to be told which nodes have them.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub lacks: BTreeSet<Digest>,
}

/// One line of what an agent says: as JSON a whole report, or the uptime alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// A report.
    Whole(Box<Report>),
    /// Everything stands as in the report before.
    Same {
        /// As in a report.
        uptime: Option<Millis>,
    },
}

impl Serialize for Said {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Whole(report) => report.serialize(serializer),
            Self::Same { uptime } => uptime.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Said {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Line;

        impl<'de> Visitor<'de> for Line {
            type Value = Said;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a report, an uptime or null")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Said, A::Error> {
                Report::deserialize(MapAccessDeserializer::new(map))
                    .map(|report| Said::Whole(Box::new(report)))
            }

            fn visit_u64<E>(self, uptime: u64) -> Result<Said, E> {
                Ok(Said::Same { uptime: Some(Millis(uptime)) })
            }

            fn visit_unit<E>(self) -> Result<Said, E> {
                Ok(Said::Same { uptime: None })
            }
        }

        deserializer.deserialize_any(Line)
    }
}

impl Report {
    /// Whether this says nothing new to somebody who has `earlier`: everything stands where it stood, only longer.
    pub fn goes_on_from(&self, earlier: &Self) -> bool {
        // The uptime is told with the answer.
        let Self { info, following, engine, tasks, uncounted, closed_ports, uptime: _, lacks } = self;
        (info, following, uncounted, closed_ports, lacks)
            == (&earlier.info, &earlier.following, &earlier.uncounted, &earlier.closed_ports, &earlier.lacks)
            && engine.goes_on_from(&earlier.engine)
            && tasks.len() == earlier.tasks.len()
            && tasks.iter().zip(&earlier.tasks).all(|(now, then)| now.goes_on_from(then))
    }
}

impl Engine {
    fn goes_on_from(&self, earlier: &Self) -> bool {
        match (self, earlier) {
            (Self::Up, Self::Up) => true,
            (
                Self::Down { reason, age, doomed },
                Self::Down { reason: earlier, age: younger, doomed: was_doomed },
            ) => (reason, doomed) == (earlier, was_doomed) && age >= younger,
            (Self::Up | Self::Down { .. }, _) => false,
        }
    }
}

impl TaskReport {
    fn goes_on_from(&self, earlier: &Self) -> bool {
        let Self { id, phase, age, restarts, connections } = self;
        (id, phase, restarts, connections)
            == (&earlier.id, &earlier.phase, &earlier.restarts, &earlier.connections)
            && *age >= earlier.age
    }
}

/// Which assignment and which endpoints an agent follows.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Following {
    /// The cluster's id; empty before the first assignment.
    pub cluster: String,
    /// Its epoch.
    pub epoch: u64,
    /// Its generation.
    pub generation: Revision,
    /// The generation of the newest [endpoints](crate::endpoints) that it routes by.
    #[serde(default)]
    pub endpoints: Revision,
}

/// Whether the node's Engine answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum Engine {
    /// It answers; what the report says about tasks is fresh.
    Up,
    /// It refuses connections or does not answer in time; tasks are reported as they were last seen.
    Down {
        /// What happened.
        reason: String,
        /// Since when.
        age: Millis,
        /// What it runs ends when it starts again: nothing listens at its socket, and it was not set to keep containers
        /// alive meanwhile (`live-restore`).
        #[serde(default)]
        doomed: bool,
    },
}

/// A published port that the node could not open.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ClosedPort {
    /// The port on the node.
    pub port: u16,
    /// Why, with what to do.
    pub reason: String,
}

/// One task as its node sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskReport {
    /// Its id.
    pub id: TaskId,
    /// Where it stands.
    pub phase: Phase,
    /// How long it has stood there.
    pub age: Millis,
    /// How often the agent has started it again since it was made.
    pub restarts: u32,
    /// Connections that the agent holds open to it.
    pub connections: u32,
}

/// Where a task stands on its node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case", tag = "phase")]
pub enum Phase {
    /// Known to the agent, not yet begun.
    Pending,
    /// Its image is being fetched.
    Pulling {
        /// How far, for people: `12.3 MiB of 80.1 MiB`.
        progress: String,
    },
    /// Its container is being made and started.
    Creating,
    /// Its process runs.
    Running {
        /// Whether it serves.
        health: Health,
        /// Its address on the node, where it has one of its own.
        #[schema(value_type = Option<String>)]
        address: Option<IpAddr>,
    },
    /// Its process ended, or it could not be made; it is tried again after a wait.
    Waiting {
        /// What went wrong.
        failure: Failure,
        /// How long until the next try.
        retry_in: Millis,
    },
    /// It was asked to stop.
    Stopping,
    /// Its process ended and its restart policy says that this is the end: success with exit code 0.
    Exited {
        /// What the process returned.
        exit: Exit,
    },
}

/// Whether a running task serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum Health {
    /// Not known yet.
    Starting,
    /// It serves.
    Healthy,
    /// It does not.
    Unhealthy {
        /// What the last probe said.
        reason: String,
    },
}

/// What went wrong with a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Failure {
    /// Its process ended.
    Exited {
        /// How.
        exit: Exit,
    },
    /// The agent or the Engine could not do what was needed.
    Refused {
        /// Which operation failed, and why: the error with all its causes.
        reason: String,
        /// How many tries in a row have failed so.
        #[serde(default)]
        tries: u32,
    },
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Exit {
    /// Its exit code; 128 + n for signal n.
    pub code: i64,
    /// The kernel killed it for memory.
    #[serde(default)]
    pub out_of_memory: bool,
    /// The last lines it wrote, at most 2 KiB.
    #[serde(default)]
    pub last_words: String,
}

// === impl Phase ===

impl Phase {
    /// Whether it serves.
    pub fn is_healthy(&self) -> bool {
        matches!(self, Self::Running { health: Health::Healthy, .. })
    }

    /// Whether its process has at least been started.
    pub fn has_started(&self) -> bool {
        match self {
            Self::Running { .. }
            | Self::Stopping
            | Self::Exited { .. }
            | Self::Waiting { failure: Failure::Exited { .. }, .. } => true,
            Self::Pending | Self::Pulling { .. } | Self::Creating | Self::Waiting { .. } => false,
        }
    }

    /// Whether it ran to its end with exit code 0.
    pub fn has_succeeded(&self) -> bool {
        matches!(self, Self::Exited { exit } if exit.code == 0)
    }
}

// === impl Display ===

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pending => f.write_str("pending"),
            Self::Pulling { progress } => write!(f, "pulling {progress}"),
            Self::Creating => f.write_str("creating"),
            Self::Running { health, .. } => health.fmt(f),
            Self::Waiting { failure, retry_in } => write!(f, "{failure}, next try in {retry_in}"),
            Self::Stopping => f.write_str("stopping"),
            Self::Exited { exit } if exit.code == 0 => f.write_str("completed"),
            Self::Exited { exit } => exit.fmt(f),
        }
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Starting => f.write_str("starting"),
            Self::Healthy => f.write_str("healthy"),
            Self::Unhealthy { reason } => write!(f, "unhealthy: {reason}"),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited { exit } => exit.fmt(f),
            Self::Refused { reason, .. } => f.write_str(reason),
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.out_of_memory {
            return write!(f, "killed for memory (exit code {})", self.code);
        }
        match self.code {
            code @ 129..=192 => write!(f, "exited with code {code} (signal {})", code - 128),
            code => write!(f, "exited with code {code}"),
        }
    }
}
