//! All containers of this node: one list, and an inspect of those that changed.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use bollard::models::{ContainerSummary, ContainerSummaryStateEnum as SummaryState};
use bollard::query_parameters::{InspectContainerOptions, ListContainersOptionsBuilder};
use futures_util::{StreamExt, stream};
use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::Error as LabelError;
use tokio::time::Instant;
use tug_model::lease::FencingNumber;
use tug_model::quantity::{Slot, Timestamp};
use tug_model::task::TemplateHash;
use tug_model::{NodeId, ProjectName, ServiceName, TaskId};

use super::inspect::{Details, Seen, Sentence};
use super::{ContainerId, Docker, Found, Operation, RuntimeError, deadline, lost, unsigned};
use crate::runtime::{EngineHealth, Identity, State, label};

/// How many containers are inspected at once.
const INSPECTS: usize = 8;

// === impl Docker ===

impl Docker {
    pub(super) async fn list_containers(&self) -> Result<Vec<Found>, RuntimeError> {
        let call = self.call(Operation::List, &self.node);
        let filters = HashMap::from([("label", vec![format!("{}={}", label::NODE, self.node)])]);
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        let summaries = call
            .within(deadline::READ, |client| async move { client.list_containers(Some(options)).await })
            .await?;

        let ours: Vec<Ours> = summaries.into_iter().filter_map(|summary| self.recognise(summary)).collect();
        // One hung container must not keep the others from being seen: what is not known in time is guessed.
        let until = Instant::now() + deadline::READ;
        let mut found: Vec<Found> = stream::iter(ours)
            .map(|summary| self.complete(summary, until))
            .buffer_unordered(INSPECTS)
            .filter_map(std::future::ready)
            .collect()
            .await;
        found.sort_by(|a, b| a.name.cmp(&b.name));
        let mut seen = self.seen.lock().expect("nobody panics while holding it");
        seen.retain(|id, _| found.iter().any(|container| container.id == *id));
        drop(seen);
        Ok(found)
    }

    /// The container's summary, if its labels make sense. One that carries our node's label and is not ours all the
    /// same is nobody's business.
    fn recognise(&self, summary: ContainerSummary) -> Option<Ours> {
        let id = ContainerId::new(summary.id.as_deref()?);
        let labels = summary.labels.as_ref()?;
        match identity(labels) {
            Ok(identity) if identity.node == self.node => Some(Ours { id, identity, listed: summary }),
            Ok(_) => None,
            Err(reason) => {
                tracing::warn!(container = %id, reason, "a container with our label is not one of ours");
                None
            }
        }
    }

    /// What the list says, with what only an inspect can add; `None` for a container that has gone meanwhile.
    async fn complete(&self, ours: Ours, until: Instant) -> Option<Found> {
        let Ours { id, identity, listed: summary } = ours;
        let sentence = Sentence::parse(summary.status.as_deref().unwrap_or_default());
        let state = summary.state.unwrap_or(SummaryState::EMPTY);
        let details = match state {
            SummaryState::RUNNING | SummaryState::STOPPING | SummaryState::EXITED => {
                self.details(&id, sentence, &summary, until).await?
            }
            SummaryState::CREATED
            | SummaryState::PAUSED
            | SummaryState::RESTARTING
            | SummaryState::REMOVING
            | SummaryState::DEAD
            | SummaryState::EMPTY => Details::guess(sentence, created_at(&summary)),
        };
        let is_up = matches!(state, SummaryState::RUNNING | SummaryState::STOPPING);
        let name = summary.names.as_ref().and_then(|names| names.first());
        let mut state = state_of(state, &details);
        // What is exclusive is never started a second time: it has ended for good.
        let has_ended = matches!(state, State::Exited { .. } | State::Dead);
        if identity.fencing.is_some() && has_ended && !has_surely_ended(&id).await {
            state = State::Running { started_at: details.started_at };
        }
        Some(Found {
            name: name.map(|name| name.trim_start_matches('/').to_owned()).unwrap_or_default(),
            identity,
            addresses: addresses(&summary),
            health: if is_up { details.health.clone() } else { EngineHealth::None },
            state,
            id,
        })
    }

