//! Drawings of a node and the steps that follow; and what holds for every node.

mod leases;
mod properties;
pub(crate) mod sample;
mod tables;
