//! What the keys of a service become.

use super::{findings, load_text, loaded, said, same_lines, spec};

#[track_caller]
fn is(body: &str, pointer: &str, expected: &str) {
    assert_eq!(spec(body, pointer), expected, "{body}");
}

#[test]
fn short_and_long_forms_become_the_same() {
    for (short, long, pointer) in [
        (
            "ports: ['127.0.0.1:8080:80']",
            "ports: [{target: 80, published: '8080', host_ip: 127.0.0.1}]",
            "/ports",
        ),
        ("ports: ['9000-9001:80-81']", "ports: [{target: 80-81, published: 9000-9001}]", "/ports"),
        ("environment: [A=1, B=]", "environment: {A: 1, B: ''}", "/container/environment"),
        ("labels: [a=1, b]", "labels: {a: 1, b: ''}", "/container/labels"),
        ("depends_on: []", "depends_on: {}", "/depends_on"),
        ("command: a 'b c'", "command: [a, b c]", "/container/command"),
        ("healthcheck: {test: x y}", "healthcheck: {test: [CMD-SHELL, x y]}", "/container/healthcheck"),
        (
            "volumes: ['/a:/b:ro']",
            "volumes: [{type: bind, source: /a, target: /b, read_only: true}]",
            "/container/mounts",
        ),
        ("volumes: [/b]", "volumes: [{type: volume, target: /b}]", "/container/mounts"),
        (
            "tmpfs: '/t:size=1m,mode=700'",
            "volumes: [{type: tmpfs, target: /t, tmpfs: {size: 1m, mode: 0700}}]",
            "/container/mounts",
        ),
        ("networks: [default]", "networks: {default: }", "/container/networks"),
        ("ulimits: {nofile: 5}", "ulimits: {nofile: {soft: 5, hard: 5}}", "/container/limits/ulimits"),
        (
            "devices: [/dev/a]",
            "devices: [{source: /dev/a, target: /dev/a, permissions: rwm}]",
            "/container/devices",
        ),
        (
            "extra_hosts: ['a:1.1.1.1', 'b=host-gateway']",
            "extra_hosts: {a: 1.1.1.1, b: host-gateway}",
            "/container/extra_hosts",
        ),
        ("sysctls: [net.a=1]", "sysctls: {net.a: 1}", "/container/sysctls"),
        ("dns: 1.1.1.1", "dns: [1.1.1.1]", "/container/dns"),
        ("cpus: 0.5", "deploy: {resources: {limits: {cpus: '0.50'}}}", "/container/limits"),
        ("mem_limit: 64m", "deploy: {resources: {limits: {memory: 67108864}}}", "/container/limits"),
        ("pids_limit: 9", "deploy: {resources: {limits: {pids: 9}}}", "/container/limits"),
        ("scale: 3", "deploy: {replicas: 3}", "/deploy"),
        (
            "restart: on-failure:3",
            "deploy: {restart_policy: {condition: on-failure, max_attempts: 3}}",
            "/restart",
        ),
        ("expose: [80, 82, '81/tcp']", "expose: ['80-82']", "/expose"),
    ] {
        assert_eq!(spec(short, pointer), spec(long, pointer), "{short}");
        assert_ne!(
            (spec(short, pointer), pointer.contains("depends")),
            ("absent".to_owned(), false),
            "{short}"
        );
    }
}

#[test]
fn values_reach_the_spec() {
    is("entrypoint: []", "/container/entrypoint", "[]");
    is("command:", "/container/command", "absent");
    is(
        "environment: {A: , NO: , B: true, C: 1.10, D: 0x1F, E: yes}",
        "/container/environment",
        r#"{"A":"a","B":"true","C":"1.10","D":"0x1F","E":"yes"}"#,
    );
    is("stop_grace_period: 1m30s", "/container/stop_grace_period", "90000");
}

const MANY_KEYS: &str = "
platform: linux/amd64
user: 1000:1000
working_dir: /w
hostname: h_1
domainname: d.e
annotations: {o: p}
logging: {driver: local, options: {max-size: 1m}}
init: true
tty: true
stdin_open: true
read_only: true
runtime: runc
stop_signal: SIGUSR1
pull_policy: always
privileged: true
cap_add: [NET_ADMIN]
cap_drop: [ALL]
security_opt: [no-new-privileges]
group_add: [audio]
pid: host
ipc: shareable
uts: host
userns_mode: host
cgroup: private
cgroup_parent: /x
device_cgroup_rules: [c 1:3 rwm]
dns_search: a.b
dns_opt: [ndots:1]
shm_size: 64m
mem_reservation: 8m
memswap_limit: -1
mem_swappiness: 0
cpu_shares: 10
cpu_quota: 50ms
cpu_period: 100000
cpuset: 0-2,4
oom_score_adj: -5
oom_kill_disable: true
storage_opt: {size: 1G}
";

