//! What the facts about a machine mean: pure, so that every case can be tried.

use super::{Disk, Engine, Facts, FileSystem, Finding, Listener, NoEngine, Server, State};

/// The oldest version of Docker's API that is enough: that of Docker 20.10.
const OLDEST_API: (u32, u32) = (1, 41);
/// The ports of a control plane and of an agent.
pub(crate) const SERVER_PORT: u16 = 7443;
pub(crate) const PEER_PORT: u16 = 7444;
/// The ports on which Docker's API is offered to other machines, without TLS and with it.
pub(crate) const BARE_API: u16 = 2375;
pub(crate) const TLS_API: u16 = 2376;
/// Clocks that differ by more, in milliseconds, are worth a word; by far more, certificates are at stake.
const SKEW: u64 = 5_000;
const LARGE_SKEW: u64 = 300_000;
/// A disk with less free than this will soon be full, or is.
const LITTLE: u64 = 2 << 30;
const NEARLY_NOTHING: u64 = 256 << 20;

/// Everything there is to say, in the order in which it matters.
pub(crate) fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    match &facts.engine {
        Ok(found) => engine(found, &mut findings),
        Err(none) => findings.push(no_engine(none)),
    }
    findings.extend(facts.engine_disk.as_ref().map(|it| disk("docker-disk", "Docker's folder", it)));
    findings.extend(open_api(&facts.listeners));
    state(&facts.state, &mut findings);
    if !facts.has_joined {
        findings.push(port(SERVER_PORT, "other machines", "--listen", &facts.listeners));
    }
    findings.push(port(PEER_PORT, "the agents of other nodes", "--peer-listen", &facts.listeners));
    server(&facts.server, &mut findings);
    findings
}

// === the Engine ===

fn no_engine(none: &NoEngine) -> Finding {
    let message = format!("no Docker Engine answers at {}: {}", none.socket, none.reason);
    let remedy = if none.is_forbidden {
        "run this as root, or as a user of the group `docker`"
    } else {
        "install and start Docker (on Debian: apt-get install docker.io), or name its socket with --docker"
    };
    Finding::fail("engine", message, remedy)
}

fn engine(found: &Engine, findings: &mut Vec<Finding>) {
    if found.is_podman {
        findings.push(Finding::fail(
            "engine",
            format!("this is Podman {}, which is not Docker in all that Tug needs", found.version),
            "install Docker, and name its socket with --docker",
        ));
        return;
    }
    findings.push(version(found));
    if found.is_rootless {
        findings.push(Finding::fail(
            "rootless",
            "the Engine runs without root: its containers cannot be reached from this machine's own network",
            "run Docker as root's service",
        ));
    }
    findings.push(if found.live_restore {
        Finding::ok("live-restore", "containers outlive a restart of the Engine")
    } else {
        let remedy = "put \"live-restore\": true into /etc/docker/daemon.json, then: systemctl reload docker";
        let swarm = if found.in_swarm { " (Docker's Swarm forbids it: docker swarm leave)" } else { "" };
        Finding::warn(
            "live-restore",
            "a restart of the Engine stops all containers",
            format!("{remedy}{swarm}"),
        )
    });
    if found.in_swarm {
        findings.push(Finding::warn(
            "swarm",
            "the Engine is part of a Docker Swarm, which runs containers and takes ports of its own here",
            "docker swarm leave, when nothing of it is needed any more",
        ));
    }
    findings.push(if found.memory_limit {
        let of = if found.cgroup_version.is_empty() { "" } else { " of version " };
        Finding::ok("cgroups", format!("cgroups{of}{}, with limits of memory", found.cgroup_version))
    } else {
        Finding::fail(
            "cgroups",
            "the kernel does not limit memory: no `mem_limit` is kept, and one container can take all",
            "start the kernel with cgroup_enable=memory cgroup_memory=1, then restart the machine",
        )
    });
    findings.push(match found.storage_driver.as_str() {
        driver @ ("vfs" | "aufs" | "devicemapper") => Finding::warn(
            "storage-driver",
            format!("{driver} is slow, or no longer looked after"),
            "use overlay2: put \"storage-driver\": \"overlay2\" into /etc/docker/daemon.json (images are loaded anew)",
        ),
        driver => Finding::ok("storage-driver", driver),
    });
}

fn version(found: &Engine) -> Finding {
    let number = |text: &str| text.parse::<u32>().ok();
    let api = found.api.split_once('.').and_then(|(major, minor)| Some((number(major)?, number(minor)?)));
    let shown = format!("Docker {}, API {}", found.version, found.api);
    match api {
        Some(api) if api >= OLDEST_API => Finding::ok("engine", shown),
        Some(_) | None => Finding::fail(
            "engine",
            format!("{shown} is too old: API {}.{} is needed", OLDEST_API.0, OLDEST_API.1),
            "install Docker 20.10 or newer",
        ),
    }
}

