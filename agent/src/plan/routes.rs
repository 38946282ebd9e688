//! From the routes of the assignment and what is seen of the tasks to what the balancer is told.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use tug_model::TaskId;
use tug_model::assignment::Route;
use tug_model::spec::container::NetworkMode;

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
    let routes = orders.assignment().routes.iter().map(|route| TableRoute {
        project: route.project.clone(),
        service: route.service.clone(),
        port: route.port.clone(),
        backends: backends(orders, serving, route),
    });
    routes.collect()
}

fn backends(orders: &Orders, serving: &[Serving], route: &Route) -> Vec<Backend> {
    let mut backends: Vec<Backend> = route
        .backends
        .iter()
        .filter(|task| orders.tasks().get(*task).is_some_and(|assigned| assigned.desired.is_routed()))
        .filter_map(|task| {
            let at = serving.binary_search_by(|serving| serving.task.cmp(task)).ok()?;
            let address = address(orders, serving.get(at)?)?;
            let location = Location::Here(SocketAddr::new(address, route.port.target));
            Some(Backend { task: task.clone(), location })
        })
        .collect();
    let peers = &orders.assignment().peers;
    let reachable = route.remote.iter().filter(|remote| peers.contains_key(&remote.node));
    backends.extend(reachable.map(|remote| Backend {
        task: remote.task.clone(),
        location: Location::There { node: remote.node.clone(), port: route.port.target },
    }));
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
