//! `deploy.placement`: on which nodes the replicas may run.

use tug_model::spec::deploy::{Constraint, Placement, Preference};
use tug_model::spec::rule;

use crate::reader::Cursor;
use crate::schema;
use crate::suggest::nearest;

pub(super) fn read(cursor: &Cursor<'_>) -> Placement {
    let Some(fields) = cursor.fields(&schema::PLACEMENT) else { return Placement::default() };
    let items = |key| fields.get(key).map(|cursor| cursor.items()).unwrap_or_default();
    Placement {
        constraints: items("constraints").iter().filter_map(constraint).collect(),
        preferences: items("preferences").iter().filter_map(preference).collect(),
        max_replicas_per_node: fields.number("max_replicas_per_node", 0..=10_000).filter(|most| *most > 0),
    }
}

/// `node.role == manager`, `node.labels.disk!=ssd`.
fn constraint(item: &Cursor<'_>) -> Option<Constraint> {
    let text = item.text()?;
    let split = |operator: &str| text.split_once(operator);
    let (attribute, equal, value) = match (split("!="), split("==")) {
        (Some((attribute, value)), _) => (attribute, false, value),
        (None, Some((attribute, value))) => (attribute, true, value),
        (None, None) => {
            item.error(format!("\"{text}\" is not ATTRIBUTE==VALUE or ATTRIBUTE!=VALUE"));
            return None;
        }
    };
    let (attribute, value) = (attribute.trim(), value.trim());
    check_attribute(item, attribute)?;
    if value.is_empty() {
        item.error(format!("nothing follows `{attribute}` to compare it with"));
        return None;
    }
    Some(Constraint { attribute: attribute.to_owned(), equal, value: value.to_owned() })
}

/// `spread: node.labels.zone`.
fn preference(item: &Cursor<'_>) -> Option<Preference> {
    let fields = item.fields(&schema::PREFERENCE)?;
    let Some(cursor) = fields.get("spread") else {
        fields.missing("spread");
        return None;
    };
    let spread = cursor.text()?;
    check_attribute(&cursor, &spread)?;
    Some(Preference { spread })
}

fn check_attribute(item: &Cursor<'_>, attribute: &str) -> Option<()> {
    if attribute.starts_with("engine.labels.") {
        item.refuse("placement", "not yet: labels of the Engine; use labels of the node");
        return None;
    }
    let Err(message) = rule::attribute(attribute) else { return Some(()) };
    item.error_with(message, nearest(attribute, rule::ATTRIBUTES.into_iter()));
    None
}
