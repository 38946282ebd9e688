//! From the endpoints and what is seen of the tasks to what the balancer is told.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use tug_model::endpoints::ServiceEndpoints;
use tug_model::spec::container::NetworkMode;
use tug_model::{NodeId, TaskId};

use super::Orders;
use crate::route::{Backend, Location, TableRoute};

/// A task that serves, and where.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Serving {
    /// Which task.
    pub task: TaskId,
    /// The address of its container, if it has one of its own.
    pub address: Option<IpAddr>,
}

/// Every route of `orders` with those of its tasks that may be given connections: of this node's those in `serving`, which
/// is sorted, and of others' those whose agent can be reached.
pub fn routes(orders: &Orders, serving: &[Serving]) -> Vec<TableRoute> {
    let mut routes = Vec::new();
    for service in &orders.endpoints().services {
        for port in &service.ports {
            routes.push(TableRoute {
                project: service.project.clone(),
                service: service.service.clone(),
                port: port.clone(),
                backends: backends(orders, serving, service, port.target),
            });
        }
    }
    routes
}

/// Where the agents of other nodes are reached that have tasks behind a route.
pub fn peers(orders: &Orders) -> BTreeMap<NodeId, String> {
    let nodes = orders.endpoints().services.iter().flat_map(|service| &service.nodes);
    let others = nodes.filter(|(node, _)| **node != orders.assignment().node);
    others.filter_map(|(node, endpoints)| Some((node.clone(), endpoints.address.clone()?))).collect()
}

fn backends(orders: &Orders, serving: &[Serving], service: &ServiceEndpoints, target: u16) -> Vec<Backend> {
    let mut backends = Vec::new();
    for (node, endpoints) in &service.nodes {
        let locate = |task: &TaskId| {
            if *node == orders.assignment().node {
                // What the assignment takes out of the routes is out of them.
                orders.tasks().get(task).filter(|assigned| assigned.desired.is_routed())?;
                let at = serving.binary_search_by(|serving| serving.task.cmp(task)).ok()?;
                let address = address(orders, serving.get(at)?)?;
                return Some(Location::Here(SocketAddr::new(address, target)));
            }
            endpoints.address.as_ref()?;
            Some(Location::There { node: node.clone(), port: target })
        };
        let located = |task: &TaskId| Some(Backend { task: task.clone(), location: locate(task)? });
        backends.extend(endpoints.tasks.iter().filter_map(located));
    }
    backends.sort();
    backends.dedup_by(|b, a| a.task == b.task);
    backends
}

/// Where the processes of a task listen, seen from the node.
pub(crate) fn address(orders: &Orders, serving: &Serving) -> Option<IpAddr> {
    match orders.template(&serving.task).map(|template| template.container.network_mode) {
        Some(NetworkMode::Host) => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        Some(NetworkMode::Bridge) | None => serving.address,
        Some(NetworkMode::None) => None,
    }
}
