//! Worlds as text. One thing a line:
//!
//! ```text
//! since 5000
//! epoch 2
//! leased n4 99000
//! node n1 vanished=2000 back=9000 word=3000 enginegone=2000
//! node n1 cpu=4 mem=1000 role=worker label:disk=ssd arch=arm64 at=10.0.0.1:7702 acked=9 follows=9 lost|awaited|silent|enginedown
//! node n3 leased=99000 older
//! node n2 lost=60000 losses=1000,2000,3000 enginedown=40000 deaf=80000 drain=90000 drain=90000+60000
//! home shop_data n1
//! service shop/web x3 v2 exclusive port=8080:80 host=53:53 volume kept spread=node.labels.zone after=db:healthy mem=100 cpu=1 max=1 only=node.id==n1
//! service shop/agent global restart=never platform=linux/arm64 grace=5000 expose=80 optional=db:started
//! was shop/old port=8080:80
//! task shop.web.1.5 n1 v1 healthy drain=9@95000 c=2 r=3
//! ```
//!
//! A service is of version v1 and has one replica unless told otherwise; `was` describes a service that is no longer
//! wanted. A task says where it runs, by which version of its service, and how its node sees it.

use std::collections::BTreeMap;
use std::sync::Arc;

use tug_model::name::{NodeId, ProjectName, ServiceName, TaskId, VolumeName};
use tug_model::node::{Availability, Capacity, Node, NodeInfo, Role};
use tug_model::project::StoredProject;
use tug_model::quantity::{Bytes, Millis, NanoCpus, Revision, Slot, Timestamp};
use tug_model::report::{Engine, Exit, Failure, Following, Health, Phase, Report, TaskReport};
use tug_model::spec;
use tug_model::spec::container::{Mount, MountSource, StopGrace};
use tug_model::spec::deploy::{Constraint, Mode, Preference};
use tug_model::spec::resource::Volume;
use tug_model::spec::service::{Condition, Dependency, Port, PortMode, Protocol, RestartOn, Service};
use tug_model::task::{Desired, Task, Template};

use crate::plan::{Deaf, NodeObserved, Observed, World};

/// When drawn worlds are looked at.
pub(crate) const NOW: Timestamp = Timestamp(100_000);
/// The revision of drawn worlds.
pub(crate) const REVISION: Revision = Revision(10);

/// Makes the world that a text describes.
pub(crate) fn draw(text: &str) -> World {
    let mut drawing = Drawing::default();
    let lines = || text.lines().map(str::trim).filter(|line| !line.is_empty());
    for line in lines().filter(|line| !line.starts_with("task")) {
        drawing.line(line);
    }
    for line in lines().filter(|line| line.starts_with("task")) {
        drawing.task(&words(line));
    }
    drawing.finish()
}

pub(crate) fn project_name(text: &str) -> ProjectName {
    ProjectName::parse(text).unwrap()
}

pub(crate) fn service_name(text: &str) -> ServiceName {
    ServiceName::parse(text).unwrap()
}

pub(crate) fn node_id(text: &str) -> NodeId {
    NodeId::parse(text).unwrap()
}

#[derive(Default)]
struct Drawing {
    since: Option<Timestamp>,
    projects: BTreeMap<ProjectName, spec::Project>,
    shapes: BTreeMap<(ProjectName, ServiceName), Service>,
    world: World,
    nodes: BTreeMap<NodeId, NodeObserved>,
    leased: BTreeMap<NodeId, Timestamp>,
}

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().skip(1).collect()
}

fn number<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().unwrap()
}

impl Drawing {
    fn line(&mut self, line: &str) {
        let words = words(line);
        match line.split_whitespace().next() {
            Some("node") => self.node(&words),
            Some(kind @ ("service" | "was")) => {
                let (project, name) = words[0].split_once('/').unwrap();
                let (project, name) = (project_name(project), service_name(name));
                let service = service(&words[1..]);
                self.shapes.insert((project.clone(), name.clone()), service.clone());
                if kind == "service" {
                    let project = self.projects.entry(project.clone()).or_insert_with(|| empty(project));
                    if words.contains(&"kept") {
                        keep(project);
                    }
                    project.services.insert(name, service);
                }
            }
            Some("since") => self.since = Some(Timestamp(number(words[0]))),
            Some("leased") => {
                self.leased.insert(node_id(words[0]), Timestamp(number(words[1])));
            }
            Some("epoch") => self.world.epoch = number(words[0]),
            Some("home") => {
                let nodes = words[1..].iter().map(|node| node_id(node)).collect();
                self.world.homes.insert(words[0].into(), nodes);
            }
            Some("project") => {
                let name = project_name(words[0]);
                self.projects.insert(name.clone(), empty(name));
            }
            other => panic!("{other:?}"),
        }
    }

