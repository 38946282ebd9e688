//! Everything that may be asked, and everything that must not.

use std::time::Duration;

use axum::body::{Body, Bytes};
use http::Request;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tug_api::Code;

use super::bench::{Answer, Bench, node, request, shop};

/// What is changed in [`shop`] to make it wrong, where that is said, and a part of what is said.
type Wrong = (fn(&mut Value), &'static str, &'static str);

/// A socket on which the API is served, for clients that are no clients.
struct Socket {
    folder: TempDir,
    stop: CancellationToken,
    serving: JoinHandle<std::io::Result<()>>,
}

// === impl Socket ===

impl Socket {
    fn of(bench: &Bench) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("tug.sock")).unwrap();
        let stop = CancellationToken::new();
        let serving = tokio::spawn(tug_api::serve::unix(listener, bench.router.clone(), stop.clone()));
        Self { folder, stop, serving }
    }

    /// A connection over which this was said.
    async fn send(&self, bytes: &[u8]) -> UnixStream {
        let mut stream = UnixStream::connect(self.folder.path().join("tug.sock")).await.unwrap();
        // The server may have answered and hung up before it has all of it.
        let _sent = stream.write_all(bytes).await;
        stream
    }

    /// What is answered until the connection ends.
    async fn rest_of(mut stream: UnixStream) -> String {
        let mut answer = Vec::new();
        let read = timeout(Duration::from_secs(30), stream.read_to_end(&mut answer));
        let _closed = read.await.expect("the connection stays open");
        String::from_utf8_lossy(&answer).into_owned()
    }

    async fn end(self) {
        self.stop.cancel();
        self.serving.await.unwrap().unwrap();
    }
}

fn web(spec: &mut Value) -> &mut Value {
    &mut spec["services"]["web"]
}

fn container(spec: &mut Value) -> &mut Value {
    &mut spec["services"]["web"]["container"]
}

