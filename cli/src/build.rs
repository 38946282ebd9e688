//! `build:`: images made by the local Engine before anything is deployed.
//!
//! Only this file knows the Engine's API here. The context is streamed as it is read, and what `.dockerignore` excludes
//! is never sent. The Engine's own builder is used, which every engine has; what only `BuildKit` understands is
//! refused by it with a message of its own.

pub(crate) mod context;
pub(crate) mod ignore;
mod output;

use std::collections::HashMap;

use bollard::Docker;
use bollard::query_parameters::{BuildImageOptions, TagImageOptions};
use futures_util::StreamExt;
use tokio::sync::mpsc;
use tug_compose::Build;
use tug_model::ServiceName;

use self::output::Output;
use crate::context::Context;
use crate::failure::Failure;
use crate::manifest::Manifest;
use crate::render::style::{self, paint};

/// How many pieces of the context may wait for the Engine.
const QUEUE: usize = 16;
/// How long the Engine may take to begin to answer, in seconds.
const PATIENCE: u64 = 120;

/// What is said before building where the server is elsewhere: its nodes bring images to each other, and to nobody else.
const NOT_A_NODE: &str = "images are built by the Engine of this machine: if it is no node of the cluster, no node has them; \
                          build on a node, or push them to a registry";

/// Builds every image that `manifest` needs built, and notes the ids in it.
pub(crate) async fn images(
    context: &mut Context,
    manifest: &mut Manifest,
    engine: &str,
) -> Result<(), Failure> {
    if manifest.builds.is_empty() {
        return Ok(());
    }
    let docker = connect(engine)?;
    if context.is_elsewhere {
        context.screen.note(NOT_A_NODE);
    }
    let mut built: Vec<(Build, String, String)> = Vec::new();
    for (service, build) in manifest.builds.clone() {
        let Some(container) = manifest.request.spec.services.get(&service).map(|one| &one.container) else {
            continue;
        };
        let image = container.image.clone();
        let same = built.iter().find(|(other, name, _)| *other == build && *name == image);
        let id = match same {
            Some((_, _, id)) => id.clone(),
            None => one(context, &docker, &service, &build, &image).await?,
        };
        built.push((build, image, id.clone()));
        manifest.set_image(&service, id);
    }
    Ok(())
}

fn connect(engine: &str) -> Result<Docker, Failure> {
    let path = engine.strip_prefix("unix://").unwrap_or(engine);
    if path.contains("://") {
        return Err(Failure::usage(format!("{engine}: images are built by an Engine on this machine"))
            .hint("name its socket with --docker or DOCKER_HOST, as in unix:///var/run/docker.sock"));
    }
    Docker::connect_with_unix(path, PATIENCE, bollard::API_DEFAULT_VERSION)
        .map_err(|error| Failure::caused("reach the Docker Engine", &error).hint(HOW_TO_GET_DOCKER))
}

/// What to do where no Engine answers.
pub(crate) const HOW_TO_GET_DOCKER: &str =
    "is Docker installed and running? On Debian: apt-get install docker.io";

/// Builds one image; gives its id.
async fn one(
    context: &mut Context,
    docker: &Docker,
    service: &ServiceName,
    build: &Build,
    image: &str,
) -> Result<String, Failure> {
    let what = format!("build {service}");
    let plan = context::Plan::new(build).map_err(|error| Failure::caused(&what, &error))?;
    let options = options(build, image, &plan.dockerfile);
    let (sender, queue) = mpsc::channel(QUEUE);
    let packing = tokio::task::spawn_blocking(move || plan.pack(sender));
    let mut output = Output::new(service, context.screen.facts);
    let mut events =
        Box::pin(docker.build_image(options, None, Some(bollard::body_try_stream(stream_of(queue)))));
    let mut id = None;
    let mut failed = None;
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                id = event.aux.and_then(|image| image.id).or(id);
                for text in [event.stream, event.status].into_iter().flatten() {
                    output.take(&text, &mut context.screen);
                }
                failed = event.error_detail.and_then(|detail| detail.message).or(failed);
            }
            Err(bollard::errors::Error::DockerStreamError { error }) => failed = Some(error),
            Err(error) => failed = Some(tug_api::error::chain(&error)),
        }
    }
    drop(events);
    let packed = packing.await.map_err(|error| Failure::caused(&what, &error))?;
    if let Some(reason) = failed {
        output.failed(&mut context.screen);
        // Where the context could not be read, what the Engine says about half of one does not matter.
        return Err(match packed {
            Err(error) if !error.is_hung_up() => Failure::caused(&what, &error),
            _ => Failure::new(format!("{what}: {}", reason.trim())).hint("nothing was deployed"),
        });
    }
    let id = match id {
        Some(id) => id,
        None => inspect(docker, image).await.map_err(|error| Failure::caused(&what, &error))?,
    };
    for tag in &build.tags {
        self::tag(docker, &id, tag).await.map_err(|error| Failure::caused(&format!("tag {tag}"), &error))?;
    }
    output.done();
    let short: String = id.trim_start_matches("sha256:").chars().take(12).collect();
    context.screen.note(&format!(
        "{} built {service}: {image} {}",
        paint(style::GOOD, "✓"),
        paint(style::DIM, short)
    ));
    Ok(id)
}

