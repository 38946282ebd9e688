//! `depends_on`, and `links`, which is the older word for it.

use tug_model::ServiceName;
use tug_model::spec::service::{Condition, Dependency};

use crate::reader::{Cursor, Fields};
use crate::schema;

type Found<'a> = (ServiceName, Dependency, Cursor<'a>);

/// What must be true of which service, with where it says so.
pub(super) fn read<'a>(fields: &Fields<'a>, links: Vec<Found<'a>>) -> Vec<Found<'a>> {
    let Some(cursor) = fields.get("depends_on") else { return links };
    let mut found: Vec<Found<'a>> = Vec::new();
    if cursor.is_map() {
        for (entry, value) in cursor.entries() {
            let Some(name) = name(&value, &entry.key) else { continue };
            found.push((name, dependency(&value), value));
        }
    } else {
        for item in cursor.items() {
            let Some(name) = item.text().and_then(|text| name(&item, &text)) else { continue };
            if found.iter().any(|(other, _, _)| *other == name) {
                item.error(format!("`{name}` is listed twice"));
                continue;
            }
            found.push((name, started(), item));
        }
    }
    for link in links {
        if !found.iter().any(|(name, _, _)| *name == link.0) {
            found.push(link);
        }
    }
    found
}

fn started() -> Dependency {
    Dependency { condition: Condition::Started, required: true }
}

fn name(cursor: &Cursor<'_>, text: &str) -> Option<ServiceName> {
    match ServiceName::parse(text) {
        Ok(name) => Some(name),
        Err(error) => {
            cursor.key_error(error.to_string());
            None
        }
    }
}

fn dependency(cursor: &Cursor<'_>) -> Dependency {
    if cursor.node.is_null() {
        return started();
    }
    let Some(fields) = cursor.fields(&schema::DEPENDENCY) else { return started() };
    let words = [
        ("service_started", Condition::Started),
        ("service_healthy", Condition::Healthy),
        ("service_completed_successfully", Condition::CompletedSuccessfully),
    ];
    let condition = match fields.get("condition") {
        Some(cursor) => cursor.choice(&words),
        None => Some(Condition::Started),
    };
    Dependency {
        condition: condition.unwrap_or(Condition::Started),
        required: fields.get("required").and_then(|cursor| cursor.flag()).unwrap_or(true),
    }
}

/// `links: [SERVICE, SERVICE:ALIAS]`: names resolve without them; what stays is the order of starts.
pub(super) fn links<'a>(fields: &Fields<'a>) -> Vec<Found<'a>> {
    let Some(cursor) = fields.get("links") else { return Vec::new() };
    let mut found = Vec::new();
    for item in cursor.items() {
        let Some(text) = item.text() else { continue };
        let (service, alias) = text.split_once(':').unwrap_or((&text, &text));
        if alias != service {
            item.refuse(
                "links",
                &format!(
                    "unsupported: a name that only this service sees; give `{service}` the alias `{alias}` on a network"
                ),
            );
        }
        if let Some(name) = name(&item, service) {
            found.push((name, started(), item));
        }
    }
    if !found.is_empty() {
        cursor
            .warning("ignored but for the order of starts: services on one network find each other by name");
    }
    found
}
