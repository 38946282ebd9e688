//! Everything that may be asked, and everything that must not.

mod raw;
mod wrong;

use std::time::Duration;

use axum::body::{Body, Bytes};
use http::Request;
use serde_json::{Value, json};
use tug_api::Code;

use super::bench::{Answer, Bench, node, request, shop};

fn web(spec: &mut Value) -> &mut Value {
    &mut spec["services"]["web"]
}

fn container(spec: &mut Value) -> &mut Value {
    &mut spec["services"]["web"]["container"]
}

fn assert_error(answer: &Answer, status: u16, code: Code, what: &str) {
    assert_eq!((answer.status.as_u16(), answer.error().error.code), (status, code), "{what}: {answer:?}");
}

#[expect(clippy::too_many_lines, reason = "a table")]
#[tokio::test]
async fn hostile_requests_get_their_error_and_change_nothing() {
    let bench = Bench::new().await;
    assert_eq!(bench.apply(&shop()).await.status, 200);
    let before = bench.store.snapshot();
    let scale = "/v1/projects/shop/scale";
    let with = |name: &str, value: &str| {
        let mut request = request("POST", scale, &json!({ "replicas": { "web": 9 } }));
        request.headers_mut().insert(
            http::HeaderName::from_bytes(name.as_bytes()).unwrap(),
            http::HeaderValue::from_bytes(value.as_bytes()).unwrap(),
        );
        request
    };
    let raw = |body: String| {
        let mut request = request("POST", scale, &Value::Null);
        *request.body_mut() = Body::from(body);
        request
    };
    let endless = || {
        let chunk = Bytes::from(vec![b' '; 1 << 20]);
        Body::from_stream(futures_util::stream::repeat_with(move || Ok::<_, std::io::Error>(chunk.clone())))
    };
    let lying = {
        let mut request = with("content-length", "5");
        *request.body_mut() = endless();
        request
    };
    let chunked = {
        let mut request = raw(String::new());
        *request.body_mut() = endless();
        request
    };
    let untyped = {
        let mut request = raw("{}".into());
        request.headers_mut().remove("content-type");
        request
    };
    let plain =
        |method: &str, path: &str| Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
    let replicas = |value: &str| raw(format!("{{\"replicas\":{{\"web\":{value}}}}}"));
    let table = vec![
        (with("content-length", "1073741824"), 413, Code::TooLarge),
        (lying, 413, Code::TooLarge),
        (chunked, 413, Code::TooLarge),
        (with("content-encoding", "gzip"), 415, Code::UnsupportedMediaType),
        (with("content-type", "application/x-www-form-urlencoded"), 415, Code::UnsupportedMediaType),
        (untyped, 415, Code::UnsupportedMediaType),
        (with("if-revision", "soon"), 400, Code::BadRequest),
        (with("if-revision", "-1"), 400, Code::BadRequest),
        (with("idempotency-key", ""), 400, Code::BadRequest),
        (with("idempotency-key", &"k".repeat(129)), 400, Code::BadRequest),
        (with("if-revision", "0"), 409, Code::Conflict),
        (with("if-revision", "812"), 409, Code::Conflict),
        (replicas("NaN"), 400, Code::JsonSyntax),
        (replicas("1e999"), 400, Code::JsonSyntax),
        (raw("{\"replicas\":{\"web\":1,\"web\":2}}".into()), 400, Code::JsonSyntax),
        (raw("{\"replicas\":{}} trailing".into()), 400, Code::JsonSyntax),
        (raw("[".repeat(100_000)), 400, Code::JsonSyntax),
        (raw("{\"replicas\":{\"\\ud800\":1}}".into()), 400, Code::JsonSyntax),
        (raw(String::new()), 400, Code::JsonSyntax),
        (replicas("-1"), 422, Code::Invalid),
        (replicas("10001"), 422, Code::Invalid),
        (replicas("\"5\""), 422, Code::Invalid),
        (raw("{\"replicas\":{\"wbe\":1}}".into()), 422, Code::Invalid),
        (raw("{\"replicas\":{\"watcher\":1}}".into()), 422, Code::Invalid),
        (raw("{\"replica\":{}}".into()), 422, Code::Invalid),
        (request("POST", "/v1/projects/nope/scale", &json!({ "replicas": {} })), 404, Code::NotFound),
        (request("POST", "/v1/projects/shop/restart", &json!({ "services": ["wbe"] })), 422, Code::Invalid),
        (request("PUT", "/v1/projects/other", &json!({ "spec": shop() })), 422, Code::Invalid),
        (plain("DELETE", "/v1/projects/nope"), 404, Code::NotFound),
        (plain("GET", "/v1/projects/nope"), 404, Code::NotFound),
        (plain("GET", "/v1/projects/sho"), 404, Code::NotFound),
        (plain("GET", "/v1/projects/nope/status"), 404, Code::NotFound),
        (plain("GET", "/v1/projects/shop/services/nope/why"), 404, Code::NotFound),
        (plain("POST", "/v1/projects/shop/services/nope/exec"), 404, Code::NotFound),
        (plain("POST", "/v1/projects/nope/services/web/exec"), 404, Code::NotFound),
        (plain("POST", "/v1/projects/shop/services/web/exec"), 503, Code::Unavailable),
        (plain("POST", "/v1/projects/shop/services/web/exec?slot=-1"), 422, Code::Invalid),
        (plain("GET", "/v1/logs?names=nope"), 404, Code::NotFound),
        (plain("GET", "/v1/logs?names=shop/nope"), 404, Code::NotFound),
        (plain("GET", "/v1/logs?names=sh%20op"), 422, Code::Invalid),
        (plain("GET", "/v1/logs?tail=-1"), 422, Code::Invalid),
        (plain("GET", "/v1/logs?nmaes=shop"), 422, Code::Invalid),
        (plain("GET", "/v1/watch?since=99999"), 400, Code::FutureRevision),
        (plain("GET", "/v1/watch?since=x"), 422, Code::Invalid),
        (plain("GET", "/v1/events?limit=-1"), 422, Code::Invalid),
        (plain("GET", "/v1/events?limit=0"), 422, Code::Invalid),
        (plain("GET", "/v1/events?limit=1000000000000"), 422, Code::Invalid),
        (plain("GET", "/v1/events?project=nope"), 404, Code::NotFound),
        (plain("GET", "/v1/link?node=n1"), 400, Code::BadRequest),
        (plain("GET", "/v1/link?node=N1"), 422, Code::Invalid),
        (plain("GET", "/v1/link"), 422, Code::Invalid),
        (plain("GET", "/v1/projects/%2e%2e"), 422, Code::Invalid),
        (plain("GET", "/v1/projects/a%00"), 422, Code::Invalid),
        (plain("GET", "/v1/projects/%ff"), 400, Code::BadRequest),
        (plain("GET", "/v1/projects/a%2Fb"), 422, Code::Invalid),
        (plain("GET", "//v1/info"), 404, Code::NotFound),
        (plain("GET", "/v1/../v1/info"), 404, Code::NotFound),
        (plain("GET", "/v1/secrets/db"), 404, Code::NotFound),
        (plain("GET", &format!("/v1/{}", "a".repeat(60_000))), 400, Code::BadRequest),
        (plain("PATCH", "/v1/projects/shop"), 405, Code::MethodNotAllowed),
        (plain("TRACE", "/v1/info"), 405, Code::MethodNotAllowed),
    ];
    for (request, status, code) in table {
        let what = format!("{} {:.80}", request.method(), request.uri().to_string());
        assert_error(&bench.ask(request).await, status, code, &what);
        assert!(std::sync::Arc::ptr_eq(&bench.store.snapshot(), &before), "{what} changed something");
    }
    let hint = bench.json("POST", scale, &json!({ "replicas": { "wbe": 1 } })).await.error().error.hint;
    assert_eq!(hint.as_deref(), Some("it has `db`, `watcher`, `web`"));
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_is_given_up() {
    let (bench, _) = Bench::in_memory().await;
    let mut request = request("POST", "/v1/projects/shop/scale", &Value::Null);
    *request.body_mut() = Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::io::Error>>());
    assert_error(&bench.ask(request).await, 408, Code::Timeout, "slow");
    bench.end().await;
}

