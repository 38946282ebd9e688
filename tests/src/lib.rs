//! What the tests and benchmarks of Tug are made of: a fake engine for the simulation, a real Tug of processes, images
//! that need no registry. No part of the product uses it.
#![expect(
    clippy::print_stderr,
    clippy::indexing_slicing,
    reason = "a guard that cannot clean up says so; a test that reaches too far fails"
)]

pub mod cluster;
pub mod docker;
pub mod fake;
pub mod fleet;
pub mod folder;
pub mod image;
pub mod lab;
pub mod load;
pub mod machine;
pub mod registry;
pub mod running;
pub mod sim;
pub mod tug;
pub mod wait;
pub mod witness;
