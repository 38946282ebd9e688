//! Statuses for tests, written as short as they can be.

use std::collections::BTreeMap;

use tug_api::user::{NodeState, NodeStatus, VolumeStatus};
use tug_model::node::{Capacity, Node, NodeInfo};
use tug_model::project::ServiceRef;
use tug_model::report::{Engine, Exit, Failure, Health, Phase};
use tug_model::status::{ProjectStatus, ServiceState, ServiceStatus, TaskStatus};
use tug_model::task::Desired;
use tug_model::{
    Bytes, Millis, NanoCpus, NodeId, ProjectName, Revision, ServiceName, Slot, TaskId, Timestamp,
};

/// When the tests of this crate take place.
pub(crate) const NOW: Timestamp = Timestamp(1_767_225_600_000);

/// A project whose services run one healthy replica each.
pub(crate) fn project(name: &str, services: &[&str]) -> ProjectStatus {
    let services = services.iter().map(|service| self::service(service, &[healthy()])).collect();
    project_of(name, services)
}

/// A project of `services`, settled if all of them are ready.
pub(crate) fn project_of(name: &str, services: Vec<ServiceStatus>) -> ProjectStatus {
    let settled =
        services.iter().all(|one| matches!(one.state, ServiceState::Ready | ServiceState::Completed));
    ProjectStatus {
        name: ProjectName::parse(name).unwrap(),
        number: Some(1),
        revision: Revision(7),
        services,
        settled,
    }
}

/// A service that wants as many replicas as there are `phases`.
pub(crate) fn service(name: &str, phases: &[Phase]) -> ServiceStatus {
    let ready = phases.iter().filter(|phase| phase.is_healthy()).count();
    let failing = phases.iter().any(|phase| matches!(phase, Phase::Waiting { .. }));
    ServiceStatus {
        name: ServiceName::parse(name).unwrap(),
        state: match (ready == phases.len(), failing) {
            (true, _) => ServiceState::Ready,
            (false, true) => ServiceState::Failing,
            (false, false) => ServiceState::Progressing,
        },
        image: format!("{name}:1"),
        wanted: u32::try_from(phases.len()).unwrap(),
        ready: u32::try_from(ready).unwrap(),
        updated: u32::try_from(ready).unwrap(),
        ports: Vec::new(),
        tasks: phases.iter().zip(1..).map(|(phase, slot)| task(name, slot, phase.clone())).collect(),
        reasons: Vec::new(),
    }
}

/// A task of the service.
pub(crate) fn task(service: &str, slot: u32, phase: Phase) -> TaskStatus {
    TaskStatus {
        id: TaskId::parse(&format!("shop.{service}.{slot}.7")).unwrap(),
        slot: Slot(slot),
        node: NodeId::parse("n1").unwrap(),
        desired: Desired::Run,
        updated: true,
        phase: Some(phase),
        unknown: None,
        since: Some(Timestamp(NOW.0 - 61_000)),
        restarts: 0,
        connections: 0,
        created_at: Timestamp(NOW.0 - 90_000),
    }
}

/// A node that is there, with nothing on it.
pub(crate) fn node(id: &str) -> NodeStatus {
    let info = NodeInfo {
        hostname: format!("{id}.local"),
        os: "linux".into(),
        arch: "amd64".into(),
        capacity: Capacity { cpus: NanoCpus(2_000_000_000), memory: Bytes(4 << 30) },
        labels: BTreeMap::new(),
        engine_version: "20.10.24".into(),
        agent_version: "0.1.0".into(),
        address: None,
    };
    NodeStatus {
        node: Node::new(NodeId::parse(id).unwrap(), info, Timestamp(NOW.0 - 90_000)),
        connected: true,
        last_report: Some(Millis(300)),
        engine: Some(Engine::Up),
        tasks: 0,
        refusal: None,
        state: NodeState::Ready,
        reasons: Vec::new(),
        reserved: Capacity::default(),
        leaving: Vec::new(),
    }
}

/// A volume with its data on `node` that `users`, as `project/service`, mount.
pub(crate) fn volume(name: &str, node: &str, users: &[&str]) -> VolumeStatus {
    let services = users.iter().map(|user| {
        let (project, service) = user.split_once('/').unwrap();
        ServiceRef {
            project: ProjectName::parse(project).unwrap(),
            service: ServiceName::parse(service).unwrap(),
        }
    });
    let services: Vec<ServiceRef> = services.collect();
    let projects = services.first().map(|first| first.project.clone()).into_iter().collect();
    VolumeStatus { name: name.to_owned(), projects, node: NodeId::parse(node).unwrap(), services }
}

/// A task that serves.
pub(crate) fn healthy() -> Phase {
    Phase::Running { health: Health::Healthy, address: Some([172, 18, 0, 2].into()) }
}

/// A task that has ended with `code` and will be started again.
pub(crate) fn crashed(code: i64, last_words: &str) -> Phase {
    let exit = Exit { code, out_of_memory: false, last_words: last_words.into() };
    Phase::Waiting { failure: Failure::Exited { exit }, retry_in: Millis(5000) }
}
