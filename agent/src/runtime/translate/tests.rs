//! Every key of a container, one by one: what the manifest says, and what the Engine is told.

mod resources;

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Value, json};
use tug_model::assignment::Resources;
use tug_model::quantity::{Bytes, Millis, NanoCpus, Slot};
use tug_model::spec::container::{
    ConfigMount, Device, Dns, ExtraHost, Limits, Logging, Mount, MountSource, Privileges, Ulimit,
};
use tug_model::spec::resource::{Ipam, IpamPool, Network, Volume};
use tug_model::spec::service::{PortMode, Restart};
use tug_model::task::{Template, TemplateHash};
use tug_model::{ServiceName, TaskId};

use super::*;

fn request(change: impl FnOnce(&mut Template)) -> ContainerRequest {
    let mut template = Template {
        container: Container { image: "web:1".to_owned(), ..Container::default() },
        restart: Restart::default(),
        probe: None,
        host_ports: Vec::new(),
        exposed: Vec::new(),
        exclusive: false,
        restarts_asked: 0,
        needs: tug_model::task::Needs::default(),
    };
    change(&mut template);
    let network = |name: &str| Network { engine_name: format!("shop_{name}"), ..Network::default() };
    let volume = Volume { engine_name: "shop_data".to_owned(), ..Volume::default() };
    ContainerRequest {
        identity: Identity {
            cluster: "c1".to_owned(),
            node: NodeId::parse("n1").unwrap(),
            task: TaskId::parse("shop.web.1.7").unwrap(),
            project: ProjectName::parse("shop").unwrap(),
            service: ServiceName::parse("web").unwrap(),
            slot: Slot(1),
            template: serde_json::from_value::<TemplateHash>(json!("0123456789abcdef")).unwrap(),
            fencing: None,
        },
        template: Arc::new(template),
        resources: Arc::new(Resources {
            networks: ["back", "front"].map(|name| (NetworkName::parse(name).unwrap(), network(name))).into(),
            volumes: [(VolumeName::parse("data").unwrap(), volume)].into(),
        }),
        config_files: [("/etc/a.conf".to_owned(), PathBuf::from("/node/configs/a"))].into(),
        image: "sha256:abc".to_owned(),
    }
}

fn body(change: impl FnOnce(&mut Template)) -> Value {
    serde_json::to_value(container(&request(change)).unwrap().body).unwrap()
}

/// Checks that after `change` the Engine is told `expected` at `pointer`, and `Null` (nothing) without it.
#[track_caller]
fn check(change: impl FnOnce(&mut Container), pointer: &str, expected: &Value) {
    check_against(change, pointer, expected, &Value::Null);
}

