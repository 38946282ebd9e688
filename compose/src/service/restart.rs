//! `restart` and `deploy.restart_policy`: when the agent starts a task again after its process ended.

use tug_model::spec::rule;
use tug_model::spec::service::{Restart, RestartOn};

use crate::reader::{Cursor, Fields};
use crate::schema;
use crate::suggest::nearest;

/// The rule, and whether the manifest has one.
pub(super) fn read(fields: &Fields<'_>, deploy: Option<&Fields<'_>>) -> (Restart, bool) {
    let short = fields.get("restart");
    let policy = deploy.and_then(|deploy| deploy.get("restart_policy"));
    let restart = short.as_ref().and_then(simple);
    match policy {
        Some(policy) => (long(&policy), true),
        None => (restart.unwrap_or_default(), short.is_some()),
    }
}

fn simple(cursor: &Cursor<'_>) -> Option<Restart> {
    let text = cursor.filled()?;
    let (word, attempts) = match text.split_once(':') {
        Some((word, attempts)) => (word.to_owned(), Some(attempts.to_owned())),
        None => (text.clone(), None),
    };
    let condition = match word.as_str() {
        "no" | "false" => RestartOn::Never,
        "always" | "unless-stopped" => RestartOn::Any,
        "on-failure" => RestartOn::Failure,
        _ => {
            let words = ["no", "always", "unless-stopped", "on-failure"];
            let message = format!(
                "{} is not one of `no`, `always`, `unless-stopped`, `on-failure[:ATTEMPTS]`",
                cursor.node.shown()
            );
            let hint = nearest(&word, words.into_iter());
            cursor.error_with(message, hint);
            return None;
        }
    };
    let max_attempts = match attempts {
        None => None,
        Some(text) => match text.parse() {
            Ok(number) if condition == RestartOn::Failure => Some(number),
            Ok(_) => {
                cursor.error("only `on-failure` takes a number of attempts");
                None
            }
            Err(_) => {
                cursor.error(format!("`{text}` is not a number of attempts"));
                None
            }
        },
    };
    Some(Restart { condition, max_attempts, ..Restart::default() })
}

fn long(cursor: &Cursor<'_>) -> Restart {
    let Some(fields) = cursor.fields(&schema::RESTART_POLICY) else { return Restart::default() };
    let words = [
        ("any", RestartOn::Any),
        ("on-failure", RestartOn::Failure),
        ("none", RestartOn::Never),
        ("always", RestartOn::Any),
        ("unless-stopped", RestartOn::Any),
        ("no", RestartOn::Never),
    ];
    Restart {
        condition: fields.get("condition").and_then(|cursor| cursor.choice(&words)).unwrap_or_default(),
        delay: fields.time("delay", &rule::WAIT).unwrap_or(Restart::FIRST_WAIT),
        max_attempts: fields.number("max_attempts", 0..=1_000_000).filter(|attempts| *attempts > 0),
        window: fields.time("window", &rule::WAIT),
    }
}
