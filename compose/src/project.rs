//! The whole manifest: a merged tree to the project that is deployed.

use std::collections::{BTreeMap, BTreeSet};

use tug_model::spec::Project;
use tug_model::spec::resource::Network;
use tug_model::{NetworkName, ServiceName, VolumeName};

use crate::build::Build;
use crate::check;
use crate::context::Context;
use crate::reader::{Cursor, Fields};
use crate::resource::{self, Resources, engine_name};
use crate::schema;
use crate::service::{self, Draft};
use crate::suggest::nearest;
use crate::tree::Node;

/// Reads the project. What is wrong is reported; the result means something only if nothing is.
pub(crate) fn read(
    context: &Context<'_>,
    tree: &Node,
    profiles: &BTreeSet<String>,
) -> Option<(Project, BTreeMap<ServiceName, Build>)> {
    let fields = Cursor::root(tree, context.report).fields(&schema::PROJECT)?;
    read_tug(&fields);
    let resources = resource::read(context, &fields);
    let services = read_services(context, &fields)?;
    let names: BTreeSet<ServiceName> = services.iter().map(|draft| draft.name.clone()).collect();
    let (active, inactive): (Vec<Draft<'_>>, Vec<Draft<'_>>) =
        services.into_iter().partition(|draft| is_active(draft, profiles));
    for draft in &inactive {
        check::references(&resources, &names, draft);
    }
    let mut active = active;
    for draft in &active {
        check::references(&resources, &names, draft);
    }
    check::profiles(&active, &inactive);
    check::something_runs(&active, &inactive, &fields);
    check::drop_optional(&mut active);
    check::cycles(&active);
    check::ports(&active);
    check::host_network(&mut active);
    check::completion(&mut active);
    check::health(&active);
    Some(assemble(context, resources, active))
}

/// `x-tug`: which version of Tug the manifest needs, and, when clusters have names, which cluster it is meant for.
fn read_tug(fields: &Fields<'_>) {
    fields.get("name");
    let Some(tug) = fields.get("x-tug").and_then(|cursor| cursor.fields(&schema::TUG)) else { return };
    if let Some(cursor) = tug.get("cluster")
        && cursor.text().is_some()
    {
        cursor.warning("not yet: clusters have no names, so nothing follows from this");
    }
    if let Some(cursor) = tug.get("min_version") {
        let text = cursor.text().unwrap_or_default();
        let parts: Vec<Option<u64>> = text.split('.').map(|part| part.parse().ok()).collect();
        let Some(asked) = parts.into_iter().collect::<Option<Vec<u64>>>().filter(|parts| parts.len() <= 3)
        else {
            return cursor.error(format!("\"{text}\" is not a version like 0.3"));
        };
        let ours: Vec<u64> =
            env!("CARGO_PKG_VERSION").split('.').filter_map(|part| part.parse().ok()).collect();
        if asked > ours {
            cursor.error(format!("this is tug {}; the manifest needs {text}", env!("CARGO_PKG_VERSION")));
        }
    }
}

fn read_services<'a>(context: &Context<'_>, fields: &Fields<'a>) -> Option<Vec<Draft<'a>>> {
    let cursor = fields.get("services");
    let entries = cursor.as_ref().map(super::reader::Cursor::entries).unwrap_or_default();
    if entries.is_empty() {
        let is_wrong = cursor.is_some_and(|cursor| !cursor.is_map());
        if !is_wrong {
            fields.cursor().report.error(fields.cursor().place(), "", "the manifest holds no services");
        }
        return None;
    }
    let mut services = Vec::new();
    for (entry, cursor) in entries {
        match ServiceName::parse(&entry.key) {
            Ok(name) => services.extend(service::read(context, name, &cursor)),
            Err(error) => cursor.report.error(entry.place, &cursor.path, error.to_string()),
        }
    }
    Some(services)
}

fn is_active(draft: &Draft<'_>, profiles: &BTreeSet<String>) -> bool {
    draft.profiles.is_empty()
        || profiles.contains("*")
        || draft.profiles.iter().any(|profile| profiles.contains(profile))
}

fn assemble(
    context: &Context<'_>,
    resources: Resources,
    drafts: Vec<Draft<'_>>,
) -> (Project, BTreeMap<ServiceName, Build>) {
    let mut configs = context.configs.take();
    let used_networks: BTreeSet<NetworkName> =
        drafts.iter().flat_map(|draft| draft.networks.iter().map(|(name, _)| name.clone())).collect();
    let used_volumes: BTreeSet<VolumeName> =
        drafts.iter().flat_map(|draft| draft.volumes.iter().map(|(name, _)| name.clone())).collect();
    let (mut services, mut builds) = (BTreeMap::new(), BTreeMap::new());
    for mut draft in drafts {
        for mount in &mut draft.service.container.configs {
            let declared = resources.configs.get(&mount.config).cloned().flatten();
            if let Some(config) = declared {
                mount.hash = config.hash();
                configs.insert(mount.config.clone(), config);
            }
        }
        builds.extend(draft.build.map(|build| (draft.name.clone(), build)));
        services.insert(draft.name, draft.service);
    }
    let used_configs: BTreeSet<&String> = services
        .values()
        .flat_map(|service| service.container.configs.iter().map(|mount| &mount.config))
        .collect();
    configs.retain(|name, _| used_configs.contains(name));
    let mut networks = resources.networks;
    for name in &used_networks {
        networks.entry(name.clone()).or_insert_with(|| Network {
            engine_name: engine_name(context, name.as_str()),
            ..Network::default()
        });
    }
    networks.retain(|name, _| used_networks.contains(name));
    let mut volumes = resources.volumes;
    volumes.retain(|name, _| used_volumes.contains(name));
    (Project { name: context.project.clone(), services, networks, volumes, configs }, builds)
}

/// Reports that `kind` `name` is not declared.
pub(crate) fn undeclared<'n>(
    cursor: &Cursor<'_>,
    (kind, name): (&str, &str),
    declared: impl Iterator<Item = &'n str>,
) {
    let hint = nearest(name, declared);
    let hint = hint.unwrap_or_else(|| format!("declare it under the top-level `{kind}s`"));
    cursor.error_with_hint(format!("there is no {kind} `{name}`"), hint);
}
