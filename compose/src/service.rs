//! One service: the keys of a service, each read by the file of its topic.

mod build;
mod configs;
mod depends_on;
mod deploy;
mod environment;
mod extension;
mod healthcheck;
mod limits;
mod networks;
mod placement;
mod ports;
mod privileges;
mod process;
mod restart;
mod volumes;

use tug_model::spec::container::Container;
use tug_model::spec::deploy::Mode;
use tug_model::spec::rule;
use tug_model::spec::service::{Port, Service};
use tug_model::{NetworkName, ServiceName, VolumeName};

pub(crate) use process::labels;

use crate::build::Build;
use crate::context::Context;
use crate::reader::{Cursor, Fields};
use crate::schema;

/// A service as far as it can be read by itself. What it says of others is checked when all have been read.
pub(crate) struct Draft<'a> {
    pub(crate) name: ServiceName,
    pub(crate) service: Service,
    pub(crate) build: Option<Build>,
    pub(crate) profiles: Vec<String>,
    /// Whether the manifest says when it is restarted.
    pub(crate) says_restart: bool,
    pub(crate) cursor: Cursor<'a>,
    pub(crate) ports: Vec<(Port, Cursor<'a>)>,
    pub(crate) depends_on: Vec<(ServiceName, Cursor<'a>)>,
    pub(crate) networks: Vec<(NetworkName, Cursor<'a>)>,
    pub(crate) volumes: Vec<(VolumeName, Cursor<'a>)>,
    pub(crate) configs: Vec<(String, Cursor<'a>)>,
}

/// Reads a service.
pub(crate) fn read<'a>(context: &Context<'_>, name: ServiceName, cursor: &Cursor<'a>) -> Option<Draft<'a>> {
    let fields = cursor.fields(&schema::SERVICE)?;
    let build = fields.get("build").and_then(|cursor| build::read(context, &cursor));
    let mut container = Container {
        image: image(context, &name, &fields, build.is_some()),
        environment: environment::read(context, &fields),
        healthcheck: fields.get("healthcheck").and_then(|cursor| healthcheck::read(&cursor)),
        ..Container::default()
    };
    process::read(context, &fields, &mut container, build.is_some());
    privileges::read(&fields, &mut container);
    let deploy = deploy::read(&fields);
    container.limits = limits::read(&fields, deploy.as_ref());
    let networks = networks::read(&fields, &mut container);
    let links = depends_on::links(&fields);
    let volumes = volumes::read(context, &fields, &mut container);
    let configs = configs::read(&fields, &mut container);
    let (restart, says_restart) = restart::read(&fields, deploy.as_ref());
    let ports = fields.get("ports").map(|cursor| ports::read(&cursor)).unwrap_or_default();
    let depends_on = depends_on::read(&fields, links);
    let mut service = Service {
        container,
        ports: ports.iter().map(|(port, _)| port.clone()).collect(),
        expose: fields.get("expose").map(|cursor| ports::expose(&cursor)).unwrap_or_default(),
        depends_on: depends_on.iter().map(|(name, found, _)| (name.clone(), found.clone())).collect(),
        restart,
        probe: fields.get("x-probe").and_then(|cursor| extension::probe(&cursor)),
        exclusive: false,
        restarts_asked: 0,
        deploy: deploy::spec(&fields, deploy.as_ref()),
    };
    service.exclusive = extension::exclusive(&fields, deploy.as_ref(), &service);
    extension::refuse_later_ones(&fields, &service);
    if matches!(service.deploy.mode, Mode::Replicated(2..)) {
        warn_of_many(&fields);
    }
    Some(Draft {
        name,
        service,
        build,
        profiles: profiles(&fields),
        says_restart,
        cursor: cursor.clone(),
        ports,
        depends_on: depends_on.into_iter().map(|(name, _, cursor)| (name, cursor)).collect(),
        networks,
        volumes,
        configs,
    })
}

/// The image; with a build and no name of its own, the one that Compose gives it too.
fn image(context: &Context<'_>, name: &ServiceName, fields: &Fields<'_>, has_build: bool) -> String {
    let written = fields.get("image").and_then(|cursor| {
        let text = cursor.text()?;
        cursor.kept((), rule::image(&text));
        Some(text)
    });
    if written.is_none() && !has_build && fields.get("build").is_none() {
        let has_provider = fields.cursor().node.get("provider").is_some();
        if !has_provider {
            let place = fields.cursor().key_place;
            fields.cursor().report.error_with_hint(
                place,
                &fields.cursor().path,
                "the service has neither `image` nor `build`",
                "say what it runs",
            );
        }
    }
    written.unwrap_or_else(|| built_name(context, name))
}

/// `PROJECT-SERVICE`, as far as the grammar of images has characters for it.
fn built_name(context: &Context<'_>, name: &ServiceName) -> String {
    let both = format!("{}-{name}", context.project).to_lowercase();
    if rule::image(&both).is_ok() {
        return both;
    }
    let parts: Vec<&str> =
        both.split(|c: char| !c.is_ascii_alphanumeric()).filter(|p| !p.is_empty()).collect();
    parts.join("-")
}

fn profiles(fields: &Fields<'_>) -> Vec<String> {
    let Some(cursor) = fields.get("profiles") else { return Vec::new() };
    let mut profiles = Vec::new();
    for item in cursor.one_or_more() {
        let Some(profile) = item.text() else { continue };
        let starts = profile.starts_with(|c: char| c.is_ascii_alphanumeric());
        if starts && profile.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-')) {
            profiles.push(profile);
        } else {
            item.error(format!("\"{profile}\" is not the name of a profile: use a-z, A-Z, 0-9, _, . and -"));
        }
    }
    profiles
}

fn warn_of_many(fields: &Fields<'_>) {
    if let Some(cursor) = fields.get("container_name") {
        cursor.warning("all replicas share this name; it means any of them");
    }
}