#[expect(clippy::too_many_lines, reason = "a table")]
fn wrong() -> Vec<Wrong> {
    vec![
        (|s| s["services"] = json!({}), "spec.services", "at least one"),
        (|s| s["services"]["A b"] = json!({}), "spec.services.A b", "service name"),
        (|s| s["services"][".."] = json!({}), "spec.services...", "service name"),
        (|s| s["services"]["localhost"] = json!({}), "spec.services.localhost", "reserved"),
        (|s| s["services"]["\u{1b}[1m"] = json!({}), "spec.services.\\u{1b}[1m", "u{1b}"),
        (|s| s["imgae"] = json!(1), "spec.imgae", "unknown field"),
        (|s| container(s)["imgae"] = json!(1), "spec.services.web.container.imgae", "unknown field `imgae`"),
        (|s| container(s)["image"] = json!(""), "spec.services.web.container.image", "empty"),
        (|s| container(s)["image"] = json!("UPPER/Case"), "spec.services.web.container.image", "lower case"),
        (|s| container(s)["image"] = json!("http://x"), "spec.services.web.container.image", "https://"),
        (
            |s| web(s)["deploy"]["mode"]["replicated"] = json!(-1),
            "spec.services.web.deploy.mode.replicated",
            "u32",
        ),
        (
            |s| web(s)["deploy"]["mode"]["replicated"] = json!(1.5),
            "spec.services.web.deploy.mode.replicated",
            "u32",
        ),
        (
            |s| web(s)["deploy"]["mode"]["replicated"] = json!("many"),
            "spec.services.web.deploy.mode.replicated",
            "u32",
        ),
        (
            |s| web(s)["deploy"]["mode"]["replicated"] = json!(1_000_000_000),
            "spec.services.web.deploy.mode.replicated",
            "0 to 10000",
        ),
        (|s| web(s)["ports"][0]["target"] = json!(0), "spec.services.web.ports[0].target", "1 to 65535"),
        (|s| web(s)["ports"][0]["published"] = json!(70000), "spec.services.web.ports[0].published", "u16"),
        (|s| web(s)["ports"][0]["protocol"] = json!("udp"), "spec.services.web.ports[0]", "mode: host"),
        (
            |s| s["services"]["db"]["ports"] = json!([{ "target": 1, "published": 8080 }]),
            "spec.services.web.ports[0]",
            "published by `db` already",
        ),
        (
            |s| {
                container(s)["mounts"] =
                    json!([{ "source": { "bind": { "path": "/srv/../etc" } }, "target": "/x" }]);
            },
            "spec.services.web.container.mounts[0].source.bind.path",
            "goes up",
        ),
        (
            |s| container(s)["mounts"] = json!([{ "source": { "bind": { "path": "etc" } }, "target": "/x" }]),
            "spec.services.web.container.mounts[0].source.bind.path",
            "not absolute",
        ),
        (
            |s| {
                container(s)["mounts"] =
                    json!([{ "source": { "volume": { "name": "data" } }, "target": "/x" }]);
            },
            "spec.services.web.container.mounts[0].source.volume.name",
            "no volume of the project",
        ),
        (
            |s| container(s)["mounts"] = json!([{ "source": "anonymous", "target": "/" }]),
            "spec.services.web.container.mounts[0].target",
            "root",
        ),
        (
            |s| {
                let mount = json!({ "source": "anonymous", "target": "/x" });
                container(s)["mounts"] = json!([mount, mount]);
            },
            "spec.services.web.container.mounts[1].target",
            "twice",
        ),
        (
            |s| container(s)["configs"] = json!([{ "config": "nope", "hash": "0", "target": "/x" }]),
            "spec.services.web.container.configs[0].config",
            "no config",
        ),
        (
            |s| {
                s["configs"] = json!({ "c": { "content": "YQ==" } });
                container(s)["configs"] = json!([{ "config": "c", "hash": "0", "target": "/x" }]);
            },
            "spec.services.web.container.configs[0].hash",
            "not the hash",
        ),
        (|s| s["configs"] = json!({ "c": { "content": "*" } }), "spec.configs.c.content", "Invalid symbol"),
        (
            |s| container(s)["limits"] = json!({ "memory": 10 }),
            "spec.services.web.container.limits.memory",
            "512m",
        ),
        (
            |s| container(s)["limits"] = json!({ "memory": -1 }),
            "spec.services.web.container.limits.memory",
            "u64",
        ),
        (
            |s| container(s)["limits"] = json!({ "memory": u64::MAX }),
            "spec.services.web.container.limits.memory",
            "than any machine",
        ),
        (|s| container(s)["limits"] = json!({ "cpus": 0 }), "spec.services.web.container.limits.cpus", "0.5"),
        (
            |s| web(s)["depends_on"] = json!({ "web": { "condition": "started", "required": true } }),
            "spec.services.web.depends_on.web",
            "itself",
        ),
        (
            |s| web(s)["depends_on"] = json!({ "nope": { "condition": "started", "required": true } }),
            "spec.services.web.depends_on.nope",
            "no service",
        ),
        (
            |s| {
                web(s)["depends_on"] = json!({ "db": { "condition": "started", "required": true } });
                s["services"]["db"]["depends_on"] =
                    json!({ "web": { "condition": "healthy", "required": true } });
            },
            "spec.services.db.depends_on",
            "db → web → db",
        ),
        (
            |s| container(s)["environment"] = json!({ "A=B": "x" }),
            "spec.services.web.container.environment.A=B",
            "the character `=`",
        ),
        (
            |s| container(s)["environment"] = json!({ "A": "x\0" }),
            "spec.services.web.container.environment.A",
            "NUL",
        ),
        (
            |s| container(s)["environment"] = json!({ "A": "x".repeat(1 << 20) }),
            "spec.services.web.container.environment.A",
            "128 KiB",
        ),
        (
            |s| {
                let many: serde_json::Map<_, _> = (0..10_000).map(|n| (format!("V{n}"), json!(""))).collect();
                container(s)["environment"] = Value::Object(many);
            },
            "spec.services.web.container.environment",
            "4096",
        ),
        (
            |s| container(s)["labels"] = json!({ "tug.task": "x" }),
            "spec.services.web.container.labels.tug.task",
            "reserved",
        ),
        (
            |s| container(s)["labels"] = json!({ "big": "x".repeat(1 << 20) }),
            "spec.services.web.container.labels.big",
            "64 KiB",
        ),
        (
            |s| container(s)["healthcheck"] = json!({ "test": ["CMD", "true"], "interval": 0 }),
            "spec.services.web.container.healthcheck.interval",
            "0s is out of range",
        ),
        (
            |s| container(s)["healthcheck"] = json!({ "test": ["CMD", "true"], "retries": 1_000_000 }),
            "spec.services.web.container.healthcheck.retries",
            "0 to 1000",
        ),
        (
            |s| container(s)["healthcheck"] = json!({ "test": ["true"] }),
            "spec.services.web.container.healthcheck.test",
            "CMD-SHELL",
        ),
        (
            |s| {
                let probe = json!({ "check": { "http": "no path" }, "port": 1, "interval": 1000, "timeout": 1000,
                    "retries": 3, "start_period": 0 });
                web(s)["probe"] = probe;
            },
            "spec.services.web.probe.check",
            "must be a path",
        ),
        (
            |s| container(s)["networks"] = json!({ "back": {} }),
            "spec.services.web.container.networks.back",
            "no network",
        ),
    ]
}

fn assert_error(answer: &Answer, status: u16, code: Code, what: &str) {
    assert_eq!((answer.status.as_u16(), answer.error().error.code), (status, code), "{what}: {answer:?}");
}

#[tokio::test]
async fn a_wrong_project_is_refused_with_its_place_and_nothing_is_written() {
    let bench = Bench::new().await;
    for (change, field, message) in wrong() {
        let mut spec = shop();
        change(&mut spec);
        let answer = bench.apply(&spec).await;
        assert_error(&answer, 422, Code::Invalid, field);
        let error = answer.error().error;
        assert!(error.message.contains(message), "{field}: {}", error.message);
        assert_eq!(error.field.as_deref(), Some(field), "{}", error.message);
        let planned = bench.json("POST", "/v1/projects/shop/plan", &json!({ "spec": spec })).await;
        assert_eq!(planned.error().error, error, "a plan refuses what an apply refuses");
        assert_eq!(bench.store.snapshot().revision.0, 0, "{field}: something was written");
    }
    bench.end().await;
}