/// Docker's API on a port is root for whoever reaches it.
fn open_api(listeners: &[Listener]) -> Vec<Finding> {
    let on = |port: u16| listeners.iter().filter(move |one| one.port == port);
    let is_loopback = |one: &Listener| one.address.to_canonical().is_loopback();
    let mut findings = Vec::new();
    let remedy =
        "take `-H tcp://…` from the command line of dockerd, or from \"hosts\" in /etc/docker/daemon.json";
    if let Some(open) = on(BARE_API).find(|one| !is_loopback(one)) {
        let message = format!("port {BARE_API} is open on {}: whoever reaches it is root here", open.address);
        findings.push(Finding::fail("docker-api", message, remedy));
    } else if on(BARE_API).next().is_some() {
        let message = format!("port {BARE_API} is open on this machine: every user of it is root by that");
        findings.push(Finding::warn("docker-api", message, remedy));
    }
    if let Some(open) = on(TLS_API).find(|one| !is_loopback(one)) {
        findings.push(Finding::warn(
            "docker-api",
            format!(
                "port {TLS_API} is open on {}: whoever has one of its certificates is root here",
                open.address
            ),
            "make sure that dockerd runs with --tlsverify, or close it: Tug needs only the socket",
        ));
    }
    if findings.is_empty() {
        findings.push(Finding::ok("docker-api", "Docker's API is on no port"));
    }
    findings
}

// === disks and folders ===

fn disk(check: &'static str, what: &str, disk: &Disk) -> Finding {
    let shown = |bytes: u64| tug_model::Bytes(bytes).to_string();
    let path = disk.path.display();
    let message = format!("{} of {} are free for {what}, {path}", shown(disk.free), shown(disk.total));
    let remedy = "make room: `docker system df` shows what Docker keeps";
    if disk.free < NEARLY_NOTHING {
        Finding::fail(check, message, remedy)
    } else if disk.free < LITTLE || disk.free < disk.total / 20 {
        Finding::warn(check, message, remedy)
    } else {
        Finding::ok(check, message)
    }
}

fn state(state: &State, findings: &mut Vec<Finding>) {
    let path = state.path.display();
    findings.push(match &state.found {
        Err(reason) => Finding::warn(
            "state-folder",
            format!("{path} cannot be looked at: {reason}"),
            "run this as the user that runs the daemons",
        ),
        Ok(None) => Finding::ok("state-folder", format!("{path} is made at the first start")),
        Ok(Some(found)) if !found.is_directory => Finding::fail(
            "state-folder",
            format!("{path} is no folder"),
            "move it away, or choose another one with --state-dir",
        ),
        Ok(Some(found)) if found.mode & 0o022 != 0 => Finding::fail(
            "state-folder",
            format!("others may write to {path} (mode {:04o}): the daemons refuse it", found.mode),
            format!("chmod 700 {path}"),
        ),
        Ok(Some(found)) if found.owner != found.us && found.us == 0 => Finding::fail(
            "state-folder",
            format!("{path} belongs to user {}: daemons of root refuse it", found.owner),
            format!("chown root {path}, or run the daemons as that user"),
        ),
        Ok(Some(found)) if found.mode & 0o055 != 0 => Finding::warn(
            "state-folder",
            format!("others may look into {path} (mode {:04o})", found.mode),
            format!("chmod 700 {path}"),
        ),
        Ok(Some(found)) => Finding::ok("state-folder", format!("{path}, of user {}", found.owner)),
    });
    match state.kind {
        FileSystem::Lasting => {}
        FileSystem::Memory => findings.push(Finding::fail(
            "state-filesystem",
            format!("{path} is in memory: a restart of the machine forgets everything"),
            "choose a folder on a disk with --state-dir",
        )),
        FileSystem::Network => findings.push(Finding::warn(
            "state-filesystem",
            format!("{path} is on another machine's disk: whether a write is safe there, nobody can tell"),
            "choose a folder on a disk of this machine with --state-dir",
        )),
    }
    findings.extend(state.disk.as_ref().map(|it| disk("state-disk", "the state", it)));
}

// === the network ===

fn port(port: u16, whom: &str, option: &str, listeners: &[Listener]) -> Finding {
    let check = if port == SERVER_PORT { "port-7443" } else { "port-7444" };
    let elsewhere = format!("end it, or listen elsewhere: {option} ADDRESS:PORT");
    match listeners.iter().find(|one| one.port == port).map(|one| one.owner.as_deref()) {
        None => Finding::ok(check, format!("port {port}, for {whom}, is free")),
        Some(Some("tug")) => Finding::ok(check, format!("port {port}, for {whom}, is Tug's")),
        Some(Some(other)) => {
            Finding::fail(check, format!("port {port}, for {whom}, is used by `{other}`"), elsewhere)
        }
        Some(None) => Finding::warn(
            check,
            format!("port {port}, for {whom}, is used, by whom cannot be seen"),
            "run this as root to see by whom",
        ),
    }
}

