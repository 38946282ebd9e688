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

/// The first of these tests, told that the Engine is where nothing is.
#[test]
fn without_an_engine_one_line_says_how_to_get_it() {
    let mut tests = std::process::Command::new(std::env::current_exe().unwrap());
    tests.args(["--exact", "containers::a_container_is_made_started_stopped_and_removed"]);
    tests.env("DOCKER_HOST", "unix:///nowhere/docker.sock").env("RUST_BACKTRACE", "0");
    let output = tests.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success() && said.contains("1 failed"), "{said}");
    let how = said.lines().filter(|line| line.contains("sudo apt-get install docker.io"));
    assert_eq!(how.count(), 1, "{said}");
}
