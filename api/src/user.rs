//! The bodies of the users' API. Paths are written where they are routed (orchestrator) and asked ([`crate::client`]).

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use tug_model::event::Event;
use tug_model::node::{Capacity, Node};
use tug_model::project::{ServiceRef, SourceFile};
use tug_model::report::Engine;
use tug_model::status::{ProjectStatus, ServiceStatus};
use tug_model::{
    Bytes, Millis, NanoCpus, NodeId, ProjectName, Revision, ServiceName, Slot, TaskId, Timestamp, spec,
};

/// The header that makes a mutation safe to repeat: the same key with the same request gives the same answer once.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// The header that makes a mutation conditional on the project's revision; `0` asks that it does not exist.
pub const IF_REVISION: &str = "if-revision";
/// The largest request body in bytes.
pub const LARGEST_BODY: usize = 4 << 20;

/// Body of `PUT /v1/projects/{name}` and of `POST /v1/projects/{name}/plan`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ApplyRequest {
    /// The resolved project; its name is the one in the path.
    pub spec: spec::Project,
    /// The manifest's text, kept for people to read.
    #[serde(default)]
    pub source: Vec<SourceFile>,
}

/// The answer to every mutation: it is on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Accepted {
    /// The commit: a watch from here shows everything that follows.
    pub revision: Revision,
    /// Which version of the project is wanted now; `None` when it is being removed.
    pub number: Option<u64>,
    /// `false`: everything was as asked already, and nothing was written.
    pub changed: bool,
}

/// Body of `POST /v1/projects/{name}/scale`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ScaleRequest {
    /// How many replicas each named service shall have.
    #[schema(value_type = BTreeMap<String, u32>)]
    pub replicas: BTreeMap<ServiceName, u32>,
}

/// Body of `POST /v1/projects/{name}/restart`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RestartRequest {
    /// Which services; empty is all of them.
    #[serde(default)]
    pub services: Vec<ServiceName>,
}

/// What an apply would do: the answer of `POST /v1/projects/{name}/plan`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Preview {
    /// The project's revision that this is relative to, for [`IF_REVISION`]; 0 when there is no such project.
    pub base: Revision,
    /// What happens to each service, sorted by name; those that stay as they are too.
    pub services: Vec<ServicePreview>,
    /// Networks, volumes and the like, one sentence each.
    pub notes: Vec<String>,
}

/// What an apply would do to one service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ServicePreview {
    /// The service.
    pub name: ServiceName,
    /// What happens to it.
    pub action: Action,
    /// How many replicas it has now.
    pub replicas_before: u32,
    /// How many it will have; with a global service, how many the present nodes give.
    pub replicas_after: u32,
    /// What differs, one line each: `image: nginx:1.26 → nginx:1.27`. Values of the environment are never shown.
    pub differences: Vec<String>,
    /// Why it cannot be placed as things stand, one sentence each.
    pub obstacles: Vec<String>,
}

/// What happens to a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It is new.
    Create,
    /// Its containers are replaced, one at a time.
    Replace,
    /// It changes without a new container: replicas, ports, order.
    Change,
    /// It stays as it is.
    Keep,
    /// It goes; its volumes stay.
    Remove,
}

/// One line of `GET /v1/watch`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum WatchItem {
    /// Something happened. Every event after the revision asked for comes once, in order.
    Event(Event),
    /// How a project stands now, whole, whenever that changed.
    Status(ProjectStatus),
    /// A project has gone, its last container too.
    Gone {
        /// Which.
        project: ProjectName,
    },
    /// Everything up to this commit has been sent: resume from here.
    Bookmark {
        /// The commit.
        revision: Revision,
    },
}

/// The answer of `GET /v1/projects/{project}/services/{service}/why`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Why {
    /// How it stands.
    pub status: ServiceStatus,
    /// Why, slot by slot where something is not as wanted: what was decided, and what stood against the rest.
    pub explanations: Vec<String>,
    /// Its newest events, oldest first.
    pub events: Vec<Event>,
}

/// One line of `GET /v1/logs`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct LogRecord {
    /// When the Engine took it.
    pub at: Timestamp,
    /// Whose.
    pub project: ProjectName,
    /// Which service.
    pub service: ServiceName,
    /// Which replica.
    pub slot: Slot,
    /// Which task.
    pub task: TaskId,
    /// Standard output or standard error.
    pub stream: LogStream,
    /// The line, without its end; bytes that are no UTF-8 are replaced.
    pub line: String,
}

