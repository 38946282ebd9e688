//! What can happen to a cluster: what users ask for, and everything that breaks.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tug_model::{ProjectName, ServiceName, spec};

use crate::fake::Faults;

/// One thing that happens. Numbers choose among what is there.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// A user asks for something.
    Ask(Request),
    /// Somebody kills a container.
    Kill(usize, usize),
    /// Somebody removes a container by hand.
    RemoveContainer(usize, usize),
    /// Somebody starts a container that has nothing to do with us.
    Foreign(usize),
    /// The agent dies and starts again.
    CrashAgent(usize),
    /// The orchestrator dies and starts again.
    CrashOrchestrator,
    /// The orchestrator dies, and comes back only when everything heals or this happens again.
    ToggleOrchestrator,
    /// The connection between a node and the orchestrator is cut.
    Cut(usize),
    /// It is mended.
    Mend(usize),
    /// An engine gets these faults.
    Faults(usize, Faults),
    /// A machine is switched off and on.
    Reboot(usize),
}

/// What a user asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// Make a project this.
    Apply(Box<spec::Project>),
    /// Scale a service.
    Scale {
        /// Of which project.
        project: ProjectName,
        /// Which service.
        service: ServiceName,
        /// To how many.
        replicas: u32,
    },
    /// Restart a project.
    Restart(ProjectName),
    /// Remove a project.
    Remove(ProjectName),
}

const PROJECTS: [&str; 3] = ["red", "green", "blue"];
const SERVICES: [&str; 3] = ["web", "api", "db"];

// === impl Action ===

impl Action {
    /// Draws one.
    pub fn draw(dice: &mut fastrand::Rng, nodes: usize) -> Self {
        let node = dice.usize(0..nodes);
        let which = dice.usize(0..16);
        match dice.u8(0..100) {
            0..25 => Self::Ask(Request::Apply(Box::new(draw_project(dice)))),
            25..37 => {
                let (project, service) = (draw_name(dice), name(SERVICES[dice.usize(0..3)]));
                Self::Ask(Request::Scale { project, service, replicas: dice.u32(0..6) })
            }
            37..42 => Self::Ask(Request::Restart(draw_name(dice))),
            42..48 => Self::Ask(Request::Remove(draw_name(dice))),
            48..58 => Self::Kill(node, which),
            58..62 => Self::RemoveContainer(node, which),
            62..65 => Self::Foreign(node),
            65..71 => Self::CrashAgent(node),
            71..76 => Self::CrashOrchestrator,
            76..79 => Self::ToggleOrchestrator,
            79..84 => Self::Cut(node),
            84..89 => Self::Mend(node),
            89..97 => Self::Faults(node, draw_faults(dice)),
            _ => Self::Reboot(node),
        }
    }
}

fn draw_name(dice: &mut fastrand::Rng) -> ProjectName {
    ProjectName::parse(PROJECTS[dice.usize(0..PROJECTS.len())]).expect("it is a constant")
}

fn name(text: &str) -> ServiceName {
    ServiceName::parse(text).expect("it is a constant")
}

fn draw_faults(dice: &mut fastrand::Rng) -> Faults {
    match dice.u8(0..6) {
        0 => Faults { down: true, ..Faults::default() },
        1 => Faults { failing: 20, ..Faults::default() },
        2 => Faults { lost_replies: 20, ..Faults::default() },
        3 => Faults { lost_events: 50, ..Faults::default() },
        4 => Faults { slowness: Duration::from_secs(2), ..Faults::default() },
        _ => Faults::default(),
    }
}

/// One to three services, each depending only on those before it.
fn draw_project(dice: &mut fastrand::Rng) -> spec::Project {
    let project = draw_name(dice);
    let mut services = Map::new();
    let count = dice.usize(1..=SERVICES.len());
    for (number, service) in SERVICES.iter().enumerate().take(count) {
        let before = number.checked_sub(1).map(|earlier| SERVICES[earlier]);
        services.insert((*service).to_owned(), draw_service(dice, before));
    }
    let volumes = json!({"data": {"engine_name": format!("{project}_data")}});
    let networks = json!({"default": {"engine_name": format!("{project}_default")}});
    let spec = json!({"name": project, "services": services, "volumes": volumes, "networks": networks});
    serde_json::from_value(spec).expect("what is drawn is a project")
}

fn draw_service(dice: &mut fastrand::Rng, before: Option<&str>) -> Value {
    let version = dice.u8(1..4);
    let kind = match dice.u8(0..100) {
        0..60 => "good",
        60..75 => "slow",
        75..80 => "sick",
        80..88 => "crash",
        88..95 => "job",
        _ => "missing",
    };
    let mut container = json!({"image": format!("{kind}:{version}"), "networks": {"default": {}}});
    if dice.u8(0..5) == 0 {
        container["mounts"] = json!([{"source": {"volume": {"name": "data"}}, "target": "/data"}]);
    }
    let never = kind == "job";
    let restart = json!({"condition": if never { "never" } else { "any" }, "delay": 100});
    let mut service = json!({
        "container": container,
        "deploy": {"mode": {"replicated": dice.u32(0..5)}},
        "restart": restart,
    });
    if kind != "job" {
        service["probe"] = json!({
            "check": "tcp", "port": 80, "interval": 1000, "timeout": 1000, "retries": 3, "start_period": 0,
        });
    }
    if let Some(before) = before.filter(|_| dice.u8(0..4) == 0) {
        service["depends_on"] = json!({before: {"condition": "started", "required": true}});
    }
    service
}

// === impl Display ===

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ask(request) => request.fmt(f),
            Self::Kill(node, which) => write!(f, "kill container {which} on node {node}"),
            Self::RemoveContainer(node, which) => {
                write!(f, "remove container {which} on node {node} by hand")
            }
            Self::Foreign(node) => write!(f, "a foreign container on node {node}"),
            Self::CrashAgent(node) => write!(f, "crash agent {node}"),
            Self::CrashOrchestrator => write!(f, "crash the orchestrator"),
            Self::ToggleOrchestrator => write!(f, "the orchestrator goes away or comes back"),
            Self::Cut(node) => write!(f, "cut node {node} off"),
            Self::Mend(node) => write!(f, "mend the link of node {node}"),
            Self::Faults(node, faults) => write!(f, "engine {node}: {faults:?}"),
            Self::Reboot(node) => write!(f, "reboot node {node}"),
        }
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Apply(project) => {
                let services: BTreeMap<&str, String> = project
                    .services
                    .iter()
                    .map(|(name, service)| {
                        (name.as_str(), format!("{} {:?}", service.container.image, service.deploy.mode))
                    })
                    .collect();
                write!(f, "apply {} {services:?}", project.name)
            }
            Self::Scale { project, service, replicas } => write!(f, "scale {project}/{service}={replicas}"),
            Self::Restart(project) => write!(f, "restart {project}"),
            Self::Remove(project) => write!(f, "remove {project}"),
        }
    }
}
