//! Looking for images and pulling them.

use std::error::Error as _;
use std::sync::{Arc, Mutex};

use bollard::query_parameters::RemoveImageOptions;
use tug_agent::runtime::Runtime;

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
