//! What services share: the top-level `networks`, `volumes` and `configs`.

use std::collections::BTreeMap;
use std::error::Error as _;

use tug_model::spec::resource::{Config, Ipam, IpamPool, Network, Volume};
use tug_model::spec::rule;
use tug_model::{NetworkName, VolumeName};

use crate::context::Context;
use crate::reader::{Cursor, Fields};
use crate::schema;
use crate::service::labels;

/// Everything that the manifest declares beside services, used or not.
#[derive(Default)]
pub(crate) struct Resources {
    pub(crate) networks: BTreeMap<NetworkName, Network>,
    pub(crate) volumes: BTreeMap<VolumeName, Volume>,
    /// `None`: declared, and wrong.
    pub(crate) configs: BTreeMap<String, Option<Config>>,
}

pub(crate) fn read(context: &Context<'_>, project: &Fields<'_>) -> Resources {
    let mut resources = Resources::default();
    for (entry, cursor) in entries(project, "networks") {
        match NetworkName::parse(&entry.key) {
            Ok(name) => {
                let network = network(context, &name, &cursor);
                resources.networks.insert(name, network);
            }
            Err(error) => cursor.report.error(entry.place, &cursor.path, error.to_string()),
        }
    }
    for (entry, cursor) in entries(project, "volumes") {
        match VolumeName::parse(&entry.key) {
            Ok(name) => {
                let volume = volume(context, &name, &cursor);
                resources.volumes.insert(name, volume);
            }
            Err(error) => cursor.report.error(entry.place, &cursor.path, error.to_string()),
        }
    }
    for (entry, cursor) in entries(project, "configs") {
        let config = config(context, &cursor);
        resources.configs.insert(entry.key.clone(), config);
    }
    // Secrets are refused where a service uses them; here only their keys are checked.
    for (_, cursor) in entries(project, "secrets") {
        if !cursor.node.is_null() {
            cursor.fields(&schema::SECRET);
        }
    }
    resources
}

fn entries<'a>(project: &Fields<'a>, key: &'static str) -> Vec<(&'a crate::tree::Entry, Cursor<'a>)> {
    project.get(key).map(|cursor| cursor.entries()).unwrap_or_default()
}

/// The default name in the Engine.
pub(crate) fn engine_name(context: &Context<'_>, key: &str) -> String {
    format!("{}_{key}", context.project)
}

fn network(context: &Context<'_>, name: &NetworkName, cursor: &Cursor<'_>) -> Network {
    let default = Network { engine_name: engine_name(context, name.as_str()), ..Network::default() };
    if cursor.node.is_null() {
        return default;
    }
    let Some(fields) = cursor.fields(&schema::NETWORK) else { return default };
    if let Some(cursor) = fields.get("enable_ipv4")
        && cursor.flag() == Some(false)
    {
        cursor.refuse("enable_ipv4", "not yet: a network without IPv4");
    }
    let (external, engine_name) = external(&fields, name.as_str(), default.engine_name);
    Network {
        engine_name,
        external,
        driver: fields.text("driver"),
        driver_opts: fields.options("driver_opts"),
        internal: fields.flag("internal"),
        attachable: fields.flag("attachable"),
        enable_ipv6: fields.flag("enable_ipv6"),
        labels: fields.get("labels").map(|cursor| labels(&cursor)).unwrap_or_default(),
        ipam: fields.get("ipam").and_then(|cursor| ipam(&cursor)),
    }
}

/// `external: true`, or the older `external: {name: …}`; with it the name is taken as it is.
fn external(fields: &Fields<'_>, key: &str, default: String) -> (bool, String) {
    let name = fields.get("name").and_then(|cursor| resource_name(&cursor));
    let Some(cursor) = fields.get("external") else { return (false, name.unwrap_or(default)) };
    if cursor.is_map() {
        let inner = cursor.fields(&schema::EXTERNAL).and_then(|fields| fields.get("name"));
        let inner = inner.and_then(|cursor| resource_name(&cursor));
        return (true, inner.or(name).unwrap_or_else(|| key.to_owned()));
    }
    let external = cursor.flag().unwrap_or_default();
    if external {
        for other in ["driver", "driver_opts", "labels", "ipam", "internal", "attachable"] {
            if let Some(node) = fields.cursor().node.get(other).filter(|node| !node.is_null()) {
                let path = crate::tree::join(&fields.cursor().path, other);
                cursor.report.error(
                    node.place,
                    &path,
                    "what is external is not made by us and takes no settings",
                );
            }
        }
    }
    let default = if external { key.to_owned() } else { default };
    (external, name.unwrap_or(default))
}

