//! From one agent to another: what moves, what does not, and what happens when it breaks off.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Router;
use axum::extract::Path;
use axum::routing::{get, post};
use tug_api::digest::digest_of;
use tug_api::image::{Part, PartsWanted, Preparation, Shape};
use tug_api::lines;
use tug_model::{Bytes, Digest};

use super::world::{Node, Relay};
use crate::image::fake::Image;
use crate::image::{FetchError, Otherwise};
use crate::proxy::tests::cluster::Authority;

/// So many bytes that no two pieces are alike.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    (0..len).map(|_| next()).collect()
}

/// What TLS and HTTP add to a connection, at most.
const OVERHEAD: u64 = 24 << 10;

#[tokio::test]
async fn an_image_reaches_another_node_and_of_the_next_one_only_what_is_new() {
    let authority = Authority::new();
    let (a, b) = (Node::start(&authority, "a").await, Node::start(&authority, "b").await);
    let base = noise(1, 3 << 20);
    let first = Image::of("first", &[&base, b"one", &base]);
    let second = Image::of("second", &[&base, b"two"]);
    a.engine.store().put(&first);
    a.engine.store().put(&second);
    let relay = Relay::start(&a.address, || u64::MAX).await;

    b.may_have(&first.id(), &[(&a, &relay.address)]);
    b.fetch(&first.id()).await.unwrap();
    assert_eq!(b.engine.store().get(&first.id()), Some(first.clone()));
    let moved = relay.bytes.swap(0, Ordering::Relaxed);
    let size = base.len() as u64;
    assert!(
        (size..size + size / 50 + OVERHEAD).contains(&moved),
        "the layer that is there twice came once: {moved}"
    );
    let said = b.said.lock().unwrap().clone();
    assert!(said.iter().any(|text| text.ends_with(" of 3.0 MiB from node a")), "{said:?}");
    assert!(b.spooled().is_empty(), "{:?}", b.spooled());

    b.may_have(&second.id(), &[(&a, &relay.address)]);
    b.fetch(&second.id()).await.unwrap();
    assert_eq!(b.engine.store().get(&second.id()), Some(second.clone()));
    assert_eq!(b.engine.store().loads()[1], [digest_of(b"two")]);
    let moved = relay.bytes.load(Ordering::Relaxed);
    assert!(moved < OVERHEAD, "{moved}");
    assert!(b.images.lacks().is_empty());
}

#[tokio::test]
async fn a_connection_that_breaks_again_and_again_costs_little_more_than_none() {
    let authority = Authority::new();
    let (a, b) = (Node::start(&authority, "a").await, Node::start(&authority, "b").await);
    let image = Image::of("large", &[&noise(2, 2 << 20), &noise(3, 700_000), b"small"]);
    a.engine.store().put(&image);
    let mut dice = noise(4, 1 << 16).into_iter();
    let relay = Relay::start(&a.address, move || {
        u64::from(dice.next().unwrap()) * 1_500 + u64::from(dice.next().unwrap())
    });
    let relay = relay.await;
    b.may_have(&image.id(), &[(&a, &relay.address)]);
    b.fetch(&image.id()).await.unwrap();
    assert_eq!(b.engine.store().get(&image.id()), Some(image.clone()));
    let (moved, connections) =
        (relay.bytes.load(Ordering::Relaxed), relay.connections.load(Ordering::Relaxed));
    assert!(connections >= 8, "it never broke: {connections}");
    // What was on its way when a connection broke may come twice, and nothing else.
    let most = image.size() + connections * (OVERHEAD + (64 << 10));
    assert!(moved < most, "{moved} of {} over {connections} connections", image.size());
    assert_eq!(a.engine.store().exports(), 1);
}

