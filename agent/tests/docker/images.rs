//! Looking for images and pulling them.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::io::Read;
use std::sync::{Arc, Mutex};

use bollard::query_parameters::{BuildImageOptionsBuilder, RemoveImageOptions, RemoveImageOptionsBuilder};
use bytes::Bytes;
use futures_util::{TryStreamExt, stream};
use tug_agent::runtime::{Runtime, RuntimeError};
use tug_api::digest::digest_of;
use tug_model::Digest;

use crate::registry::Registry;
use crate::scope::{Scope, engine};

#[tokio::test]
async fn an_image_is_found_by_name_and_by_id() {
    let scope = Scope::new("image").await;
    let by_name = scope.docker.image_present("tug-tests-hello:runtime").await.unwrap();
    assert_eq!(by_name.as_deref(), Some(scope.image.as_str()));
    assert_eq!(scope.docker.image_present(&scope.image).await.unwrap(), by_name);
    for (platform, present) in [(std::env::consts::ARCH, true), ("linux/s390x", false)] {
        let found = scope.docker.image_present_for(&scope.image, platform).await.unwrap();
        assert_eq!(found.is_some(), present, "{platform}");
    }
    assert_eq!(scope.docker.image_present("tug-tests-hello:none").await.unwrap(), None);
    assert!(scope.docker.image_present("../../info").await.unwrap_err().is_permanent());
}

#[tokio::test]
async fn an_image_is_pulled_with_progress() {
    let scope = Scope::new("pull").await;
    let registry = Registry::start().await;
    let reference = format!("{}/images/hello:1", registry.address);
    let said = Arc::new(Mutex::new(Vec::new()));
    let progress = {
        let said = said.clone();
        Box::new(move |text| said.lock().unwrap().push(text))
    };
    let id = scope.docker.pull(&reference, None, progress).await;
    let present = scope.docker.image_present(&reference).await;
    let _ = engine().remove_image(&reference, None::<RemoveImageOptions>, None).await;

    assert_eq!(id.unwrap(), registry.image);
    assert_eq!(present.unwrap().as_deref(), Some(registry.image.as_str()));
    let said = said.lock().unwrap();
    assert!(said.iter().any(|text| text.ends_with(" of 1.0 MiB")), "{said:?}");
}

#[tokio::test]
async fn a_pull_that_fails_says_why() {
    let scope = Scope::new("nopull").await;
    let registry = Registry::start().await;
    let reference = format!("{}/images/hello:2", registry.address);
    let error = scope.docker.pull(&reference, None, Box::new(drop)).await.unwrap_err();
    assert!(error.to_string().contains(&reference), "{error}");
    assert!(error.source().unwrap().to_string().contains("manifest"), "{error:?}");
    assert!(!error.is_engine_down());

    drop(registry);
    let error = scope.docker.pull(&reference, None, Box::new(drop)).await.unwrap_err();
    assert!(error.source().unwrap().to_string().contains("refused"), "{error:?}");
    assert!(!error.is_engine_down() && !error.is_permanent());
}

/// An image with one more layer than the scope's, which nobody else has.
async fn derived(scope: &Scope) -> Digest {
    let extra = format!("{:?}", std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap());
    let dockerfile = format!("FROM {}\nCOPY Dockerfile extra /\n", scope.image);
    let mut context = tar::Builder::new(Vec::new());
    for (name, content) in [("Dockerfile", &dockerfile), ("extra", &extra)] {
        append(&mut context, name, content.as_bytes());
    }
    let body = bollard::body_full(context.into_inner().unwrap().into());
    let options = BuildImageOptionsBuilder::new().rm(true).forcerm(true).build();
    let built: Vec<_> = engine().build_image(options, None, Some(body)).try_collect().await.unwrap();
    let id = built.into_iter().find_map(|event| event.aux?.id).unwrap();
    Digest::parse(&id).unwrap()
}

fn append(tar: &mut tar::Builder<Vec<u8>>, path: &str, content: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(content.len() as u64);
    tar.append_data(&mut header, path, content).unwrap();
}

/// The files of an archive, by their names.
fn files(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut archive = tar::Archive::new(archive);
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        (entry.path().unwrap().to_string_lossy().into_owned(), content)
    });
    entries.collect()
}

async fn load(scope: &Scope, archive: Vec<u8>) -> Result<(), RuntimeError> {
    let store = scope.docker.images().unwrap();
    store.load(Box::pin(stream::iter([Ok(archive.into())]))).await
}

#[tokio::test]
async fn an_image_goes_away_and_comes_back_with_only_the_layer_that_is_missing() {
    let scope = Scope::new("share").await;
    let (store, id) = (scope.docker.images().unwrap(), derived(&scope).await);
    let shape = store.shape(&id).await.unwrap().unwrap();
    let base = store.shape(&Digest::parse(&scope.image).unwrap()).await.unwrap().unwrap();
    assert_eq!((shape.layers.len(), &shape.layers[..1]), (2, &base.layers[..]));
    assert!(store.layers().await.unwrap().contains(&shape.layers));
    let pieces: Vec<Bytes> = store.export(&id).await.unwrap().try_collect().await.unwrap();
    let saved = files(&pieces.concat());

    let holding = |digest: &Digest| saved.values().find(|content| digest_of(content) == *digest).unwrap();
    let archive = |config: &[u8], top: &[u8]| {
        let paths = ["base.tar", "top.tar"];
        let manifest = serde_json::json!([{ "Config": "config.json", "RepoTags": null, "Layers": paths }]);
        let mut archive = tar::Builder::new(Vec::new());
        append(&mut archive, "manifest.json", &serde_json::to_vec(&manifest).unwrap());
        append(&mut archive, "config.json", config);
        append(&mut archive, "top.tar", top);
        archive.into_inner().unwrap()
    };
    let (config, top) = (holding(&id), holding(&shape.layers[1]));
    let options = RemoveImageOptionsBuilder::new().force(true).build();
    engine().remove_image(id.as_str(), Some(options), None).await.unwrap();
    assert_eq!(store.shape(&id).await.unwrap(), None);
    let gone: Result<Vec<Bytes>, _> = store.export(&id).await.unwrap().try_collect().await;
    assert!(!gone.unwrap_err().is_engine_down());

    // What is not what the configuration says is refused.
    let mut other = top.clone();
    *other.iter_mut().find(|byte| **byte == b'/' || **byte == b'e').unwrap() ^= 1;
    let error = load(&scope, archive(config, &other)).await.unwrap_err();
    assert!(!error.is_engine_down(), "{error:?}");
    let mut half = archive(config, top);
    half.truncate(half.len() / 2);
    load(&scope, half).await.unwrap_err();
    assert_eq!(store.shape(&id).await.unwrap(), None);

    let loaded = load(&scope, archive(config, top)).await;
    let came = store.shape(&id).await;
    let _ = engine().remove_image(id.as_str(), None::<RemoveImageOptions>, None).await;
    loaded.unwrap();
    assert_eq!(came.unwrap(), Some(shape));
}