    async fn details(
        &self,
        id: &ContainerId,
        sentence: Sentence,
        summary: &ContainerSummary,
        until: Instant,
    ) -> Option<Details> {
        if let Some(seen) = self.recall(id).filter(|seen| seen.holds_for(sentence)) {
            return Some(seen.details);
        }
        let call = self.call(Operation::List, id);
        let left = until.saturating_duration_since(Instant::now());
        let inspect = call
            .within(left, |client| async move {
                client.inspect_container(id.as_str(), None::<InspectContainerOptions>).await
            })
            .await;
        match inspect {
            Ok(response) => {
                let details = Details::of(response);
                let seen = Seen { sentence, details: details.clone() };
                self.seen.lock().expect("nobody panics while holding it").insert(id.clone(), seen);
                Some(details)
            }
            Err(error) if error.is_not_found() => None,
            Err(error) => {
                tracing::warn!(container = %id, %error, "a container cannot be inspected");
                let known = self.recall(id).map(|seen| seen.details);
                Some(known.unwrap_or_else(|| Details::guess(sentence, created_at(summary))))
            }
        }
    }

    fn recall(&self, id: &ContainerId) -> Option<Seen> {
        self.seen.lock().expect("nobody panics while holding it").get(id).cloned()
    }

    /// Forgets what was seen of a container that is about to change by our own hand.
    pub(super) fn forget(&self, id: &ContainerId) {
        self.seen.lock().expect("nobody panics while holding it").remove(id);
    }
}

/// Whether nothing of a container runs of which the Engine says that it does not: what it lost sight of is killed. That
/// matters where two at once would harm.
async fn has_surely_ended(container: &ContainerId) -> bool {
    let id = container.clone();
    let ended = tokio::task::spawn_blocking(move || lost::end(&id)).await;
    let (count, is_gone) = ended.unwrap_or((0, false));
    if count > 0 {
        tracing::warn!(%container, count, "the engine lost sight of processes of a container: they are killed");
    }
    is_gone
}

/// A container of ours as the list gives it.
struct Ours {
    id: ContainerId,
    identity: Identity,
    listed: ContainerSummary,
}

/// The identity in a container's labels, or why there is none.
pub(super) fn identity(labels: &HashMap<String, String>) -> Result<Identity, String> {
    let get =
        |key: &str| labels.get(key).map(String::as_str).ok_or_else(|| format!("label {key} is missing"));
    let template = get(label::TEMPLATE)?.into_deserializer();
    Ok(Identity {
        cluster: get(label::CLUSTER)?.to_owned(),
        node: parsed(NodeId::parse(get(label::NODE)?))?,
        task: parsed(TaskId::parse(get(label::TASK)?))?,
        project: parsed(ProjectName::parse(get(label::PROJECT)?))?,
        service: parsed(ServiceName::parse(get(label::SERVICE)?))?,
        slot: Slot(parsed(get(label::SLOT)?.parse())?),
        template: parsed::<_, LabelError>(TemplateHash::deserialize(template))?,
        fencing: match labels.get(label::FENCING) {
            Some(number) => Some(FencingNumber(parsed(number.parse())?)),
            None => None,
        },
    })
}

fn parsed<T, E: ToString>(result: Result<T, E>) -> Result<T, String> {
    result.map_err(|error| error.to_string())
}

fn state_of(state: SummaryState, details: &Details) -> State {
    match state {
        SummaryState::CREATED => State::Created,
        SummaryState::RUNNING | SummaryState::STOPPING => State::Running { started_at: details.started_at },
        SummaryState::PAUSED => State::Paused,
        SummaryState::RESTARTING => State::Restarting,
        SummaryState::EXITED => State::Exited {
            code: details.exit_code,
            out_of_memory: details.out_of_memory,
            finished_at: details.finished_at,
        },
        SummaryState::REMOVING => State::Removing,
        SummaryState::DEAD | SummaryState::EMPTY => State::Dead,
    }
}

fn created_at(summary: &ContainerSummary) -> Timestamp {
    Timestamp(unsigned(summary.created).saturating_mul(1000))
}

fn addresses(summary: &ContainerSummary) -> BTreeMap<String, IpAddr> {
    let networks = summary.network_settings.as_ref().and_then(|settings| settings.networks.as_ref());
    let mut addresses = BTreeMap::new();
    for (name, endpoint) in networks.into_iter().flatten() {
        let parse = |text: &Option<String>| text.as_deref().and_then(|text| text.parse::<IpAddr>().ok());
        if let Some(address) = parse(&endpoint.ip_address).or_else(|| parse(&endpoint.global_ipv6_address)) {
            addresses.insert(name.clone(), address);
        }
    }
    addresses
}
