//! Drawings of a node and the steps that follow; and what holds for every node.

mod properties;
pub(crate) mod sample;
mod tables;