    fn node(&mut self, words: &[&str]) {
        let id = node_id(words[0]);
        let mut info = info(words[0]);
        let mut seen =
            NodeObserved { connected: true, received_at: NOW, acked: REVISION, ..NodeObserved::default() };
        let mut following =
            Following { cluster: "c".into(), epoch: 1, generation: REVISION, endpoints: REVISION };
        let mut engine = Engine::Up;
        let (mut has_reported, mut uncounted) = (true, false);
        let mut uptime = Some(Millis(50_000));
        let (mut role, mut availability) = <(Role, Availability)>::default();
        for word in &words[1..] {
            match word.split_once('=') {
                Some(("cpu", value)) => info.capacity.cpus = NanoCpus(number::<u64>(value) * 1_000_000_000),
                Some(("mem", value)) => info.capacity.memory = Bytes(number::<u64>(value) << 20),
                Some(("role", value)) => role = if value == "worker" { Role::Worker } else { Role::Manager },
                Some(("drain", value)) => availability = draining(value),
                Some(("enginedown", age)) => engine = down(number(age), false),
                Some(("enginegone", age)) => engine = down(number(age), true),
                Some(("leased", at)) => {
                    self.leased.insert(id.clone(), Timestamp(number(at)));
                }
                Some(("arch", value)) => info.arch = value.into(),
                Some(("at", value)) => info.address = Some(value.into()),
                Some(("follows", value)) => following.generation = Revision(number(value)),
                Some((word, value)) => match word.strip_prefix("label:") {
                    Some(key) => drop(info.labels.insert(key.into(), value.into())),
                    None => see(&mut seen, word, value),
                },
                None => match *word {
                    "lost" => seen.lose(NOW),
                    "awaited" => (seen.connected, has_reported) = (false, false),
                    "silent" => has_reported = false,
                    "uncounted" => uncounted = true,
                    "older" => uptime = None,
                    "enginedown" => engine = down(1, false),
                    other => panic!("{other}"),
                },
            }
        }
        let (tasks, closed_ports, lacks) = <_>::default();
        let info_of_report = info.clone();
        let report =
            Report { info: info_of_report, following, engine, tasks, uncounted, closed_ports, uptime, lacks };
        seen.report = has_reported.then(|| Arc::new(report));
        self.nodes.insert(id.clone(), seen);
        let node = Node { role, availability, ..Node::new(id.clone(), info, Timestamp(0)) };
        self.world.nodes.insert(id, Arc::new(node));
    }

    fn task(&mut self, words: &[&str]) {
        let parts: Vec<&str> = words[0].split('.').collect();
        let (project, name) = (project_name(parts[0]), service_name(parts[1]));
        let mut shape =
            self.shapes.get(&(project.clone(), name.clone())).cloned().unwrap_or_else(|| service(&[]));
        shape.container.image = words[2].into();
        let mut whole = empty(project.clone());
        keep(&mut whole);
        let template = Template::of(&whole, &shape);
        let id = TaskId::parse(words[0]).unwrap();
        let node = node_id(words[1]);
        let mut task = Task {
            id: id.clone(),
            project,
            service: name,
            slot: Slot(number(parts[2])),
            node: node.clone(),
            template: template.hash(),
            desired: Desired::Run,
            created_at: Timestamp(number::<u64>(parts[3]) * 1000),
            exclusive: shape.exclusive.then(|| Revision(number(parts[3]))),
        };
        let (mut connections, mut restarts) = (0, 0);
        for word in &words[4..] {
            match word.split_once('=').unwrap() {
                ("c", value) => connections = number(value),
                ("r", value) => restarts = number(value),
                ("lease", "none") => task.exclusive = None,
                ("at", value) => task.created_at = Timestamp(number(value)),
                ("stop", value) => task.desired = Desired::Stop { since: Revision(number(value)) },
                ("drain", value) => {
                    let (since, at) = value.split_once('@').unwrap();
                    task.desired =
                        Desired::Drain { since: Revision(number(since)), at: Timestamp(number(at)) };
                }
                other => panic!("{other:?}"),
            }
        }
        if let Some(phase) = phase(words[3])
            && let Some(report) = self.nodes.get_mut(&node).and_then(|seen| seen.report.as_mut())
        {
            let task = TaskReport { id: id.clone(), phase, age: Millis(500), restarts, connections };
            Arc::make_mut(report).tasks.push(task);
        }
        self.world.templates.insert(task.template.clone(), Arc::new(template));
        self.world.tasks.insert(id, Arc::new(task));
    }

