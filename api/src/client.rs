//! The typed client of the users' API, and how any call of ours is made and its error read.

use axum::body::Body;
use futures_util::Stream;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{HeaderName, Method, Request, Response};
use http_body_util::{BodyExt, Limited};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tug_model::event::Event;
use tug_model::project::StoredProject;
use tug_model::status::ProjectStatus;
use tug_model::token::Token;
use tug_model::{NodeId, ProjectName, Revision, ServiceName};

use crate::error::{ApiError, ErrorBody};
use crate::join::{CertificateRequest, JoinRequest, Joined, TokenMade, TokenRequest, Whoami};
use crate::lines::{self, LineError};
use crate::transport::{Channel, TransportError};
use crate::user::{
    Accepted, ApplyRequest, AvailabilityRequest, IDEMPOTENCY_KEY, IF_REVISION, Info, LabelsRequest, LogQuery,
    LogRecord, NodeRemoval, NodeStatus, Preview, RestartRequest, ScaleRequest, TaskUsage, VolumeStatus,
    WatchItem, Why,
};

/// The largest answer that is read whole, in bytes.
const LARGEST_ANSWER: usize = 256 << 20;

/// Why a call gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The server said no, and why.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The server was not reached, or the connection was lost; a mutation may or may not have taken place.
    #[error("ask the server")]
    Transport(#[from] TransportError),
    /// The request could not be put into HTTP.
    #[error("build the request")]
    Request(#[source] http::Error),
    /// The request could not be put into JSON.
    #[error("write the request")]
    Encode(#[source] serde_json::Error),
    /// The answer is not what was expected; is the server of another version?
    #[error("understand the server's answer")]
    Decode(#[source] serde_json::Error),
}

/// How a mutation is guarded.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Guard {
    /// Repeating the request with the same key has no second effect.
    pub idempotency_key: Option<String>,
    /// Only if the project is still at this revision; 0: only if there is no such project.
    pub if_revision: Option<Revision>,
}

/// Asks the orchestrator. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    channel: Channel,
}

/// What a watch begins with and shows.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WatchQuery {
    /// Send the events after this commit; `None`: from now on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Revision>,
    /// Only this project.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project: Option<ProjectName>,
}

/// Which events are listed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EventQuery {
    /// Only this project.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project: Option<ProjectName>,
    /// Only this service of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceName>,
    /// Only the newest so many; 200 unless told otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

// === impl Client ===

impl Client {
    /// A client over `channel`.
    pub fn new(channel: Channel) -> Self {
        Self { channel }
    }

    /// Who answers.
    pub async fn info(&self) -> Result<Info, CallError> {
        self.get("/v1/info").await
    }

    /// How all projects stand.
    pub async fn projects(&self) -> Result<Vec<ProjectStatus>, CallError> {
        self.get("/v1/projects").await
    }

    /// What is wanted of one project.
    pub async fn project(&self, name: &ProjectName) -> Result<StoredProject, CallError> {
        self.get(&format!("/v1/projects/{name}")).await
    }

    /// How one project stands.
    pub async fn status(&self, name: &ProjectName) -> Result<ProjectStatus, CallError> {
        self.get(&format!("/v1/projects/{name}/status")).await
    }

    /// What [`Client::apply`] would do.
    pub async fn plan(&self, request: &ApplyRequest) -> Result<Preview, CallError> {
        let path = format!("/v1/projects/{}/plan", request.spec.name);
        read_json(call(&self.channel, json_body(Method::POST, &path, request)?).await?).await
    }

    /// Makes the project what `request` says.
    pub async fn apply(&self, request: &ApplyRequest, guard: &Guard) -> Result<Accepted, CallError> {
        let path = format!("/v1/projects/{}", request.spec.name);
        self.mutate(json_body(Method::PUT, &path, request)?, guard).await
    }

    /// Changes how many replicas services have.
    pub async fn scale(
        &self,
        name: &ProjectName,
        request: &ScaleRequest,
        guard: &Guard,
    ) -> Result<Accepted, CallError> {
        self.mutate(json_body(Method::POST, &format!("/v1/projects/{name}/scale"), request)?, guard).await
    }

    /// Replaces the containers of services, one at a time.
    pub async fn restart(
        &self,
        name: &ProjectName,
        request: &RestartRequest,
        guard: &Guard,
    ) -> Result<Accepted, CallError> {
        self.mutate(json_body(Method::POST, &format!("/v1/projects/{name}/restart"), request)?, guard).await
    }

