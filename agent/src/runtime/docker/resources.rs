//! Networks and volumes: made where they are missing, never changed, and only networks are ever removed.

use std::collections::HashMap;

use bollard::errors::Error as EngineError;
use bollard::models::NetworkInspect;
use bollard::query_parameters::{
    InspectNetworkOptions, ListContainersOptionsBuilder, ListNetworksOptionsBuilder,
};
use tug_model::spec::resource::{Network, Volume};
use tug_model::{NetworkName, ProjectName, VolumeName};

use super::call::Call;
use super::{Docker, FoundNetwork, Operation, RuntimeError, deadline};
use crate::runtime::translate::{self, Owner};
use crate::runtime::{Cause, label};

type Labels = HashMap<String, String>;

// === impl Docker ===

impl Docker {
    pub(super) async fn make_network(
        &self,
        project: &ProjectName,
        key: &NetworkName,
        network: &Network,
    ) -> Result<(), RuntimeError> {
        let name = network.engine_name.as_str();
        let call = self.call(Operation::Network, name);
        check_name(&call, name)?;
        let _one_at_a_time = self.networks.lock().await;
        match find_network(&call, name).await? {
            Some(_) if network.external => Ok(()),
            Some(found) => {
                let labels = found.labels.unwrap_or_default();
                check_owner(&call, &labels, project, (label::NETWORK, key.as_str()))?;
                let settings = labels.get(label::SETTINGS).map(String::as_str);
                let changed = translate::differences(settings, &translate::network_settings(network));
                let remedy = format!(
                    "take the project down (`tug rm {project}`) or run `docker network rm {name}` so that it is made anew"
                );
                check_settings(&call, &changed, &remedy)
            }
            None if network.external => Err(call.error(Cause::NotFound(format!(
                "the manifest says that it is external, and it does not exist: make it with `docker network create {name}`"
            )))),
            None => {
                let owner = Owner { node: &self.node, project, key: key.as_str() };
                let request = translate::network(owner, network);
                call.within(deadline::CREATE, |client| async move { client.create_network(request).await })
                    .await
                    .map(drop)
            }
        }
    }

    pub(super) async fn make_volume(
        &self,
        project: &ProjectName,
        key: &VolumeName,
        volume: &Volume,
    ) -> Result<(), RuntimeError> {
        let name = volume.engine_name.as_str();
        let call = self.call(Operation::Volume, name);
        check_name(&call, name)?;
        let found = call
            .within(deadline::READ, |client| async move { absent(client.inspect_volume(name).await) })
            .await?;
        match found {
            Some(_) if volume.external => Ok(()),
            Some(found) => {
                check_owner(&call, &found.labels, project, (label::VOLUME, key.as_str()))?;
                let settings = found.labels.get(label::SETTINGS).map(String::as_str);
                let changed = translate::differences(settings, &translate::volume_settings(volume));
                let remedy = format!(
                    "Tug does not delete data; give the new volume another `name`, or save what you need and run `docker volume rm {name}`"
                );
                check_settings(&call, &changed, &remedy)
            }
            None if volume.external => Err(call.error(Cause::NotFound(format!(
                "the manifest says that it is external, and it does not exist: make it with `docker volume create {name}`"
            )))),
            None => {
                let owner = Owner { node: &self.node, project, key: key.as_str() };
                let request = translate::volume(owner, volume);
                call.within(deadline::CREATE, |client| async move { client.create_volume(request).await })
                    .await
                    .map(drop)
            }
        }
    }

    pub(super) async fn list_networks(&self) -> Result<Vec<FoundNetwork>, RuntimeError> {
        let call = self.call(Operation::Network, &self.node);
        let filters = HashMap::from([("label", vec![format!("{}={}", label::NODE, self.node)])]);
        let options = ListNetworksOptionsBuilder::new().filters(&filters).build();
        let networks = call
            .within(deadline::READ, |client| async move { client.list_networks(Some(options)).await })
            .await?;
        let mut found: Vec<FoundNetwork> = networks
            .into_iter()
            .filter_map(|network| {
                let labels = network.labels?;
                Some(FoundNetwork {
                    engine_name: network.name?,
                    project: ProjectName::parse(labels.get(label::PROJECT)?).ok()?,
                    key: NetworkName::parse(labels.get(label::NETWORK)?).ok()?,
                })
            })
            .collect();
        found.sort();
        Ok(found)
    }

