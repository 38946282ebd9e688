//! What the server refuses of a single value, `tug check` refuses too, where the value stands: for each limit one manifest
//! just inside and one just outside, and both are asked.

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tug_api::Clock;
use tug_api::client::{CallError, Client};
use tug_api::transport::Channel;
use tug_api::user::ApplyRequest;
use tug_compose::{Level, MemoryDisk as Files, Outcome, Request, load};
use tug_model::spec::Project;
use tug_model::{Millis, Timestamp};
use tug_orchestrator::app::{Config, Orchestrator};
use tug_orchestrator::store::MemoryDisk;

const KIB: usize = 1 << 10;
const DAY: Millis = Millis::from_secs(86_400);

/// One limit.
struct Limit {
    /// The manifest. `%` is the value; `@` stands before what `tug check` has to point at. A file `value` beside the
    /// manifest holds the value too.
    manifest: String,
    /// Where the value is in the project, as a JSON pointer.
    pointer: &'static str,
    inside: Written,
    outside: Written,
}

/// A value as people write it, and as the server gets it.
struct Written {
    text: String,
    json: Value,
}

/// The same to both.
fn same(value: impl Into<Value>) -> Written {
    let json = value.into();
    let text = json.as_str().map_or_else(|| json.to_string(), str::to_owned);
    Written { text, json }
}

fn written(text: impl Into<String>, json: impl Into<Value>) -> Written {
    Written { text: text.into(), json: json.into() }
}

fn millis(number: u64) -> Written {
    written(format!("{number}ms"), number)
}

/// So many letters behind `prefix`.
fn long(prefix: &str, length: usize) -> Written {
    same(format!("{prefix}{}", "a".repeat(length - prefix.len())))
}

/// A limit of one key of a service.
fn of_service(body: &str, pointer: &'static str, inside: Written, outside: Written) -> Limit {
    let body = body.lines().map(|line| format!("    {line}\n")).collect::<Vec<_>>().concat();
    let image = if body.contains("image:") { "" } else { "    image: nginx\n" };
    Limit { manifest: format!("services:\n  web:\n{image}{body}"), pointer, inside, outside }
}

/// Times of at most a day, and what is too short.
fn times() -> Vec<Limit> {
    let mut limits = Vec::new();
    for (body, pointer, least) in [
        ("stop_grace_period: @%", "/services/web/container/stop_grace_period", 0),
        ("healthcheck: {test: x, interval: @%}", "/services/web/container/healthcheck/interval", 1),
        ("healthcheck: {test: x, timeout: @%}", "/services/web/container/healthcheck/timeout", 1),
        (
            "healthcheck: {test: x, start_interval: @%}",
            "/services/web/container/healthcheck/start_interval",
            1,
        ),
        ("healthcheck: {test: x, start_period: @%}", "/services/web/container/healthcheck/start_period", 0),
        ("x-probe: {tcp: 80, interval: @%}", "/services/web/probe/interval", 100),
        ("x-probe: {tcp: 80, timeout: @%}", "/services/web/probe/timeout", 1),
        ("x-probe: {tcp: 80, start_period: @%}", "/services/web/probe/start_period", 0),
        ("deploy: {restart_policy: {delay: @%}}", "/services/web/restart/delay", 0),
        ("deploy: {restart_policy: {window: @%}}", "/services/web/restart/window", 0),
    ] {
        limits.push(of_service(body, pointer, millis(DAY.0), millis(DAY.0 + 1)));
        if least > 0 {
            limits.push(of_service(body, pointer, millis(least), millis(least - 1)));
        }
    }
    limits
}

