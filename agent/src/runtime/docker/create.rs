//! Making a container: adopting what is already there, and leaving nothing half made behind.

use bollard::errors::Error as EngineError;
use bollard::models::{ContainerInspectResponse, ContainerStateStatusEnum as Status, NetworkConnectRequest};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectContainerOptions, RemoveContainerOptionsBuilder,
};
use tug_model::spec::container::{Container, MountSource, NetworkMode};

use super::call::{ApiVersion, Call};
use super::list::identity;
use super::{ContainerId, ContainerRequest, Docker, Operation, RuntimeError, deadline};
use crate::runtime::translate::{self, Creation};
use crate::runtime::{Cause, Identity};

/// What stands in the way of a new container.
enum Standing {
    /// It is what was asked for.
    Adopted(ContainerId),
    /// It is ours, and was never started: perhaps only half made.
    HalfMade(ContainerId),
    /// It has gone meanwhile.
    Gone,
}

// === impl Docker ===

impl Docker {
    pub(super) async fn create_container(
        &self,
        request: &ContainerRequest,
    ) -> Result<ContainerId, RuntimeError> {
        let call = self.call(Operation::Create, &request.identity.task);
        let made = self.create_or_adopt(&call, request).await;
        made.map_err(|error| without_secrets(error, request))
    }

    async fn create_or_adopt(
        &self,
        call: &Call<'_>,
        request: &ContainerRequest,
    ) -> Result<ContainerId, RuntimeError> {
        self.refuse_what_is_too_new(call, request).await?;
        let translated = translate::container(request);
        let mut creation = translated.map_err(|error| call.error(Cause::Refused(error.to_string())))?;
        keep_entrypoint(call, request, &mut creation).await?;
        match make(call, &creation).await {
            Err(error) if matches!(error.cause, Cause::Conflict(_)) => {
                match standing(call, &request.identity, error).await? {
                    Standing::Adopted(id) => return Ok(id),
                    Standing::HalfMade(id) => self.remove_container(&id).await?,
                    Standing::Gone => {}
                }
                make(call, &creation).await
            }
            made => made,
        }
    }

    /// An engine ignores what it does not know, and would show a whole volume where a directory of it was asked for.
    async fn refuse_what_is_too_new(
        &self,
        call: &Call<'_>,
        request: &ContainerRequest,
    ) -> Result<(), RuntimeError> {
        let asked = needs(&request.template.container);
        if asked.is_empty() {
            return Ok(());
        }
        let spoken = self.api_version(call).await?;
        match asked.into_iter().find(|need| spoken < need.api) {
            Some(Need { what, api: (major, minor), engine }) => {
                let reason = format!("{what} needs Docker Engine {engine} or newer (API {major}.{minor})");
                Err(call.error(Cause::Refused(reason)))
            }
            None => Ok(()),
        }
    }
}

/// Something that older engines leave out without a word.
struct Need {
    what: &'static str,
    api: ApiVersion,
    /// The first Engine that speaks it.
    engine: u8,
}

/// What the container has that not every engine knows.
fn needs(container: &Container) -> Vec<Need> {
    let has_subpath = container.mounts.iter().any(
        |mount| matches!(&mount.source, MountSource::Volume { subpath: Some(subpath), .. } if !subpath.is_empty()),
    );
    let has_start_interval =
        container.healthcheck.as_ref().is_some_and(|check| check.start_interval.is_some());
    let has_mac_address = container.network_mode == NetworkMode::Bridge
        && container.networks.values().any(|attachment| attachment.mac_address.is_some());
    let table = [
        (has_subpath, Need { what: "a volume's `subpath`", api: (1, 45), engine: 26 }),
        (has_start_interval, Need { what: "`healthcheck.start_interval`", api: (1, 44), engine: 25 }),
        (has_mac_address, Need { what: "a network's `mac_address`", api: (1, 44), engine: 25 }),
        (!container.annotations.is_empty(), Need { what: "`annotations`", api: (1, 43), engine: 24 }),
    ];
    table.into_iter().filter_map(|(is_asked, need)| is_asked.then_some(need)).collect()
}

/// An empty command clears the image's own only beside an explicit entrypoint: so the image's is written out.
async fn keep_entrypoint(
    call: &Call<'_>,
    request: &ContainerRequest,
    creation: &mut Creation,
) -> Result<(), RuntimeError> {
    let container = &request.template.container;
    let clears = container.command.as_ref().is_some_and(Vec::is_empty);
    if clears && container.entrypoint.is_none() {
        let image = &request.image;
        let image =
            call.within(deadline::READ, |client| async move { client.inspect_image(image).await }).await?;
        creation.body.entrypoint = image.config.and_then(|config| config.entrypoint);
    }
    Ok(())
}

