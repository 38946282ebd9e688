//! What is refused or warned about, with the words that say why.

use super::{disk, findings, load_from, load_text, loaded, said, same_lines};

/// The body of a service, and what is said about it.
const WRONG: &[(&str, &str)] = &[
    ("deploy: {replicas: -1}", "4:24: services.web.deploy.replicas: -1 is out of range: use 0 to 10000"),
    ("deploy: {replicas: 1.5}", "4:24: services.web.deploy.replicas: expected a whole number, got 1.5"),
    ("deploy: {replicas: many}", "4:24: services.web.deploy.replicas: expected a number, got \"many\""),
    ("deploy: {replicas: 1000000000}", "1000000000 is out of range: use 0 to 10000"),
    ("deploy: {replicas: 99999999999999999999}", "is out of range: use 0 to 10000"),
    (
        "mem_limit: 10",
        "4:16: services.web.mem_limit: 10 B is less than the 6.0 MiB that a container needs; write e.g. 512m",
    ),
    ("mem_limit: -1g", "\"-1g\" is not a size; write e.g. 512m or 2g"),
    ("mem_limit: 1e99g", "is not a size"),
    ("mem_limit: 5 apples", "is not a size"),
    ("cpus: .nan", "is not a number of processors; write e.g. 0.5 or 2"),
    ("healthcheck: {test: x, interval: 0s}", "0s is out of range: use 1ms to 1day"),
    ("healthcheck: {test: x, interval: 30}", "\"30\" has no unit; write 30s for seconds"),
    ("healthcheck: {test: x, retries: 1000000}", "1000000 is out of range: use 0 to 1000"),
    ("healthcheck: {test: [curl, x]}", "a test begins with NONE, CMD or CMD-SHELL, not \"curl\""),
    ("healthcheck: {test: [CMD]}", "nothing follows: there is no command"),
    ("healthcheck: {disable: true, test: x}", "`test` and `disable: true` cannot both be given"),
    ("environment: ['A B=1']", "the name of the variable `A B` holds the character ` `"),
    (
        "environment: {'A=B': 1}",
        "4:19: services.web.environment.A=B: the name of the variable `A=B` holds the character `=`",
    ),
    ("environment: {A: [1]}", "expected a text, got a list"),
    ("labels: {tug.service: x}", "the label `tug.service` begins with `tug.`, which is reserved"),
    (
        "ports: ['8080:80', '8080:81']",
        "4:24: services.web.ports[1]: the port 8080 is published twice, by this service",
    ),
    ("ports: [80.5]", "write ports as texts"),
    ("ports: [{published: 80}]", "`target` is missing"),
    ("command: \"a 'b\"", "a quote in this command is never closed"),
    ("volumes: ['~/x:/x']", "is somebody's home folder"),
    ("volumes: ['a/b:/x']", "write `./a/b` for a path beside the manifest"),
    ("volumes: ['/srv/../etc:/x']", "write the path without `..`"),
    ("volumes: ['/a:x']", "must be an absolute path"),
    ("volumes: ['/a:/x:r0']", "`r0` is not an option of a mount, did you mean `ro`?"),
    ("volumes: ['/a:/x', '/b:/x']", "something is mounted at `/x` already"),
    ("volumes: ['/a:/x']\ntmpfs: [/x/]", "services.web.tmpfs[0]: something is mounted at `/x` already"),
    ("volumes: ['/a:/c']\nconfigs: [c]", "services.web.configs[0]: something is mounted at `/c` already"),
    ("configs: [{source: c, target: /}]", "the root of the container cannot be mounted over"),
    ("labels: {\"a\\0b\": x}", "services.web.labels.a\\u{0}b: the key holds a NUL character"),
    ("volumes: ['data:/x']", "there is no volume `data`, declare it under the top-level `volumes`"),
    ("networks: [front]", "4:16: services.web.networks[0]: there is no network `front`"),
    ("configs: [c]", "there is no config `c`"),
    ("depends_on: [db]", "there is no service `db`"),
    ("depends_on: [web]", "a service cannot depend on itself"),
    ("depends_on: {db: {condition: healthy}}", "\"healthy\" is not one of"),
    ("network_mode: host\nnetworks: [default]", "`networks` and `network_mode` cannot both be given"),
    ("network_mode: container:x", "unsupported: it ties the service to one container by name"),
    ("network_mode: service:x", "not yet: sharing another service's network"),
    (
        "cpus: 1\ndeploy: {resources: {limits: {cpus: 2}}}",
        "differs from `services.web.deploy.resources.limits.cpus`",
    ),
    ("deploy: {mode: global, replicas: 2}", "a global service has one replica on every node"),
    ("deploy: {mode: replicated-job}", "not yet: jobs"),
    ("deploy: {placement: {constraints: [node.rol == x]}}", "did you mean `node.role`?"),
    ("secrets: [s]", "not yet: secrets"),
    ("gpus: all", "not yet: graphics processors, or leave it out with --ignore-unsupported=gpus"),
    ("content: x", "unknown key `content`"),
    ("tmpfs: x", "must be an absolute path"),
    ("sysctls: {'a b': 1}", "`a b` is not a kernel parameter"),
    ("stop_signal: SIGTREM", "did you mean `TERM`?"),
    ("restart: always:3", "only `on-failure` takes a number"),
    ("x-exclusive: 2", "services.web.x-exclusive: expected true or false, got 2"),
    (
        "x-exclusive: true\ndeploy: {replicas: 2}",
        "an exclusive service never runs twice at once, so it has at most 1 replica, not 2",
    ),
    ("x-exclusive: true\ndeploy: {mode: global}", "never runs twice at once, and a global one does"),
    (
        "x-exclusive: true\ndeploy: {update_config: {order: start-first}}",
        "update_config.order: with `x-exclusive` the old replica goes before the new one starts: use stop-first",
    ),
    (
        "x-exclusive: true\nenvironment: {TUG_FENCING_NUMBER: 1}",
        "is given to an exclusive service at each start",
    ),
    ("x-autoscale: {min: 5, max: 2, cpu: 70}", "`min: 5` is more than `max: 2`"),
    ("x-autoscale: {max: 2, cpu: 0}", "0 is out of range: use 1 to 100"),
    ("x-autoscale: {max: 2, cpus: 7}", "unknown key `cpus`, did you mean `cpu`?"),
    ("x-autoscale: {max: 2, memory: 7}", "not yet: scaling by load"),
    ("x-ingress: ['exa mple.com']", "is not a host name"),
    ("x-cron: {schedule: '* * *'}", "is not a schedule of five fields"),
    (
        "build: {context: ., extra_hosts: ['a:1.1.1.1', 'b:1.1.1.2']}",
        "not yet: more than one of them in a build",
    ),
    (
        "build: {context: ., shm_size: 2g}",
        "services.web.build.shm_size: the Engine can be told less than 2 GiB",
    ),
    ("build: {context: ., ssh: [default]}", "not yet: it needs BuildKit"),
    ("build: {context: 'https://x/y.git'}", "not yet: building from a repository"),
];