#[tokio::test]
async fn an_agent_that_begins_anew_goes_on_where_the_last_one_broke_off() {
    let authority = Authority::new();
    let (a, b) = (Node::start(&authority, "a").await, Node::start(&authority, "b").await);
    let image = Image::of("large", &[&noise(5, 4 << 20)]);
    a.engine.store().put(&image);
    let mut first = true;
    let relay = Relay::start(&a.address, move || if std::mem::take(&mut first) { 3 << 20 } else { 0 }).await;
    b.may_have(&image.id(), &[(&a, &relay.address)]);
    let error = b.fetch(&image.id()).await.unwrap_err();
    assert!(matches!(&error, FetchError::Failed(reason) if reason.starts_with("node a: ")), "{error:?}");
    let half = b.spooled()[&format!("{}.part", image.digests()[0].hex())];
    assert!(half > 2 << 20, "{half}");

    // Another agent, on the same disk.
    let (member, runtime) = (b.images.member.clone(), Arc::new(b.engine.clone()));
    let again = crate::image::Images::new(runtime, member, b.folder.path().join("images"));
    let relay = Relay::start(&a.address, || u64::MAX).await;
    b.may_have(&image.id(), &[(&a, &relay.address)]);
    again.tell(tug_api::image::Exchange {
        sources: [(
            image.id(),
            vec![tug_api::image::Source { node: a.id.clone(), address: relay.address.clone() }],
        )]
        .into(),
        ..Default::default()
    });
    again.fetch(&image.id(), Otherwise::Nothing, &|_| {}).await.unwrap();
    assert_eq!(b.engine.store().get(&image.id()), Some(image.clone()));
    let moved = relay.bytes.load(Ordering::Relaxed);
    assert!(moved < image.size() - half + image.size() / 50 + OVERHEAD, "{moved}");
}

#[tokio::test]
async fn many_nodes_get_one_image_from_one_export() {
    let authority = Authority::new();
    let a = Node::start(&authority, "a").await;
    let image = Image::of("wanted", &[&noise(6, 1 << 20), &noise(7, 100_000)]);
    a.engine.store().put(&image);
    let mut others = Vec::new();
    for number in 0..6 {
        let node = Node::start(&authority, &format!("b{number}")).await;
        node.may_have(&image.id(), &[(&a, &a.address)]);
        others.push(node);
    }
    let id = image.id();
    let fetched = futures_util::future::join_all(others.iter().map(|node| node.fetch(&id))).await;
    for (node, fetched) in others.iter().zip(fetched) {
        fetched.unwrap();
        assert!(node.engine.store().has(&image.id()));
    }
    assert_eq!(a.engine.store().exports(), 1);
}

#[tokio::test]
async fn an_engine_that_wants_all_of_an_image_gets_all_of_it() {
    let authority = Authority::new();
    let (a, b) = (Node::start(&authority, "a").await, Node::start(&authority, "b").await);
    let image = Image::of("image", &[b"base", b"top"]);
    a.engine.store().put(&image);
    b.engine.store().put(&Image::of("other", &[b"base"]));
    b.engine.store().take_only_whole();
    b.may_have(&image.id(), &[(&a, &a.address)]);
    b.fetch(&image.id()).await.unwrap();
    assert_eq!(b.engine.store().get(&image.id()), Some(image));
}

#[tokio::test]
async fn nobody_gets_an_image_that_is_not_for_him() {
    let authority = Authority::new();
    let (a, b) = (Node::start(&authority, "a").await, Node::start(&authority, "b").await);
    let (ours, secret) = (Image::of("ours", &[b"base"]), Image::of("secret", &[b"base", b"secret"]));
    a.engine.store().put(&ours);
    a.engine.store().put(&secret);
    b.may_have(&ours.id(), &[(&a, &a.address)]);
    let member = b.images.member.borrow().clone().unwrap();
    let client = |node: &str| {
        let config = tug_api::tls::client_config(&member.authority_pem, Some(&member.credentials)).unwrap();
        let name = tug_api::tls::node_name(&tug_model::NodeId::parse(node).unwrap()).unwrap();
        let server = tug_api::transport::TlsServer { addresses: vec![a.address.clone()], name, config };
        tug_api::image::ImageClient::new(tug_api::transport::Channel::tls(server))
    };
    assert!(client("a").shape(&ours.id()).await.is_ok());
    let refused = |error: tug_api::client::CallError| {
        let tug_api::client::CallError::Api(error) = error else { panic!("{error:?}") };
        error.code
    };
    assert_eq!(refused(client("a").shape(&secret.id()).await.unwrap_err()), tug_api::Code::Forbidden);
    let wanted = PartsWanted { layers: [digest_of(b"secret")].into() };
    let error = client("a").prepare(&ours.id(), &wanted).await.map(drop).unwrap_err();
    assert_eq!(refused(error), tug_api::Code::NotFound);
    // It is in the spool for somebody else, and still not for this one.
    let all: BTreeSet<Digest> = secret.digests().into_iter().collect();
    a.images
        .exports
        .begin(&secret.id(), &all)
        .wait_for(|export| !matches!(export, crate::image::prepare::Export::Going(_)))
        .await
        .unwrap();
    for part in [&digest_of(b"secret"), &secret.id()] {
        let error = client("a").part(&ours.id(), part, 0).await.map(drop).unwrap_err();
        assert_eq!(refused(error), tug_api::Code::NotFound);
    }
    // A node that another one only pretends to be is not asked for anything.
    assert!(client("c").shape(&ours.id()).await.is_err());
}