    pub(super) async fn drop_network(&self, name: &str) -> Result<bool, RuntimeError> {
        let call = self.call(Operation::Network, name);
        check_name(&call, name)?;
        let _one_at_a_time = self.networks.lock().await;
        let Some(found) = find_network(&call, name).await? else { return Ok(true) };
        let node = found.labels.unwrap_or_default().remove(label::NODE);
        if node.as_deref() != Some(self.node.as_str()) {
            let owner =
                node.map_or_else(|| "not made by Tug".to_owned(), |node| format!("made by node {node}"));
            return Err(call.error(Cause::Foreign(owner)));
        }
        // The Engine keeps a network only while a running container is on it; a stopped one needs it to start again.
        let filters = HashMap::from([("network", vec![name])]);
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        let users = call
            .within(deadline::READ, |client| async move { client.list_containers(Some(options)).await })
            .await?;
        if !users.is_empty() {
            return Ok(false);
        }
        let id = found.id.unwrap_or_else(|| name.to_owned());
        match call.within(deadline::START, |client| async move { client.remove_network(&id).await }).await {
            Ok(()) => Ok(true),
            Err(error) if error.is_not_found() => Ok(true),
            Err(error) if matches!(&error.cause, Cause::Refused(text) if text.contains("active endpoints")) => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}

/// The network of exactly this name; the Engine would also take the beginning of an id for one.
async fn find_network(call: &Call<'_>, name: &str) -> Result<Option<NetworkInspect>, RuntimeError> {
    let inspect = |client: bollard::Docker| async move {
        absent(client.inspect_network(name, None::<InspectNetworkOptions>).await)
    };
    let found = call.within(deadline::READ, inspect).await?;
    Ok(found.filter(|network| network.name.as_deref() == Some(name)))
}

/// The answer, or `None` where the Engine knows no such thing.
fn absent<T>(answer: Result<T, EngineError>) -> Result<Option<T>, EngineError> {
    match answer {
        Err(EngineError::DockerResponseServerError { status_code: 404, .. }) => Ok(None),
        answer => answer.map(Some),
    }
}

/// Names become part of a path, so they may hold only what the Engine's own names do.
fn check_name(call: &Call<'_>, name: &str) -> Result<(), RuntimeError> {
    let starts_well = name.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric);
    if starts_well && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_')) {
        return Ok(());
    }
    let rule =
        "not a name the Docker Engine takes: use a-z, A-Z, 0-9, ., - and _, starting with a letter or digit";
    Err(call.error(Cause::Refused(rule.to_owned())))
}

fn check_owner(
    call: &Call<'_>,
    labels: &Labels,
    project: &ProjectName,
    (key_label, key): (&str, &str),
) -> Result<(), RuntimeError> {
    let theirs = labels.get(label::PROJECT).map(String::as_str);
    if theirs == Some(project.as_str()) && labels.get(key_label).map(String::as_str) == Some(key) {
        return Ok(());
    }
    let owner = theirs.map_or_else(|| "not made by Tug".to_owned(), |theirs| format!("of project {theirs}"));
    Err(call.error(Cause::Foreign(format!("{owner}; or declare it `external: true` to use it as it is"))))
}

fn check_settings(call: &Call<'_>, changed: &[String], remedy: &str) -> Result<(), RuntimeError> {
    if changed.is_empty() {
        return Ok(());
    }
    let changed = changed.join(", ");
    Err(call.error(Cause::Differs(format!(
        "it exists with other settings than the manifest has ({changed}): {remedy}"
    ))))
}
