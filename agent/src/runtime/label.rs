//! The labels by which containers, networks and volumes are known again.

/// The cluster's id.
pub const CLUSTER: &str = "tug.cluster";
/// The node whose agent made it. An agent touches nothing else.
pub const NODE: &str = "tug.node";
/// The task.
pub const TASK: &str = "tug.task";
/// The project.
pub const PROJECT: &str = "tug.project";
/// The service.
pub const SERVICE: &str = "tug.service";
/// The slot.
pub const SLOT: &str = "tug.slot";
/// The template's hash.
pub const TEMPLATE: &str = "tug.template";
/// The number of its start, on what runs only under a lease.
pub const FENCING: &str = "tug.fencing";
/// On a network: its key in the project.
pub const NETWORK: &str = "tug.network";
/// On a volume: its key in the project.
pub const VOLUME: &str = "tug.volume";
/// On a network or volume: what it was made from, as JSON, to notice that the manifest asks for something else now.
pub const SETTINGS: &str = "tug.settings";
