//! `healthcheck`: the probe that the Engine runs inside the container.

use tug_model::spec::container::Healthcheck;
use tug_model::spec::rule;

use crate::reader::Cursor;
use crate::schema;
use crate::tree::Value;

pub(super) fn read(cursor: &Cursor<'_>) -> Option<Healthcheck> {
    let fields = cursor.fields(&schema::HEALTHCHECK)?;
    let disable = fields.flag("disable");
    let test = fields.get("test").and_then(|cursor| test(&cursor));
    if disable {
        let is_test = test.as_ref().is_some_and(|test| test.first().is_some_and(|word| word != "NONE"));
        if is_test && let Some(cursor) = fields.get("test") {
            cursor.error("`test` and `disable: true` cannot both be given");
        }
    }
    let health = Healthcheck {
        test: if disable { vec!["NONE".to_owned()] } else { test.unwrap_or_default() },
        interval: fields.time("interval", &rule::PERIOD),
        timeout: fields.time("timeout", &rule::PERIOD),
        retries: fields.number("retries", rule::HEALTH_RETRIES).filter(|retries| *retries > 0),
        start_period: fields.time("start_period", &rule::WAIT),
        start_interval: fields.time("start_interval", &rule::PERIOD),
    };
    if let (Some(timeout), Some(interval), Some(cursor)) =
        (health.timeout, health.interval, fields.get("timeout"))
        && timeout > interval
    {
        cursor.note("longer than `interval`: the next probe waits for the one before");
    }
    Some(health)
}

fn test(cursor: &Cursor<'_>) -> Option<Vec<String>> {
    if !matches!(cursor.node.value, Value::List(_)) {
        return cursor.filled().map(|line| vec!["CMD-SHELL".to_owned(), line]);
    }
    let items = cursor.items();
    let words: Vec<String> = items.iter().filter_map(Cursor::text).collect();
    let Some(first) = items.first() else {
        cursor.error("an empty list tests nothing; use [\"NONE\"] to switch the check off");
        return None;
    };
    match (words.first().map(String::as_str), words.len()) {
        (Some("CMD" | "CMD-SHELL"), 1) => {
            first.error("nothing follows: there is no command");
            None
        }
        (Some("NONE"), 1) | (Some("CMD"), _) | (Some("CMD-SHELL"), 2) => Some(words),
        (Some("CMD-SHELL"), _) => {
            cursor.warning("`CMD-SHELL` takes one text; its words are joined with spaces");
            let line = words.get(1..).unwrap_or_default().join(" ");
            Some(vec!["CMD-SHELL".to_owned(), line])
        }
        _ => {
            first.error_with_hint(
                format!("a test begins with NONE, CMD or CMD-SHELL, not {}", first.node.shown()),
                "write the whole line as one text, or put CMD in front",
            );
            None
        }
    }
}
