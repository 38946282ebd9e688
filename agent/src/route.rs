//! Who answers on which published port at this moment: what the balancer is told, whole, whenever it changes.
//!
//! Pure values. A [`Table`] is made by the agent's control loop from what it was told and from what it sees of its
//! tasks; the balancer makes nothing of it but listeners and connections.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use tug_model::spec::service::Port;
use tug_model::{NodeId, ProjectName, ServiceName, TaskId};

/// Every published port of the node, with the tasks that may be given connections.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Table {
    /// Raised with every change, so that the balancer can say by which table it routes; 0 before the first.
    pub number: u64,
    /// One for every published port, by service. A route without backends is still listened on:
    /// its clients wait a moment for one.
    pub routes: Vec<TableRoute>,
    /// Where the agents of the nodes are reached that backends elsewhere name.
    pub peers: BTreeMap<NodeId, String>,
}

/// A published port and the tasks behind it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TableRoute {
    /// Whose it is.
    pub project: ProjectName,
    /// Which service.
    pub service: ServiceName,
    /// The port. Only TCP ports that are balanced by the agent and have a `published` number are listened on.
    pub port: Port,
    /// The healthy tasks of this node and all tasks of others, sorted by id.
    pub backends: Vec<Backend>,
}

/// A task that may be given connections.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Backend {
    /// Which task.
    pub task: TaskId,
    /// Where it listens.
    pub location: Location,
}

/// Where a task listens.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Location {
    /// On this node: its address there and the port inside the container.
    Here(SocketAddr),
    /// On another node, whose agent connects to it.
    There {
        /// Which node: one of [`Table::peers`].
        node: NodeId,
        /// The port inside the container.
        port: u16,
    },
}
