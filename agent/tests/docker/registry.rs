//! A registry on the loopback device with one image in it, as far as an engine asks of one.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;

use axum::Router;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use serde_json::json;
use tokio_util::task::AbortOnDropHandle;

const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";

/// A running registry; it ends when it is dropped.
pub(crate) struct Registry {
    pub(crate) address: SocketAddr,
    /// The id that the image has once it is pulled.
    pub(crate) image: String,
    _server: AbortOnDropHandle<()>,
}

impl Registry {
    /// Serves an image of one layer with a random megabyte in it, under the name `images/hello:1`.
    pub(crate) async fn start() -> Self {
        let mut archive = tar::Builder::new(Vec::new());
        let mut noise = vec![0; 1 << 20];
        std::fs::File::open("/dev/urandom").unwrap().read_exact(&mut noise).unwrap();
        let mut header = tar::Header::new_gnu();
        header.set_size(noise.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, "noise", noise.as_slice()).unwrap();
        let layer = archive.into_inner().unwrap();
        let config = json!({
            "architecture": "amd64", "os": "linux", "config": {},
            "rootfs": { "type": "layers", "diff_ids": [digest(&layer)] },
        });
        let config = serde_json::to_vec(&config).unwrap();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": { "mediaType": CONFIG, "size": config.len(), "digest": digest(&config) },
            "layers": [{ "mediaType": LAYER, "size": layer.len(), "digest": digest(&layer) }],
        });
        let manifest = serde_json::to_vec(&manifest).unwrap();
        let image = digest(&config);
        let router = router(vec![config, layer], manifest);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, image, _server: AbortOnDropHandle::new(server) }
    }
}

fn router(blobs: Vec<Vec<u8>>, manifest: Vec<u8>) -> Router {
    let blobs: Arc<Vec<(String, Vec<u8>)>> =
        Arc::new(blobs.into_iter().map(|blob| (digest(&blob), blob)).collect());
    let blob = move |Path(wanted): Path<String>| async move {
        match blobs.iter().find(|(digest, _)| *digest == wanted) {
            Some((_, blob)) => blob.clone().into_response(),
            None => StatusCode::NOT_FOUND.into_response(),
        }
    };
    let manifest_digest = digest(&manifest);
    let manifest = move |Path(wanted): Path<String>| async move {
        if wanted == "1" || wanted == manifest_digest {
            ([(CONTENT_TYPE, MANIFEST)], manifest).into_response()
        } else {
            let body = r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#;
            (StatusCode::NOT_FOUND, [(CONTENT_TYPE, "application/json")], body).into_response()
        }
    };
    Router::new()
        .route("/v2/", get(|| async { "{}" }))
        .route("/v2/images/hello/blobs/{digest}", get(blob))
        .route("/v2/images/hello/manifests/{reference}", get(manifest))
}

fn digest(bytes: &[u8]) -> String {
    let mut child =
        Command::new("sha256sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("coreutils");
    child.stdin.take().unwrap().write_all(bytes).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    format!("sha256:{}", text.split(' ').next().unwrap())
}
