//! The runtime against the machine's real Docker Engine. Without one these tests fail and say how to get it.
//!
//! Every test works for a node of its own, so it sees and removes only what it made itself.

#![cfg(test)]

#[path = "../../../tests/src/image.rs"]
#[expect(
    unreachable_pub,
    reason = "the support crate exports it; here it is taken as a file, because that crate uses ours"
)]
mod image;

mod containers;
mod images;
mod registry;
mod resources;
mod scope;
mod sessions;