#[tokio::test]
async fn a_project_is_accepted_scaled_restarted_and_removed() {
    let bench = Bench::new().await;
    let accepted = bench.apply(&shop()).await.value();
    assert_eq!(accepted, json!({ "revision": 1, "number": 1, "changed": true }));
    let again = bench.apply(&shop()).await.value();
    assert_eq!(again, json!({ "revision": 1, "number": 1, "changed": false }));
    assert_eq!(bench.store.snapshot().revision.0, 1);

    let three =
        bench.json("POST", "/v1/projects/shop/scale", &json!({ "replicas": { "web": 3 } })).await.value();
    assert_eq!(three["changed"], json!(false));
    let five =
        bench.json("POST", "/v1/projects/shop/scale", &json!({ "replicas": { "web": 5 } })).await.value();
    assert_eq!(five, json!({ "revision": 2, "number": 2, "changed": true }));
    let asked =
        bench.json("POST", "/v1/projects/shop/restart", &json!({ "services": ["web"] })).await.value();
    assert_eq!(asked["number"], json!(3));
    let stored = bench.get("/v1/projects/shop").await.value();
    assert_eq!(stored["spec"]["services"]["web"]["deploy"]["mode"]["replicated"], json!(5));
    assert_eq!(stored["spec"]["services"]["web"]["restarts_asked"], json!(1));
    assert_eq!(stored["revision"], json!(3));

    let back = bench.apply(&shop()).await.value();
    assert_eq!(back["number"], json!(4));
    let web = bench.get("/v1/projects/shop").await.value()["spec"]["services"]["web"].clone();
    assert_eq!(web["deploy"]["mode"]["replicated"], json!(3), "the manifest says three");
    assert_eq!(web["restarts_asked"], json!(1), "an earlier restart is no reason for another one");

    let removed = bench.ask(Request::delete("/v1/projects/shop").body(Body::empty()).unwrap()).await.value();
    assert_eq!(removed, json!({ "revision": 5, "number": null, "changed": true }));
    assert_eq!(bench.get("/v1/projects/shop").await.status, 404);
    let events = bench.get("/v1/events?project=shop").await.value();
    let messages: Vec<&str> =
        events.as_array().unwrap().iter().map(|event| event["message"].as_str().unwrap()).collect();
    assert_eq!(
        messages,
        [
            "accepted: 3 services",
            "scaled: web 3 → 5",
            "restart asked for: web",
            "version 4 accepted: changed web",
            "removed; its volumes stay"
        ]
    );
    assert_eq!(bench.get("/v1/events?limit=1").await.value().as_array().unwrap().len(), 1);
    bench.end().await;
}

