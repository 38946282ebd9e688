//! `ports` and `expose`.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use tug_model::spec::service::{Port, PortMode, Protocol};

use crate::reader::Cursor;
use crate::schema;
use crate::tree::Kind;

/// The most ports that one service may publish.
const MOST: usize = 1024;

/// A port and where it says so; a range is as many.
pub(super) fn read<'a>(cursor: &Cursor<'a>) -> Vec<(Port, Cursor<'a>)> {
    let mut found: Vec<(Port, Cursor<'a>)> = Vec::new();
    for item in cursor.items() {
        let ports = if item.is_map() { long(&item) } else { short(&item) };
        for port in ports.unwrap_or_default() {
            if !found.iter().any(|(other, _)| *other == port) {
                found.push((port, item.clone()));
            }
        }
    }
    if found.len() > MOST {
        cursor.error(format!("{} ports; the most are {MOST}", found.len()));
        found.truncate(MOST);
    }
    found
}

/// `[[ADDRESS:]PUBLISHED:]TARGET[/PROTOCOL]`, each of the two a port or a range.
fn short(item: &Cursor<'_>) -> Option<Vec<Port>> {
    let text = item.text()?;
    match parse_short(&text) {
        Ok(mut ports) => {
            engine_publishes_udp(item, &mut ports);
            Some(ports)
        }
        Err(message) if is_unquoted_number(item) => {
            item.error_with_hint(message, format!("write ports as texts, e.g. \"{text}:{text}\""));
            None
        }
        Err(message) => {
            item.error(message);
            None
        }
    }
}

fn is_unquoted_number(item: &Cursor<'_>) -> bool {
    matches!(&item.node.value, crate::tree::Value::Scalar(scalar) if scalar.kind == Kind::Number)
}

fn parse_short(text: &str) -> Result<Vec<Port>, String> {
    let (rest, protocol) = match text.split_once('/') {
        Some((rest, protocol)) => (rest, parse_protocol(protocol)?),
        None => (text, Protocol::Tcp),
    };
    let (address, rest) = if let Some(inside) = rest.strip_prefix('[') {
        let (address, rest) =
            inside.split_once("]:").ok_or_else(|| format!("`{text}` has an address without `]:`"))?;
        (Some(address), rest)
    } else if rest.matches(':').count() >= 2 {
        let (front, target) = rest.rsplit_once(':').unwrap_or_default();
        let (address, published) = front.rsplit_once(':').unwrap_or_default();
        return expand((Some(address), Some(published), target), protocol);
    } else {
        (None, rest)
    };
    match rest.rsplit_once(':') {
        Some((published, target)) => expand((address, Some(published), target), protocol),
        None => expand((address, None, rest), protocol),
    }
}

fn expand(
    (address, published, target): (Option<&str>, Option<&str>, &str),
    protocol: Protocol,
) -> Result<Vec<Port>, String> {
    let host_ip = match address.filter(|address| !address.is_empty()) {
        None => None,
        Some(address) => Some(parse_address(address)?),
    };
    let targets = parse_range(target, "the port of the container")?;
    let published = match published.filter(|published| !published.is_empty()) {
        None if published.is_some() && address.is_none() => {
            return Err("there is no port before the `:`".to_owned());
        }
        None => None,
        Some(published) => Some(parse_range(published, "the published port")?),
    };
    pair(published, targets, |published, target| Port {
        target,
        published,
        host_ip,
        protocol,
        mode: PortMode::Ingress,
        app_protocol: None,
    })
}

fn pair(
    published: Option<RangeInclusive<u16>>,
    targets: RangeInclusive<u16>,
    port: impl Fn(Option<u16>, u16) -> Port,
) -> Result<Vec<Port>, String> {
    let Some(published) = published else {
        return Ok(targets.map(|target| port(None, target)).collect());
    };
    if published.len() != targets.len() {
        let message = if targets.len() == 1 {
            "not yet: one port out of a range; choose one"
        } else {
            "the two ranges differ in length"
        };
        return Err(message.to_owned());
    }
    Ok(published.zip(targets).map(|(published, target)| port(Some(published), target)).collect())
}

fn parse_address(address: &str) -> Result<IpAddr, String> {
    let bare = address.strip_prefix('[').and_then(|inside| inside.strip_suffix(']')).unwrap_or(address);
    bare.parse().map_err(|_| format!("`{address}` is not an IP address"))
}

fn parse_protocol(text: &str) -> Result<Protocol, String> {
    match text.to_ascii_lowercase().as_str() {
        "tcp" => Ok(Protocol::Tcp),
        "udp" => Ok(Protocol::Udp),
        _ => Err(format!("`{text}` is not a protocol; use tcp or udp")),
    }
}

fn parse_range(text: &str, what: &str) -> Result<RangeInclusive<u16>, String> {
    let port = |text: &str| match text.parse::<u16>() {
        Ok(port) if port > 0 && text.bytes().all(|byte| byte.is_ascii_digit()) => Ok(port),
        _ => Err(format!("`{text}` as {what} is not a number from 1 to 65535")),
    };
    let Some((first, last)) = text.split_once('-') else {
        return port(text).map(|port| port..=port);
    };
    let (first, last) = (port(first)?, port(last)?);
    if first > last {
        return Err(format!("the range {first}-{last} is upside down"));
    }
    Ok(first..=last)
}

fn long(item: &Cursor<'_>) -> Option<Vec<Port>> {
    let fields = item.fields(&schema::PORT)?;
    let Some(target) = fields.get("target") else {
        fields.missing("target");
        return None;
    };
    let range = |cursor: &Cursor<'_>, what| cursor.parsed(|text| parse_range(text, what));
    let target = range(&target, "the port of the container");
    let published = match fields.get("published").filter(|cursor| cursor.filled().is_some()) {
        None => None,
        Some(cursor) => Some(range(&cursor, "the published port")?),
    };
    let host_ip = match fields.get("host_ip").filter(|cursor| cursor.filled().is_some()) {
        None => None,
        Some(cursor) => cursor.parsed(parse_address),
    };
    let protocol = fields.get("protocol").and_then(|cursor| cursor.parsed(parse_protocol));
    let modes = [("ingress", PortMode::Ingress), ("host", PortMode::Host)];
    let mode = fields.get("mode").and_then(|cursor| cursor.choice(&modes));
    let app_protocol = fields.text("app_protocol");
    let ports = pair(published, target?, |published, target| Port {
        target,
        published,
        host_ip,
        protocol: protocol.unwrap_or_default(),
        mode: mode.unwrap_or_default(),
        app_protocol: app_protocol.clone(),
    });
    match ports {
        Ok(mut ports) => {
            engine_publishes_udp(item, &mut ports);
            Some(ports)
        }
        Err(message) => {
            item.error(message);
            None
        }
    }
}

/// The balancer speaks TCP; a UDP port is opened by the Engine for the one container.
fn engine_publishes_udp(item: &Cursor<'_>, ports: &mut [Port]) {
    for port in ports {
        if port.protocol == Protocol::Udp && port.mode == PortMode::Ingress {
            port.mode = PortMode::Host;
            item.warning(
                "UDP is not balanced yet: the port is opened for one replica on its node (`mode: host`)",
            );
        }
    }
}

/// The TCP ports under `expose`.
pub(super) fn expose(cursor: &Cursor<'_>) -> Vec<u16> {
    let mut ports = Vec::new();
    for item in cursor.one_or_more() {
        let Some(text) = item.text() else { continue };
        let (range, protocol) = text.split_once('/').unwrap_or((&text, "tcp"));
        match parse_protocol(protocol).and_then(|protocol| Ok((protocol, parse_range(range, "the port")?))) {
            Ok((Protocol::Tcp, range)) => ports.extend(range),
            Ok((Protocol::Udp, _)) => item.note("ignored: UDP between containers needs no `expose`"),
            Err(message) => item.error(message),
        }
    }
    ports.sort_unstable();
    ports.dedup();
    ports
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(text: &str) -> String {
        match parse_short(text) {
            Err(message) => format!("error: {message}"),
            Ok(ports) => {
                let one = |port: &Port| {
                    let ip = port.host_ip.map(|ip| format!("{ip} ")).unwrap_or_default();
                    let published = port.published.map_or_else(|| "?".to_owned(), |port| port.to_string());
                    format!("{ip}{published}->{} {:?}", port.target, port.protocol).to_lowercase()
                };
                ports.iter().map(one).collect::<Vec<_>>().join(", ")
            }
        }
    }

    #[test]
    fn short_forms() {
        for (text, expected) in [
            ("80", "?->80 tcp"),
            ("8080:80", "8080->80 tcp"),
            ("22:22", "22->22 tcp"),
            ("53:53/udp", "53->53 udp"),
            ("127.0.0.1:8080:80", "127.0.0.1 8080->80 tcp"),
            ("127.0.0.1::80", "127.0.0.1 ?->80 tcp"),
            (":8080:80", "8080->80 tcp"),
            ("[::1]:8080:80", "::1 8080->80 tcp"),
            ("::1:8080:80", "::1 8080->80 tcp"),
            ("3000-3001", "?->3000 tcp, ?->3001 tcp"),
            ("9000-9001:80-81", "9000->80 tcp, 9001->81 tcp"),
            ("0:80", "error: `0` as the published port is not a number from 1 to 65535"),
            ("70000", "error: `70000` as the port of the container is not a number from 1 to 65535"),
            ("80:", "error: `` as the port of the container is not a number from 1 to 65535"),
            (":80", "error: there is no port before the `:`"),
            ("+80", "error: `+80` as the port of the container is not a number from 1 to 65535"),
            ("", "error: `` as the port of the container is not a number from 1 to 65535"),
            ("81-80", "error: the range 81-80 is upside down"),
            ("1-3:1-2", "error: the two ranges differ in length"),
            ("8000-8010:80", "error: not yet: one port out of a range; choose one"),
            ("80/sctp", "error: `sctp` is not a protocol; use tcp or udp"),
            ("x:1:2", "error: `x` is not an IP address"),
        ] {
            assert_eq!(show(text), expected, "{text}");
        }
    }
}
