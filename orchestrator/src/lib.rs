//! The control plane: the store, the planner, the loop that carries plans out, the nodes and the REST API.

pub mod app;
mod authority;
pub mod control;
pub mod metrics;
pub mod nodes;
pub mod plan;
pub mod rest;
pub mod store;
pub mod world;
