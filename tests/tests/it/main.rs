//! Everything that needs no Docker: the house rules, the examples, and whole clusters on a paused clock.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on fails")]

mod exclusive;
mod fleet;
mod limits;
mod membership;
mod simulation;
mod tidy;
