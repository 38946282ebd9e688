//! What an apply would do.

use tug_api::user::Preview;
use tug_model::Revision;
use tug_model::spec;

use super::World;

/// What accepting `spec` would change, service by service.
pub fn project(world: &World, spec: &spec::Project) -> Preview {
    let _ = (world, spec);
    Preview { base: Revision(0), services: Vec::new(), notes: Vec::new() }
}
