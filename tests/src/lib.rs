//! What the tests and benchmarks of Tug are made of: a fake engine for the simulation, a real Tug of processes, images
//! that need no registry. No part of the product uses it.
#![expect(clippy::print_stderr, reason = "a guard that cannot clean up says so")]

pub mod docker;
pub mod fake;
pub mod image;
pub mod load;
pub mod sim;
pub mod tug;