fn numbers() -> Vec<Limit> {
    let limit =
        |body, pointer, inside: i64, outside: i64| of_service(body, pointer, same(inside), same(outside));
    vec![
        limit("deploy: {replicas: @%}", "/services/web/deploy/mode/replicated", 10_000, 10_001),
        limit(
            "healthcheck: {test: x, retries: @%}",
            "/services/web/container/healthcheck/retries",
            1000,
            1001,
        ),
        limit("x-probe: {tcp: 80, retries: @%}", "/services/web/probe/retries", 1000, 1001),
        limit("x-probe: {tcp: 80, retries: @%}", "/services/web/probe/retries", 1, 0),
        limit("x-probe: {tcp: @%}", "/services/web/probe/port", 1, 0),
        limit("ports: [{target: @%}]", "/services/web/ports/0/target", 1, 0),
        limit("ports: [{target: 1, published: @%}]", "/services/web/ports/0/published", 1, 0),
        limit("expose: [@%]", "/services/web/expose/0", 1, 0),
        limit("mem_swappiness: @%", "/services/web/container/limits/memory_swappiness", 100, 101),
        limit("oom_score_adj: @%", "/services/web/container/limits/oom_score_adj", 1000, 1001),
        limit("oom_score_adj: @%", "/services/web/container/limits/oom_score_adj", -1000, -1001),
        limit(
            "ulimits: {nofile: @{soft: %, hard: 9}}",
            "/services/web/container/limits/ulimits/0/soft",
            9,
            10,
        ),
        limit("mem_limit: @%", "/services/web/container/limits/memory", 6 << 20, (6 << 20) - 1),
        limit(
            "mem_reservation: @%",
            "/services/web/container/limits/memory_reservation",
            6 << 20,
            (6 << 20) - 1,
        ),
        limit(
            "mem_limit: 9m\nmem_reservation: @%",
            "/services/web/container/limits/memory_reservation",
            9 << 20,
            (9 << 20) + 1,
        ),
        limit(
            "deploy: {resources: {limits: {memory: 9m}, reservations: {memory: @%}}}",
            "/services/web/deploy/reservations/memory",
            9 << 20,
            (9 << 20) + 1,
        ),
        of_service(
            "cpus: @%",
            "/services/web/container/limits/cpus",
            written("0.001", 1_000_000),
            written("0.0009", 900_000),
        ),
        of_service(
            "cpus: @%",
            "/services/web/container/limits/cpus",
            written("4096", 4_096_000_000_000_u64),
            written("4097", 4_097_000_000_000_u64),
        ),
    ]
}

/// Names and other texts: how long, and of which characters.
#[expect(clippy::too_many_lines, reason = "a table")]
fn texts() -> Vec<Limit> {
    let container = |body, pointer, inside, outside| of_service(body, pointer, inside, outside);
    vec![
        container("image: @%", "/services/web/container/image", long("", 255), long("", 256)),
        container("image: @%", "/services/web/container/image", long("a:", 130), long("a:", 131)),
        container("hostname: @%", "/services/web/container/hostname", long("", 253), long("", 254)),
        container("domainname: @%", "/services/web/container/domainname", same("a.b"), same("a b")),
        container(
            "x-probe: {http: @%, port: 80}",
            "/services/web/probe/check/http",
            long("/", 2048),
            long("/", 2049),
        ),
        container(
            "x-probe: {http: @%, port: 80}",
            "/services/web/probe/check/http",
            same("/a"),
            same("/a b"),
        ),
        container(
            "labels:\n  @big: %",
            "/services/web/container/labels/big",
            long("", 64 * KIB - 3),
            long("", 64 * KIB - 2),
        ),
        container(
            "annotations:\n  @big: %",
            "/services/web/container/annotations/big",
            long("", 64 * KIB - 3),
            long("", 64 * KIB - 2),
        ),
        container(
            "deploy:\n  labels:\n    @big: %",
            "/services/web/deploy/labels/big",
            long("", 64 * KIB - 3),
            long("", 64 * KIB - 2),
        ),
        container(
            "environment:\n  BIG: @%",
            "/services/web/container/environment/BIG",
            long("", 128 * KIB - 5),
            long("", 128 * KIB - 4),
        ),
        container(
            "extra_hosts:\n  up: @%",
            "/services/web/container/extra_hosts/0/address",
            same("10.0.0.1"),
            same("10.0.0"),
        ),
        container(
            "deploy:\n  placement:\n    constraints: [@% == x]",
            "/services/web/deploy/placement/constraints/0/attribute",
            same("node.role"),
            same("node.rule"),
        ),
        container(
            "volumes: [{type: tmpfs, target: @%}]",
            "/services/web/container/mounts/0/target",
            long("/", 4096),
            long("/", 4097),
        ),
        container("tmpfs: @%", "/services/web/container/mounts/0/target", same("/a"), same("/a/../b")),
        container(
            "volumes: [{type: bind, source: @%, target: /x}]",
            "/services/web/container/mounts/0/source/bind/path",
            long("/", 4096),
            long("/", 4097),
        ),
    ]
}