/// What [`MANY_KEYS`] become.
const MANY_VALUES: &[&str] = &[
    r#""platform":"linux/amd64""#,
    r#""user":"1000:1000""#,
    r#""working_dir":"/w""#,
    r#""hostname":"h_1""#,
    r#""domainname":"d.e""#,
    r#""annotations":{"o":"p"}"#,
    r#""logging":{"driver":"local","options":{"max-size":"1m"}}"#,
    r#""init":true"#,
    r#""tty":true"#,
    r#""stdin_open":true"#,
    r#""read_only":true"#,
    r#""runtime":"runc""#,
    r#""stop_signal":"SIGUSR1""#,
    r#""pull_policy":"always""#,
    r#""privileged":true"#,
    r#""cap_add":["NET_ADMIN"]"#,
    r#""cap_drop":["ALL"]"#,
    r#""security_opt":["no-new-privileges"]"#,
    r#""group_add":["audio"]"#,
    r#""pid":"host""#,
    r#""ipc":"shareable""#,
    r#""uts":"host""#,
    r#""userns_mode":"host""#,
    r#""cgroup":"private""#,
    r#""cgroup_parent":"/x""#,
    r#""device_cgroup_rules":["c 1:3 rwm"]"#,
    r#""search":["a.b"]"#,
    r#""options":["ndots:1"]"#,
    r#""shm_size":67108864"#,
    r#""memory_reservation":8388608"#,
    r#""memory_swap":-1"#,
    r#""memory_swappiness":0"#,
    r#""cpu_shares":10"#,
    r#""cpu_quota":50000"#,
    r#""cpu_period":100000"#,
    r#""cpuset":"0-2,4""#,
    r#""oom_score_adj":-5"#,
    r#""oom_kill_disable":true"#,
    r#""storage_opt":{"size":"1G"}"#,
];

#[test]
fn the_rest_of_the_keys_reach_the_spec() {
    let container = spec(MANY_KEYS, "/container");
    for part in MANY_VALUES {
        assert!(container.contains(part), "{part} in {container}");
    }
}