#[track_caller]
fn check_against(change: impl FnOnce(&mut Container), pointer: &str, expected: &Value, otherwise: &Value) {
    let get = |body: Value| body.pointer(pointer).cloned().unwrap_or_default();
    assert_eq!(get(body(|template| change(&mut template.container))), *expected, "{pointer}");
    assert_eq!(get(body(|_| {})), *otherwise, "{pointer} by default");
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn pairs<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

#[expect(clippy::unnecessary_wraps, reason = "it stands for `Some(text.to_owned())`")]
fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[test]
fn a_bare_container_has_our_name_labels_and_defaults() {
    let creation = container(&request(|_| {})).unwrap();
    assert_eq!(creation.name, "shop.web.1.7");
    assert_eq!(creation.connections, []);
    let expected = json!({
        "Image": "sha256:abc",
        "ExposedPorts": {},
        "Tty": false,
        "OpenStdin": false,
        "StopTimeout": 10,
        "Labels": {
            "tug.cluster": "c1",
            "tug.node": "n1",
            "tug.task": "shop.web.1.7",
            "tug.project": "shop",
            "tug.service": "web",
            "tug.slot": "1",
            "tug.template": "0123456789abcdef",
        },
        "HostConfig": {
            "LogConfig": { "Type": "json-file", "Config": { "max-size": "10m", "max-file": "3" } },
            "NetworkMode": "bridge",
            "RestartPolicy": { "Name": "no" },
            "Privileged": false,
            "ReadonlyRootfs": false,
        },
    });
    assert_eq!(serde_json::to_value(creation.body).unwrap(), expected);
}

#[test]
fn what_runs() {
    check(|c| c.entrypoint = Some(strings(&["/a", "b"])), "/Entrypoint", &json!(["/a", "b"]));
    check(|c| c.entrypoint = Some(Vec::new()), "/Entrypoint", &json!([]));
    check(|c| c.command = Some(strings(&["serve"])), "/Cmd", &json!(["serve"]));
    check(|c| c.command = Some(Vec::new()), "/Cmd", &json!([]));
    check(|c| c.environment = pairs([("A", "1=2"), ("B", "")]), "/Env", &json!(["A=1=2", "B="]));
    check(|c| c.user = some("1:2"), "/User", &json!("1:2"));
    check(|c| c.working_dir = some("/w"), "/WorkingDir", &json!("/w"));
    check(|c| c.hostname = some("h"), "/Hostname", &json!("h"));
    check(|c| c.domainname = some("d"), "/Domainname", &json!("d"));
    check_against(|c| c.tty = true, "/Tty", &json!(true), &json!(false));
    check_against(|c| c.stdin_open = true, "/OpenStdin", &json!(true), &json!(false));
    check(|c| c.init = Some(true), "/HostConfig/Init", &json!(true));
    check(|c| c.runtime = some("runsc"), "/HostConfig/Runtime", &json!("runsc"));
    check(|c| c.stop_signal = some("SIGQUIT"), "/StopSignal", &json!("SIGQUIT"));
    check_against(|c| c.stop_grace_period = StopGrace(Millis(1500)), "/StopTimeout", &json!(2), &json!(10));
    let platform = container(&request(|t| t.container.platform = some("linux/arm64"))).unwrap().platform;
    assert_eq!(platform.as_deref(), Some("linux/arm64"));
}

#[test]
fn labels_of_the_manifest_stay_and_never_replace_ours() {
    let labels = body(|t| t.container.labels = pairs([("a", "b"), ("tug.node", "evil")]));
    assert_eq!(labels.pointer("/Labels/a"), Some(&json!("b")));
    assert_eq!(labels.pointer("/Labels/tug.node"), Some(&json!("n1")));
    check(|c| c.annotations = pairs([("k", "v")]), "/HostConfig/Annotations", &json!({ "k": "v" }));
}

#[test]
fn a_health_check_counts_in_nanoseconds() {
    let full = Healthcheck {
        test: strings(&["CMD", "/probe"]),
        interval: Some(Millis(1)),
        timeout: Some(Millis(2)),
        retries: Some(3),
        start_period: Some(Millis(4)),
        start_interval: Some(Millis(5)),
    };
    let expected = json!({
        "Test": ["CMD", "/probe"],
        "Interval": 1_000_000,
        "Timeout": 2_000_000,
        "Retries": 3,
        "StartPeriod": 4_000_000,
        "StartInterval": 5_000_000,
    });
    check(|c| c.healthcheck = Some(full.clone()), "/Healthcheck", &expected);
    let sparse = |test: &[&str]| Healthcheck {
        test: strings(test),
        interval: None,
        timeout: None,
        retries: None,
        start_period: None,
        start_interval: None,
    };
    check(|c| c.healthcheck = Some(sparse(&["NONE"])), "/Healthcheck", &json!({ "Test": ["NONE"] }));
    // An empty test keeps the image's own.
    check(|c| c.healthcheck = Some(sparse(&[])), "/Healthcheck", &json!({}));
}

#[test]
fn limits() {
    let limit = |change: fn(&mut Limits), field: &str, expected: Value| {
        check(|c| change(&mut c.limits), &format!("/HostConfig/{field}"), &expected);
    };
    limit(|l| l.cpus = Some(NanoCpus(1_500_000_000)), "NanoCpus", json!(1_500_000_000));
    limit(|l| l.memory = Some(Bytes(1 << 30)), "Memory", json!(1 << 30));
    limit(|l| l.memory = Some(Bytes(u64::MAX)), "Memory", json!(i64::MAX));
    limit(|l| l.memory_reservation = Some(Bytes(1 << 20)), "MemoryReservation", json!(1 << 20));
    limit(|l| l.memory_swap = Some(-1), "MemorySwap", json!(-1));
    limit(|l| l.memory_swappiness = Some(60), "MemorySwappiness", json!(60));
    limit(|l| l.pids = Some(100), "PidsLimit", json!(100));
    limit(|l| l.cpu_shares = Some(512), "CpuShares", json!(512));
    limit(|l| l.cpu_quota = Some(50_000), "CpuQuota", json!(50_000));
    limit(|l| l.cpu_period = Some(100_000), "CpuPeriod", json!(100_000));
    limit(|l| l.cpuset = some("0-1"), "CpusetCpus", json!("0-1"));
    limit(|l| l.shm_size = Some(Bytes(64)), "ShmSize", json!(64));
    limit(|l| l.oom_score_adj = Some(-5), "OomScoreAdj", json!(-5));
    limit(|l| l.oom_kill_disable = Some(true), "OomKillDisable", json!(true));
    limit(|l| l.storage_opt = pairs([("size", "1G")]), "StorageOpt", json!({ "size": "1G" }));
    limit(
        |l| l.ulimits = vec![Ulimit { name: "nofile".to_owned(), soft: 10, hard: -1 }],
        "Ulimits",
        json!([{ "Name": "nofile", "Soft": 10, "Hard": -1 }]),
    );
}

#[test]
fn privileges() {
    let privilege = |change: fn(&mut Privileges), field: &str, expected: Value| {
        check(|c| change(&mut c.privileges), &format!("/HostConfig/{field}"), &expected);
    };
    check_against(|c| c.privileges.privileged = true, "/HostConfig/Privileged", &json!(true), &json!(false));
    privilege(|p| p.cap_add = strings(&["NET_ADMIN"]), "CapAdd", json!(["NET_ADMIN"]));
    privilege(|p| p.cap_drop = strings(&["ALL"]), "CapDrop", json!(["ALL"]));
    privilege(
        |p| p.security_opt = strings(&["no-new-privileges"]),
        "SecurityOpt",
        json!(["no-new-privileges"]),
    );
    privilege(|p| p.group_add = strings(&["44"]), "GroupAdd", json!(["44"]));
    privilege(|p| p.pid = some("host"), "PidMode", json!("host"));
    privilege(|p| p.ipc = some("shareable"), "IpcMode", json!("shareable"));
    privilege(|p| p.uts = some("host"), "UTSMode", json!("host"));
    privilege(|p| p.userns_mode = some("host"), "UsernsMode", json!("host"));
    privilege(|p| p.cgroup = some("host"), "CgroupnsMode", json!("host"));
    privilege(|p| p.cgroup = some("private"), "CgroupnsMode", json!("private"));
    privilege(|p| p.cgroup_parent = some("/p"), "CgroupParent", json!("/p"));
    privilege(|p| p.device_cgroup_rules = strings(&["c 1:3 rwm"]), "DeviceCgroupRules", json!(["c 1:3 rwm"]));
}

#[test]
fn surroundings() {
    let device = Device { source: "/dev/a".into(), target: "/dev/b".into(), permissions: "r".into() };
    check(
        |c| c.devices = vec![device],
        "/HostConfig/Devices",
        &json!([{ "PathOnHost": "/dev/a", "PathInContainer": "/dev/b", "CgroupPermissions": "r" }]),
    );
    check(|c| c.sysctls = pairs([("net.a", "1")]), "/HostConfig/Sysctls", &json!({ "net.a": "1" }));
    check_against(|c| c.read_only = true, "/HostConfig/ReadonlyRootfs", &json!(true), &json!(false));
    let host = ExtraHost { host: "up".into(), address: "host-gateway".into() };
    check(|c| c.extra_hosts = vec![host], "/HostConfig/ExtraHosts", &json!(["up:host-gateway"]));
    let dns = Dns {
        servers: vec!["1.1.1.1".parse().unwrap(), "::1".parse().unwrap()],
        search: strings(&["a.b"]),
        options: strings(&["ndots:1"]),
    };
    check(|c| c.dns = dns.clone(), "/HostConfig/Dns", &json!(["1.1.1.1", "::1"]));
    check(|c| c.dns = dns.clone(), "/HostConfig/DnsSearch", &json!(["a.b"]));
    check(|c| c.dns = dns.clone(), "/HostConfig/DnsOptions", &json!(["ndots:1"]));
    let ours = json!({ "Type": "json-file", "Config": { "max-size": "10m", "max-file": "3" } });
    let syslog = Logging { driver: "syslog".to_owned(), options: pairs([("tag", "x")]) };
    let theirs = json!({ "Type": "syslog", "Config": { "tag": "x" } });
    check_against(|c| c.logging = Some(syslog), "/HostConfig/LogConfig", &theirs, &ours);
    let plain = Logging { driver: "local".to_owned(), options: BTreeMap::new() };
    check_against(|c| c.logging = Some(plain), "/HostConfig/LogConfig", &json!({ "Type": "local" }), &ours);
}

#[test]
fn only_host_ports_are_bound_and_all_are_exposed() {
    let port = |target, published, protocol, host_ip: Option<&str>| Port {
        target,
        published,
        host_ip: host_ip.map(|ip| ip.parse().unwrap()),
        protocol,
        mode: PortMode::Host,
        app_protocol: None,
    };
    let change = |template: &mut Template| {
        template.exposed = vec![53, 80];
        template.host_ports = vec![
            port(53, Some(5353), Protocol::Udp, Some("127.0.0.1")),
            port(53, Some(5354), Protocol::Udp, None),
            port(9000, None, Protocol::Tcp, None),
        ];
    };
    let host = body(change);
    assert_eq!(
        host.pointer("/ExposedPorts"),
        Some(&json!({ "53/tcp": {}, "53/udp": {}, "80/tcp": {}, "9000/tcp": {} }))
    );
    let bindings = json!({
        "53/udp": [{ "HostIp": "127.0.0.1", "HostPort": "5353" }, { "HostPort": "5354" }],
        "9000/tcp": [{}],
    });
    assert_eq!(host.pointer("/HostConfig/PortBindings"), Some(&bindings));
    // On the node's own network there is nothing to bind.
    let shared = body(|template| {
        change(template);
        template.container.network_mode = NetworkMode::Host;
    });
    assert_eq!(shared.pointer("/HostConfig/PortBindings"), None);
}

#[test]
fn the_first_network_comes_with_the_container_and_the_others_after_it() {
    let network = |name: &str| NetworkName::parse(name).unwrap();
    let front = Attachment {
        aliases: strings(&["www", "web"]),
        ipv4_address: Some("10.1.0.9".parse().unwrap()),
        ipv6_address: Some("fd00::9".parse().unwrap()),
        mac_address: some("02:42:ac:11:00:02"),
        priority: Some(5),
        driver_opts: pairs([("o", "1")]),
    };
    let creation = container(&request(|template| {
        template.container.container_name = some("the-web");
        template.container.networks =
            [(network("back"), Attachment::default()), (network("front"), front)].into();
    }))
    .unwrap();
    let body = serde_json::to_value(creation.body).unwrap();
    assert_eq!(body.pointer("/HostConfig/NetworkMode"), Some(&json!("shop_front")));
    let expected = json!({ "shop_front": {
        "Aliases": ["web", "the-web", "www"],
        "IPAMConfig": { "IPv4Address": "10.1.0.9", "IPv6Address": "fd00::9" },
        "MacAddress": "02:42:ac:11:00:02",
        "DriverOpts": { "o": "1" },
    } });
    assert_eq!(body.pointer("/NetworkingConfig/EndpointsConfig"), Some(&expected));
    let [(name, endpoint)] = &creation.connections[..] else { panic!("{:?}", creation.connections) };
    assert_eq!(name, "shop_back");
    assert_eq!(serde_json::to_value(endpoint).unwrap(), json!({ "Aliases": ["web", "the-web"] }));
}

#[test]
fn the_nodes_network_or_none_has_no_endpoints() {
    for (mode, name) in [(NetworkMode::Host, "host"), (NetworkMode::None, "none")] {
        let body = body(|template| {
            template.container.network_mode = mode;
            template.container.networks =
                [(NetworkName::parse("front").unwrap(), Attachment::default())].into();
        });
        assert_eq!(body.pointer("/HostConfig/NetworkMode"), Some(&json!(name)));
        assert_eq!(body.pointer("/NetworkingConfig"), None);
    }
}

fn mounted(source: MountSource, read_only: bool) -> (Value, Value) {
    let mount = Mount { source, target: "/t".to_owned(), read_only };
    let body = body(|template| template.container.mounts = vec![mount]);
    let get = |pointer: &str| body.pointer(pointer).cloned().unwrap_or_default();
    (get("/HostConfig/Mounts"), get("/HostConfig/Binds"))
}

#[test]
fn mounts() {
    let name = VolumeName::parse("data").unwrap();
    let volume = MountSource::Volume { name, nocopy: true, subpath: some("a") };
    let expected = json!([{
        "Type": "volume", "Source": "shop_data", "Target": "/t", "ReadOnly": true,
        "VolumeOptions": { "NoCopy": true, "Subpath": "a" },
    }]);
    assert_eq!(mounted(volume, true), (expected, Value::Null));

    let expected = json!([{ "Type": "volume", "Target": "/t", "ReadOnly": false }]);
    assert_eq!(mounted(MountSource::Anonymous, false), (expected, Value::Null));

    let tmpfs = MountSource::Tmpfs { size: Some(Bytes(4096)), mode: Some(0o1770) };
    let expected = json!([{
        "Type": "tmpfs", "Target": "/t", "ReadOnly": false,
        "TmpfsOptions": { "SizeBytes": 4096, "Mode": 0o1770 },
    }]);
    assert_eq!(mounted(tmpfs, false), (expected, Value::Null));
}

#[test]
fn bind_mounts_take_the_old_form_where_only_that_can_say_it() {
    let bind = |path: &str, create, propagation: Option<&str>, selinux: Option<&str>| MountSource::Bind {
        path: path.to_owned(),
        create,
        propagation: propagation.map(str::to_owned),
        selinux: selinux.map(str::to_owned),
    };
    let expected = json!([{
        "Type": "bind", "Source": "/p", "Target": "/t", "ReadOnly": true,
        "BindOptions": { "Propagation": "rshared" },
    }]);
    assert_eq!(mounted(bind("/p", false, Some("rshared"), None), true), (expected, Value::Null));
    assert_eq!(mounted(bind("/p", true, None, None), false), (Value::Null, json!(["/p:/t:rw"])));
    assert_eq!(
        mounted(bind("/p", false, Some("rslave"), Some("Z")), true),
        (Value::Null, json!(["/p:/t:ro,Z,rslave"]))
    );
    // A path with a colon cannot be said in the old form.
    let expected = json!([{
        "Type": "bind", "Source": "/a:b", "Target": "/t", "ReadOnly": false,
        "BindOptions": { "CreateMountpoint": true },
    }]);
    assert_eq!(mounted(bind("/a:b", true, None, None), false), (expected, Value::Null));
    let bad = bind("/p", false, Some("sideways"), None);
    let mount = Mount { source: bad, target: "/t".to_owned(), read_only: false };
    let error = container(&request(|template| template.container.mounts = vec![mount])).unwrap_err();
    assert_eq!(error.to_string(), "`sideways` is not a mount propagation");
}

#[test]
fn configs_are_files_that_cannot_be_written() {
    let config = |target: &str| ConfigMount {
        config: "a".to_owned(),
        hash: "h".to_owned(),
        target: target.to_owned(),
        mode: None,
        uid: None,
        gid: None,
    };
    check(
        |c| c.configs = vec![config("/etc/a.conf")],
        "/HostConfig/Mounts",
        &json!([{ "Type": "bind", "Source": "/node/configs/a", "Target": "/etc/a.conf", "ReadOnly": true }]),
    );
    let error = container(&request(|t| t.container.configs = vec![config("/elsewhere")])).unwrap_err();
    assert_eq!(error, Untranslatable::Config("a".to_owned()));
}

#[test]
fn what_the_project_does_not_have_is_an_error() {
    let unknown = NetworkName::parse("unknown").unwrap();
    let networks = [(unknown.clone(), Attachment::default())].into();
    let error = container(&request(|t| t.container.networks = networks)).unwrap_err();
    assert_eq!(error, Untranslatable::Network(unknown));

    let unknown = VolumeName::parse("unknown").unwrap();
    let source = MountSource::Volume { name: unknown.clone(), nocopy: false, subpath: None };
    let mount = Mount { source, target: "/t".to_owned(), read_only: false };
    let error = container(&request(|t| t.container.mounts = vec![mount])).unwrap_err();
    assert_eq!(error, Untranslatable::Volume(unknown));
}

#[test]
fn a_request_never_shows_its_environment() {
    let request = request(|t| t.container.environment = pairs([("PASSWORD", "hunter2")]));
    assert!(!format!("{request:?}").contains("hunter2"));
}