/// What comes through `queue`, as a stream.
fn stream_of<T: Send>(queue: mpsc::Receiver<T>) -> impl futures_util::Stream<Item = T> + Send {
    futures_util::stream::unfold(queue, async |mut queue| queue.recv().await.map(|item| (item, queue)))
}

fn options(build: &Build, image: &str, dockerfile: &str) -> BuildImageOptions {
    let map = |map: &std::collections::BTreeMap<String, String>| -> Option<HashMap<String, String>> {
        (!map.is_empty()).then(|| map.iter().map(|(key, value)| (key.clone(), value.clone())).collect())
    };
    BuildImageOptions {
        dockerfile: dockerfile.to_owned(),
        t: Some(image.to_owned()),
        extrahosts: build.extra_host.as_ref().map(|host| format!("{}:{}", host.host, host.address)),
        nocache: build.no_cache,
        cachefrom: (!build.cache_from.is_empty()).then(|| build.cache_from.clone()),
        pull: build.pull.then(|| "true".to_owned()),
        rm: true,
        forcerm: true,
        buildargs: map(&build.args),
        shmsize: build.shm_size,
        labels: map(&build.labels),
        networkmode: build.network.clone(),
        platform: build.platform.clone().unwrap_or_default(),
        target: build.target.clone().unwrap_or_default(),
        ..BuildImageOptions::default()
    }
}

async fn inspect(docker: &Docker, image: &str) -> Result<String, bollard::errors::Error> {
    Ok(docker.inspect_image(image).await?.id.unwrap_or_else(|| image.to_owned()))
}

async fn tag(docker: &Docker, id: &str, tag: &str) -> Result<(), bollard::errors::Error> {
    let (repository, version) = split_tag(tag);
    let options = TagImageOptions { repo: Some(repository.to_owned()), tag: Some(version.to_owned()) };
    docker.tag_image(id, Some(options)).await
}

/// `name` and `tag` of an image's name; a colon before a slash belongs to a registry's port.
fn split_tag(name: &str) -> (&str, &str) {
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, tag),
        _ => (name, "latest"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_told_from_ports() {
        assert_eq!(split_tag("app:1"), ("app", "1"));
        assert_eq!(split_tag("host:5000/app"), ("host:5000/app", "latest"));
        assert_eq!(split_tag("host:5000/app:2"), ("host:5000/app", "2"));
    }

    #[test]
    fn only_an_engine_of_this_machine_builds() {
        assert!(connect("tcp://10.0.0.1:2375").unwrap_err().message.contains("on this machine"));
    }

    #[test]
    fn what_the_manifest_says_reaches_the_engine() {
        let build = Build {
            args: [("V".to_owned(), "1".to_owned())].into(),
            target: Some("final".into()),
            no_cache: true,
            pull: true,
            ..Build::default()
        };
        let options = options(&build, "shop-web", "Dockerfile");
        assert_eq!((options.t.as_deref(), options.target.as_str()), (Some("shop-web"), "final"));
        assert_eq!(options.buildargs.unwrap()["V"], "1");
        assert!(options.nocache && options.rm && options.pull.as_deref() == Some("true"));
        assert!(options.labels.is_none());
    }
}