#[test]
fn values_out_of_their_rules() {
    for (body, expected) in WRONG {
        let said = said(body);
        assert!(
            said.lines().any(|line| line.starts_with("error: ") && line.contains(expected)),
            "{body}\n{said}"
        );
    }
}

#[test]
fn what_is_only_warned_about() {
    for (body, expected) in [
        ("container_name: db", "containers are named after their task"),
        ("ports: ['53:53/udp']", "UDP is not balanced yet"),
        ("develop: {watch: []}", "ignored: `develop` is for working on an image"),
        ("x-prob: {tcp: 80}", "`x-prob` is no key of ours and is ignored, did you mean `x-probe`?"),
        ("healthcheck: {test: [CMD-SHELL, a, b]}", "`CMD-SHELL` takes one text"),
        ("deploy: {update_config: {parallelism: 2}}", "not yet: replicas are replaced one at a time"),
        ("deploy: {rollback_config: {parallelism: 2}}", "not yet: nothing is rolled back by itself"),
        (
            "volumes: [{type: tmpfs, target: /t, tmpfs: {mode: 700}}]",
            "700 is a decimal number and means 01274",
        ),
        ("network_mode: bridge", "`bridge` is the project's own network here"),
    ] {
        let said = said(body);
        assert!(!said.contains("error: "), "{body}\n{said}");
        assert!(
            said.lines().any(|line| line.starts_with("warning: ") && line.contains(expected)),
            "{body}\n{said}"
        );
    }
    assert_eq!(
        findings(&load_text("services: {web: {image: a}}\nx-log: {a: 1}")),
        "",
        "a fragment, not `x-tug`"
    );
    assert_eq!(said("attach: false\nx-anything: {a: [1]}\nscale: 1"), "");
}

