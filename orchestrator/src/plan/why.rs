//! Why a service is as it is, slot by slot.

use tug_model::name::{ProjectName, ServiceName};

use super::View;

/// What stands against the service being as wanted, one sentence each; empty when it is.
pub fn service(view: &View, project: &ProjectName, service: &ServiceName) -> Vec<String> {
    let _ = (view, project, service);
    Vec::new()
}
