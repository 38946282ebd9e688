//! The planner's world, made of what the store keeps and what the agents say: the one place where both are known.

use std::sync::Arc;

use crate::plan::{Observed, World};
use crate::store::State;

/// The world of a state of the store and of what was observed.
pub fn world(state: &State, observed: &Arc<Observed>) -> World {
    World {
        revision: state.revision,
        projects: state.projects.clone(),
        tasks: state.tasks.clone(),
        templates: state.templates.clone(),
        nodes: state.nodes.clone(),
        homes: state.homes.clone(),
        epoch: state.epoch,
        observed: Arc::clone(observed),
        ..World::default()
    }
}
