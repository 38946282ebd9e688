//! The planner's tests: worlds drawn as a few lines of text, and the printed plan that is expected of them.

mod assignments;
mod depending;
mod disobeying;
mod draining;
pub(crate) mod draw;
mod emptying;
mod exclusive;
mod fleet;
mod large;
mod looking;
mod machines;
mod placing;
mod ports;
mod previewing;
mod properties;
mod reactions;
mod replacing;
mod replicas;
mod sound;
mod spreading;
mod standing;

use self::draw::{NOW, draw};
use super::plan;

/// Plans the drawn world and compares what was decided, line by line.
#[track_caller]
fn check(drawing: &str, expected: &str) {
    let world = draw(drawing);
    let actual = plan(&world, NOW).to_string();
    let trimmed =
        |text: &str| text.lines().map(str::trim).filter(|l| !l.is_empty()).collect::<Vec<_>>().join("\n");
    let (actual, expected) = (trimmed(&actual), trimmed(expected));
    assert!(actual == expected, "planned:\n<<<\n{actual}\n>>>\nexpected:\n{expected}\n");
    assert_eq!(plan(&world, NOW), plan(&draw(drawing), NOW), "the same world gives the same plan");
}