#[tokio::test]
async fn all_mistakes_are_told_at_once() {
    let bench = Bench::new().await;
    let mut spec = shop();
    container(&mut spec)["image"] = json!("");
    container(&mut spec)["limits"] = json!({ "memory": 1 });
    web(&mut spec)["ports"][0]["target"] = json!(0);
    let error = bench.apply(&spec).await.error().error;
    let fields: Vec<_> =
        std::iter::once(&error).chain(&error.also).map(|error| error.field.clone().unwrap()).collect();
    assert_eq!(
        fields,
        [
            "spec.services.web.ports[0].target",
            "spec.services.web.container.image",
            "spec.services.web.container.limits.memory"
        ]
    );
    bench.end().await;
}

#[tokio::test]
async fn the_control_planes_own_folder_is_not_shown_to_containers() {
    let bench = Bench::new().await;
    for path in ["/var/lib/tug", "/var/lib/tug/store", "/var/lib/./tug//agent", "/srv/tug/server"] {
        let mut spec = shop();
        container(&mut spec)["mounts"] = json!([{ "source": { "bind": { "path": path } }, "target": "/x" }]);
        assert_error(&bench.apply(&spec).await, 403, Code::Forbidden, path);
        for options in [json!({ "device": path }), json!({ "o": format!("lowerdir=/a:{path},upperdir=/b") })]
        {
            let mut spec = shop();
            spec["volumes"] = json!({ "data": { "engine_name": "shop_data", "driver_opts": options } });
            assert_error(&bench.apply(&spec).await, 403, Code::Forbidden, path);
        }
    }
    let mut spec = shop();
    container(&mut spec)["mounts"] =
        json!([{ "source": { "bind": { "path": "/var/lib/tugboat" } }, "target": "/x" }]);
    assert_eq!(bench.apply(&spec).await.status, 200);
    bench.end().await;
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

#[tokio::test]
async fn bytes_that_are_no_request_end_the_connection() {
    let bench = Bench::new().await;
    let socket = Socket::of(&bench);
    let put = "PUT /v1/projects/shop HTTP/1.1\r\nhost: tug\r\ncontent-type: application/json\r\n";
    let long = format!("GET /{} HTTP/1.1\r\nhost: tug\r\n\r\n", "a".repeat(100 << 10));
    for (bytes, statuses) in [
        (format!("{put}content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"), &["400"][..]),
        (format!("{put}transfer-encoding: chunked\r\n\r\nxyz\r\n"), &["400"]),
        (format!("{put}content-length: 1\r\ncontent-length: 2\r\n\r\n{{}}"), &["400"]),
        (format!("{put}x: a\nb\r\n\r\n"), &["400"]),
        ("GET /v1/info HTTP/1.1\r\nhost: a\0b\r\n\r\n".to_owned(), &["400"]),
        ("\u{16}\u{3}\u{1} hello TLS\r\n\r\n".to_owned(), &["400"]),
        (long, &["414", "431"]),
        (
            "GET http://elsewhere/v1/secrets HTTP/1.1\r\nhost: tug\r\nconnection: close\r\n\r\n".to_owned(),
            &["404"],
        ),
    ] {
        let answer = Socket::rest_of(socket.send(bytes.as_bytes()).await).await;
        let status = answer.split(' ').nth(1).unwrap_or_default();
        assert!(statuses.contains(&status), "{bytes:.80}: {answer}");
    }
    assert_eq!(bench.store.snapshot().revision.0, 0);
    socket.end().await;
    bench.end().await;
}

/// Whoever does not know what became of a change asks again under the same key.
#[tokio::test]
async fn a_change_that_is_cut_off_at_any_byte_and_asked_for_again_is_made_once() {
    let bench = Bench::new().await;
    let socket = Socket::of(&bench);
    let body = json!({ "spec": shop() }).to_string();
    let request = format!(
        "PUT /v1/projects/shop HTTP/1.1\r\nhost: tug\r\ncontent-type: application/json\r\n\
         idempotency-key: key-1\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    for length in 0..request.len() {
        let mut stream = socket.send(&request.as_bytes()[..length]).await;
        stream.shutdown().await.unwrap();
        let answer = Socket::rest_of(stream).await;
        assert!(!answer.contains("200 OK"), "{length}: {answer}");
    }
    assert_eq!(bench.store.snapshot().revision.0, 0, "half of a change is none");

    let whole = Socket::rest_of(socket.send(request.as_bytes()).await).await;
    assert!(whole.contains("200 OK") && whole.contains("\"revision\":1"), "{whole}");
    for length in 0..whole.len() {
        let mut begun = socket.send(request.as_bytes()).await.take(length as u64);
        begun.read_to_end(&mut Vec::new()).await.unwrap();
    }
    let again = Socket::rest_of(socket.send(request.as_bytes()).await).await;
    assert!(again.contains("200 OK") && again.contains("\"revision\":1"), "{again}");
    assert_eq!(bench.store.snapshot().revision.0, 1);
    socket.end().await;
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
