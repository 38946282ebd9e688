//! A registry on the loopback device, as far as an Engine asks of one. It has one image, the example program's, under a
//! name for each of its moods: so it takes questions about that name, until it is well.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bollard::query_parameters::RemoveImageOptionsBuilder;
use bytes::Bytes;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;
use tug_api::digest::digest_of;

use crate::{docker, image};

const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";

/// How a registry takes a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// It wants to know who asks (401).
    Closed,
    /// It was asked too often (429), and says when to come again.
    Crowded,
    /// It fails (500).
    Broken,
    /// It listens and does not answer.
    Silent,
    /// It answers, and the first time breaks off in the middle of the image.
    Torn,
}

/// A running registry; it ends when it is dropped, and what the Engine has pulled from it goes too.
#[derive(Debug)]
pub struct Registry {
    address: SocketAddr,
    shelf: Arc<Shelf>,
    _server: AbortOnDropHandle<()>,
}

/// What it has and how it is.
#[derive(Debug)]
struct Shelf {
    manifest: Bytes,
    config: Bytes,
    layer: Bytes,
    is_well: watch::Sender<bool>,
    has_torn: AtomicBool,
}

// === impl Mood ===

impl Mood {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Closed, Self::Crowded, Self::Broken, Self::Silent, Self::Torn];

    /// The name under which the registry is in this mood.
    pub fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Crowded => "crowded",
            Self::Broken => "broken",
            Self::Silent => "silent",
            Self::Torn => "torn",
        }
    }
}

// === impl Registry ===

impl Registry {
    /// Starts one that is not well.
    pub async fn start() -> Result<Self> {
        let shelf = Arc::new(Shelf::fill()?);
        let router = Router::new()
            .route("/v2/", get(|| async { "{}" }))
            .route("/v2/{name}/blobs/{digest}", get(blob))
            .route("/v2/{name}/manifests/{reference}", get(manifest))
            .with_state(Arc::clone(&shelf));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap_or_default() });
        Ok(Self { address, shelf, _server: AbortOnDropHandle::new(server) })
    }

    /// The image under the name of a mood.
    pub fn reference(&self, mood: Mood) -> String {
        format!("{}/{}:1", self.address, mood.name())
    }

    /// The id that the image has once it is pulled.
    pub fn image(&self) -> String {
        digest_of(&self.shelf.config).to_string()
    }

    /// Everything is answered from now on, also what was asked before.
    pub fn is_well_again(&self) {
        self.shelf.is_well.send_replace(true);
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let image = self.image();
        let removed = std::thread::spawn(move || -> Result<()> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let engine = docker::connect()?;
            // Under all of its names. Where none was pulled there is nothing to remove.
            let force = RemoveImageOptionsBuilder::new().force(true).build();
            let _absent = runtime.block_on(engine.remove_image(&image, Some(force), None));
            Ok(())
        });
        if let Ok(Err(error)) = removed.join() {
            eprintln!("cleaning up after a registry: {error:#}");
        }
    }
}

// === impl Shelf ===

impl Shelf {
    /// The image is the example program in one layer.
    fn fill() -> Result<Self> {
        let program = std::fs::read(image::hello_program()).context("it was compiled")?;
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(program.len() as u64);
        header.set_mode(0o755);
        archive.append_data(&mut header, "hello", program.as_slice())?;
        let layer = archive.into_inner()?;
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let config = serde_json::to_vec(&json!({
            "architecture": architecture, "os": "linux",
            "config": { "Entrypoint": ["/hello"], "Cmd": ["serve"] },
            "rootfs": { "type": "layers", "diff_ids": [digest_of(&layer)] },
        }))?;
        let manifest = serde_json::to_vec(&json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": { "mediaType": CONFIG, "size": config.len(), "digest": digest_of(&config) },
            "layers": [{ "mediaType": LAYER, "size": layer.len(), "digest": digest_of(&layer) }],
        }))?;
        let (is_well, has_torn) = (watch::Sender::new(false), AtomicBool::new(false));
        Ok(Self { manifest: manifest.into(), config: config.into(), layer: layer.into(), is_well, has_torn })
    }

    /// The mood for this name; `None`: it is well.
    fn mood(&self, name: &str) -> Option<Mood> {
        if *self.is_well.borrow() { None } else { Mood::ALL.into_iter().find(|mood| mood.name() == name) }
    }
}

async fn manifest(
    State(shelf): State<Arc<Shelf>>,
    Path((name, reference)): Path<(String, String)>,
) -> Response {
    let mut is_well = shelf.is_well.subscribe();
    match shelf.mood(&name) {
        Some(Mood::Closed) => {
            let challenge = (WWW_AUTHENTICATE, "Basic realm=\"tests\"");
            refusal(StatusCode::UNAUTHORIZED, challenge, "UNAUTHORIZED", "say who you are")
        }
        Some(Mood::Crowded) => {
            let later = (RETRY_AFTER, "3600");
            refusal(StatusCode::TOO_MANY_REQUESTS, later, "TOOMANYREQUESTS", "you have asked too often")
        }
        Some(Mood::Broken) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        Some(Mood::Silent) => {
            // The registry is there as long as its questions are.
            let _well = is_well.wait_for(|is_well| *is_well).await;
            found(&shelf, &reference)
        }
        Some(Mood::Torn) | None => found(&shelf, &reference),
    }
}

fn found(shelf: &Shelf, reference: &str) -> Response {
    if reference == "1" || reference == digest_of(&shelf.manifest).as_str() {
        let digest =
            (HeaderName::from_static("docker-content-digest"), digest_of(&shelf.manifest).to_string());
        return ([(CONTENT_TYPE, MANIFEST.to_owned()), digest], shelf.manifest.clone()).into_response();
    }
    refusal(StatusCode::NOT_FOUND, (RETRY_AFTER, "0"), "MANIFEST_UNKNOWN", "manifest unknown")
}

fn refusal(status: StatusCode, header: (HeaderName, &'static str), code: &str, message: &str) -> Response {
    let body = json!({ "errors": [{ "code": code, "message": message }] }).to_string();
    let headers = [(CONTENT_TYPE, "application/json"), header];
    (status, headers, body).into_response()
}

async fn blob(State(shelf): State<Arc<Shelf>>, Path((name, digest)): Path<(String, String)>) -> Response {
    let parts = [&shelf.config, &shelf.layer];
    let Some(part) = parts.into_iter().find(|part| digest_of(part).as_str() == digest) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let is_first = || !shelf.has_torn.swap(true, Ordering::Relaxed);
    if shelf.mood(&name) == Some(Mood::Torn) && part == &shelf.layer && is_first() {
        let torn: [std::io::Result<Bytes>; 2] =
            [Ok(part.slice(..part.len() / 2)), Err(std::io::Error::other("the line is cut"))];
        let body = Body::from_stream(futures_util::stream::iter(torn));
        return ([(CONTENT_LENGTH, part.len().to_string())], body).into_response();
    }
    part.clone().into_response()
}
