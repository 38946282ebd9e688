//! How images get from node to node: what the control plane tells the agents, and what the agents ask each other.
//!
//! An image is known by its id: the digest of its configuration, which names its layers by theirs. So whatever way a part
//! of it comes, it can be checked. The control plane names who has an image and who may have it; it moves no byte itself.
//!
//! | from orchestrator to agent | answer |
//! |---|---|
//! | `PUT /images` | 204; the [`Exchange`], whole |
//! | `GET /images/{id}` | the image's [`Shape`]; 404 when the node has not got it |
//!
//! | `POST /images/resolve` | for [`ResolveRequest`], what each name means there: a list of [`Option<Resolved>`] |
//!
//! | from agent to agent | answer |
//! |---|---|
//! | `GET /images/{id}` | the image's [`Shape`] |
//! | `POST /images/{id}/parts` | for [`PartsWanted`], a stream of [`Preparation`]s, the last of which says where it ended |
//! | `GET /images/{id}/parts/{digest}` | the bytes of one part, from `range: bytes=N-` on |
//!
//! Between agents, 403 means that the control plane has not said that the asking node may have the image, and 429 that the
//! other node is busy.

use std::collections::{BTreeMap, BTreeSet};

use axum::body::Body;
use futures_util::Stream;
use http::header::RANGE;
use http::{Method, Request, Response};
use serde::{Deserialize, Serialize};
use tug_model::{Bytes, Digest, NodeId, Timestamp};

use crate::client::{CallError, call, json_body, read_json};
use crate::lines::{self, LineError};
use crate::transport::Channel;

/// Which images travel, as far as it concerns one node. Sent whole.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Exchange {
    /// For each image that the node lacks and the control plane has asked about: who has it, the best first. None: nobody.
    pub sources: BTreeMap<Digest, Vec<Source>>,
    /// For each image that others are to get from this node: who.
    pub readers: BTreeMap<Digest, BTreeSet<NodeId>>,
}

/// A node that has an image.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Source {
    /// Which.
    pub node: NodeId,
    /// Where its agent is reached, as `host:port`.
    pub address: String,
}

/// What an image is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// Its layers, the lowest first, by the digests of their archives. The same one may be there twice.
    pub layers: Vec<Digest>,
    /// All of them together, unpacked.
    pub size: Bytes,
    /// What it is for, as `os/arch`; empty: unknown.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub platform: String,
}

/// What is to be found out about names of images.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolveRequest {
    /// Which.
    pub images: Vec<ImageName>,
    /// Ask the registry, and not the node's engine.
    pub registry: bool,
}

/// An image as people name it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ImageName {
    /// `[host[:port]/]path[:tag]`
    pub reference: String,
    /// `os/arch[/variant]`; `None`: whatever is there.
    pub platform: Option<String>,
}

/// What a name means.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolved {
    /// The image that the node has.
    pub id: Option<Digest>,
    /// What a registry knows it by.
    pub digest: Option<Digest>,
    /// When the node gave the name to the image.
    pub tagged_at: Timestamp,
}

/// Which layers shall be made ready; the configuration always is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartsWanted {
    /// Their digests.
    pub layers: BTreeSet<Digest>,
}

/// How far it is with making them ready. There is one at least every few seconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum Preparation {
    /// The engine is still at it.
    Going {
        /// So much it has given.
        done: Bytes,
    },
    /// All of them can be asked for.
    Ready {
        /// What they are, the configuration first.
        parts: Vec<Part>,
    },
    /// It did not work.
    Failed {
        /// Why.
        reason: String,
    },
}

/// A part of an image: its configuration, or a layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// What its bytes must give.
    pub digest: Digest,
    /// How many they are.
    pub size: Bytes,
}

/// Asks another agent for images.
#[derive(Debug, Clone)]
pub struct ImageClient {
    channel: Channel,
}

// === impl ImageClient ===

impl ImageClient {
    /// A client over `channel`.
    pub fn new(channel: Channel) -> Self {
        Self { channel }
    }

    /// What `image` is made of there.
    pub async fn shape(&self, image: &Digest) -> Result<Shape, CallError> {
        read_json(call(&self.channel, get(&format!("/images/{image}"), 0)).await?).await
    }

    /// Has parts of `image` made ready.
    pub async fn prepare(
        &self,
        image: &Digest,
        wanted: &PartsWanted,
    ) -> Result<impl Stream<Item = Result<Preparation, LineError>> + Send + Unpin + use<>, CallError> {
        let request = json_body(Method::POST, &format!("/images/{image}/parts"), wanted)?;
        Ok(lines::read(call(&self.channel, request).await?.into_body()))
    }

    /// The bytes of a part, from the one at `from` on.
    pub async fn part(&self, image: &Digest, part: &Digest, from: u64) -> Result<Response<Body>, CallError> {
        call(&self.channel, get(&format!("/images/{image}/parts/{part}"), from)).await
    }
}

fn get(path: &str, from: u64) -> Request<Body> {
    let mut request = Request::builder().uri(path);
    if from > 0 {
        request = request.header(RANGE, format!("bytes={from}-"));
    }
    request.body(Body::empty()).expect("paths of this file and digests are valid URIs")
}
