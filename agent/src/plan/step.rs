//! One thing to do, and whom it keeps busy.

use std::fmt;

use tug_model::spec::container::{Container, MountSource, NetworkMode, PullPolicy};
use tug_model::task::Template;
use tug_model::{Millis, NetworkName, ProjectName, TaskId, VolumeName};

use crate::runtime::ContainerId;

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Find out the id of an image, asking a registry as its policy says.
    Fetch(ImageWanted),
    /// Make a network unless it is there.
    EnsureNetwork {
        /// Whose.
        project: ProjectName,
        /// Its key there.
        key: NetworkName,
        /// Its name in the engine.
        engine_name: String,
    },
    /// Make a volume unless it is there.
    EnsureVolume {
        /// Whose.
        project: ProjectName,
        /// Its key there.
        key: VolumeName,
        /// Its name in the engine.
        engine_name: String,
    },
    /// Make a task's container and start it.
    Create {
        /// Which task.
        task: TaskId,
        /// The id of its image.
        image: String,
    },
    /// Start a container that does not run.
    Start {
        /// Whose.
        task: TaskId,
        /// Which.
        container: ContainerId,
    },
    /// Let a frozen container go on.
    Unpause {
        /// Whose.
        task: TaskId,
        /// Which.
        container: ContainerId,
    },
    /// Ask a container to stop, and make it after the grace.
    Stop {
        /// Whose.
        task: TaskId,
        /// Which.
        container: ContainerId,
        /// The signal, for people; the engine knows it from the container.
        signal: String,
        /// How long it has.
        grace: Millis,
    },
    /// Stop a container whose lease has ended, at once and whatever else goes on.
    Halt {
        /// Whose.
        task: TaskId,
        /// Which.
        container: ContainerId,
        /// How long it has.
        grace: Millis,
    },
    /// Remove a container.
    Remove {
        /// Whose.
        task: TaskId,
        /// Which.
        container: ContainerId,
    },
    /// Remove a network that no task needs any more.
    RemoveNetwork {
        /// Its name in the engine.
        engine_name: String,
    },
}

/// What a step keeps busy: nothing has two operations at a time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// A task and its containers.
    Task(TaskId),
    /// An image.
    Image(ImageWanted),
    /// A network, by its name in the engine.
    Network(String),
    /// A volume, by its name in the engine.
    Volume(String),
}

/// An image, and how to get it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ImageWanted {
    /// A tag, a digest, or the id of an image that was built here.
    pub reference: String,
    /// `os/arch[/variant]`.
    pub platform: Option<String>,
    /// When a registry is asked.
    pub policy: PullPolicy,
    /// The id of the very image that is meant, where a registry has it, too.
    pub pin: Option<String>,
}

// === impl Step ===

impl Step {
    /// What it keeps busy.
    pub fn key(&self) -> Key {
        match self {
            Self::Fetch(image) => Key::Image(image.clone()),
            Self::EnsureNetwork { engine_name, .. } | Self::RemoveNetwork { engine_name } => {
                Key::Network(engine_name.clone())
            }
            Self::EnsureVolume { engine_name, .. } => Key::Volume(engine_name.clone()),
            Self::Create { task, .. }
            | Self::Start { task, .. }
            | Self::Unpause { task, .. }
            | Self::Stop { task, .. }
            | Self::Halt { task, .. }
            | Self::Remove { task, .. } => Key::Task(task.clone()),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fetch(image) => write!(f, "fetch image {image}"),
            Self::EnsureNetwork { engine_name, .. } => write!(f, "ensure network {engine_name}"),
            Self::EnsureVolume { engine_name, .. } => write!(f, "ensure volume {engine_name}"),
            Self::Create { task, .. } => write!(f, "create {task}"),
            Self::Start { task, .. } => write!(f, "start {task}"),
            Self::Unpause { task, .. } => write!(f, "unpause {task}"),
            Self::Stop { task, signal, grace, .. } => write!(f, "stop {task} with {signal}, {grace}"),
            Self::Halt { task, grace, .. } => write!(f, "halt {task}, whose lease has ended, {grace}"),
            Self::Remove { task, .. } => write!(f, "remove {task}"),
            Self::RemoveNetwork { engine_name } => write!(f, "remove network {engine_name}"),
        }
    }
}

// === impl ImageWanted ===

impl ImageWanted {
    /// The image of `container`. One that no registry has is known by its id alone. What a registry has under a digest
    /// never changes: there is nothing to ask for anew.
    pub fn of(container: &Container) -> Self {
        let platform = container.platform.clone();
        match (&container.image_id, &container.image_digest) {
            (Some(id), None) => {
                Self { reference: id.clone(), platform: None, policy: PullPolicy::Never, pin: None }
            }
            (id, Some(digest)) => Self {
                reference: format!("{}@{digest}", without_tag(&container.image)),
                platform,
                policy: match container.pull_policy {
                    PullPolicy::Never => PullPolicy::Never,
                    PullPolicy::Missing | PullPolicy::Always => PullPolicy::Missing,
                },
                pin: id.clone(),
            },
            (None, None) => Self {
                reference: container.image.clone(),
                platform,
                policy: container.pull_policy,
                pin: None,
            },
        }
    }
}

impl fmt::Display for ImageWanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reference)?;
        match self.policy {
            PullPolicy::Missing => f.write_str(" if missing"),
            PullPolicy::Always => f.write_str(" anew"),
            PullPolicy::Never => f.write_str(" never"),
        }
    }
}

/// A colon before a slash belongs to a registry's port.
fn without_tag(image: &str) -> &str {
    let name = image.split_once('@').map_or(image, |(name, _)| name);
    match name.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => path,
        Some(_) | None => name,
    }
}

// === what a template uses ===

/// The networks that containers of `template` join.
pub(super) fn networks_of(template: &Template) -> impl Iterator<Item = &NetworkName> {
    let container = &template.container;
    container.networks.keys().filter(|_| container.network_mode == NetworkMode::Bridge)
}

/// The named volumes that containers of `template` mount.
pub(super) fn volumes_of(template: &Template) -> impl Iterator<Item = &VolumeName> {
    template.container.mounts.iter().filter_map(|mount| match &mount.source {
        MountSource::Volume { name, .. } => Some(name),
        MountSource::Anonymous | MountSource::Bind { .. } | MountSource::Tmpfs { .. } => None,
    })
}
