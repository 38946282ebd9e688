//! Nodes over the API: what may be asked of them, by whom, and what is answered.

use serde_json::{Value, json};
use tug_api::Code;
use tug_model::NodeId;
use tug_model::node::{Capacity, Node, NodeInfo};

use super::super::bench::{Bench, shop};
use super::*;

async fn bench() -> Bench {
    let bench = Bench::in_memory().await.0;
    for id in ["n1", "n2"] {
        let (os, arch, hostname) = ("linux".into(), "amd64".into(), id.into());
        let (engine_version, agent_version) = ("28.0".into(), "0.1.0".into());
        let labels = [("disk".to_owned(), "hdd".to_owned())].into();
        let capacity = Capacity::default();
        let info =
            NodeInfo { hostname, os, arch, capacity, labels, engine_version, agent_version, address: None };
        let node = Node::new(NodeId::parse(id).unwrap(), info, Timestamp(1));
        commit_all(&bench, vec![Change::PutNode(Arc::new(node))]).await;
    }
    bench
}

async fn commit_all(bench: &Bench, changes: Vec<Change>) {
    bench.store.commit(Timestamp(1), move |_, _| changes).await.unwrap();
}

fn last_event(bench: &Bench) -> String {
    let state = bench.store.snapshot();
    let (_, event) = state.events.get_max().unwrap();
    format!("{}: {}", event.node.as_ref().unwrap(), event.message)
}

#[tokio::test(start_paused = true)]
async fn a_node_is_emptied_and_used_again() {
    let bench = bench().await;
    let path = "/v1/nodes/n1/availability";
    let drained = bench.json("PUT", path, &json!({"state": "drain", "deadline": 60_000})).await.value();
    assert_eq!(drained["node"]["availability"]["state"], json!("drain"));
    assert_eq!(drained["node"]["availability"]["deadline"], json!(60_000));
    assert_eq!(last_event(&bench), "n1: it is to be empty within 1m");
    let revision = bench.store.snapshot().revision;
    tokio::time::advance(std::time::Duration::from_secs(5)).await;
    let again = bench.json("PUT", path, &json!({"state": "drain", "deadline": 60_000})).await.value();
    assert_eq!(again["node"], drained["node"], "a drain that is asked for again began when it began");
    assert_eq!(bench.store.snapshot().revision, revision);
    let active = bench.json("PUT", path, &json!({"state": "active"})).await.value();
    assert_eq!(active["node"]["availability"], json!({"state": "active"}));
    assert_eq!(last_event(&bench), "n1: it is to have tasks again");
    assert_eq!(bench.get("/v1/nodes/n1").await.value(), active);
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn labels_are_set_and_removed_and_win_over_the_agents() {
    let bench = bench().await;
    let path = "/v1/nodes/n1/labels";
    let set = json!({"set": {"zone": "a", "disk": "ssd"}});
    assert_eq!(
        bench.json("PUT", path, &set).await.value()["node"]["labels"],
        json!({"zone": "a", "disk": "ssd"})
    );
    assert_eq!(last_event(&bench), "n1: its labels are now: disk=ssd, zone=a");
    let node = bench.store.snapshot().nodes.get(&NodeId::parse("n1").unwrap()).cloned().unwrap();
    assert_eq!(node.label("disk"), Some("ssd"));
    let removed = bench.json("PUT", path, &json!({"remove": ["disk", "zone", "nothing"]})).await.value();
    assert_eq!(removed["node"].get("labels"), None, "{removed}");
    assert_eq!(last_event(&bench), "n1: its labels are now: none");
    let wrong = bench.json("PUT", path, &json!({"set": {"": "x", "tug.a": "y"}})).await.error();
    assert_eq!((wrong.error.code, wrong.error.also.len()), (Code::Invalid, 1), "{wrong:?}");
    let many: Value =
        (0..65).map(|number| (format!("l{number}"), json!(""))).collect::<serde_json::Map<_, _>>().into();
    let many = bench.json("PUT", path, &json!({ "set": many })).await.error();
    assert_eq!(many.error.message, "a node has at most 64 labels");
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_node_with_something_on_it_is_removed_only_by_force() {
    let bench = bench().await;
    bench.apply(&shop()).await;
    let task = bench.task(1).await;
    let home = Change::PutHome { volume: "shop_data".into(), node: NodeId::parse("n1").unwrap() };
    commit_all(&bench, vec![home]).await;
    let refused = bench.json("DELETE", "/v1/nodes/n1", &json!(null)).await.error();
    assert_eq!(refused.error.code, Code::Conflict);
    assert_eq!(refused.error.message, format!("node n1 still has {task}, the data of volume shop_data"));
    bench.json("DELETE", "/v1/nodes/n1?force=true", &json!(null)).await.value();
    assert_eq!(
        last_event(&bench),
        format!("n1: removed from the cluster; given up: {task}, the data of volume shop_data")
    );
    let state = bench.store.snapshot();
    assert!(!state.nodes.contains_key(&NodeId::parse("n1").unwrap()) && state.homes.is_empty());
    bench.json("DELETE", "/v1/nodes/n2", &json!(null)).await.value();
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn who_is_not_there_is_said() {
    let bench = bench().await;
    let body = json!({"state": "active"});
    for (method, path) in [
        ("GET", "/v1/nodes/n3"),
        ("DELETE", "/v1/nodes/n3"),
        ("PUT", "/v1/nodes/n3/availability"),
        ("PUT", "/v1/nodes/n3/labels"),
    ] {
        let body = if path.ends_with("labels") { json!({}) } else { body.clone() };
        let error = bench.json(method, path, &body).await.error().error;
        assert_eq!(
            (error.code, error.hint.as_deref()),
            (Code::NotFound, Some("there is `n1`, `n2`")),
            "{path}"
        );
    }
    let strange = bench.json("PUT", "/v1/nodes/n1/availability", &json!({"state": "paused"})).await.error();
    assert_eq!(strange.error.code, Code::Invalid);
    bench.end().await;
}
