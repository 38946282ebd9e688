//! `networks`, `network_mode`, `extra_hosts` and `dns`: how a container is reached and what it reaches.

use std::collections::BTreeMap;
use std::net::IpAddr;

use tug_model::NetworkName;
use tug_model::spec::container::{Attachment, Container, ExtraHost, NetworkMode};
use tug_model::spec::rule;

use crate::reader::{Cursor, Fields};
use crate::schema;

/// Reads everything into `container`; returns the networks that it names, with where it says so.
pub(super) fn read<'a>(fields: &Fields<'a>, container: &mut Container) -> Vec<(NetworkName, Cursor<'a>)> {
    container.extra_hosts = fields.get("extra_hosts").map(|cursor| extra_hosts(&cursor)).unwrap_or_default();
    container.dns.servers = dns_servers(fields);
    container.dns.search = fields.one_or_more("dns_search").iter().filter_map(Cursor::filled).collect();
    container.dns.options = fields.one_or_more("dns_opt").iter().filter_map(Cursor::filled).collect();
    let written = fields.get("networks");
    let mode = fields.get("network_mode").and_then(|cursor| mode(&cursor));
    container.network_mode = mode.unwrap_or_default();
    let mut used = Vec::new();
    if let Some(cursor) = &written {
        used = attachments(cursor, &mut container.networks);
        if mode.is_some_and(|mode| mode != NetworkMode::Bridge) && !used.is_empty() {
            cursor.error("`networks` and `network_mode` cannot both be given");
        }
    }
    if container.network_mode == NetworkMode::Bridge && container.networks.is_empty() {
        let name = NetworkName::parse("default").expect("`default` is a name");
        container.networks.insert(name.clone(), Attachment::default());
        used.push((name, fields.cursor().clone()));
    }
    if let Some(cursor) = fields.get("mac_address") {
        let address = cursor.parsed(mac_address);
        match container.networks.values_mut().next() {
            Some(attachment) => attachment.mac_address = attachment.mac_address.take().or(address),
            None => cursor.error("there is no network for this address"),
        }
    }
    used
}

fn mode(cursor: &Cursor<'_>) -> Option<NetworkMode> {
    let text = cursor.filled()?;
    match text.as_str() {
        "host" => Some(NetworkMode::Host),
        "none" => Some(NetworkMode::None),
        "bridge" => {
            cursor
                .warning("`bridge` is the project's own network here: it resolves names, Docker's does not");
            Some(NetworkMode::Bridge)
        }
        "default" => Some(NetworkMode::Bridge),
        _ if text.starts_with("service:") => {
            cursor.refuse("network_mode", "not yet: sharing another service's network");
            None
        }
        _ if text.starts_with("container:") => {
            cursor.refuse(
                "network_mode",
                "unsupported: it ties the service to one container by name, which no replica is",
            );
            None
        }
        _ => {
            cursor.error(format!("\"{text}\" is not one of `host`, `none`, `bridge`"));
            None
        }
    }
}

fn attachments<'a>(
    cursor: &Cursor<'a>,
    networks: &mut BTreeMap<NetworkName, Attachment>,
) -> Vec<(NetworkName, Cursor<'a>)> {
    let mut used = Vec::new();
    let mut add = |text: &str, at: Cursor<'a>, attachment: Attachment| match NetworkName::parse(text) {
        Ok(name) => {
            networks.insert(name.clone(), attachment);
            used.push((name, at));
        }
        Err(error) => at.key_error(error.to_string()),
    };
    if cursor.is_map() {
        for (entry, value) in cursor.entries() {
            let attachment = attachment(&value).unwrap_or_default();
            add(&entry.key, value, attachment);
        }
    } else {
        for item in cursor.items() {
            if let Some(text) = item.text() {
                add(&text, item, Attachment::default());
            }
        }
    }
    used
}

fn attachment(cursor: &Cursor<'_>) -> Option<Attachment> {
    if cursor.node.is_null() {
        return None;
    }
    let fields = cursor.fields(&schema::ATTACHMENT)?;
    let address = |key: &'static str| fields.get(key).filter(|cursor| cursor.filled().is_some());
    Some(Attachment {
        aliases: aliases(&fields),
        ipv4_address: address("ipv4_address").and_then(|cursor| {
            cursor.parsed(|text| text.parse().map_err(|_| format!("`{text}` is not an IPv4 address")))
        }),
        ipv6_address: address("ipv6_address").and_then(|cursor| {
            cursor.parsed(|text| text.parse().map_err(|_| format!("`{text}` is not an IPv6 address")))
        }),
        mac_address: fields.get("mac_address").and_then(|cursor| cursor.parsed(mac_address)),
        priority: fields.number("priority", i64::MIN..=i64::MAX),
        driver_opts: fields.options("driver_opts"),
    })
}

fn aliases(fields: &Fields<'_>) -> Vec<String> {
    let mut aliases = Vec::new();
    for item in fields.get("aliases").map(|cursor| cursor.items()).unwrap_or_default() {
        let Some(alias) = item.filled() else { continue };
        if alias.len() <= 253
            && alias.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))
        {
            aliases.push(alias);
        } else {
            item.error(format!("\"{alias}\" is not a name: use a-z, A-Z, 0-9, ., - and _"));
        }
    }
    aliases
}

fn mac_address(text: &str) -> Result<String, String> {
    let separators: &[char] = &[':', '-'];
    let parts: Vec<&str> = text.split(separators).collect();
    let is_byte = |part: &&str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    if parts.len() == 6 && parts.iter().all(is_byte) {
        Ok(parts.join(":").to_lowercase())
    } else {
        Err(format!("\"{text}\" is not a hardware address like 02:42:ac:11:65:43"))
    }
}

fn dns_servers(fields: &Fields<'_>) -> Vec<IpAddr> {
    let mut servers = Vec::new();
    for item in fields.one_or_more("dns") {
        let Some(text) = item.filled() else { continue };
        match text.parse() {
            Ok(server) => servers.push(server),
            Err(_) => item.error(format!("`{text}` is not an IP address")),
        }
    }
    servers
}

/// `HOST: ADDRESS`, `HOST=ADDRESS` or `HOST:ADDRESS`; an address, several, or `host-gateway`.
pub(super) fn extra_hosts(cursor: &Cursor<'_>) -> Vec<ExtraHost> {
    let mut hosts = Vec::new();
    let mut add = |host: &str, address: &str, at: &Cursor<'_>| {
        let bare = address.strip_prefix('[').and_then(|inside| inside.strip_suffix(']')).unwrap_or(address);
        let line = ExtraHost { host: host.to_owned(), address: bare.to_owned() };
        hosts.extend(at.kept(line, rule::extra_host(host, bare)));
    };
    if cursor.is_map() {
        for (entry, value) in cursor.entries() {
            for address in value.one_or_more() {
                let text = address.text().unwrap_or_default();
                text.split(',').for_each(|one| add(&entry.key, one.trim(), &address));
            }
        }
        return hosts;
    }
    for item in cursor.items() {
        let Some(text) = item.text() else { continue };
        match text.split_once('=').or_else(|| text.split_once(':')) {
            Some((host, addresses)) => {
                addresses.split(',').for_each(|address| add(host.trim(), address.trim(), &item));
            }
            None => item.error(format!("\"{text}\" is not HOST=ADDRESS")),
        }
    }
    hosts
}
