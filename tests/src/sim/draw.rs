//! What happens next, by the dice.

use std::time::Duration;

use serde_json::{Map, Value, json};
use tug_model::{Millis, ProjectName, ServiceName};

use super::action::{Action, ControlAction, Direction, Ledger, Moment, NodeAction, Request};
use crate::fake::Faults;

const PROJECTS: [&str; 3] = ["red", "green", "blue"];
const SERVICES: [&str; 3] = ["web", "api", "db"];
const DAY: i64 = 24 * 60 * 60;

/// Draws what happens next in a cluster of so many machines.
pub(super) fn action(dice: &mut fastrand::Rng, nodes: usize) -> Action {
    let node = dice.usize(0..nodes);
    match dice.u8(0..100) {
        0..44 => Action::Ask(request(dice, nodes)),
        44..88 => Action::Node(node, node_action(dice)),
        88..96 => Action::Control(control_action(dice)),
        96..99 if nodes > 1 => {
            let count = dice.usize(nodes.div_ceil(2)..=nodes);
            let actions = [NodeAction::PowerOff, NodeAction::Cut(Direction::Both), NodeAction::Mend];
            Action::Together(count, Box::new(actions[dice.usize(0..actions.len())].clone()))
        }
        _ => Action::StandStill(Duration::from_secs(dice.u64(1..120))),
    }
}

fn request(dice: &mut fastrand::Rng, nodes: usize) -> Request {
    match dice.u8(0..44) {
        0..20 => Request::Apply(Box::new(project(dice))),
        20..29 => {
            let (project, service) = (project_name(dice), service_name(dice));
            Request::Scale { project, service, replicas: dice.u32(0..6) }
        }
        29..33 => Request::Restart(project_name(dice)),
        33..38 => Request::Remove(project_name(dice)),
        38..41 => {
            let deadline = [None, Some(Millis(5_000)), Some(Millis(60_000))][dice.usize(0..3)];
            Request::Drain(dice.usize(0..nodes), deadline)
        }
        41..43 => Request::Activate(dice.usize(0..nodes)),
        _ => Request::RemoveNode(dice.usize(0..nodes)),
    }
}

fn node_action(dice: &mut fastrand::Rng) -> NodeAction {
    match dice.u8(0..100) {
        0..14 => NodeAction::Kill(dice.usize(0..16)),
        14..19 => NodeAction::RemoveContainer(dice.usize(0..16)),
        19..23 => NodeAction::Foreign,
        23..30 => NodeAction::CrashAgent,
        30..36 => {
            let moments = [Moment::Made, Moment::Started, Moment::Stopped];
            NodeAction::CrashAgentAfter(moments[dice.usize(0..moments.len())])
        }
        36..40 => {
            let file = [Ledger::Assignment, Ledger::Restarts][dice.usize(0..2)];
            NodeAction::LoseLedger(file, dice.bool())
        }
        40..45 => NodeAction::Freeze(Duration::from_secs(dice.u64(1..30))),
        45..53 => {
            let stubborn = dice.bool();
            let directions = [Direction::Both, Direction::Orders(stubborn), Direction::Reports(stubborn)];
            NodeAction::Cut(directions[dice.usize(0..directions.len())])
        }
        53..56 => NodeAction::Flap,
        56..60 => NodeAction::Disconnect,
        60..62 => NodeAction::Redial,
        62..64 => NodeAction::Delay(Duration::from_millis(dice.u64(50..500))),
        64..66 => NodeAction::LoseReplies(dice.u8(5..50)),
        66..74 => NodeAction::Mend,
        74..86 => NodeAction::Faults(faults(dice)),
        86..89 => NodeAction::Reboot,
        89..92 => NodeAction::PowerOff,
        92..96 => NodeAction::PowerOn,
        96..98 => NodeAction::SetClock(clock_error(dice)),
        _ => NodeAction::Reinstall,
    }
}

