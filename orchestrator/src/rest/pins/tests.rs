//! What names of images come to mean, and when they come to mean something else.

use serde_json::{Value, json};
use tug_api::digest::digest_of;
use tug_model::Timestamp;

use super::*;
use crate::nodes::fake::FakeAgent;
use crate::rest::bench::{Bench, shop};

fn resolved(id: &str, digest: Option<&str>, tagged_at: u64) -> Resolved {
    Resolved {
        id: Some(digest_of(id.as_bytes())),
        digest: digest.map(|digest| digest_of(digest.as_bytes())),
        tagged_at: Timestamp(tagged_at),
    }
}

/// A control plane with two nodes.
async fn bench() -> (Bench, [FakeAgent; 2]) {
    let (bench, _disk) = Bench::in_memory().await;
    let agents = ["n1", "n2"].map(FakeAgent::new);
    for (agent, name) in agents.iter().zip(["n1", "n2"]) {
        bench.nodes.register(NodeId::parse(name).unwrap(), agent.channel());
    }
    bench.store.watch().wait_for(|state| state.nodes.len() == 2).await.unwrap();
    (bench, agents)
}

/// The id and the digest that the stored version has for a service.
fn pinned(bench: &Bench, service: &str) -> (Option<String>, Option<Digest>) {
    let state = bench.store.snapshot();
    let spec = &state.projects.values().next().unwrap().spec;
    let container = &spec.services.iter().find(|(name, _)| name.as_str() == service).unwrap().1.container;
    (container.image_id.clone(), container.image_digest.clone())
}

fn id(of: &str) -> String {
    digest(of).to_string()
}

fn digest(of: &str) -> Digest {
    digest_of(of.as_bytes())
}

async fn changed(bench: &Bench, spec: &Value) -> bool {
    let plan = bench.json("POST", "/v1/projects/shop/plan", &json!({ "spec": spec })).await.value();
    let accepted = bench.apply(spec).await.value()["changed"].as_bool().unwrap();
    let first = plan["base"].as_u64() == Some(0);
    let replaces = plan["services"].as_array().unwrap().iter().any(|service| service["action"] != "keep");
    assert!(first || replaces == accepted, "what is planned is what is done: {plan}");
    accepted
}

#[tokio::test(start_paused = true)]
async fn a_version_is_pinned_and_only_an_image_that_is_another_one_makes_the_next() {
    let (bench, [a, b]) = bench().await;
    a.behave(|it| {
        it.names.insert("hello:1".into(), resolved("hello", None, 5));
        it.names.insert("postgres:17".into(), resolved("postgres", Some("postgres at the hub"), 3));
    });
    b.behave(|it| {
        it.names.insert("hello:1".into(), resolved("hello, newer", None, 9));
        it.registry.insert("watcher".into(), digest_of(b"watcher at the hub"));
    });
    assert!(changed(&bench, &shop()).await);
    assert_eq!(
        pinned(&bench, "web"),
        (Some(id("hello, newer")), None),
        "of two, the one that was named last"
    );
    assert_eq!(pinned(&bench, "db"), (Some(id("postgres")), Some(digest("postgres at the hub"))));
    assert_eq!(pinned(&bench, "watcher"), (None, Some(digest("watcher at the hub"))));
    assert!(!changed(&bench, &shop()).await);

    // The registry has another one by now, which nobody has asked for; the nodes are away, or have been tidied up.
    b.behave(|it| {
        it.registry.insert("watcher".into(), digest_of(b"watcher, newer"));
        it.names.clear();
    });
    a.behave(|it| it.names.clear());
    assert!(!changed(&bench, &shop()).await);

    // Somebody has built it anew.
    b.behave(|it| drop(it.names.insert("hello:1".into(), resolved("hello, newest", None, 11))));
    assert!(changed(&bench, &shop()).await);
    assert_eq!(pinned(&bench, "web"), (Some(id("hello, newest")), None));

    // Another tag is another image, whatever is known of the one before.
    let mut other = shop();
    other["services"]["watcher"]["container"]["image"] = json!("watcher:2");
    assert!(changed(&bench, &other).await);
    assert_eq!(pinned(&bench, "watcher"), (None, None), "each node finds out for itself");
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn the_registry_is_asked_first_where_that_is_wanted_and_never_where_it_is_not() {
    let (bench, [a, b]) = bench().await;
    for agent in [&a, &b] {
        agent.behave(|it| {
            for name in ["hello:1", "postgres:17", "watcher"] {
                it.registry.insert(name.into(), digest_of(format!("{name} at the hub").as_bytes()));
            }
        });
    }
    a.behave(|it| drop(it.names.insert("hello:1".into(), resolved("hello", Some("old"), 5))));
    let mut spec = shop();
    spec["services"]["web"]["container"]["pull_policy"] = json!("always");
    spec["services"]["db"]["container"]["pull_policy"] = json!("never");
    assert!(changed(&bench, &spec).await);
    assert_eq!(pinned(&bench, "web"), (None, Some(digest("hello:1 at the hub"))));
    assert_eq!(pinned(&bench, "db"), (None, None));
    assert_eq!(pinned(&bench, "watcher"), (None, Some(digest("watcher at the hub"))));

    // It has moved: that is what `always` is for.
    for agent in [&a, &b] {
        agent.behave(|it| drop(it.registry.insert("hello:1".into(), digest_of(b"moved"))));
    }
    assert!(changed(&bench, &spec).await);
    assert_eq!(pinned(&bench, "web"), (None, Some(digest("moved"))));
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn what_the_user_has_pinned_stays_so_and_without_nodes_names_stay_names() {
    let (bench, _disk) = Bench::in_memory().await;
    let mut spec = shop();
    let built = digest_of(b"built").to_string();
    spec["services"]["web"]["container"]["image_id"] = json!(built);
    assert!(changed(&bench, &spec).await);
    assert_eq!((pinned(&bench, "web"), pinned(&bench, "db")), ((Some(built), None), (None, None)));
    bench.end().await;
}