/// Where a log line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Which log lines: the query of `GET /v1/logs` and, without names, of the agent's.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogQuery {
    /// Comma-separated `project` or `project/service`; empty is everything.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub names: String,
    /// Only lines at or after this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Only the last lines of each task.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tail: Option<u32>,
    /// Go on with what is written from now on, also by tasks that start later.
    pub follow: bool,
}

/// What a task uses now: a line of `GET /v1/top`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TaskUsage {
    /// Which task.
    pub task: TaskId,
    /// Whose.
    pub project: ProjectName,
    /// Which service.
    pub service: ServiceName,
    /// Which replica.
    pub slot: Slot,
    /// Where.
    pub node: NodeId,
    /// Processor time used per time passed, over the last interval: one core is 1,000,000,000.
    pub cpu: NanoCpus,
    /// Memory in use, without the page cache.
    pub memory: Bytes,
    /// Its limit.
    pub memory_limit: Option<Bytes>,
    /// Processes and threads.
    pub pids: u64,
    /// Received since its start.
    pub received: Bytes,
    /// Sent since its start.
    pub sent: Bytes,
    /// Open connections through the node's balancer.
    pub connections: u32,
}

/// A node, for people: a line of `GET /v1/nodes`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct NodeStatus {
    /// The node.
    pub node: Node,
    /// Its agent is connected and reports.
    pub connected: bool,
    /// How long ago it last reported; `None`: not since the orchestrator started.
    pub last_report: Option<Millis>,
    /// Whether its Engine answers.
    pub engine: Option<Engine>,
    /// How many tasks are there.
    pub tasks: u32,
    /// How it stands, in a word.
    #[serde(default)]
    pub state: NodeState,
    /// What there is to say about that, one sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
    /// What is kept free there for the tasks that it has.
    #[serde(default)]
    pub reserved: Capacity,
    /// While it is being emptied: what is still to leave it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leaving: Vec<Leaving>,
    /// Why its agent does not obey: the refusal of the newest assignment; `None` when it obeys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<String>,
}

/// A volume that has data on a node: a line of `GET /v1/volumes`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct VolumeStatus {
    /// Its name in the Engine.
    pub name: String,
    /// The projects that declare it, or did for tasks that have not gone yet; empty: none does any more.
    pub projects: Vec<ProjectName>,
    /// Where its data is. What mounts it goes there.
    pub node: NodeId,
    /// The services that mount it; empty: where its data is may be forgotten.
    pub services: Vec<ServiceRef>,
}

/// A task that is to leave its node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Leaving {
    /// Which.
    pub task: TaskId,
    /// What it waits for.
    pub waits_for: String,
    /// It has nowhere to go: it stays until a node or the manifest changes, or the deadline passes.
    #[serde(default)]
    pub is_stuck: bool,
}

/// Body of `PUT /v1/nodes/{node}/availability`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case", tag = "state", deny_unknown_fields)]
pub enum AvailabilityRequest {
    /// It is to be given tasks.
    Active,
    /// It is to be emptied.
    Drain {
        /// After this time what is left is stopped, replaced or not; `None`: it is waited for.
        #[serde(default)]
        #[schema(value_type = Option<u64>)]
        deadline: Option<Millis>,
    },
}

/// Body of `PUT /v1/nodes/{node}/labels`. Labels that are not named stay as they are.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LabelsRequest {
    /// Labels that it shall have, with these values.
    pub set: BTreeMap<String, String>,
    /// Labels that it shall not have. Those that its agent was started with stay.
    pub remove: BTreeSet<String>,
}

/// The query of `DELETE /v1/nodes/{node}`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NodeRemoval {
    /// Also while it has tasks.
    pub force: bool,
}

/// How a node stands, in a word.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// It is there and may be given tasks.
    #[default]
    Ready,
    /// It is being emptied.
    Draining,
    /// It is empty, and stays so.
    Drained,
    /// Its agent does not take its assignment.
    Disobedient,
    /// Its Docker Engine does not answer.
    EngineDown,
    /// It is silent, and has the time to come back: its tasks stay.
    Away,
    /// It has been silent for long: its tasks are replaced elsewhere.
    Dead,
}

/// The answer of `GET /v1/info`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Info {
    /// The version of the orchestrator.
    pub version: String,
    /// The cluster's id.
    pub cluster: String,
    /// The newest commit.
    pub revision: Revision,
    /// Where it is reached from elsewhere, as `host:port`; empty: only from its own machine.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub servers: Vec<String>,
    /// What its clock shows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub now: Option<Timestamp>,
}