fn resource_name(cursor: &Cursor<'_>) -> Option<String> {
    let text = cursor.filled()?;
    let verdict = rule::engine_name(&text);
    cursor.kept(text, verdict)
}

fn ipam(cursor: &Cursor<'_>) -> Option<Ipam> {
    let fields = cursor.fields(&schema::IPAM)?;
    let items = fields.get("config").map(|cursor| cursor.items()).unwrap_or_default();
    Some(Ipam {
        driver: fields.text("driver"),
        pools: items.iter().filter_map(pool).collect(),
        options: fields.options("options"),
    })
}

fn pool(item: &Cursor<'_>) -> Option<IpamPool> {
    let fields = item.fields(&schema::IPAM_POOL)?;
    let range = |key| fields.get(key).and_then(|cursor| cursor.parsed(parse_range));
    Some(IpamPool {
        subnet: range("subnet"),
        ip_range: range("ip_range"),
        gateway: fields.get("gateway").and_then(|cursor| cursor.parsed(parse_address)),
        aux_addresses: fields.options("aux_addresses"),
    })
}

fn parse_address(text: &str) -> Result<String, String> {
    match text.parse::<std::net::IpAddr>() {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err(format!("`{text}` is not an IP address")),
    }
}

fn parse_range(text: &str) -> Result<String, String> {
    let wrong = || format!("`{text}` is not an address range like 172.28.0.0/16");
    let (address, bits) = text.split_once('/').ok_or_else(wrong)?;
    let address: std::net::IpAddr = address.parse().map_err(|_| wrong())?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    match bits.parse::<u8>() {
        Ok(bits) if bits <= most => Ok(text.to_owned()),
        _ => Err(wrong()),
    }
}

fn volume(context: &Context<'_>, name: &VolumeName, cursor: &Cursor<'_>) -> Volume {
    let default = Volume { engine_name: engine_name(context, name.as_str()), ..Volume::default() };
    if cursor.node.is_null() {
        return default;
    }
    let Some(fields) = cursor.fields(&schema::VOLUME) else { return default };
    let (external, engine_name) = external(&fields, name.as_str(), default.engine_name);
    Volume {
        engine_name,
        external,
        driver: fields.text("driver"),
        driver_opts: fields.options("driver_opts"),
        labels: fields.get("labels").map(|cursor| labels(&cursor)).unwrap_or_default(),
    }
}

fn config(context: &Context<'_>, cursor: &Cursor<'_>) -> Option<Config> {
    let fields = cursor.fields(&schema::CONFIG)?;
    let external = fields.get("external").filter(|cursor| cursor.is_map() || cursor.flag() == Some(true));
    if let Some(cursor) = external {
        cursor.refuse("external", "not yet: configs that are not in the manifest");
        return None;
    }
    let (file, inline, variable) = (fields.get("file"), fields.get("content"), fields.get("environment"));
    let given =
        [file.is_some(), inline.is_some(), variable.is_some()].into_iter().filter(|given| *given).count();
    if given != 1 {
        cursor.key_error("a config has one of `file`, `content` and `environment`");
        return None;
    }
    let bytes = if let Some(cursor) = file {
        config_file(context, &cursor)?
    } else if let Some(cursor) = inline {
        cursor.text()?.into_bytes()
    } else {
        let cursor = variable?;
        let name = cursor.filled()?;
        let Some(value) = context.environment.get(&name) else {
            cursor.error(format!("the variable `{name}` is not set"));
            return None;
        };
        value.clone().into_bytes()
    };
    if bytes.len() > Config::LARGEST {
        cursor.error("a config has at most 1 MiB");
        return None;
    }
    Some(Config { content: bytes })
}

fn config_file(context: &Context<'_>, cursor: &Cursor<'_>) -> Option<Vec<u8>> {
    let written = cursor.filled()?;
    let path = context.absolute(cursor.place(), &written);
    match context.disk.read(&path, Config::LARGEST) {
        Ok(file) => Some(file.bytes),
        Err(error) => {
            let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
            cursor.error(format!("`{written}`: {error}{cause}"));
            None
        }
    }
}
