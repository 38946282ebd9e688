//! What runs in the container and how it is treated: command, user, labels, logging, signals.

use std::collections::BTreeMap;
use std::error::Error as _;

use tug_model::spec::container::{Container, Logging, PullPolicy, StopGrace};
use tug_model::spec::rule;

use crate::context::Context;
use crate::env_file::{self, Format};
use crate::reader::{Cursor, Fields};
use crate::schema;

pub(super) fn read(context: &Context<'_>, fields: &Fields<'_>, container: &mut Container, has_build: bool) {
    container.entrypoint = fields.get_or_null("entrypoint").and_then(|cursor| cursor.words());
    container.command = fields.get_or_null("command").and_then(|cursor| cursor.words());
    container.user = fields.text("user");
    container.working_dir = fields.text("working_dir");
    container.hostname = fields.get("hostname").and_then(|cursor| hostname(&cursor));
    container.domainname = fields.get("domainname").and_then(|cursor| hostname(&cursor));
    container.container_name = fields.get("container_name").and_then(|cursor| container_name(&cursor));
    container.platform = fields.get("platform").and_then(|cursor| platform(&cursor));
    container.pull_policy = pull_policy(fields, has_build);
    label_files(context, fields, &mut container.labels);
    let labels_of = |key| fields.get(key).map(|cursor| labels(&cursor)).unwrap_or_default();
    container.labels.extend(labels_of("labels"));
    container.annotations = labels_of("annotations");
    container.logging = fields.get("logging").and_then(|cursor| logging(&cursor));
    container.init = fields.get("init").and_then(|cursor| cursor.flag());
    container.tty = fields.flag("tty");
    container.stdin_open = fields.flag("stdin_open");
    container.read_only = fields.flag("read_only");
    container.runtime = fields.text("runtime");
    container.stop_signal = fields.get("stop_signal").and_then(|cursor| signal(&cursor));
    if let Some(grace) = fields.time("stop_grace_period", &rule::WAIT) {
        container.stop_grace_period = StopGrace(grace);
    }
    container.sysctls = fields.get("sysctls").map(|cursor| sysctls(&cursor)).unwrap_or_default();
}

/// Labels of a container, a service or a network; `tug.` is ours.
pub(crate) fn labels(cursor: &Cursor<'_>) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    for (key, value, at) in cursor.pairs() {
        insert_label(&mut labels, key, value.unwrap_or_default(), &at);
    }
    labels
}

fn insert_label(labels: &mut BTreeMap<String, String>, key: String, value: String, at: &Cursor<'_>) {
    match rule::label(&key, &value) {
        Ok(()) => {
            labels.insert(key, value);
        }
        Err(message) => at.key_error(message),
    }
}

fn label_files(context: &Context<'_>, fields: &Fields<'_>, labels: &mut BTreeMap<String, String>) {
    for item in fields.one_or_more("label_file") {
        let Some(written) = item.text() else { continue };
        let path = context.absolute(item.place(), &written);
        let text = match context.disk.read(&path, 1 << 20) {
            Ok(file) => String::from_utf8_lossy(&file.bytes).into_owned(),
            Err(error) => {
                let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
                item.error(format!("`{written}`: {error}{cause}"));
                continue;
            }
        };
        match env_file::parse(&text, Format::Raw, &BTreeMap::new()) {
            Ok(pairs) => {
                for (key, value) in pairs {
                    insert_label(labels, key, value, &item);
                }
            }
            Err(bad) => {
                for line in bad {
                    item.error(format!("`{written}` line {}: {}", line.line, line.message));
                }
            }
        }
    }
}

fn hostname(cursor: &Cursor<'_>) -> Option<String> {
    let text = cursor.filled()?;
    let verdict = rule::host_name(&text);
    cursor.kept(text, verdict)
}

fn container_name(cursor: &Cursor<'_>) -> Option<String> {
    let name = hostname(cursor)?;
    cursor.warning(format!(
        "containers are named after their task; `{name}` becomes one more name on its networks"
    ));
    Some(name)
}

fn platform(cursor: &Cursor<'_>) -> Option<String> {
    let text = cursor.filled()?;
    let parts: Vec<&str> = text.split('/').collect();
    let is_word = |part: &&str| {
        !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
    };
    if (1..=3).contains(&parts.len()) && parts.iter().all(is_word) {
        return Some(text);
    }
    cursor.error(format!("\"{text}\" is not a platform like linux/amd64"));
    None
}

fn pull_policy(fields: &Fields<'_>, has_build: bool) -> PullPolicy {
    let Some(cursor) = fields.get("pull_policy") else { return PullPolicy::default() };
    let Some(text) = cursor.filled() else { return PullPolicy::default() };
    match text.as_str() {
        "daily" | "weekly" => cursor.refuse("pull_policy", "not yet: asking the registry again after a time"),
        _ if text.starts_with("every_") => {
            cursor.refuse("pull_policy", "not yet: asking the registry again after a time");
        }
        "build" if has_build => {}
        "build" => cursor.error("there is no `build` to make the image with"),
        _ => {
            let words = [
                ("always", PullPolicy::Always),
                ("missing", PullPolicy::Missing),
                ("if_not_present", PullPolicy::Missing),
                ("never", PullPolicy::Never),
            ];
            return cursor.choice(&words).unwrap_or_default();
        }
    }
    PullPolicy::Missing
}

fn logging(cursor: &Cursor<'_>) -> Option<Logging> {
    let fields = cursor.fields(&schema::LOGGING)?;
    let driver = fields.text("driver");
    let options = fields.options("options");
    if driver.is_none() && options.is_empty() {
        return None;
    }
    Some(Logging { driver: driver.unwrap_or_else(|| "json-file".to_owned()), options })
}

fn signal(cursor: &Cursor<'_>) -> Option<String> {
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
        "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
        "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
    ];
    let text = cursor.filled()?;
    let upper = text.to_ascii_uppercase();
    let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
    let is_number = bare.parse::<u8>().is_ok_and(|number| (1..=64).contains(&number));
    if is_number || NAMES.contains(&bare) || bare.starts_with("RTMIN") || bare.starts_with("RTMAX") {
        return Some(text);
    }
    let hint = crate::suggest::nearest(bare, NAMES.into_iter());
    let message = format!("\"{text}\" is not a signal");
    cursor.error_with(message, hint);
    None
}

fn sysctls(cursor: &Cursor<'_>) -> BTreeMap<String, String> {
    let mut sysctls = BTreeMap::new();
    for (key, value, at) in cursor.pairs() {
        let is_name = key.contains('.')
            && key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/'));
        match value {
            _ if !is_name => {
                at.key_error(format!("`{key}` is not a kernel parameter like net.core.somaxconn"));
            }
            None => {
                at.warning(format!("`{key}` has no value; an empty one is set"));
                sysctls.insert(key, String::new());
            }
            Some(value) => {
                sysctls.insert(key, value);
            }
        }
    }
    sysctls
}
