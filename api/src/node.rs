//! What the orchestrator asks an agent, over the connection that the agent dialled.
//!
//! | request | answer |
//! |---|---|
//! | `PUT /assignment` | 204; 409 with a [`Refusal`](tug_model::assignment::Refusal) in the message when the agent will not obey |
//! | `GET /endpoints` | what the agent [knows](Known) of the endpoints |
//! | `PUT /endpoints` | 204, or 409 as above; [endpoints](ServiceEndpoints) that are new to it, one a line, after their [`Stamp`] in the query |
//! | `PUT /lease` | 204; a [`Lease`] of the node's exclusive tasks, in answer to a report; 409 if it is not for this node |
//! | `PUT /hints` | 204; [`Hints`] about the backends on other nodes, whole |
//! | `PUT /members` | 204, or 409 as above; all nodes by their keys, whole, as of the [`Stamp`] in the query |
//! | `GET /reports` | a stream of [`Report`]s, one a line: now, on every change, and at least every second; asked with `brief=true`, [`Said`]: the uptime alone where everything stands as it did |
//! | `GET /tasks/{id}/logs` | a stream of [`TaskLogLine`]s |
//! | `POST /tasks/{id}/exec` | [frames](crate::frame) both ways |
//! | `GET /usage` | a list of [`TaskUse`] |
//! | `PUT /images`, `GET /images/{id}` | see [`crate::image`] |

use std::collections::BTreeMap;

use axum::body::Body;
use futures_util::{Stream, stream};
use http::header::CONTENT_TYPE;
use http::{Method, Request, Response};
use serde::{Deserialize, Serialize};
use tug_model::assignment::{Assignment, Hints};
use tug_model::endpoints::{Known, ServiceEndpoints, Stamp};
use tug_model::lease::Lease;
use tug_model::node::KeyId;
use tug_model::report::{Report, Said};
use tug_model::{Bytes, Digest, NanoCpus, NodeId, TaskId, Timestamp};

use crate::client::{CallError, call, json_body, query, read_json};
use crate::image::{Exchange, ResolveRequest, Resolved, Shape};
use crate::lines::{self, LineError};
use crate::transport::Channel;
use crate::user::{LogQuery, LogStream};

/// Where an agent upgrades its connection: `GET /v1/link?node=ID` with `Upgrade: tug-link`.
pub const LINK_PATH: &str = "/v1/link";
/// The protocol that the connection is upgraded to: HTTP/2 with the roles turned round.
pub const LINK_PROTOCOL: &str = "tug-link";

/// The query of the upgrade.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkQuery {
    /// Who dials.
    pub node: NodeId,
    /// From which run of which machine: the kernel's boot id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<String>,
}

/// The query of the reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ReportsQuery {
    /// Of a report that says nothing new only the uptime is sent.
    pub brief: bool,
}

/// One line of a task's output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskLogLine {
    /// When the Engine took it.
    pub at: Timestamp,
    /// Standard output or standard error.
    pub stream: LogStream,
    /// The line, without its end.
    pub line: String,
}

/// What a task on the node uses now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskUse {
    /// Which task.
    pub task: TaskId,
    /// Processor time used per time passed.
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
}

/// The endpoints of a service as they are sent: written once, however many agents are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointsLine(bytes::Bytes);

impl EndpointsLine {
    /// Writes them.
    pub fn new(endpoints: &ServiceEndpoints) -> Self {
        let mut line = serde_json::to_vec(endpoints).expect("endpoints hold nothing that JSON cannot");
        line.push(b'\n');
        Self(line.into())
    }
}

/// Hints as they are sent: written once, however many agents are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HintsText(bytes::Bytes);

impl HintsText {
    /// Writes them.
    pub fn new(hints: &Hints) -> Self {
        Self(serde_json::to_vec(hints).expect("hints hold nothing that JSON cannot").into())
    }

    /// How long they are.
    pub fn size(&self) -> usize {
        self.0.len()
    }
}

/// All nodes by their keys, as they are sent: written once, however many agents are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MembersText(bytes::Bytes);

impl MembersText {
    /// Writes them.
    pub fn new(members: &BTreeMap<&NodeId, &KeyId>) -> Self {
        Self(serde_json::to_vec(members).expect("names hold nothing that JSON cannot").into())
    }

    /// How long they are.
    pub fn size(&self) -> usize {
        self.0.len()
    }
}

/// Asks one agent.
#[derive(Debug, Clone)]
pub struct NodeClient {
    channel: Channel,
}

impl NodeClient {
    /// A client over `channel`.
    pub fn new(channel: Channel) -> Self {
        Self { channel }
    }

    /// Gives the agent its assignment. An error with the code `conflict` is a refusal.
    pub async fn assign(&self, assignment: &Assignment) -> Result<(), CallError> {
        let request = json_body(Method::PUT, "/assignment", assignment)?;
        call(&self.channel, request).await.map(drop)
    }

