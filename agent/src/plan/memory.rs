//! What the agent remembers between two looks at its containers. Only the histories outlive it.

use std::collections::BTreeMap;

use tug_model::spec::container::PullPolicy;
use tug_model::spec::resource::{Network, Volume};
use tug_model::{Millis, TaskId, Timestamp};

use super::backoff::Pace;
use super::lease::Leases;
use super::restart::History;
use super::step::{ImageWanted, Key};
use crate::runtime::FoundNetwork;

/// What is remembered.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Memory {
    /// How the runs of each task went.
    pub histories: BTreeMap<TaskId, History>,
    /// Operations that failed and have not succeeded since.
    pub tries: BTreeMap<Key, Try>,
    /// Images whose id was found out.
    pub images: BTreeMap<ImageWanted, Image>,
    /// Networks and volumes that are there.
    pub ensured: BTreeMap<Key, Ensured>,
    /// The networks that this node made, as last listed.
    pub networks: Vec<FoundNetwork>,
    /// The leases of the node, as they stand now.
    pub leases: Leases,
}

/// An operation that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Try {
    /// How often in a row.
    pub failures: u32,
    /// Not before this is it tried again.
    pub retry_at: Timestamp,
    /// Which operation, and why: the error with all its causes.
    pub reason: String,
    /// It failed because the engine did not answer, which says nothing about the request.
    pub engine_down: bool,
}

/// An image that the node has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Its id.
    pub id: String,
    /// When that was found out.
    pub at: Timestamp,
}

/// What a network or volume was made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ensured {
    /// A network.
    Network(Network),
    /// A volume.
    Volume(Volume),
}

/// For so long is the id behind a tag taken for granted. It is long enough for a batch of replicas, and short enough
/// for somebody who gives the tag to another image and asks for a restart.
const TAG_HOLDS: Millis = Millis::from_secs(2);
/// The same where every new task asks the registry: replicas made together ask once.
const PULL_HOLDS: Millis = Millis::from_secs(60);

// === impl Memory ===

impl Memory {
    /// The id of `wanted`, if it was found out just now.
    pub fn image(&self, wanted: &ImageWanted, now: Timestamp) -> Option<&str> {
        let image = self.images.get(wanted)?;
        let holds = match wanted.policy {
            PullPolicy::Missing | PullPolicy::Never => TAG_HOLDS,
            PullPolicy::Always => PULL_HOLDS,
        };
        (now.since(image.at) <= holds).then_some(image.id.as_str())
    }

    /// The failure that `key` waits out, if its time has not come.
    pub fn waits(&self, key: &Key, now: Timestamp) -> Option<&Try> {
        self.tries.get(key).filter(|failed| failed.retry_at > now)
    }

    /// Notes that an operation on `key` failed.
    pub fn failed(&mut self, key: Key, reason: String, engine_down: bool, (now, seed): (Timestamp, u64)) {
        let (pace, name) = match &key {
            Key::Image(image) => (Pace::Pull, image.reference.clone()),
            Key::Task(task) => (Pace::Engine, task.to_string()),
            Key::Network(name) | Key::Volume(name) => (Pace::Engine, name.clone()),
        };
        let failures = self.tries.get(&key).map_or(0, |earlier| earlier.failures).saturating_add(1);
        let retry_at = now.plus(pace.wait(failures, &name, seed));
        self.tries.insert(key, Try { failures, retry_at, reason, engine_down });
    }

    /// Forgets the failures that only said that the engine was away.
    pub fn engine_is_back(&mut self) {
        self.tries.retain(|_, failed| !failed.engine_down);
    }
}