/// Makes the container and joins it to its networks; what fails half way is removed again.
async fn make(call: &Call<'_>, creation: &Creation) -> Result<ContainerId, RuntimeError> {
    let options = CreateContainerOptionsBuilder::new().name(&creation.name);
    let options = match &creation.platform {
        Some(platform) => options.platform(platform).build(),
        None => options.build(),
    };
    let body = creation.body.clone();
    let made = call
        .within(deadline::CREATE, |client| async move { client.create_container(Some(options), body).await })
        .await?;
    for warning in made.warnings {
        tracing::debug!(container = creation.name, warning, "the engine warns");
    }
    let id = ContainerId::new(&made.id);
    match join(call, creation, &id).await {
        Ok(()) => Ok(id),
        Err(error) => {
            let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
            let name = id.as_str();
            let removed = call
                .within(deadline::CREATE, |client| async move {
                    client.remove_container(name, Some(options)).await
                })
                .await;
            if let Err(error) = removed {
                tracing::warn!(container = creation.name, %error, "a half made container is left for the next list");
            }
            Err(error)
        }
    }
}

async fn join(call: &Call<'_>, creation: &Creation, id: &ContainerId) -> Result<(), RuntimeError> {
    for (network, endpoint) in &creation.connections {
        let request = NetworkConnectRequest {
            container: id.as_str().to_owned(),
            endpoint_config: Some(endpoint.clone()),
        };
        call.within(deadline::CREATE, |client| async move { client.connect_network(network, request).await })
            .await?;
    }
    Ok(())
}

/// What the container is that has our name already. A foreign one is an error and is not touched.
async fn standing(
    call: &Call<'_>,
    wanted: &Identity,
    conflict: RuntimeError,
) -> Result<Standing, RuntimeError> {
    let name = wanted.task.as_str();
    let inspect = |client: bollard::Docker| async move {
        match client.inspect_container(name, None::<InspectContainerOptions>).await {
            Err(EngineError::DockerResponseServerError { status_code: 404, .. }) => Ok(None),
            answer => answer.map(Some),
        }
    };
    let Some(found) = call.within(deadline::READ, inspect).await? else { return Ok(Standing::Gone) };
    let ContainerInspectResponse { id, config, state, .. } = found;
    let id = ContainerId::new(&id.unwrap_or_default());
    let labels = config.and_then(|config| config.labels).unwrap_or_default();
    match identity(&labels) {
        Ok(theirs) if theirs == *wanted => {}
        Ok(theirs) if theirs.cluster == wanted.cluster && theirs.node == wanted.node => return Err(conflict),
        Ok(theirs) => {
            let owner = format!("container {id} of node {} in cluster {}", theirs.node, theirs.cluster);
            return Err(call.error(Cause::Foreign(owner)));
        }
        Err(_) => return Err(call.error(Cause::Foreign(format!("container {id}")))),
    }
    match state.and_then(|state| state.status) {
        Some(Status::CREATED) => Ok(Standing::HalfMade(id)),
        Some(Status::REMOVING | Status::DEAD) => Err(conflict),
        Some(
            Status::RUNNING
            | Status::PAUSED
            | Status::RESTARTING
            | Status::EXITED
            | Status::STOPPING
            | Status::EMPTY,
        )
        | None => Ok(Standing::Adopted(id)),
    }
}

/// The Engine quotes what it finds wrong; it must not quote a password.
fn without_secrets(mut error: RuntimeError, request: &ContainerRequest) -> RuntimeError {
    let (Cause::NotFound(text) | Cause::Conflict(text) | Cause::Refused(text) | Cause::Failed(text)) =
        &mut error.cause
    else {
        return error;
    };
    for value in request.template.container.environment.values() {
        // Shorter ones hide nothing and would tear words apart.
        if value.len() >= 4 {
            *text = text.replace(value.as_str(), "***");
        }
    }
    error
}

#[cfg(test)]
mod tests {
    use tug_model::spec::container::{Attachment, Healthcheck, Mount};
    use tug_model::{NetworkName, VolumeName};

    use super::*;

    #[test]
    fn what_an_old_engine_would_leave_out_is_known() {
        let newest = |container: &Container| needs(container).iter().map(|need| need.api).max();
        let mut container = Container::default();
        assert_eq!(newest(&container), None);
        container.annotations.insert("a".to_owned(), "b".to_owned());
        assert_eq!(newest(&container), Some((1, 43)));
        let check = Healthcheck {
            test: Vec::new(),
            interval: None,
            timeout: None,
            retries: None,
            start_period: None,
            start_interval: Some(tug_model::Millis(100)),
        };
        container.healthcheck = Some(check);
        assert_eq!(newest(&container), Some((1, 44)));
        container.healthcheck = None;
        let attachment =
            Attachment { mac_address: Some("02:00:00:00:00:01".to_owned()), ..Attachment::default() };
        container.networks.insert(NetworkName::parse("default").unwrap(), attachment);
        assert_eq!(newest(&container), Some((1, 44)));
        let name = VolumeName::parse("data").unwrap();
        let source = MountSource::Volume { name, nocopy: false, subpath: Some("a".to_owned()) };
        container.mounts.push(Mount { source, target: "/data".to_owned(), read_only: false });
        assert_eq!(newest(&container), Some((1, 45)));
    }
}