    fn finish(mut self) -> World {
        for observed in self.nodes.values_mut() {
            if let Some(report) = &mut observed.report {
                Arc::make_mut(report).tasks.sort_by(|a, b| a.id.cmp(&b.id));
            }
        }
        let nodes = self.nodes.into_iter().map(|(id, seen)| (id, Arc::new(seen))).collect();
        let leased = self.leased.into_iter().collect();
        self.world.observed = Arc::new(Observed { nodes, leased, ..Observed::default() });
        self.world.revision = REVISION;
        self.world.since = self.since.unwrap_or(NOW);
        self.world.projects =
            self.projects.into_iter().map(|(name, spec)| (name, Arc::new(stored(spec)))).collect();
        self.world
    }
}

/// What the control plane itself has seen of a node.
fn see(seen: &mut NodeObserved, word: &str, value: &str) {
    match word {
        "lost" => value.split(',').for_each(|at| seen.lose(Timestamp(number(at)))),
        "back" => {
            seen.back_at = Some(Timestamp(number(value)));
            (seen.connected, seen.acked) = (true, REVISION);
        }
        "vanished" => {
            seen.received_at = Timestamp(number(value));
            seen.lose(seen.received_at.plus(Millis::from_secs(3)));
            seen.silent_since = Some(seen.received_at);
        }
        "word" => seen.received_at = Timestamp(number(value)),
        "losses" => {
            value.split(',').for_each(|at| seen.lose(Timestamp(number(at))));
            (seen.connected, seen.acked) = (true, REVISION);
        }
        "deaf" => seen.deaf = Some(Deaf { since: Timestamp(number(value)), reason: "timed out".into() }),
        "acked" => seen.acked = Revision(number(value)),
        other => panic!("{other}"),
    }
}

fn down(age: u64, doomed: bool) -> Engine {
    Engine::Down { reason: "refused".into(), age: Millis(age), doomed }
}

/// `AT`, or `AT+DEADLINE`.
fn draining(words: &str) -> Availability {
    let (at, deadline) = words.split_once('+').map_or((words, None), |(at, after)| (at, Some(after)));
    Availability::Drain { at: Timestamp(number(at)), deadline: deadline.map(|after| Millis(number(after))) }
}

fn empty(name: ProjectName) -> spec::Project {
    let (services, networks, volumes, configs) = Default::default();
    spec::Project { name, services, networks, volumes, configs }
}

pub(crate) fn stored(spec: spec::Project) -> StoredProject {
    StoredProject { spec, source: vec![], number: 1, revision: Revision(4), accepted_at: Timestamp(0) }
}

pub(crate) fn info(hostname: &str) -> NodeInfo {
    NodeInfo {
        hostname: hostname.into(),
        os: "linux".into(),
        arch: "amd64".into(),
        capacity: Capacity { cpus: NanoCpus(8_000_000_000), memory: Bytes(1000 << 20) },
        labels: BTreeMap::new(),
        engine_version: "28.0".into(),
        agent_version: "0.1.0".into(),
        address: None,
    }
}