#[tokio::test]
async fn an_image_that_is_nowhere_is_said_to_be() {
    let authority = Authority::new();
    let b = Node::start(&authority, "b").await;
    let image = Image::of("image", &[b"base"]);
    b.may_have(&image.id(), &[]);
    assert!(matches!(b.fetch(&image.id()).await, Err(FetchError::Nowhere)));
    assert!(b.images.lacks().is_empty());
}

/// How another node lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lie {
    OtherLayer,
    LongerLayer,
    ShorterLayer,
    OtherConfig,
    OtherShape,
    OtherParts,
}

fn liar(image: &Image, lie: Lie) -> Router {
    let image = image.clone();
    let shape = {
        let mut layers = image.digests();
        if lie == Lie::OtherShape {
            layers.push(digest_of(b"more"));
        }
        Shape { layers, size: Bytes(1), platform: String::new() }
    };
    let content = move |image: &Image, digest: &Digest| -> Vec<u8> {
        let mut content =
            image.layers.iter().chain([&image.config]).find(|one| digest_of(one) == *digest).unwrap().clone();
        let is_config = *digest == image.id();
        match lie {
            Lie::OtherLayer if !is_config => content[0] ^= 1,
            Lie::OtherConfig if is_config => content[0] ^= 1,
            Lie::LongerLayer if !is_config => content.push(0),
            Lie::ShorterLayer if !is_config => drop(content.pop()),
            Lie::OtherLayer
            | Lie::OtherConfig
            | Lie::LongerLayer
            | Lie::ShorterLayer
            | Lie::OtherShape
            | Lie::OtherParts => {}
        }
        content
    };
    let (listed, given) = (image.clone(), image);
    Router::new()
        .route("/images/{id}", get(move || std::future::ready(axum::Json(shape.clone()))))
        .route(
            "/images/{id}/parts",
            post(move |axum::Json(wanted): axum::Json<PartsWanted>| async move {
                let mut asked: Vec<Digest> = wanted.layers.into_iter().chain([listed.id()]).collect();
                if lie == Lie::OtherParts {
                    asked.push(digest_of(b"../../etc"));
                }
                let size = |digest: &Digest| {
                    let all = listed.layers.iter().chain([&listed.config]);
                    all.filter(|one| digest_of(one) == *digest).map(|one| one.len() as u64).sum()
                };
                let parts = asked
                    .iter()
                    .map(|digest| Part { digest: digest.clone(), size: Bytes(size(digest)) })
                    .collect();
                lines::response(futures_util::stream::iter([Preparation::Ready { parts }]))
            }),
        )
        .route(
            "/images/{id}/parts/{part}",
            get(move |Path((_, part)): Path<(String, String)>| async move {
                content(&given, &Digest::parse(&part).unwrap())
            }),
        )
}

#[tokio::test]
async fn of_a_node_that_lies_nothing_is_taken_and_another_one_is_asked() {
    let authority = Authority::new();
    let honest = Node::start(&authority, "honest").await;
    let image = Image::of("image", &[b"a layer that is long enough", b"top"]);
    honest.engine.store().put(&image);
    for lie in [
        Lie::OtherLayer,
        Lie::LongerLayer,
        Lie::ShorterLayer,
        Lie::OtherConfig,
        Lie::OtherShape,
        Lie::OtherParts,
    ] {
        let liar = Node::serving(&authority, "liar", Some(liar(&image, lie))).await;
        let b = Node::start(&authority, "b").await;
        b.may_have(&image.id(), &[(&liar, &liar.address)]);
        let error = b.fetch(&image.id()).await.unwrap_err();
        assert!(matches!(&error, FetchError::Failed(_)), "{lie:?}: {error:?}");
        assert!(b.engine.store().loads().is_empty() && !b.engine.store().has(&image.id()), "{lie:?}");

        b.may_have(&image.id(), &[(&liar, &liar.address), (&honest, &honest.address)]);
        b.fetch(&image.id()).await.unwrap();
        assert_eq!(b.engine.store().get(&image.id()).as_ref(), Some(&image), "{lie:?}");
    }
}
