//! The control plane: the store, the planner, the loop that carries plans out, the nodes and the REST API.

pub mod plan;
pub mod store;