    /// Removes a project; its volumes stay.
    pub async fn remove(&self, name: &ProjectName, guard: &Guard) -> Result<Accepted, CallError> {
        let request = Request::builder().method(Method::DELETE).uri(format!("/v1/projects/{name}"));
        self.mutate(request.body(Body::empty()).map_err(CallError::Request)?, guard).await
    }

    /// What happened, oldest first.
    pub async fn events(&self, which: &EventQuery) -> Result<Vec<Event>, CallError> {
        self.get(&format!("/v1/events{}", query(which)?)).await
    }

    /// Events and states as they come.
    pub async fn watch(
        &self,
        which: &WatchQuery,
    ) -> Result<impl Stream<Item = Result<WatchItem, LineError>> + Send + Unpin + use<>, CallError> {
        let response = call(&self.channel, empty(&format!("/v1/watch{}", query(which)?))?).await?;
        Ok(lines::read(response.into_body()))
    }

    /// Why a service is as it is.
    pub async fn why(&self, project: &ProjectName, service: &ServiceName) -> Result<Why, CallError> {
        self.get(&format!("/v1/projects/{project}/services/{service}/why")).await
    }

    /// What containers wrote, merged.
    pub async fn logs(
        &self,
        which: &LogQuery,
    ) -> Result<impl Stream<Item = Result<LogRecord, LineError>> + Send + Unpin + use<>, CallError> {
        let response = call(&self.channel, empty(&format!("/v1/logs{}", query(which)?))?).await?;
        Ok(lines::read(response.into_body()))
    }

    /// Runs a command in a replica, the first healthy one unless `slot` says which. Both bodies are
    /// [frames](crate::frame).
    pub async fn exec(
        &self,
        project: &ProjectName,
        service: &ServiceName,
        slot: Option<u32>,
        frames: Body,
    ) -> Result<Response<Body>, CallError> {
        let slot = slot.map(|slot| format!("?slot={slot}")).unwrap_or_default();
        let path = format!("/v1/projects/{project}/services/{service}/exec{slot}");
        let request =
            Request::builder().method(Method::POST).uri(path).body(frames).map_err(CallError::Request)?;
        call(&self.channel, request).await
    }

    /// What every task uses now.
    pub async fn top(&self) -> Result<Vec<TaskUsage>, CallError> {
        self.get("/v1/top").await
    }

    /// The machines.
    pub async fn nodes(&self) -> Result<Vec<NodeStatus>, CallError> {
        self.get("/v1/nodes").await
    }

    /// One machine.
    pub async fn node(&self, node: &NodeId) -> Result<NodeStatus, CallError> {
        self.get(&format!("/v1/nodes/{node}")).await
    }

    /// Says whether a node is to be given tasks; gives how it stands, before anything came of it.
    pub async fn set_availability(
        &self,
        node: &NodeId,
        request: &AvailabilityRequest,
    ) -> Result<NodeStatus, CallError> {
        self.put(&format!("/v1/nodes/{node}/availability"), request).await
    }

    /// Changes the labels that people gave a node.
    pub async fn set_labels(&self, node: &NodeId, request: &LabelsRequest) -> Result<NodeStatus, CallError> {
        self.put(&format!("/v1/nodes/{node}/labels"), request).await
    }

    /// Removes a node: it is shut out.
    pub async fn remove_node(&self, node: &NodeId, removal: &NodeRemoval) -> Result<(), CallError> {
        self.delete(&format!("/v1/nodes/{node}{}", query(removal)?)).await
    }

    /// The volumes that have data on a node.
    pub async fn volumes(&self) -> Result<Vec<VolumeStatus>, CallError> {
        self.get("/v1/volumes").await
    }

    /// Forgets that a volume has data on a node; the data stays.
    pub async fn forget_volume(&self, node: &NodeId, volume: &str) -> Result<(), CallError> {
        self.delete(&format!("/v1/nodes/{node}/volumes/{volume}")).await
    }

    /// Who asks.
    pub async fn whoami(&self) -> Result<Whoami, CallError> {
        self.get("/v1/whoami").await
    }

    /// The tokens, without their secrets.
    pub async fn tokens(&self) -> Result<Vec<Token>, CallError> {
        self.get("/v1/tokens").await
    }

