//! What a user asked for: a Compose project, resolved. Every reference is checked and every default is written out,
//! so that the control plane and the agents never look at a file or at the environment again.
//!
//! `tug-compose` makes these values; `PUT /v1/projects/{name}` carries them as JSON. What stands in
//! [`container::Container`] is what a running container is made of: changing any of it replaces the task.
//! Everything else in a [`service::Service`] changes without one.

pub mod container;
pub mod deploy;
pub mod resource;
pub mod rule;
pub mod service;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::name::{NetworkName, ProjectName, ServiceName, VolumeName};

/// What one Compose file (or several, merged) declares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Project {
    /// `name:` of the file, or the name of its folder.
    pub name: ProjectName,
    /// The services that are to run; those of inactive profiles are not here.
    #[schema(value_type = BTreeMap<String, service::Service>)]
    pub services: BTreeMap<ServiceName, service::Service>,
    /// The networks that the services use. `default` is written out where it is used.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = BTreeMap<String, resource::Network>)]
    pub networks: BTreeMap<NetworkName, resource::Network>,
    /// The named volumes that the services use.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = BTreeMap<String, resource::Volume>)]
    pub volumes: BTreeMap<VolumeName, resource::Volume>,
    /// The contents of the configs that the services mount, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub configs: BTreeMap<String, resource::Config>,
}