/// What does not stand in a service, or is counted.
fn others() -> Vec<Limit> {
    let top = |manifest: &str, pointer, inside, outside| Limit {
        manifest: format!("services:\n  web:\n    image: nginx\n{manifest}"),
        pointer,
        inside,
        outside,
    };
    let variables = |count: usize| {
        let names = || (0..count).map(|number| format!("V{number}"));
        let text = names().map(|name| format!("{name}=x\n")).collect::<Vec<_>>().concat();
        written(text, names().map(|name| (name, json!("x"))).collect::<serde_json::Map<_, _>>())
    };
    // Base 64 has four letters for three bytes; a NUL is as good as any other.
    let content = |length: usize| {
        let padding = ["", "AA==", "AAA="][length % 3];
        written("\0".repeat(length), "AAAA".repeat(length / 3) + padding)
    };
    vec![
        top(
            "networks:\n  default:\n    name: @%\n",
            "/networks/default/engine_name",
            long("", 255),
            long("", 256),
        ),
        top(
            "    volumes: ['data:/x']\nvolumes:\n  data:\n    name: @%\n",
            "/volumes/data/engine_name",
            same("a.b"),
            same("a b"),
        ),
        top(
            "    volumes: ['data:/x']\nvolumes:\n  data:\n    labels:\n      @tug%: x\n",
            "/volumes/data/labels",
            written("board", json!({"tugboard": "x"})),
            written(".board", json!({"tug.board": "x"})),
        ),
        top(
            "    volumes: [{type: volume, source: data, target: /x, volume: {subpath: @%}}]\nvolumes:\n  data:\n",
            "/services/web/container/mounts/0/source/volume/subpath",
            same("a/b"),
            same("a/../b"),
        ),
        top(
            "    env_file: @value\n",
            "/services/web/container/environment",
            variables(4096),
            variables(4097),
        ),
        top(
            "    configs: [big]\nconfigs:\n  big:\n    file: @value\n",
            "/configs/big/content",
            content(KIB * KIB),
            content(KIB * KIB + 1),
        ),
    ]
}

/// The manifest with `value`, and the line and column that are to be pointed at.
fn manifest(limit: &Limit, value: &str) -> (String, (usize, usize)) {
    let (before, after) = limit.manifest.split_once('@').unwrap();
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap().len() + 1;
    (format!("{before}{after}").replace('%', value), (line, column))
}

fn check(text: &str, value: &str) -> Outcome {
    let files = Files::default().with("/p/compose.yaml", text).with("/p/value", value);
    load(&Request {
        files: Vec::new(),
        project_name: None,
        profiles: Vec::new(),
        environment: std::collections::BTreeMap::new(),
        env_files: Vec::new(),
        ignore_unsupported: std::collections::BTreeSet::new(),
        working_directory: "/p".to_owned(),
        disk: &files,
    })
}

/// The fields that the server refuses `project` for.
async fn refused(client: &Client, project: &Value) -> Vec<String> {
    let spec: Project = serde_json::from_value(project.clone()).unwrap();
    match client.plan(&ApplyRequest { spec, source: Vec::new() }).await {
        Ok(_) => Vec::new(),
        Err(CallError::Api(error)) => {
            let all = std::iter::once(&error).chain(&error.also);
            all.map(|error| error.field.clone().unwrap_or_default()).collect()
        }
        Err(error) => panic!("{error}"),
    }
}

/// `/services/web/ports/0` as the server writes it.
fn field(pointer: &str) -> String {
    let parts = pointer.split('/').skip(1).map(|part| match part.parse::<usize>() {
        Ok(index) => format!("[{index}]"),
        Err(_) => format!(".{part}"),
    });
    format!("spec{}", parts.collect::<String>())
}

#[tokio::test(start_paused = true)]
async fn check_and_server_agree_on_every_limit() {
    let config = Config::simulated(&MemoryDisk::default(), "limits", Clock::starting_at(Timestamp(1)));
    let (orchestrator, handle) = Orchestrator::open(config).await.unwrap();
    let stop = CancellationToken::new();
    let running = tokio::spawn(orchestrator.run(stop.clone()));
    let client = Client::new(Channel::service(handle.router));
    for limit in [times(), numbers(), texts(), others()].into_iter().flatten() {
        let shown = &limit.manifest;
        let (text, _) = manifest(&limit, &limit.inside.text);
        let outcome = check(&text, &limit.inside.text);
        let loaded = outcome.project.unwrap_or_else(|| panic!("{shown}\n{:?}", outcome.findings));
        let mut project = serde_json::to_value(&loaded.project).unwrap();
        assert_eq!(project.pointer(limit.pointer), Some(&limit.inside.json), "{shown}");
        assert_eq!(refused(&client, &project).await, Vec::<String>::new(), "{shown}");

        let (text, place) = manifest(&limit, &limit.outside.text);
        let outcome = check(&text, &limit.outside.text);
        assert!(outcome.project.is_none(), "taken: {shown}");
        let errors = outcome.findings.iter().filter(|finding| finding.level == Level::Error);
        let places: Vec<_> = errors.map(|one| (one.line as usize, one.column as usize)).collect();
        assert_eq!(places, [place], "{shown}\n{:?}", outcome.findings);
        *project.pointer_mut(limit.pointer).unwrap() = limit.outside.json;
        let fields = refused(&client, &project).await;
        let is_named =
            |name: &String| name.len() > "spec.configs".len() && field(limit.pointer).starts_with(name);
        let is_below = |name: &String| name.starts_with(&field(limit.pointer));
        assert!(fields.iter().any(|name| is_named(name) || is_below(name)), "{shown}\n{fields:?}");
    }
    stop.cancel();
    running.await.unwrap().unwrap();
}
