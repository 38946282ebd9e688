//! What the images of a project mean, found out once when it is applied: all its replicas run the same bits, wherever and
//! whenever they start.
//!
//! A name means, in this order: the image that a node has under it (of several, the one that was named last); what it
//! meant in the version before; what its registry has. With `pull_policy: always` the registry is asked first. What cannot
//! be found out stays a name, and each node finds out for itself.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::timeout;
use tug_api::image::{ImageName, ResolveRequest, Resolved};
use tug_api::node::NodeClient;
use tug_model::spec::Project;
use tug_model::spec::container::{Container, PullPolicy};
use tug_model::{Digest, NodeId};

use super::Context;
use crate::store::State;

/// So many nodes are asked what they have: those of the project first.
const MOST_NODES: usize = 64;
/// And so many, one after the other, what a registry has.
const MOST_TRIES: usize = 2;
/// How long an agent has to look at its engine.
const LOOK: Duration = Duration::from_secs(3);
/// And to ask registries.
const ASK: Duration = Duration::from_secs(5);

/// What a name means.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pin {
    id: Option<Digest>,
    digest: Option<Digest>,
}

/// Pins every image of `spec` that is only named.
pub(super) async fn pin(context: &Context, spec: &mut Project) {
    let state = context.store.snapshot();
    let open = |container: &Container| {
        container.image_id.is_none() && container.image_digest.is_none() && !container.image.contains('@')
    };
    let names = |policy: fn(PullPolicy) -> bool, spec: &Project| -> BTreeSet<ImageName> {
        let containers = spec.services.values().map(|service| &service.container);
        containers.filter(|one| open(one) && policy(one.pull_policy)).map(name_of).collect()
    };
    let all = names(|_| true, spec);
    if all.is_empty() {
        return;
    }
    let nodes = nodes(context, &state, spec);
    let fresh = from_registry(&nodes, names(|policy| policy == PullPolicy::Always, spec)).await;
    let here = from_nodes(&nodes, all.into_iter().filter(|name| !fresh.contains_key(name)).collect()).await;
    let before = before(&state, spec);
    let known =
        |name: &ImageName| fresh.contains_key(name) || here.contains_key(name) || before.contains_key(name);
    let unknown = names(|policy| policy == PullPolicy::Missing, spec);
    let there = from_registry(&nodes, unknown.into_iter().filter(|name| !known(name)).collect()).await;
    for service in spec.services.values_mut().filter(|service| open(&service.container)) {
        let name = name_of(&service.container);
        let pin = [&fresh, &here, &before, &there].into_iter().find_map(|some| some.get(&name));
        if let Some(Pin { id, digest }) = pin {
            service.container.image_id = id.as_ref().map(Digest::to_string);
            service.container.image_digest.clone_from(digest);
        }
    }
}

fn name_of(container: &Container) -> ImageName {
    ImageName { reference: container.image.clone(), platform: container.platform.clone() }
}

/// What the names meant in the version that is stored.
fn before(state: &State, spec: &Project) -> BTreeMap<ImageName, Pin> {
    let stored = state.projects.get(&spec.name);
    let containers = stored.iter().flat_map(|stored| stored.spec.services.values().map(|it| &it.container));
    let pinned = containers.filter_map(|container| {
        let id = container.image_id.as_deref().and_then(|id| Digest::parse(id).ok());
        let pin = Pin { id, digest: container.image_digest.clone() };
        (pin.id.is_some() || pin.digest.is_some()).then(|| (name_of(container), pin))
    });
    pinned.collect()
}

/// Whom to ask.
fn nodes(context: &Context, state: &State, spec: &Project) -> Vec<NodeClient> {
    let theirs: BTreeSet<&NodeId> = state.tasks_of(&spec.name).map(|task| &task.node).collect();
    let mut nodes: Vec<&NodeId> = state.nodes.keys().collect();
    nodes.sort_by_key(|node| !theirs.contains(node));
    nodes.into_iter().filter_map(|node| context.nodes.client(node)).take(MOST_NODES).collect()
}

/// What the nodes have under the names.
async fn from_nodes(nodes: &[NodeClient], names: BTreeSet<ImageName>) -> BTreeMap<ImageName, Pin> {
    let request = ResolveRequest { images: names.into_iter().collect(), registry: false };
    if request.images.is_empty() {
        return BTreeMap::new();
    }
    let mut asked = Vec::new();
    for node in nodes {
        asked.push(timeout(LOOK, node.resolve(&request)));
    }
    let answers = futures_util::future::join_all(asked).await;
    let mut newest: BTreeMap<ImageName, Resolved> = BTreeMap::new();
    for answer in answers.into_iter().filter_map(|answer| answer.ok()?.ok()) {
        for (name, resolved) in request.images.iter().zip(answer) {
            let Some(resolved) = resolved.filter(|resolved| resolved.id.is_some()) else { continue };
            if newest.get(name).is_none_or(|other| other.tagged_at < resolved.tagged_at) {
                newest.insert(name.clone(), resolved);
            }
        }
    }
    newest
        .into_iter()
        .map(|(name, resolved)| (name, Pin { id: resolved.id, digest: resolved.digest }))
        .collect()
}

/// What their registries have under the names.
async fn from_registry(nodes: &[NodeClient], mut names: BTreeSet<ImageName>) -> BTreeMap<ImageName, Pin> {
    let mut found = BTreeMap::new();
    for node in nodes.iter().take(MOST_TRIES) {
        if names.is_empty() {
            break;
        }
        let request = ResolveRequest { images: names.iter().cloned().collect(), registry: true };
        let Ok(Ok(answer)) = timeout(ASK, node.resolve(&request)).await else { continue };
        for (name, resolved) in request.images.iter().zip(answer) {
            if let Some(digest) = resolved.and_then(|resolved| resolved.digest) {
                names.remove(name);
                found.insert(name.clone(), Pin { id: None, digest: Some(digest) });
            }
        }
    }
    found
}

#[cfg(test)]
mod tests;
