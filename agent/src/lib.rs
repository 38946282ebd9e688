//! Placeholder.

pub mod holder;
pub mod proxy;
pub mod route;
pub mod runtime;
