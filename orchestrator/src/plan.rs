//! The planner: a function from the world, as it is wanted and as it is, to what is decided about it, and why.
//!
//! Nothing here does IO, reads a clock or draws a random number: the same world gives the same plan. A first deploy,
//! a crash, a lost container and a scale-up all enter as a changed [`World`]; there is no second path.

mod assignment;
mod decision;
mod world;

pub use self::assignment::assignment;
pub use self::decision::{Change, Create, Decision, Obstacle, ObstacleKind, Obstacles, Plan};
pub use self::world::{NodeObserved, Observed, World};

pub mod ports;
pub mod preview;
pub mod status;
pub mod why;

use std::sync::Arc;
use tug_model::quantity::Timestamp;

/// A world and what was decided about it: everything that people are told is computed from this.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct View {
    /// The world.
    pub world: World,
    /// What was decided about it.
    pub plan: Arc<Plan>,
}

/// Decides what shall change in `world`, and says what stands against the rest.
pub fn plan(world: &World, now: Timestamp) -> Plan {
    let _ = (world, now);
    Plan::default()
}
