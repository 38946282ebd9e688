//! The planner: a function from the world, as it is wanted and as it is, to what is decided about it, and why.
//!
//! Nothing here does IO, reads a clock or draws a random number: the same world gives the same plan. A first deploy,
//! a crash, a lost container and a scale-up all enter as a changed [`World`]; there is no second path.

mod assignment;
mod check;
mod decision;
mod depends;
mod drain;
mod endpoints;
mod exclusive;
mod fleet;
mod homes;
mod index;
pub mod machine;
mod pass;
mod place;
pub mod ports;
pub mod preview;
mod rebalance;
mod replace;
mod replicas;
mod rescue;
pub mod status;
pub mod volume;
mod wanted;
pub mod why;
mod world;

use std::rc::Rc;
use std::sync::Arc;

use tug_model::quantity::Timestamp;

pub use self::assignment::assignment;
pub use self::check::check;
pub use self::decision::{Change, Create, Decision, Obstacle, ObstacleKind, Obstacles, Plan};
pub use self::endpoints::{endpoints, published};
pub use self::exclusive::{Grant, Grants, grants};
use self::pass::Pass;
pub use self::world::{Deaf, FLAPPING_LOSSES, FLAPPING_WITHIN, NodeObserved, Observed, Timing, World};

/// A world and what was decided about it: everything that people are told is computed from this.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct View {
    /// The world.
    pub world: World,
    /// What was decided about it.
    pub plan: Arc<Plan>,
    /// When.
    pub at: Timestamp,
}

/// Decides what shall change in `world`, and says what stands against the rest.
///
/// In debug builds every plan is checked against the invariants of [`check()`].
pub fn plan(world: &World, now: Timestamp) -> Plan {
    let mut pass = Pass::new(world, now);
    let services = Rc::clone(&pass.services);
    homes::settle(&mut pass);
    for service in services.in_order() {
        let (mut slots, surplus) = pass.index.slots(service, &pass.left);
        replicas::shrink(&mut pass, service, &surplus);
        rescue::rescue(&mut pass, service, &mut slots);
        replicas::fill(&mut pass, service, &mut slots);
        replace::advance(&mut pass, service, &mut slots);
    }
    replicas::retire(&mut pass);
    drain::advance(&mut pass);
    rebalance::advance(&mut pass);
    let plan = pass.plan;
    debug_assert_eq!(check(world, &plan, now), Vec::<String>::new(), "the planner broke an invariant");
    plan
}

#[cfg(test)]
pub(crate) mod tests;
