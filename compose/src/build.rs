//! What `build:` asks for: as much of it as the Engine's own builder can do.

use std::collections::BTreeMap;
use std::path::PathBuf;

use tug_model::spec::container::ExtraHost;

/// How an image is built before anything is deployed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Build {
    /// The folder whose files the build sees, absolute.
    pub context: PathBuf,
    /// The recipe.
    pub dockerfile: Dockerfile,
    /// Build arguments, those without a value already taken from the environment.
    pub args: BTreeMap<String, String>,
    /// The stage to stop at.
    pub target: Option<String>,
    /// Labels of the image.
    pub labels: BTreeMap<String, String>,
    /// More names for the image.
    pub tags: Vec<String>,
    /// Images whose layers may be used again.
    pub cache_from: Vec<String>,
    /// Use no layer again.
    pub no_cache: bool,
    /// Ask the registry for newer base images.
    pub pull: bool,
    /// What it is built for; at most one.
    pub platform: Option<String>,
    /// The network that its steps see.
    pub network: Option<String>,
    /// The size of `/dev/shm` in its steps, in bytes: as many as the Engine can be told.
    pub shm_size: Option<i32>,
    /// A line of `/etc/hosts` in its steps. The Engine takes them as one text, and of that only one.
    pub extra_host: Option<ExtraHost>,
}

/// Where the recipe is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dockerfile {
    /// A path, seen from the context.
    Path(String),
    /// The text itself.
    Inline(String),
}

impl Default for Dockerfile {
    fn default() -> Self {
        Self::Path("Dockerfile".to_owned())
    }
}
