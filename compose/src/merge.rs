//! Several files become one tree, and a service is laid over the one that it extends, by the rules of the Compose
//! Specification: maps are merged, lists appended, single values replaced; and a few keys have a rule of their own.

use std::collections::BTreeSet;

use crate::finding::Report;
use crate::tree::{Entry, Node, Tag, Value, join};

/// How the values of one key are merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// Maps key by key, lists one after the other, the rest replaced.
    Usual,
    /// The later one replaces the earlier one whole.
    Replace,
    /// `KEY=value` in a list or a map; the later value of a key wins.
    Pairs,
    /// A list of names, or a map of names with settings.
    Names,
    /// One text or a list of texts; each once.
    Texts,
    /// A list in which the later item with the same target wins.
    ByTarget,
    /// A list in which the later item for the same host wins.
    ByHost,
    /// A text is the `context`.
    Build,
    /// Options are merged only where the driver is the same.
    Logging,
}

/// `later` over `earlier`: two whole files.
pub(crate) fn files(report: &Report, earlier: Node, later: Node) -> Node {
    merge(report, &mut Vec::new(), earlier, later)
}

/// `service` over the one that it extends.
pub(crate) fn services(report: &Report, base: Node, service: Node, name: &str) -> Node {
    merge(report, &mut vec!["services".to_owned(), name.to_owned()], base, service)
}

/// Takes away what is tagged `!reset` and was not merged with anything.
pub(crate) fn take_away(node: &mut Node) {
    match &mut node.value {
        Value::Null | Value::Scalar(_) => {}
        Value::List(items) => {
            items.retain(|item| item.tag != Some(Tag::Reset));
            items.iter_mut().for_each(take_away);
        }
        Value::Map(entries) => {
            entries.retain(|entry| entry.value.tag != Some(Tag::Reset));
            for entry in entries {
                take_away(&mut entry.value);
            }
        }
    }
}

fn rule(path: &[String]) -> Rule {
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    match path.as_slice() {
        ["services", _, "command" | "entrypoint" | "provider"] | ["services", _, "healthcheck", "test"] => {
            Rule::Replace
        }
        ["services", _, "ulimits", _] => Rule::Replace,
        ["services", _, "environment" | "labels" | "annotations" | "sysctls" | "storage_opt"]
        | ["services", _, "deploy", "labels"]
        | ["services", _, "build", "args" | "labels" | "additional_contexts"]
        | ["networks" | "volumes" | "configs" | "secrets", _, "labels"] => Rule::Pairs,
        ["services", _, "depends_on" | "networks" | "models"] => Rule::Names,
        [
            "services",
            _,
            "env_file" | "label_file" | "tmpfs" | "dns" | "dns_search" | "dns_opt" | "expose" | "cap_add"
            | "cap_drop" | "security_opt" | "profiles" | "links",
        ]
        | ["services", _, "networks", _, "aliases"]
        | ["services", _, "build", "tags" | "platforms" | "cache_from"] => Rule::Texts,
        ["services", _, "volumes" | "configs" | "secrets" | "devices"] => Rule::ByTarget,
        ["services", _, "extra_hosts"] | ["services", _, "build", "extra_hosts"] => Rule::ByHost,
        ["services", _, "build"] => Rule::Build,
        ["services", _, "logging"] => Rule::Logging,
        _ => Rule::Usual,
    }
}

fn merge(report: &Report, path: &mut Vec<String>, earlier: Node, later: Node) -> Node {
    if later.tag.is_some() || earlier.is_null() {
        return later;
    }
    if later.is_null() {
        return earlier;
    }
    match rule(path) {
        Rule::Replace => later,
        Rule::Usual => usual(report, path, earlier, later),
        Rule::Pairs => usual_last(pairs(earlier), pairs(later)),
        Rule::Names => usual(report, path, names(earlier), names(later)),
        Rule::Texts => lists(several(earlier), several(later), Node::as_text),
        Rule::ByTarget => lists(earlier, later, target),
        Rule::ByHost => by_host(earlier, later),
        Rule::Build => usual(report, path, build(earlier), build(later)),
        Rule::Logging => {
            let driver = |node: &Node| node.get("driver").and_then(Node::as_text).map(str::to_owned);
            match (driver(&earlier), driver(&later)) {
                (Some(a), Some(b)) if a != b => later,
                _ => usual(report, path, earlier, later),
            }
        }
    }
}