fn control_action(dice: &mut fastrand::Rng) -> ControlAction {
    match dice.u8(0..16) {
        0..5 => ControlAction::Crash,
        5..9 => ControlAction::Toggle,
        9..11 => ControlAction::Usurp,
        11..13 => ControlAction::BackUp,
        13 => ControlAction::Restore,
        _ => ControlAction::SetClock(clock_error(dice)),
    }
}

/// A little, some days, a year, or all the way to 1970.
pub(super) fn clock_error(dice: &mut fastrand::Rng) -> i64 {
    [-2, 7, 3 * DAY, -3 * DAY, 365 * DAY, -20_000 * DAY][dice.usize(0..6)]
}

pub(super) fn faults(dice: &mut fastrand::Rng) -> Faults {
    match dice.u8(0..9) {
        0 => Faults { down: true, ..Faults::default() },
        1 => Faults { hung: true, ..Faults::default() },
        2 => Faults { failing: 20, ..Faults::default() },
        3 => Faults { lost_replies: 20, ..Faults::default() },
        4 => Faults { lost_events: 50, ..Faults::default() },
        5 => Faults { doubled_events: 50, ..Faults::default() },
        6 => Faults { slow_removals: 50, ..Faults::default() },
        7 => Faults { slowness: Duration::from_secs(2), ..Faults::default() },
        _ => Faults::default(),
    }
}

pub(super) fn project_name(dice: &mut fastrand::Rng) -> ProjectName {
    ProjectName::parse(PROJECTS[dice.usize(0..PROJECTS.len())]).expect("it is a constant")
}

fn service_name(dice: &mut fastrand::Rng) -> ServiceName {
    ServiceName::parse(SERVICES[dice.usize(0..SERVICES.len())]).expect("it is a constant")
}

/// One to three services, each depending only on those before it.
fn project(dice: &mut fastrand::Rng) -> tug_model::spec::Project {
    let project = project_name(dice);
    let mut services = Map::new();
    let count = dice.usize(1..=SERVICES.len());
    for (number, name) in SERVICES.iter().enumerate().take(count) {
        let before = number.checked_sub(1).map(|earlier| SERVICES[earlier]);
        services.insert((*name).to_owned(), service(dice, before));
    }
    whole(&project, &Value::Object(services))
}

/// A project of these services, with a network and a volume.
pub(super) fn whole(project: &ProjectName, services: &Value) -> tug_model::spec::Project {
    let volumes = json!({"data": {"engine_name": format!("{project}_data")}});
    let networks = json!({"default": {"engine_name": format!("{project}_default")}});
    let spec = json!({"name": project, "services": services, "volumes": volumes, "networks": networks});
    serde_json::from_value(spec).expect("what is drawn is a project")
}

/// A service of `image`, in this mode.
pub(super) fn plain(image: &str, mode: &Value) -> Value {
    json!({
        "container": {"image": image, "networks": {"default": {}}},
        "deploy": {"mode": mode},
        "restart": {"condition": "any", "delay": 100},
        "probe": {
            "check": "tcp", "port": 80, "interval": 1000, "timeout": 1000, "retries": 3, "start_period": 0,
        },
    })
}

fn service(dice: &mut fastrand::Rng, before: Option<&str>) -> Value {
    let version = dice.u8(1..4);
    let kind = match dice.u8(0..100) {
        0..60 => "good",
        60..75 => "slow",
        75..80 => "sick",
        80..88 => "crash",
        88..95 => "job",
        _ => "missing",
    };
    let is_job = kind == "job";
    let is_global = !is_job && dice.u8(0..8) == 0;
    let mode = if is_global { json!("global") } else { json!({"replicated": dice.u32(0..5)}) };
    let mut service = plain(&format!("{kind}:{version}"), &mode);
    if dice.u8(0..5) == 0 {
        service["container"]["mounts"] = json!([{"source": {"volume": {"name": "data"}}, "target": "/data"}]);
    }
    if is_job {
        service["restart"] = json!({"condition": "never", "delay": 100});
        service.as_object_mut().map(|service| service.remove("probe"));
    }
    if let Some(before) = before.filter(|_| dice.u8(0..4) == 0) {
        service["depends_on"] = json!({before: {"condition": "started", "required": true}});
    }
    service
}