#[test]
fn deploy_reaches_the_spec() {
    let body = "
deploy:
  mode: global
  labels: {a: b}
  resources: {reservations: {cpus: 0.25, memory: 64m}}
  placement: {max_replicas_per_node: 2, constraints: [node.role == manager, node.labels.disk!=hdd], preferences: [{spread: node.labels.zone}]}
  restart_policy: {condition: none, delay: 5s, window: 2m}
  update_config: {parallelism: 1, order: start-first, delay: 0s, failure_action: pause, max_failure_ratio: 0}
";
    assert_eq!(said(body), "");
    assert_eq!(
        spec(body, "/deploy"),
        r#"{"labels":{"a":"b"},"mode":"global","placement":{"constraints":[{"attribute":"node.role","equal":true,"value":"manager"},{"attribute":"node.labels.disk","equal":false,"value":"hdd"}],"max_replicas_per_node":2,"preferences":[{"spread":"node.labels.zone"}]},"reservations":{"cpus":250000000,"memory":67108864}}"#
    );
    assert_eq!(spec(body, "/restart"), r#"{"condition":"never","delay":5000,"window":120000}"#);
}

#[test]
fn a_probe_of_ours_reaches_the_spec() {
    is(
        "x-probe: {http: /up, port: 80, interval: 5s, retries: 2, start_period: 1m}",
        "/probe",
        r#"{"check":{"http":"/up"},"interval":5000,"port":80,"retries":2,"start_period":60000,"timeout":2000}"#,
    );
    is("x-probe: {tcp: 80}", "/probe/check", "\"tcp\"");
    same_lines(
        &said("x-probe: {http: up}"),
        "error: 4:14: services.web.x-probe: `port` is missing
         error: 4:21: services.web.x-probe.http: must be a path like /healthz of at most 2048 characters, without spaces",
    );
}

#[test]
fn an_exclusive_service_is_one() {
    is("x-exclusive: true", "/exclusive", "true");
    is("deploy: {x-exclusive: true, replicas: 0}", "/exclusive", "true");
    is("x-exclusive: true\ndeploy: {update_config: {order: stop-first}}", "/exclusive", "true");
    assert_eq!(spec("x-exclusive: false", "/exclusive"), "absent");
}

#[test]
fn a_build_without_an_image_gets_its_name() {
    let text =
        "name: my_shop\nservices:\n  Web:\n    build: {dockerfile_inline: FROM scratch, args: [A, B=2, C]}\n";
    let loaded = loaded(text);
    let (name, build) = loaded.builds.iter().next().unwrap();
    assert_eq!(loaded.project.services[name].container.image, "my_shop-web");
    assert_eq!(build.dockerfile, crate::Dockerfile::Inline("FROM scratch".to_owned()));
    assert_eq!(format!("{:?}", build.args), r#"{"A": "a", "B": "2"}"#);
    assert_eq!(build.context.display().to_string(), "/p");
}

#[test]
fn what_nobody_names_is_not_part_of_the_project() {
    let text = "
name: shop
services:
  web: {image: nginx, networks: [front], volumes: ['data:/d'], configs: [c]}
  job: {image: nginx, network_mode: none}
networks: {front: {name: own}, unused: }
volumes: {data: {external: true}, unused: }
configs: {c: {content: hi}, unused: {content: no}}
";
    let project = loaded(text).project;
    let json =
        serde_json::to_string(&project.networks).unwrap() + &serde_json::to_string(&project.volumes).unwrap();
    assert_eq!(
        json,
        r#"{"front":{"engine_name":"own","external":false,"internal":false,"attachable":false,"enable_ipv6":false}}{"data":{"engine_name":"data","external":true}}"#
    );
    assert_eq!(project.configs.keys().collect::<Vec<_>>(), ["c"]);
    let plain = loaded("services: {web: {image: nginx}}").project;
    assert_eq!(plain.name.as_str(), "p", "the folder's name");
    assert_eq!(plain.networks.values().next().unwrap().engine_name, "p_default");
}

#[test]
fn variables_are_put_in_and_cast() {
    is("deploy: {replicas: \"${N:-3}\"}", "/deploy/mode/replicated", "3");
    is("read_only: ${RO:-true}", "/container/read_only", "true");
    is("ports: ['${BIND:-}:${P:-80}:80']", "/ports/0/published", "80");
    is("command: echo $$HOME $A", "/container/command", r#"["echo","$HOME","a"]"#);
    same_lines(
        &said("deploy: {replicas: \"${N:-three}\"}\nuser: $NO\nhostname: ${NO:?say which}"),
        "error: 4:24: services.web.deploy.replicas: expected a number, got \"three\" (from ${N:-three})
         warning: 5:11: services.web.user: the variable `NO` is not set; an empty string is used
         error: 6:15: services.web.hostname: the variable `NO` must have a value and is not set: say which",
    );
}

#[test]
fn restarts_have_a_default_that_lets_others_go_on() {
    let text = "
services:
  web: {image: a, depends_on: {migrate: {condition: service_completed_successfully}}}
  migrate: {image: a}
";
    let services = loaded(text).project.services;
    let of = |name: &str| format!("{:?}", services[name].restart.condition);
    assert_eq!((of("web"), of("migrate")), ("Any".to_owned(), "Failure".to_owned()));
    let said =
        findings(&load_text(text.replace("migrate: {image: a}", "migrate: {image: a, restart: always}")));
    assert!(said.contains("others wait for this service to complete"), "{said}");
}

#[test]
fn anchors_are_reported_where_they_stand() {
    let text = "x-a: &a {restart: alwayss}\nservices:\n  web:\n    <<: *a\n    image: a\n  db:\n    <<: *a\n    image: b\n";
    same_lines(
        &findings(&load_text(text)),
        "error: 1:19: services.web.restart: \"alwayss\" is not one of `no`, `always`, `unless-stopped`, `on-failure[:ATTEMPTS]`, did you mean `always`?",
    );
}

#[test]
fn all_mistakes_are_reported_at_once() {
    let body =
        "prots: ['80']\ndeploy:\n  replica: 3\n  update_config: {order: start-firts}\nports: ['99999']";
    same_lines(
        &said(body),
        "error: 4:5: services.web.prots: unknown key `prots`, did you mean `ports`?
         error: 6:7: services.web.deploy.replica: unknown key `replica`, did you mean `replicas`?
         error: 7:30: services.web.deploy.update_config.order: \"start-firts\" is not one of `start-first`, `stop-first`, did you mean `start-first`?
         error: 8:13: services.web.ports[0]: `99999` as the port of the container is not a number from 1 to 65535",
    );
}