fn usual(report: &Report, path: &mut Vec<String>, earlier: Node, later: Node) -> Node {
    let (place, tag, shown) = (later.place, later.tag, (earlier.shown(), later.shown()));
    let value = match (earlier.value, later.value) {
        (Value::Map(a), Value::Map(b)) => Value::Map(maps(report, path, a, b)),
        (Value::List(mut a), Value::List(b)) => {
            a.extend(b);
            Value::List(a)
        }
        (Value::Scalar(_), later @ Value::Scalar(_)) => later,
        (_, later) => {
            let path = path.iter().fold(String::new(), |path, key| join(&path, key));
            report.error(place, &path, format!("{} cannot be merged over {}", shown.1, shown.0));
            later
        }
    };
    Node { place, tag, value }
}

fn maps(report: &Report, path: &mut Vec<String>, earlier: Vec<Entry>, later: Vec<Entry>) -> Vec<Entry> {
    let mut result = earlier;
    for entry in later {
        let position = result.iter().position(|other| other.key == entry.key);
        let Some(position) = position else {
            result.push(entry);
            continue;
        };
        let before = result.remove(position);
        if entry.value.tag == Some(Tag::Reset) {
            continue;
        }
        path.push(entry.key.clone());
        let value = merge(report, path, before.value, entry.value);
        path.pop();
        result.insert(position, Entry { key: entry.key, place: entry.place, value });
    }
    result
}

/// Two maps; the later value of a key wins, also where it is none.
fn usual_last(earlier: Node, later: Node) -> Node {
    let (Value::Map(mut result), Value::Map(entries)) = (earlier.value, later.value.clone()) else {
        return later;
    };
    for entry in entries {
        match result.iter_mut().find(|other| other.key == entry.key) {
            Some(other) => *other = entry,
            None => result.push(entry),
        }
    }
    result.retain(|entry| entry.value.tag != Some(Tag::Reset));
    Node { place: later.place, tag: later.tag, value: Value::Map(result) }
}

/// A list of `KEY=value` as a map.
fn pairs(node: Node) -> Node {
    let Value::List(items) = node.value else { return node };
    let mut entries: Vec<Entry> = Vec::new();
    for item in items {
        let Some(text) = item.as_text() else { continue };
        let (key, value) = match text.split_once('=') {
            Some((key, value)) => (key.to_owned(), Node::text(item.place, value)),
            None => (text.to_owned(), Node::null(item.place)),
        };
        entries.retain(|other| other.key != key);
        entries.push(Entry { key, place: item.place, value });
    }
    Node::map(node.place, entries)
}

/// A list of names as a map of them.
fn names(node: Node) -> Node {
    let Value::List(items) = node.value else { return node };
    let entry = |item: &Node| {
        let key = item.as_text()?.to_owned();
        Some(Entry { key, place: item.place, value: Node::null(item.place) })
    };
    Node::map(node.place, items.iter().filter_map(entry).collect())
}

/// One value as a list of one.
fn several(node: Node) -> Node {
    match node.value {
        Value::List(_) => node,
        Value::Null | Value::Scalar(_) | Value::Map(_) => Node::list(node.place, vec![node]),
    }
}

fn build(node: Node) -> Node {
    let Value::Scalar(_) = node.value else { return node };
    let place = node.place;
    Node::map(place, vec![Entry { key: "context".to_owned(), place, value: node }])
}

/// Two lists; a later item takes the place of an earlier one with the same key.
fn lists(earlier: Node, later: Node, key: impl Fn(&Node) -> Option<&str>) -> Node {
    let (Value::List(mut result), Value::List(items)) = (earlier.value, later.value.clone()) else {
        return later;
    };
    for item in items {
        let same = result.iter().position(|other| key(other).is_some() && key(other) == key(&item));
        match same.and_then(|position| result.get_mut(position)) {
            Some(other) => *other = item,
            None => result.push(item),
        }
    }
    Node { place: later.place, tag: later.tag, value: Value::List(result) }
}

/// Where an item of `volumes`, `configs` or `devices` appears in the container.
fn target(item: &Node) -> Option<&str> {
    if let Some(target) = item.get("target").or_else(|| item.get("source")) {
        return target.as_text();
    }
    let mut parts = item.as_text()?.split(':');
    let source = parts.next();
    parts.next().or(source)
}