#[test]
fn unsupported_keys_can_be_dropped_one_by_one() {
    let text = "services: {web: {image: a, gpus: all, pid: 'service:x'}}";
    let outcome = load_from(&disk(text), |request| {
        request.ignore_unsupported.extend(["gpus".to_owned(), "pid".to_owned()]);
    });
    same_lines(
        &findings(&outcome),
        "warning: 1:28: services.web.gpus: dropped, as you asked: not yet: graphics processors
         warning: 1:44: services.web.pid: dropped, as you asked: unsupported: it ties the service to one container by name, which no replica is",
    );
}

#[test]
fn cycles_are_named() {
    let text = "services:\n  a: {image: x, depends_on: [b]}\n  b: {image: x, depends_on: [c]}\n  c: {image: x, depends_on: [a]}\n  d: {image: x, depends_on: [a]}\n";
    same_lines(
        &findings(&load_text(text)),
        "error: 4:30: services.c.depends_on[0]: the services wait for each other: a -> b -> c -> a",
    );
    let diamond = "services:\n  a: {image: x, depends_on: [b, c]}\n  b: {image: x, depends_on: [d]}\n  c: {image: x, depends_on: [d]}\n  d: {image: x}\n";
    assert_eq!(loaded(diamond).project.services.len(), 4);
}

#[test]
fn two_services_cannot_have_one_port() {
    let text = "services:\n  a: {image: x, ports: ['80:1']}\n  b: {image: x, ports: ['127.0.0.1:80:1']}\n  c: {image: x, ports: ['80:1/udp', 81]}\n  d: {image: x, ports: ['81']}\n";
    let said = findings(&load_text(text));
    let errors: Vec<&str> = said.lines().filter(|line| line.starts_with("error")).collect();
    assert_eq!(errors, ["error: 3:25: services.b.ports[0]: the port 80 is published twice, by `a` and `b`"]);
}

#[test]
fn profiles_choose_services() {
    let text = "services:\n  a: {image: x, depends_on: [b]}\n  b: {image: x, profiles: [debug]}\n  c: {image: x, depends_on: {b: {condition: service_started, required: false}, no: {condition: service_started, required: false}}}\n";
    let said = findings(&load_text(text));
    assert!(
        said.contains("`b` is not part of the project without its profile, add --profile debug"),
        "{said}"
    );
    let outcome = load_from(&disk(text), |request| request.profiles.push("debug".to_owned()));
    let project = outcome.project.expect("with the profile all is well").project;
    assert_eq!(project.services.len(), 3);
    assert_eq!(project.services["c"].depends_on.len(), 1);
    let off = findings(&load_text("services:\n  b: {image: x, profiles: [debug]}\n"));
    assert_eq!(off, "error: 1:1: services: no service is left without its profile, add --profile debug");
    let named = load_from(&disk(text), |request| {
        request.environment.insert("COMPOSE_PROFILES".to_owned(), "x, debug".to_owned());
    });
    assert!(named.project.is_some());
}

#[test]
fn optional_dependencies_that_are_not_there_are_forgotten() {
    let text = "services:\n  b: {image: x, profiles: [debug]}\n  c: {image: x, depends_on: {b: {condition: service_started, required: false}}}\n";
    assert!(loaded(text).project.services["c"].depends_on.is_empty());
}

#[test]
fn keys_that_stand_twice_name_both_lines() {
    let text = "services:\n  web:\n    image: a\n    tty: true\n    image: b\n";
    same_lines(
        &findings(&load_text(text)),
        "error: 5:5: services.web.image: the key `image` is here again, after line 3, keep one of the two",
    );
}

#[test]
fn the_manifest_can_ask_for_a_version() {
    let text = |version: &str| {
        format!("services: {{web: {{image: a}}}}\nx-tug: {{cluster: prod, min_version: \"{version}\"}}\n")
    };
    assert!(load_text(text("0.1")).project.is_some());
    assert!(findings(&load_text(text("99"))).contains("the manifest needs 99"));
    assert!(findings(&load_text(text("new"))).contains("is not a version"));
}
