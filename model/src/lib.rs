//! What things are in Tug: pure vocabulary, and the rules that hold for single values.
//!
//! Nothing here does IO, reads a clock or draws a random number; nothing here knows tokio, axum, sled or Docker.
//! Three kinds of facts are three kinds of types, each with one writer:
//!
//! | kind | types | written by |
//! |---|---|---|
//! | intent | [`spec::Project`], [`project::StoredProject`] | the user, through the REST API |
//! | decision | [`task::Task`], [`task::Desired`] | the planner |
//! | observation | [`report::Report`], [`report::Phase`] | the agent |

pub mod assignment;
pub mod endpoints;
pub mod event;
pub mod lease;
pub mod name;
pub mod node;
pub mod project;
pub mod quantity;
pub mod report;
pub mod spec;
pub mod status;
pub mod task;
pub mod token;

pub use name::{Digest, NetworkName, NodeId, ProjectName, ServiceName, TaskId, VolumeName};
pub use quantity::{Bytes, Millis, NanoCpus, Revision, Slot, Timestamp};