fn server(server: &Server, findings: &mut Vec<Finding>) {
    match server {
        Server::Unknown => findings.push(Finding::ok("server", "no control plane is known here yet")),
        Server::Silent { reason } => findings.push(Finding::warn(
            "server",
            format!("the control plane does not answer, so the clock was not compared: {reason}"),
            "start it, or mend the way to it; what runs here goes on meanwhile",
        )),
        Server::Answers { version, ahead } => {
            let ours = env!("CARGO_PKG_VERSION");
            findings.push(if version == ours {
                Finding::ok("server", format!("the control plane answers, version {version}"))
            } else {
                Finding::warn(
                    "server",
                    format!("the control plane is of version {version}, this program of {ours}"),
                    "bring both to the newer version, the control plane first",
                )
            });
            findings.extend(ahead.map(clock));
        }
    }
}

fn clock(ahead: i64) -> Finding {
    let (size, seconds) = (ahead.unsigned_abs(), ahead.unsigned_abs() / 1000);
    if size <= SKEW {
        return Finding::ok("clock", "it shows the control plane's time");
    }
    let message =
        format!("it is {seconds} s {} the control plane's", if ahead > 0 { "behind" } else { "ahead of" });
    let remedy = "let both machines take their time from the network: timedatectl set-ntp true";
    if size > LARGE_SKEW {
        Finding::fail("clock", format!("{message}: certificates may not be valid"), remedy)
    } else {
        Finding::warn("clock", message, remedy)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Folder, Level};
    use super::*;

    fn fine() -> Facts {
        let disk = |path: &str| Some(Disk { path: path.into(), free: 50 << 30, total: 100 << 30 });
        let folder = Folder { is_directory: true, owner: 0, us: 0, mode: 0o700 };
        Facts {
            engine: Ok(Engine {
                version: "28.2.2".into(),
                api: "1.50".into(),
                is_podman: false,
                is_rootless: false,
                live_restore: true,
                in_swarm: false,
                cgroup_version: "2".into(),
                memory_limit: true,
                storage_driver: "overlay2".into(),
            }),
            engine_disk: disk("/var/lib/docker"),
            state: State {
                path: "/var/lib/tug".into(),
                found: Ok(Some(folder)),
                disk: disk("/var/lib/tug"),
                kind: FileSystem::Lasting,
            },
            listeners: Vec::new(),
            has_joined: false,
            server: Server::Answers { version: env!("CARGO_PKG_VERSION").into(), ahead: Some(-4_999) },
        }
    }

    /// What is not well after `change`, as `level check`, with its remedy.
    fn wrong(change: impl FnOnce(&mut Facts)) -> Vec<String> {
        let mut facts = fine();
        change(&mut facts);
        let findings = judge(&facts);
        let all = findings.into_iter().filter(|finding| finding.level != Level::Ok);
        all.map(|finding| {
            assert!(
                finding.remedy.is_some_and(|remedy| !remedy.is_empty()),
                "{} says what to do",
                finding.check
            );
            format!("{:?} {}", finding.level, finding.check).to_lowercase()
        })
        .collect()
    }

    fn with_engine(change: impl FnOnce(&mut Engine)) -> Vec<String> {
        wrong(|facts| change(facts.engine.as_mut().unwrap()))
    }

    fn listening(address: &str, port: u16, owner: Option<&str>) -> Vec<String> {
        let owner = owner.map(str::to_owned);
        wrong(|facts| facts.listeners.push(Listener { address: address.parse().unwrap(), port, owner }))
    }

    #[test]
    fn a_fit_machine_has_nothing_to_mend_and_every_check_is_named_once() {
        assert_eq!(wrong(|_| {}), [""; 0]);
        let checks: Vec<&str> = judge(&fine()).into_iter().map(|finding| finding.check).collect();
        insta::assert_snapshot!(checks.join(" "),
            @"engine live-restore cgroups storage-driver docker-disk docker-api state-folder state-disk port-7443 port-7444 server clock");
    }

    #[test]
    fn engines_that_will_not_do() {
        let none = |is_forbidden| {
            let none = NoEngine { socket: "/s".into(), reason: "no such file".into(), is_forbidden };
            wrong(|facts| facts.engine = Err(none))
        };
        assert_eq!(
            (none(false), none(true)),
            (vec!["fail engine".to_owned()], vec!["fail engine".to_owned()])
        );
        for (api, is_enough) in [("1.40", false), ("1.41", true), ("1.9", false), ("2.0", true), ("", false)]
        {
            let found = with_engine(|engine| engine.api = api.into());
            assert_eq!(found.is_empty(), is_enough, "{api}");
        }
        assert_eq!(with_engine(|engine| engine.is_podman = true), ["fail engine"]);
        assert_eq!(with_engine(|engine| engine.is_rootless = true), ["fail rootless"]);
        assert_eq!(with_engine(|engine| engine.live_restore = false), ["warn live-restore"]);
        assert_eq!(with_engine(|engine| engine.in_swarm = true), ["warn swarm"]);
        assert_eq!(with_engine(|engine| engine.memory_limit = false), ["fail cgroups"]);
        assert_eq!(with_engine(|engine| engine.storage_driver = "vfs".into()), ["warn storage-driver"]);
    }

    #[test]
    fn an_api_on_a_port_is_worse_the_more_may_reach_it() {
        assert_eq!(listening("0.0.0.0", BARE_API, None), ["fail docker-api"]);
        assert_eq!(listening("::", BARE_API, None), ["fail docker-api"]);
        assert_eq!(listening("192.0.2.1", BARE_API, Some("dockerd")), ["fail docker-api"]);
        assert_eq!(listening("127.0.0.1", BARE_API, None), ["warn docker-api"]);
        assert_eq!(listening("::ffff:127.0.0.1", BARE_API, None), ["warn docker-api"]);
        assert_eq!(listening("0.0.0.0", TLS_API, None), ["warn docker-api"]);
        assert_eq!(listening("::1", TLS_API, None), [""; 0]);
    }

    #[test]
    fn our_ports_are_free_or_ours() {
        for (port, check) in [(SERVER_PORT, "port-7443"), (PEER_PORT, "port-7444")] {
            assert_eq!(listening("0.0.0.0", port, Some("tug")), [""; 0]);
            assert_eq!(listening("0.0.0.0", port, Some("nginx")), [format!("fail {check}")]);
            assert_eq!(listening("127.0.0.1", port, None), [format!("warn {check}")]);
        }
        let on_a_node = wrong(|facts| {
            facts.has_joined = true;
            let (address, owner) = ("0.0.0.0".parse().unwrap(), Some("nginx".to_owned()));
            facts.listeners.push(Listener { address, port: SERVER_PORT, owner });
        });
        assert_eq!(on_a_node, [""; 0], "a node that joined needs no port for others to join by");
    }

    #[test]
    fn folders_and_disks_that_will_not_do() {
        let folder = |is_directory, owner, us, mode| {
            wrong(|facts| facts.state.found = Ok(Some(Folder { is_directory, owner, us, mode })))
        };
        assert_eq!(folder(true, 0, 0, 0o755), ["warn state-folder"]);
        assert_eq!(folder(true, 0, 0, 0o770), ["fail state-folder"]);
        assert_eq!(folder(true, 1000, 0, 0o700), ["fail state-folder"]);
        assert_eq!(folder(true, 0, 1000, 0o700), [""; 0], "a user may look at what is root's");
        assert_eq!(folder(false, 0, 0, 0o600), ["fail state-folder"]);
        assert_eq!(wrong(|facts| facts.state.found = Ok(None)), [""; 0]);
        assert_eq!(wrong(|facts| facts.state.found = Err("denied".into())), ["warn state-folder"]);
        assert_eq!(wrong(|facts| facts.state.kind = FileSystem::Memory), ["fail state-filesystem"]);
        assert_eq!(wrong(|facts| facts.state.kind = FileSystem::Network), ["warn state-filesystem"]);
        let free = |free| wrong(|facts| facts.state.disk.as_mut().unwrap().free = free);
        assert_eq!(free(100 << 20), ["fail state-disk"]);
        assert_eq!(free(1 << 30), ["warn state-disk"]);
        assert_eq!(free(4 << 30), ["warn state-disk"], "less than a twentieth");
        assert_eq!(free(6 << 30), [""; 0]);
        assert_eq!(wrong(|facts| facts.engine_disk.as_mut().unwrap().free = 0), ["fail docker-disk"]);
    }

    #[test]
    fn the_control_plane_and_its_clock() {
        let server = |server| wrong(|facts| facts.server = server);
        let clock =
            |ahead| server(Server::Answers { version: env!("CARGO_PKG_VERSION").into(), ahead: Some(ahead) });
        assert_eq!((clock(5_000), clock(-5_001)), (Vec::new(), vec!["warn clock".to_owned()]));
        assert_eq!((clock(301_000), clock(i64::MIN)), (vec!["fail clock".into()], vec!["fail clock".into()]));
        assert_eq!(server(Server::Unknown), [""; 0]);
        assert_eq!(server(Server::Silent { reason: "connection refused".into() }), ["warn server"]);
        assert_eq!(server(Server::Answers { version: "9.0.0".into(), ahead: None }), ["warn server"]);
    }
}