    /// What the agent knows of the endpoints.
    pub async fn known_endpoints(&self) -> Result<Known, CallError> {
        read_json(call(&self.channel, get("/endpoints")).await?).await
    }

    /// Tells the agent of endpoints that it does not know, as of `stamp`. An error with the code `conflict` is a refusal.
    pub async fn tell_endpoints(&self, stamp: &Stamp, told: Vec<EndpointsLine>) -> Result<(), CallError> {
        let path = format!("/endpoints{}", query(stamp)?);
        let lines = told.into_iter().map(|EndpointsLine(line)| Ok::<_, std::convert::Infallible>(line));
        let request = Request::builder().method(Method::PUT).uri(path);
        let request = request.body(Body::from_stream(stream::iter(lines))).map_err(CallError::Request)?;
        call(&self.channel, request).await.map(drop)
    }

    /// Gives the agent a lease, in answer to one of its reports.
    pub async fn lease(&self, lease: &Lease) -> Result<(), CallError> {
        let request = json_body(Method::PUT, "/lease", lease)?;
        call(&self.channel, request).await.map(drop)
    }

    /// Tells the agent which backends on other nodes do not serve, as far as is known.
    pub async fn hint(&self, HintsText(text): HintsText) -> Result<(), CallError> {
        self.put("/hints", text).await
    }

    /// Tells the agent who belongs to the cluster, as of `stamp`. An error with the code `conflict` is a refusal.
    pub async fn introduce(&self, stamp: &Stamp, MembersText(text): MembersText) -> Result<(), CallError> {
        self.put(&format!("/members{}", query(stamp)?), text).await
    }

    /// Sends what is JSON already.
    async fn put(&self, path: &str, text: bytes::Bytes) -> Result<(), CallError> {
        let request =
            Request::builder().method(Method::PUT).uri(path).header(CONTENT_TYPE, "application/json");
        let request = request.body(Body::from(text)).map_err(CallError::Request)?;
        call(&self.channel, request).await.map(drop)
    }

    /// The agent's reports, without end.
    pub async fn reports(
        &self,
    ) -> Result<impl Stream<Item = Result<Report, LineError>> + Send + Unpin + use<>, CallError> {
        let response = call(&self.channel, get("/reports")).await?;
        Ok(lines::read(response.into_body()))
    }

    /// The same without repetitions.
    pub async fn brief_reports(
        &self,
    ) -> Result<impl Stream<Item = Result<Said, LineError>> + Send + Unpin + use<>, CallError> {
        let path = format!("/reports{}", query(&ReportsQuery { brief: true })?);
        let response = call(&self.channel, get(&path)).await?;
        Ok(lines::read(response.into_body()))
    }

    /// A task's output.
    pub async fn logs(
        &self,
        task: &TaskId,
        lines_wanted: &LogQuery,
    ) -> Result<impl Stream<Item = Result<TaskLogLine, LineError>> + Send + Unpin + use<>, CallError> {
        let path = format!("/tasks/{task}/logs{}", query(lines_wanted)?);
        let response = call(&self.channel, get(&path)).await?;
        Ok(lines::read(response.into_body()))
    }

    /// Runs a command in a task's container; both bodies are [frames](crate::frame).
    pub async fn exec(&self, task: &TaskId, frames: Body) -> Result<Response<Body>, CallError> {
        let path = format!("/tasks/{task}/exec");
        let request =
            Request::builder().method(Method::POST).uri(path).body(frames).map_err(CallError::Request)?;
        call(&self.channel, request).await
    }

    /// Tells the agent which images travel.
    pub async fn exchange(&self, exchange: &Exchange) -> Result<(), CallError> {
        let request = json_body(Method::PUT, "/images", exchange)?;
        call(&self.channel, request).await.map(drop)
    }

    /// What `image` is made of on the node. An error with the code `not_found`: it has no such image.
    pub async fn image(&self, image: &Digest) -> Result<Shape, CallError> {
        read_json(call(&self.channel, get(&format!("/images/{image}"))).await?).await
    }

    /// What names of images mean on the node, or at the registry as seen from it.
    pub async fn resolve(&self, request: &ResolveRequest) -> Result<Vec<Option<Resolved>>, CallError> {
        let request = json_body(Method::POST, "/images/resolve", request)?;
        read_json(call(&self.channel, request).await?).await
    }

    /// What the tasks of the node use now.
    pub async fn usage(&self) -> Result<Vec<TaskUse>, CallError> {
        read_json(call(&self.channel, get("/usage")).await?).await
    }
}

fn get(path: &str) -> Request<Body> {
    Request::builder().uri(path).body(Body::empty()).expect("paths of this file and task ids are valid URIs")
}
