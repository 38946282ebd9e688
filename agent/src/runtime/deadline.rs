//! How long each call to the engine may take. A hung engine must never hang the agent.

use std::time::Duration;

use tug_model::quantity::Millis;

/// A ping.
pub const PING: Duration = Duration::from_secs(2);
/// A list, an inspect, anything that only reads, and the opening of a feed.
pub const READ: Duration = Duration::from_secs(5);
/// Making a container, a network or a volume.
pub const CREATE: Duration = Duration::from_secs(30);
/// Starting a container, and anything else that changes one.
pub const START: Duration = Duration::from_secs(60);
/// From the request to remove a container until it is gone.
pub const REMOVE: Duration = Duration::from_secs(60);
/// Without a sign of life from a pull.
pub const PULL_SILENCE: Duration = Duration::from_secs(120);
/// A question to a registry.
pub const REGISTRY: Duration = Duration::from_secs(4);
/// A whole pull.
pub const PULL: Duration = Duration::from_secs(15 * 60);
/// Without a sign of life from an engine that gives an image away. It writes all of it to its disk before it begins.
pub const EXPORT_SILENCE: Duration = Duration::from_secs(10 * 60);

/// A stop with this grace.
pub fn stop(grace: Millis) -> Duration {
    grace.duration() + Duration::from_secs(15)
}