/// All lines of the earlier list for hosts that the later one does not name, and then the later one.
fn by_host(earlier: Node, later: Node) -> Node {
    let lines = |node: Node| match node.value {
        Value::Map(entries) => entries
            .into_iter()
            .flat_map(|entry| {
                let addresses = match entry.value.value {
                    Value::List(items) => items,
                    Value::Null | Value::Scalar(_) | Value::Map(_) => vec![entry.value],
                };
                let line = move |address: Node| {
                    Node::text(
                        address.place,
                        format!("{}={}", entry.key, address.as_text().unwrap_or_default()),
                    )
                };
                addresses.into_iter().map(line).collect::<Vec<_>>()
            })
            .collect(),
        Value::List(items) => items,
        Value::Null | Value::Scalar(_) => vec![node],
    };
    let place = later.place;
    let host = |item: &Node| item.as_text().and_then(|text| text.split(['=', ':']).next()).map(str::to_owned);
    let later = lines(later);
    let named: BTreeSet<String> = later.iter().filter_map(host).collect();
    let kept = lines(earlier).into_iter().filter(|item| host(item).is_none_or(|host| !named.contains(&host)));
    Node::list(place, kept.chain(later).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{parse, resolve, shape};

    fn check(earlier: &str, later: &str, expected: &str) {
        let report = Report::new(BTreeSet::new());
        let tree = |text: &str| {
            let file = report.file("t");
            let mut tree = parse(&report, file, text.as_bytes()).unwrap();
            resolve(&report, &mut tree, "");
            tree
        };
        let wrap = |text: &str| tree(&format!("services: {{a: {{{text}}}}}"));
        let mut merged = files(&report, wrap(earlier), wrap(later));
        take_away(&mut merged);
        let service = merged.get("services").and_then(|services| services.get("a")).unwrap();
        assert_eq!(shape(service), expected, "{earlier} + {later}");
        assert!(!report.has_errors());
    }

    #[test]
    fn each_key_is_merged_by_its_rule() {
        check("image: a, user: u", "image: b, tty: true", r#"{image: "b", user: "u", tty: true}"#);
        check("command: [a, b]", "command: [c]", r#"{command: ["c"]}"#);
        check("ports: ['1:1']", "ports: ['2:2']", r#"{ports: ["1:1", "2:2"]}"#);
        check(
            "environment: [A=1, B=2, C]",
            "environment: {A: 9, B: null}",
            r"{environment: {A: 9, B: null, C: null}}",
        );
        check(
            "depends_on: [a, b]",
            "depends_on: {a: {condition: x}}",
            r#"{depends_on: {a: {condition: "x"}, b: null}}"#,
        );
        check("dns: x", "dns: [y, x]", r#"{dns: ["x", "y"]}"#);
        check(
            "volumes: ['a:/x', 'b:/y:ro']",
            "volumes: ['c:/x', {type: volume, source: d, target: /y}]",
            r#"{volumes: ["c:/x", {type: "volume", source: "d", target: "/y"}]}"#,
        );
        check(
            "extra_hosts: ['a:1', 'a:2', 'b:3']",
            "extra_hosts: {a: [4, 5]}",
            r#"{extra_hosts: ["b:3", "a=4", "a=5"]}"#,
        );
        check("build: dir", "build: {args: {A: 1}}", r#"{build: {context: "dir", args: {A: 1}}}"#);
        check(
            "logging: {driver: a, options: {x: 1}}",
            "logging: {driver: b, options: {y: 1}}",
            r#"{logging: {driver: "b", options: {y: 1}}}"#,
        );
        check(
            "logging: {options: {x: 1}}",
            "logging: {options: {y: 1}}",
            r"{logging: {options: {x: 1, y: 1}}}",
        );
        check("ulimits: {a: 1}", "ulimits: {a: {soft: 1}}", r"{ulimits: {a: {soft: 1}}}");
        check("image: a", "image: ", r#"{image: "a"}"#);
    }

    #[test]
    fn tags_take_away_and_replace() {
        check("ports: ['1:1'], tty: true", "ports: !reset null", "{tty: true}");
        check("ports: ['1:1']", "ports: !override ['2:2']", r#"{ports: ["2:2"]}"#);
        check("environment: {A: 1, B: 2}", "environment: {A: !reset null}", "{environment: {B: 2}}");
        check("tty: true", "user: !reset x", "{tty: true}");
    }
}
