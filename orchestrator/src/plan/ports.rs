//! Which ports of the nodes are published for whom.

use tug_model::spec;

use super::World;

/// Why a project's ports cannot be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The part of the project that is wrong: `services.web.ports[0]`.
    pub field: String,
    /// What is wrong, with the owner of the port.
    pub message: String,
}

/// Gives every balanced port without a published number one: the earlier number of the same port if it had one, else
/// the lowest one that nobody has.
pub fn resolve(world: &World, spec: &mut spec::Project) -> Result<(), Conflict> {
    let _ = (world, spec);
    Ok(())
}

/// The published ports of `spec` that somebody else has already.
pub fn conflicts(world: &World, spec: &spec::Project) -> Vec<Conflict> {
    let _ = (world, spec);
    Vec::new()
}
