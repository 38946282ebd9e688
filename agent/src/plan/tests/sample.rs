//! Small assignments and containers to draw tests with.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use tug_model::assignment::{AssignedTask, Assignment, Resources};
use tug_model::endpoints::{Endpoints, NodeEndpoints, ServiceEndpoints, Stamp};
use tug_model::lease::FencingNumber;
use tug_model::project::ServiceRef;
use tug_model::spec::container::{Attachment, Container, Mount, MountSource};
use tug_model::spec::resource::{Network, Volume};
use tug_model::spec::service::{Port, PortMode, Probe, Protocol, Restart};
use tug_model::task::{Desired, Template};
use tug_model::{
    NetworkName, NodeId, ProjectName, Revision, ServiceName, Slot, TaskId, Timestamp, VolumeName,
};

use crate::runtime::{ContainerId, EngineHealth, Found, Identity, State};

pub(crate) const CLUSTER: &str = "home";

pub(crate) fn node() -> NodeId {
    NodeId::parse("n1").unwrap()
}

pub(crate) fn shop() -> ProjectName {
    ProjectName::parse("shop").unwrap()
}

pub(crate) fn web() -> ServiceName {
    ServiceName::parse("web").unwrap()
}

pub(crate) fn task_id(text: &str) -> TaskId {
    TaskId::parse(text).unwrap()
}

/// `web` of image `web:1`, on the project's default network, without a probe.
pub(crate) fn template() -> Template {
    Template {
        container: Container {
            image: "web:1".to_owned(),
            networks: BTreeMap::from([(NetworkName::parse("default").unwrap(), Attachment::default())]),
            ..Container::default()
        },
        restart: Restart::default(),
        probe: None,
        host_ports: Vec::new(),
        exposed: vec![80],
        exclusive: false,
        restarts_asked: 0,
        needs: tug_model::task::Needs::default(),
    }
}

/// The same with a volume.
pub(crate) fn with_volume(mut template: Template) -> Template {
    template.container.mounts.push(Mount {
        source: MountSource::Volume {
            name: VolumeName::parse("data").unwrap(),
            nocopy: false,
            subpath: None,
        },
        target: "/data".to_owned(),
        read_only: false,
    });
    template
}

/// The same with a TCP probe of port 80.
pub(crate) fn probed(mut template: Template) -> Template {
    template.probe = Some(Probe::tcp(80));
    template
}

/// Tasks of `shop/web` made of `template`; the number of a task is its slot and the end of its id.
pub(crate) fn assignment(generation: u64, template: &Template, tasks: &[(u32, Desired)]) -> Assignment {
    let network = Network { engine_name: "shop_default".to_owned(), ..Network::default() };
    let volume = Volume { engine_name: "shop_data".to_owned(), ..Volume::default() };
    let resources = Resources {
        networks: BTreeMap::from([(NetworkName::parse("default").unwrap(), network)]),
        volumes: BTreeMap::from([(VolumeName::parse("data").unwrap(), volume)]),
    };
    let assigned = tasks.iter().map(|(number, desired)| AssignedTask {
        id: id(*number),
        project: shop(),
        service: web(),
        slot: Slot(*number),
        template: template.hash(),
        desired: *desired,
        exclusive: template.exclusive.then_some(Revision(1)),
    });
    Assignment {
        cluster: CLUSTER.to_owned(),
        epoch: 1,
        generation: Revision(generation),
        run: None,
        node: node(),
        tasks: assigned.collect(),
        templates: BTreeMap::from([(template.hash(), template.clone())]),
        projects: BTreeMap::from([(shop(), resources)]),
        configs: BTreeMap::new(),
    }
}

/// Port 8080 of the node, which leads to port 80 of the tasks.
pub(crate) fn port() -> Port {
    Port {
        target: 80,
        published: Some(8080),
        host_ip: None,
        protocol: Protocol::Tcp,
        mode: PortMode::Ingress,
        app_protocol: None,
    }
}

/// The endpoints that belong to an assignment of [`assignment()`], with `shop/web` published as `port`.
pub(crate) fn endpoints_of(assignment: &Assignment, port: Port) -> Endpoints {
    let routed = assignment.tasks.iter().filter(|task| task.desired.is_routed());
    let here = NodeEndpoints { address: None, tasks: routed.map(|task| task.id.clone()).collect() };
    let nodes = BTreeMap::from([(assignment.node.clone(), here)]);
    let ports = if assignment.tasks.is_empty() { Vec::new() } else { vec![port] };
    let service = ServiceRef { project: shop(), service: web() };
    let stamp = Stamp {
        cluster: assignment.cluster.clone(),
        epoch: assignment.epoch,
        generation: assignment.generation,
        run: None,
    };
    Endpoints { stamp, services: vec![Arc::new(ServiceEndpoints::new(service, ports, nodes))] }
}

/// `shop.web.NUMBER.1`.
pub(crate) fn id(number: u32) -> TaskId {
    task_id(&format!("shop.web.{number}.1"))
}

/// Tasks that shall run.
pub(crate) fn run(numbers: &[u32]) -> Vec<(u32, Desired)> {
    numbers.iter().map(|number| (*number, Desired::Run)).collect()
}

pub(crate) fn stop() -> Desired {
    Desired::Stop { since: Revision(1) }
}

pub(crate) fn drain() -> Desired {
    Desired::Drain { since: Revision(1), at: Timestamp(0) }
}

/// The container of a task of `shop/web`.
pub(crate) fn found(number: u32, template: &Template, state: State) -> Found {
    let running = matches!(state, State::Running { .. });
    let last = u8::try_from(number).unwrap();
    Found {
        id: ContainerId::new(&format!("c{number}")),
        name: id(number).to_string(),
        identity: Identity {
            cluster: CLUSTER.to_owned(),
            node: node(),
            task: id(number),
            project: shop(),
            service: web(),
            slot: Slot(number),
            template: template.hash(),
            fencing: template.exclusive.then(|| FencingNumber::of(Revision(1), 1)),
        },
        state,
        health: EngineHealth::None,
        addresses: if running {
            BTreeMap::from([("shop_default".to_owned(), IpAddr::V4(Ipv4Addr::new(10, 0, 0, last)))])
        } else {
            BTreeMap::new()
        },
    }
}

pub(crate) fn running(number: u32, template: &Template) -> Found {
    found(number, template, State::Running { started_at: Timestamp(1) })
}

pub(crate) fn exited(number: u32, template: &Template, code: i64, finished_at: u64) -> Found {
    let state = State::Exited { code, out_of_memory: false, finished_at: Timestamp(finished_at) };
    found(number, template, state)
}
