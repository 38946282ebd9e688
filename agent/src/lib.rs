//! The node: keeps the tasks of its assignment running on the local engine, balances over those that serve, and says
//! how everything stands.
//!
//! ```text
//! orchestrator ── PUT /assignment ─▶ control: accepted, kept on disk ─┐
//!      ▲                                                             ▼
//!      │                              engine ── list, events ─▶ plan::diff ─▶ steps ─▶ runtime ─▶ engine
//!      │                              health ── probes ──────▶ plan::routes ─▶ proxy
//!      └────────── GET /reports ◀──── control: everything, whole, on change and every second
//! ```
//!
//! Arrows between the modules: `app → control, link, http, proxy, health, ledger`; `control → plan, runtime`; `proxy → peer`; `control, http → image → runtime`; `guard → lease, holder → runtime`;
//! `plan` is pure and knows only `tug-model`, the plain data of [`runtime`] and [`route`].

pub mod app;
mod control;
pub mod guard;
pub mod health;
pub mod holder;
mod http;
pub mod identity;
mod image;
mod lease;
pub mod ledger;
mod link;
pub mod peer;
pub mod plan;
pub mod proxy;
pub mod route;
pub mod runtime;

pub use app::{Agent, Config, Handle, OpenError, Server};
