//! Images that are not on the node and that no registry has.

use tug_api::image::{Exchange, ImageName, ResolveRequest, Source};

use super::*;
use crate::image::fake::Image;

/// A template that is made of `image`.
fn built(image: &Image) -> Template {
    let mut template = template();
    template.container.image = "shop-web".to_owned();
    template.container.image_id = Some(image.id().to_string());
    template
}

fn pulling(report: &Report) -> Option<&str> {
    match &report.tasks.first()?.phase {
        Phase::Pulling { progress } => Some(progress),
        Phase::Pending
        | Phase::Creating
        | Phase::Running { .. }
        | Phase::Waiting { .. }
        | Phase::Stopping
        | Phase::Exited { .. } => None,
    }
}

fn refusal(report: &Report) -> Option<&str> {
    match &report.tasks.first()?.phase {
        Phase::Waiting { failure: Failure::Refused { reason, .. }, .. } => Some(reason),
        Phase::Pending
        | Phase::Creating
        | Phase::Running { .. }
        | Phase::Pulling { .. }
        | Phase::Waiting { failure: Failure::Exited { .. }, .. }
        | Phase::Stopping
        | Phase::Exited { .. } => None,
    }
}

#[tokio::test(start_paused = true)]
async fn an_image_that_is_not_here_is_asked_for_and_why_it_does_not_come_is_said() {
    let machine = Machine::new();
    let image = Image::of("shop-web", &[b"base"]);
    let agent = machine.agent().await;
    agent.assign(&told(1, &built(&image), &[1])).await;
    let report = agent.until("asking", |report| !report.lacks.is_empty()).await;
    assert_eq!(report.lacks, [image.id()].into());
    agent.until("shown", |report| pulling(report) == Some("from another node")).await;

    let nowhere = Exchange { sources: [(image.id(), Vec::new())].into(), ..Exchange::default() };
    agent.client.exchange(&nowhere).await.unwrap();
    let report = agent.until("refused", |report| refusal(report).is_some()).await;
    let wanted = format!(
        "image `shop-web` ({}) is not on this node: no node has it: build it, or `docker load` it on a node",
        image.id().short()
    );
    assert_eq!((refusal(&report), report.lacks.len()), (Some(wanted.as_str()), 0));

    // The next try asks anew, and does not take the old answer for one.
    agent.until("asking again", |report| !report.lacks.is_empty()).await;
    let away = Source { node: tug_model::NodeId::parse("n9").unwrap(), address: "203.0.113.1:1".to_owned() };
    let alone = Exchange { sources: [(image.id(), vec![away])].into(), ..Exchange::default() };
    agent.client.exchange(&alone).await.unwrap();
    let report = agent.until("refused", |report| refusal(report).is_some_and(|it| it != wanted)).await;
    assert!(refusal(&report).unwrap().ends_with("this node is in no cluster yet"), "{report:?}");

    // Somebody has loaded it by hand.
    machine.engine.store().put(&image);
    agent.until_healthy(1).await;
    agent.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_image_that_a_registry_has_under_a_digest_comes_from_there_when_no_node_has_it() {
    let machine = Machine::new();
    let image = Image::of("nginx", &[b"base"]);
    let mut template = template();
    template.container.image = "host:5000/nginx:1.27".to_owned();
    template.container.image_id = Some(image.id().to_string());
    template.container.image_digest = Some(tug_api::digest::digest_of(b"what the registry says"));
    let agent = machine.agent().await;
    agent.assign(&told(1, &template, &[1])).await;
    agent.until("asking", |report| report.lacks == [image.id()].into()).await;
    let nowhere = Exchange { sources: [(image.id(), Vec::new())].into(), ..Exchange::default() };
    agent.client.exchange(&nowhere).await.unwrap();
    agent.until_healthy(1).await;
    let digest = template.container.image_digest.as_ref().unwrap();
    let pulls: Vec<String> = machine.engine.log().into_iter().map(|(_, text)| text).collect();
    assert!(pulls.contains(&format!("pull host:5000/nginx@{digest}")), "{pulls:?}");

    // And when that has not got it either, both are said.
    let mut missing = template.clone();
    missing.container.image = "host:5000/missing:1".to_owned();
    agent.assign(&told(2, &missing, &[2])).await;
    agent.until("asking again", |report| report.lacks == [image.id()].into()).await;
    agent.client.exchange(&nowhere).await.unwrap();
    let report = agent.until("refused", |report| refusal(report).is_some()).await;
    let said = refusal(&report).unwrap();
    assert!(said.contains("comes from no other node (no node has it"), "{said}");
    assert!(said.contains("cannot be pulled: pull image") && said.ends_with("no such tag"), "{said}");

    // Another machine has it already, and asks nobody.
    let machine = Machine::new();
    machine.engine.store().put(&image);
    let other = machine.agent().await;
    other.assign(&told(1, &template, &[1])).await;
    other.until_healthy(1).await;
    assert!(machine.engine.log_of("pull").is_empty());
    agent.end().await;
    other.end().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_name_means_is_told() {
    let machine = Machine::new();
    let image = Image::of("app", &[b"base"]);
    machine.engine.store().tag("app:1", &image);
    let agent = machine.agent().await;
    let images = ["app:1", "app:2"].map(|name| ImageName { reference: name.to_owned(), platform: None });
    let mut request = ResolveRequest { images: images.to_vec(), registry: false };
    let here = agent.client.resolve(&request).await.unwrap();
    assert_eq!(here.iter().map(|it| it.clone()?.id).collect::<Vec<_>>(), [Some(image.id()), None]);
    request.registry = true;
    let there = agent.client.resolve(&request).await.unwrap();
    assert!(there.iter().all(|it| it.as_ref().is_some_and(|it| it.id.is_none() && it.digest.is_some())));
    agent.end().await;
}

#[tokio::test(start_paused = true)]
async fn without_a_control_plane_an_image_is_not_waited_for_without_end() {
    let machine = Machine::new();
    let image = Image::of("shop-web", &[b"base"]);
    let agent = machine.agent().await;
    agent.assign(&told(1, &built(&image), &[1])).await;
    let report = agent.until("refused", |report| refusal(report).is_some()).await;
    assert!(refusal(&report).unwrap().contains("has not said within 20 s which node has it"), "{report:?}");
    assert_eq!(
        agent.client.image(&image.id()).await.unwrap_err().to_string(),
        format!("there is no image `{}` on this node", image.id())
    );
    machine.engine.store().put(&image);
    assert_eq!(agent.client.image(&image.id()).await.unwrap().layers, image.digests());
    agent.end().await;
}
