//! Who serves behind the published ports of a service: what every node is told that opens them.
//!
//! As with an assignment, it is computed from the store alone.

use std::collections::BTreeMap;

use tug_model::endpoints::{NodeEndpoints, ServiceEndpoints};
use tug_model::name::NodeId;
use tug_model::node::Node;
use tug_model::project::ServiceRef;
use tug_model::spec::service::{Port, PortMode, Service};
use tug_model::task::Task;

use super::World;

/// The ports of a service that every node opens.
pub fn published(service: &Service) -> impl Iterator<Item = &Port> {
    service.ports.iter().filter(|port| port.mode == PortMode::Ingress && port.published.is_some())
}

/// The endpoints of a service, of which `tasks` are all tasks. One that is not wanted, or publishes nothing, has none.
pub fn endpoints<'w>(
    world: &World,
    service: &ServiceRef,
    tasks: impl IntoIterator<Item = &'w Task>,
) -> ServiceEndpoints {
    let wanted = world.service(&service.project, &service.service);
    let ports: Vec<Port> = wanted.into_iter().flat_map(published).cloned().collect();
    let mut nodes: BTreeMap<NodeId, NodeEndpoints> = BTreeMap::new();
    if !ports.is_empty() {
        for task in tasks.into_iter().filter(|task| task.desired.is_routed()) {
            let endpoints = nodes.entry(task.node.clone()).or_insert_with(|| NodeEndpoints {
                address: world.nodes.get(&task.node).and_then(|node| address(node)),
                ..NodeEndpoints::default()
            });
            endpoints.tasks.insert(task.id.clone());
        }
    }
    ServiceEndpoints::new(service.clone(), ports, nodes)
}

/// Where the agent of a node is reached by others.
fn address(node: &Node) -> Option<String> {
    node.info.address.clone()
}
