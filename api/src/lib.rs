//! What is said on the wire: paths, bodies, errors, and the typed clients of both conversations.
//!
//! Two conversations use the same shapes and the same [`transport::Channel`]:
//!
//! - **users → orchestrator** ([`user`], spoken by [`client::Client`]): the REST API under `/v1`.
//! - **orchestrator → agent** ([`node`], spoken by [`node::NodeClient`]): the agent dials the orchestrator, upgrades the
//!   connection at [`node::LINK_PATH`], and then the roles turn round: the agent serves, the orchestrator asks.
//!
//! Streams are JSON lines ([`lines`]) or, for `exec`, frames ([`frame`]).

pub mod address;
pub mod client;
pub mod clock;
pub mod digest;
pub mod error;
pub mod folder;
pub mod frame;
pub mod image;
pub mod join;
pub mod lines;
pub mod node;
pub mod serve;
pub mod tls;
pub mod token;
pub mod transport;
pub mod user;

/// The body of requests and responses, for callers that have no HTTP stack of their own.
pub use axum::body::Body;
pub use clock::Clock;
pub use error::{ApiError, Code};