#[tokio::test]
async fn the_same_request_acts_once_and_another_one_under_its_key_not_at_all() {
    let bench = Bench::new().await;
    let keyed = |spec: &Value| {
        let mut request = request("PUT", "/v1/projects/shop", &json!({ "spec": spec }));
        request.headers_mut().insert("idempotency-key", http::HeaderValue::from_static("key-1"));
        request
    };
    let first = bench.ask(keyed(&shop())).await.value();
    let mut other = shop();
    container(&mut other)["image"] = json!("hello:2");
    assert_eq!(bench.apply(&other).await.value()["number"], json!(2));
    let replayed = bench.ask(keyed(&shop())).await.value();
    assert_eq!(replayed, first, "the same answer, and no way back to what was asked then");
    assert_eq!(bench.store.snapshot().revision.0, 2);
    assert_error(&bench.ask(keyed(&other)).await, 422, Code::IdempotencyMismatch, "another request");
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_idempotency_key_is_kept_for_a_day() {
    let (bench, _) = Bench::in_memory().await;
    let keyed = |replicas: u32| {
        let body = json!({ "replicas": { "web": replicas } });
        let mut request = request("POST", "/v1/projects/shop/scale", &body);
        request.headers_mut().insert("idempotency-key", http::HeaderValue::from_static("key-1"));
        request
    };
    bench.apply(&shop()).await.value();
    let first = bench.ask(keyed(5)).await.value();
    tokio::time::sleep(Duration::from_secs(86_000)).await;
    assert_eq!(bench.ask(keyed(5)).await.value(), first);
    tokio::time::sleep(Duration::from_secs(1_000)).await;
    assert_eq!(bench.ask(keyed(7)).await.value()["changed"], json!(true));
    bench.end().await;
}

#[tokio::test]
async fn a_change_is_made_only_on_the_revision_that_it_was_meant_for() {
    let bench = Bench::new().await;
    let at = |revision: &'static str| {
        let mut request = request("PUT", "/v1/projects/shop", &json!({ "spec": shop() }));
        request.headers_mut().insert("if-revision", http::HeaderValue::from_static(revision));
        request
    };
    assert_error(&bench.ask(at("4")).await, 409, Code::Conflict, "there is none");
    assert_eq!(bench.ask(at("0")).await.status, 200);
    let error = bench.ask(at("0")).await.error().error;
    assert!(error.message.contains("at revision 1"), "{}", error.message);
    assert_eq!(bench.ask(at("1")).await.status, 200);
    bench.end().await;
}

