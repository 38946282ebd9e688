//! Projects that are wrong: each mistake is told with its place, all at once, and nothing is written.

use serde_json::{Value, json};
use tug_api::Code;

use super::super::bench::{Bench, shop};
use super::{assert_error, container, web};

/// What is changed in [`shop`] to make it wrong, where that is said, and a part of what is said.
type Wrong = (fn(&mut Value), &'static str, &'static str);

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