/// A service of these words.
pub(crate) fn service(words: &[&str]) -> Service {
    let mut service: Service = serde_json::from_str(r#"{"container":{"image":"v1"}}"#).unwrap();
    for word in words {
        match word.split_once('=') {
            Some((key, value)) => set(&mut service, key, value),
            None => match *word {
                "global" => service.deploy.mode = Mode::Global,
                "exclusive" => service.exclusive = true,
                "volume" | "kept" => {
                    let name = VolumeName::parse(if *word == "kept" { "kept" } else { "data" }).unwrap();
                    let source = MountSource::Volume { name, nocopy: false, subpath: None };
                    service.container.mounts.push(Mount { source, target: "/data".into(), read_only: false });
                }
                word if word.starts_with('v') => service.container.image = word.into(),
                word => service.deploy.mode = Mode::Replicated(number(word.strip_prefix('x').unwrap())),
            },
        }
    }
    service
}

fn set(service: &mut Service, key: &str, value: &str) {
    match key {
        "port" => service.ports.push(port(value, PortMode::Ingress)),
        "host" => service.ports.push(port(value, PortMode::Host)),
        "expose" => service.expose.push(number(value)),
        "mem" => service.deploy.reservations.memory = Bytes(number::<u64>(value) << 20),
        "cpu" => service.deploy.reservations.cpus = NanoCpus(number::<u64>(value) * 1_000_000_000),
        "spread" => {
            let spread = value.into();
            service.deploy.placement.preferences.push(Preference { spread });
        }
        "max" => service.deploy.placement.max_replicas_per_node = Some(number(value)),
        "platform" => service.container.platform = Some(value.into()),
        "grace" => service.container.stop_grace_period = StopGrace(Millis(number(value))),
        "restart" => {
            service.restart.condition = if value == "never" { RestartOn::Never } else { RestartOn::Failure };
        }
        "only" => {
            let (equal, sign) = if value.contains("!=") { (false, "!=") } else { (true, "==") };
            let (attribute, value) = value.split_once(sign).unwrap();
            let constraint = Constraint { attribute: attribute.into(), equal, value: value.into() };
            service.deploy.placement.constraints.push(constraint);
        }
        "after" | "optional" => {
            let (name, condition) = value.split_once(':').unwrap();
            let condition = match condition {
                "started" => Condition::Started,
                "healthy" => Condition::Healthy,
                "completed" => Condition::CompletedSuccessfully,
                other => panic!("{other}"),
            };
            let dependency = Dependency { condition, required: key == "after" };
            service.depends_on.insert(service_name(name), dependency);
        }
        other => panic!("{other}"),
    }
}

/// `8080:80`, or `80` for a port without a published number.
pub(crate) fn port(text: &str, mode: PortMode) -> Port {
    let (published, target) = match text.split_once(':') {
        Some((published, target)) => (Some(number(published)), target),
        None => (None, text),
    };
    Port {
        target: number(target),
        published,
        host_ip: None,
        protocol: Protocol::Tcp,
        mode,
        app_protocol: None,
    }
}

/// How a node sees a task; `unseen`: not at all.
pub(crate) fn phase(word: &str) -> Option<Phase> {
    let exit = |code| Exit { code, out_of_memory: false, last_words: "no such table".into() };
    let running = |health| Phase::Running { health, address: None };
    let waiting = |failure| Phase::Waiting { failure, retry_in: Millis(4000) };
    Some(match word {
        "unseen" => return None,
        "pending" => Phase::Pending,
        "creating" => Phase::Creating,
        "starting" => running(Health::Starting),
        "healthy" => running(Health::Healthy),
        "unhealthy" => running(Health::Unhealthy { reason: "connection refused".into() }),
        "waiting" => waiting(Failure::Exited { exit: exit(1) }),
        "refused" => waiting(Failure::Refused { reason: "pull image `v2`: not found".into(), tries: 1 }),
        "stopping" => Phase::Stopping,
        "exit0" => Phase::Exited { exit: exit(0) },
        "exit1" => Phase::Exited { exit: exit(1) },
        other => panic!("{other}"),
    })
}

/// Declares the volume `kept`, of which is known where its data is; `data` is declared nowhere.
fn keep(project: &mut spec::Project) {
    let (external, driver, driver_opts, labels) = Default::default();
    let engine_name = format!("{}_kept", project.name);
    let volume = Volume { engine_name, external, driver, driver_opts, labels };
    project.volumes.insert(VolumeName::parse("kept").unwrap(), volume);
}

/// The tasks of a node.
pub(crate) fn tasks_on<'w>(world: &'w World, node: &NodeId) -> Vec<&'w Task> {
    world.tasks.values().map(AsRef::as_ref).filter(|task| task.node == *node).collect()
}
