//! The Compose Specification: what people write, to the project that is deployed.
//!
//! Text → a tree in which every value has its line and column (`tree.rs`) → variables put in → several files
//! merged → our own types, read key by key through one cursor (`reader.rs`) → checks over all services. Every mistake
//! is reported with its place, all in one go, and nothing that a user wrote is left out without a finding.
//!
//! A key of the manifest is added in two places: the table in `schema.rs`, which says what becomes of it, and the
//! reader of its topic under `service/`.

mod build;
mod check;
mod context;
mod disk;
mod env_file;
mod finding;
mod interpolate;
mod load;
mod merge;
mod places;
mod project;
mod reader;
mod resource;
mod schema;
mod service;
mod suggest;
mod tree;
mod write;

pub use build::{Build, Dockerfile};
pub use disk::{Disk, FileContent, MemoryDisk, PathKind, ReadError, RealDisk};
pub use finding::{Finding, Level};
pub use load::{FILE_NAMES, Loaded, Outcome, Request, load};
pub use places::Places;
pub use write::{WriteError, write};

#[cfg(test)]
mod tests;
