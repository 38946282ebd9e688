//! The one table of all keys of the Compose Specification and what becomes of each. A key is added here and where it
//! is read; `unknown`, `ignored`, `not yet` and `unsupported` follow from the table.

mod service;

pub(crate) use service::*;

/// What becomes of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is read into the spec, and every mistake in it is reported.
    Read,
    /// It means nothing to us and is harmless: nothing is said.
    Silent,
    /// It is harmless to ignore it; a note says so.
    Noted(&'static str),
    /// It has no meaning here; a warning says why.
    Ignored(&'static str),
    /// An error until we can do it.
    NotYet(&'static str),
    /// An error: dropping it would change what the manifest means.
    Refused(&'static str),
}

/// The keys that a map may have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Schema {
    /// What the map is, for messages.
    pub(crate) what: &'static str,
    keys: &'static [(&'static str, Fate)],
}

// === impl Schema ===

impl Schema {
    /// What becomes of `key`; `None` is unknown.
    pub(crate) fn fate(&self, key: &str) -> Option<Fate> {
        self.keys.iter().find(|(name, _)| *name == key).map(|(_, fate)| *fate)
    }

    /// All keys.
    pub(crate) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.keys.iter().map(|(name, _)| *name)
    }

    /// The keys that are read.
    #[cfg(test)]
    pub(crate) fn read(&self) -> impl Iterator<Item = &'static str> {
        self.keys.iter().filter(|(_, fate)| *fate == Fate::Read).map(|(name, _)| *name)
    }
}

/// A table whose keys are read, but for those with an arrow to what else becomes of them.
macro_rules! schema {
    ($(#[$doc:meta])* $name:ident, $what:literal, { $($key:literal $(=> $fate:expr)?),* $(,)? }) => {
        $(#[$doc])*
        pub(crate) static $name: $crate::schema::Schema = $crate::schema::Schema {
            what: $what,
            keys: &[$(($key, $crate::schema::schema!(@fate $($fate)?))),*],
        };
    };
    (@fate) => { $crate::schema::Fate::Read };
    (@fate $fate:expr) => { $fate };
}
pub(crate) use schema;

use Fate::{Noted, Refused, Silent};

schema! { PROJECT, "the manifest", {
    // `include` is taken in before this table is asked; so is `extends` of a service.
    "include" => Silent,
    "name",
    "services",
    "networks",
    "volumes",
    "configs",
    "secrets",
    "version" => Noted("the Compose Specification has no versions any more"),
    "models" => Refused("models are run by Docker Desktop"),
    "x-tug",
} }

schema! { TUG, "x-tug", { "cluster", "min_version" } }

schema! { NETWORK, "a network", {
    "name",
    "external",
    "driver",
    "driver_opts",
    "attachable",
    "internal",
    "enable_ipv4",
    "enable_ipv6",
    "ipam",
    "labels",
} }

schema! { IPAM, "ipam", { "driver", "config", "options" } }

schema! { IPAM_POOL, "an address range", { "subnet", "ip_range", "gateway", "aux_addresses" } }

schema! { EXTERNAL, "external", { "name" } }

schema! { VOLUME, "a volume", { "name", "external", "driver", "driver_opts", "labels" } }

schema! { CONFIG, "a config", {
    "name" => Noted("a config belongs to its project and needs no name of its own"),
    "file",
    "content",
    "environment",
    "external",
    "template_driver" => Refused("templates are filled in by Swarm only"),
    "labels" => Silent,
} }

schema! { SECRET, "a secret", {
    "name" => Silent,
    "file" => Silent,
    "environment" => Silent,
    "external" => Silent,
    "labels" => Silent,
    "driver" => Silent,
    "driver_opts" => Silent,
    "template_driver" => Silent,
} }

schema! { INCLUDE, "include", { "path", "project_directory", "env_file" } }

schema! { EXTENDS, "extends", { "service", "file" } }
