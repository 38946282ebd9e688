//! A project as the control plane keeps it.

use serde::{Deserialize, Serialize};

use crate::name::{ProjectName, ServiceName};
use crate::quantity::{Revision, Timestamp};
use crate::spec;

/// One accepted version of a project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct StoredProject {
    /// What is wanted.
    pub spec: spec::Project,
    /// The text that it was made from, as the user wrote it, for people to read.
    #[serde(default)]
    pub source: Vec<SourceFile>,
    /// Which version this is, from 1.
    pub number: u64,
    /// The commit that accepted it: what a later change is compared with (compare-and-swap).
    pub revision: Revision,
    /// When it was accepted.
    pub accepted_at: Timestamp,
}

/// One manifest file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SourceFile {
    /// Its path as the user gave it.
    pub path: String,
    /// Its text.
    pub text: String,
}

/// A service, named from outside its project.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ServiceRef {
    /// The project.
    pub project: ProjectName,
    /// The service in it.
    pub service: ServiceName,
}

impl std::fmt::Display for ServiceRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.project, self.service)
    }
}