#[tokio::test]
async fn a_port_of_another_project_is_refused_with_its_owner() {
    let bench = Bench::new().await;
    bench.apply(&shop()).await.value();
    let mut other = shop();
    other["name"] = json!("blog");
    let answer = bench.apply(&other).await;
    assert_error(&answer, 409, Code::Conflict, "port");
    let error = answer.error().error;
    assert!(error.message.contains("shop") && error.message.contains("8080"), "{}", error.message);
    assert_eq!(error.field.as_deref(), Some("spec.services.web.ports[0]"));
    assert_eq!(bench.store.snapshot().revision.0, 1);

    web(&mut other)["ports"][0] = json!({ "target": 80 });
    bench.apply(&other).await.value();
    let stored = bench.get("/v1/projects/blog").await.value();
    let chosen = stored["spec"]["services"]["web"]["ports"][0]["published"].as_u64();
    assert!(chosen.is_some_and(|port| port != 8080), "{chosen:?}");
    assert_eq!(bench.apply(&other).await.value()["changed"], json!(false), "the number stays");
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_is_told_and_what_makes_room_still_works() {
    let (bench, disk) = Bench::in_memory().await;
    bench.apply(&shop()).await.value();
    disk.limit(Some(disk.used()));
    let mut other = shop();
    other["name"] = json!("blog");
    web(&mut other)["ports"] = json!([]);
    let mut refused = bench.apply(&other).await;
    for _ in 0..10_000 {
        if !refused.status.is_success() {
            break;
        }
        // What the store keeps back for this moment has to be used up first.
        other["name"] = json!(format!("blog{}", bench.store.snapshot().revision));
        refused = bench.apply(&other).await;
    }
    assert_error(&refused, 507, Code::StoreFull, "full");
    assert_eq!(bench.get("/v1/projects/shop").await.status, 200);
    let removed = bench.ask(Request::delete("/v1/projects/shop").body(Body::empty()).unwrap()).await;
    assert_eq!(removed.status, 200, "{removed:?}");
    bench.end().await;
}

#[tokio::test]
async fn it_says_how_it_is() {
    let bench = Bench::new().await;
    assert_eq!(bench.get("/healthz").await.text, "ok\n");
    assert_eq!(bench.get("/readyz").await.text, "ok\n");
    bench.apply(&shop()).await.value();
    let info = bench.get("/v1/info").await.value();
    assert_eq!((&info["cluster"], &info["revision"]), (&json!("c1"), &json!(1)));
    let metrics = bench.get("/metrics").await;
    for line in [
        "tug_revision 1",
        "tug_projects 1",
        r#"tug_commits_total{result="ok"} 1"#,
        r#"tug_requests_total{route="/v1/projects/{project}",method="PUT",status="200"} 1"#,
    ] {
        assert!(metrics.text.lines().any(|found| found == line), "{line} is missing in\n{}", metrics.text);
    }
    let document = bench.get("/v1/openapi.json").await.value();
    assert_eq!(document["info"]["title"], json!("Tug"));
    bench.closing.cancel();
    assert_error(&bench.get("/readyz").await, 503, Code::Unavailable, "shutting down");
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_watch_of_what_is_no_longer_kept_is_told_so() {
    let (bench, _) = Bench::in_memory().await;
    bench.apply(&shop()).await.value();
    for _ in 0..4_200 {
        let nothing = |_, _: &_| vec![crate::store::Change::RemoveNode(node())];
        let committed = bench.store.commit(tug_model::Timestamp(1), nothing).await;
        committed.unwrap();
    }
    assert_error(&bench.get("/v1/watch?since=1").await, 410, Code::Compacted, "long ago");
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn logs_are_followed_over_a_broken_link_and_into_new_tasks() {
    use futures_util::StreamExt;
    use tug_api::user::LogRecord;
    let (bench, _) = Bench::in_memory().await;
    let agent = crate::nodes::fake::FakeAgent::new("n1");
    bench.apply(&shop()).await.value();
    let first = bench.task(1).await;
    assert_error(&bench.get("/v1/logs?names=shop").await, 503, Code::Unavailable, "its node is away");
    assert_error(
        &bench.ask(request("POST", "/v1/projects/shop/services/web/exec", &Value::Null)).await,
        503,
        Code::Unavailable,
        "nothing runs",
    );

    bench.nodes.register(node(), agent.channel());
    agent.write(&first, 10, "one");
    agent.write(&first, 10, "two");
    let response =
        bench.send(Request::get("/v1/logs?names=shop/web&follow=true").body(Body::empty()).unwrap());
    let mut lines =
        tug_api::lines::read::<LogRecord>(response.await.into_body()).map(|line| line.unwrap().line);
    assert_eq!((lines.next().await.unwrap(), lines.next().await.unwrap()), ("one".into(), "two".into()));

    // The agent's stream has ended; what it has by now is asked for again, and nothing comes twice.
    agent.write(&first, 10, "three");
    assert_eq!(lines.next().await.unwrap(), "three");
    let second = bench.task(2).await;
    agent.write(&second, 5, "of a new task");
    assert_eq!(lines.next().await.unwrap(), "of a new task");
    agent.behave(|it| it.is_silent = true);
    tokio::time::sleep(Duration::from_secs(30)).await;
    agent.behave(|it| it.is_silent = false);
    agent.write(&first, 11, "after the break");
    bench.nodes.register(node(), agent.channel());
    assert_eq!(lines.next().await.unwrap(), "after the break");
    bench.closing.cancel();
    assert_eq!(lines.next().await, None);
    bench.end().await;
}