    /// Makes a token.
    pub async fn make_token(&self, request: &TokenRequest) -> Result<TokenMade, CallError> {
        self.post("/v1/tokens", request).await
    }

    /// Makes a token worthless.
    pub async fn remove_token(&self, id: &str) -> Result<(), CallError> {
        self.delete(&format!("/v1/tokens/{id}")).await
    }

    /// Makes this machine a node.
    pub async fn join(&self, request: &JoinRequest) -> Result<Joined, CallError> {
        self.post("/v1/join", request).await
    }

    /// A new certificate for the node that has the key of the request.
    pub async fn renew(&self, request: &CertificateRequest) -> Result<Joined, CallError> {
        self.post("/v1/renew", request).await
    }

    /// A certificate for the node on the control plane's own machine.
    pub async fn certificate(
        &self,
        node: &NodeId,
        request: &CertificateRequest,
    ) -> Result<Joined, CallError> {
        self.post(&format!("/v1/nodes/{node}/certificate"), request).await
    }

    async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, CallError> {
        read_json(call(&self.channel, json_body(Method::POST, path, body)?).await?).await
    }

    async fn put<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, CallError> {
        read_json(call(&self.channel, json_body(Method::PUT, path, body)?).await?).await
    }

    async fn delete(&self, path: &str) -> Result<(), CallError> {
        let request = Request::builder().method(Method::DELETE).uri(path);
        self.change(request.body(Body::empty()).map_err(CallError::Request)?).await
    }

    /// A change of which nothing more is to be said than that it took place.
    async fn change(&self, request: Request<Body>) -> Result<(), CallError> {
        call(&self.channel, request).await.map(drop)
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, CallError> {
        read_json(call(&self.channel, empty(path)?).await?).await
    }

    async fn mutate(&self, mut request: Request<Body>, guard: &Guard) -> Result<Accepted, CallError> {
        let mut set = |name: &'static str, value: &str| {
            let value = HeaderValue::from_str(value).map_err(|error| CallError::Request(error.into()))?;
            request.headers_mut().insert(HeaderName::from_static(name), value);
            Ok::<(), CallError>(())
        };
        if let Some(key) = &guard.idempotency_key {
            set(IDEMPOTENCY_KEY, key)?;
        }
        if let Some(revision) = guard.if_revision {
            set(IF_REVISION, &revision.to_string())?;
        }
        read_json(call(&self.channel, request).await?).await
    }
}

// === any call ===

/// Sends `request`; an answer that is no success becomes the error that its body tells.
pub async fn call(channel: &Channel, request: Request<Body>) -> Result<Response<Body>, CallError> {
    let response = channel.send(request).await?;
    if response.status().is_success() {
        return Ok(response);
    }
    let status = response.status();
    match read_json::<ErrorBody>(response).await {
        Ok(body) => Err(body.error.into()),
        Err(_) => Err(TransportError::lost(format!("the server answered {status} without a reason")).into()),
    }
}

/// Reads the whole of `response` as JSON.
pub async fn read_json<T: DeserializeOwned>(response: Response<Body>) -> Result<T, CallError> {
    let body = Limited::new(response.into_body(), LARGEST_ANSWER);
    let bytes = body.collect().await.map_err(TransportError::Lost)?.to_bytes();
    serde_json::from_slice(&bytes).map_err(CallError::Decode)
}

/// A request that carries `body` as JSON.
pub fn json_body<T: Serialize>(method: Method, path: &str, body: &T) -> Result<Request<Body>, CallError> {
    let json = serde_json::to_vec(body).map_err(CallError::Encode)?;
    Request::builder()
        .method(method)
        .uri(path)
        .header(CONTENT_TYPE, "application/json")
        .body(Body::from(json))
        .map_err(CallError::Request)
}

/// `value` as the query of a URI, with its `?`; empty when nothing is asked.
pub fn query<T: Serialize>(value: &T) -> Result<String, CallError> {
    let text = serde_urlencoded::to_string(value)
        .map_err(|error| CallError::Encode(serde::ser::Error::custom(error)))?;
    Ok(if text.is_empty() { text } else { format!("?{text}") })
}

fn empty(path: &str) -> Result<Request<Body>, CallError> {
    Request::builder().uri(path).body(Body::empty()).map_err(CallError::Request)
}
