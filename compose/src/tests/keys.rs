//! The table of keys against what the readers do: a key that is said to be read is read.

use super::{findings, load_text, service};
use crate::schema::{self, Fate, Schema};

/// Every table, and where it stands in a manifest; `KEY` is replaced by a key and a value for it.
fn tables() -> Vec<(&'static Schema, String)> {
    let at = |schema: &'static Schema, body: &str| (schema, service(body));
    let top = |schema: &'static Schema, text: &str| {
        (schema, format!("services: {{web: {{image: nginx, configs: [c]}}}}\n{text}\n"))
    };
    vec![
        (&schema::SERVICE, service("KEY")),
        (&schema::PROJECT, "services: {web: {image: nginx}}\nKEY\n".to_owned()),
        top(&schema::TUG, "x-tug: {KEY}"),
        top(&schema::NETWORK, "networks: {n: {KEY}}"),
        top(&schema::IPAM, "networks: {n: {ipam: {KEY}}}"),
        top(&schema::IPAM_POOL, "networks: {n: {ipam: {config: [{KEY}]}}}"),
        top(&schema::VOLUME, "volumes: {v: {KEY}}"),
        top(&schema::CONFIG, "configs: {c: {KEY}}"),
        at(&schema::PORT, "ports: [{target: 80, KEY}]"),
        at(&schema::MOUNT, "volumes: [{type: tmpfs, target: /x, KEY}]"),
        at(&schema::MOUNT_BIND, "volumes: [{type: bind, source: /a, target: /x, bind: {KEY}}]"),
        at(&schema::MOUNT_VOLUME, "volumes: [{type: volume, source: v, target: /x, volume: {KEY}}]"),
        at(&schema::MOUNT_TMPFS, "volumes: [{type: tmpfs, target: /x, tmpfs: {KEY}}]"),
        at(&schema::FILE_GRANT, "configs: [{source: c, KEY}]"),
        at(&schema::ENV_FILE, "env_file: [{path: a, KEY}]"),
        at(&schema::HEALTHCHECK, "healthcheck: {KEY}"),
        at(&schema::DEPENDENCY, "depends_on: {db: {KEY}}"),
        at(&schema::ATTACHMENT, "networks: {default: {KEY}}"),
        at(&schema::LOGGING, "logging: {KEY}"),
        at(&schema::ULIMIT, "ulimits: {nofile: {KEY}}"),
        at(&schema::DEVICE, "devices: [{source: /dev/a, KEY}]"),
        at(&schema::DEPLOY, "deploy: {KEY}"),
        at(&schema::RESOURCES, "deploy: {resources: {KEY}}"),
        at(&schema::LIMITS, "deploy: {resources: {limits: {KEY}}}"),
        at(&schema::RESERVATIONS, "deploy: {resources: {reservations: {KEY}}}"),
        at(&schema::RESTART_POLICY, "deploy: {restart_policy: {KEY}}"),
        at(&schema::PLACEMENT, "deploy: {placement: {KEY}}"),
        at(&schema::UPDATE, "deploy: {update_config: {KEY}}"),
        at(&schema::BUILD, "build: {KEY}"),
        at(&schema::PROBE, "x-probe: {KEY}"),
        at(&schema::AUTOSCALE, "x-autoscale: {KEY}"),
        at(&schema::SCALE_STEP, "x-autoscale: {scale_up: {KEY}}"),
        at(&schema::INGRESS, "x-ingress: [{KEY}]"),
        at(&schema::INGRESS_TLS, "x-ingress: [{tls: {KEY}}]"),
        at(&schema::CRON, "x-cron: {KEY}"),
        at(&schema::CRON_KEEP, "x-cron: {keep: {KEY}}"),
        at(&schema::HOOKS, "x-hooks: {KEY}"),
        at(&schema::DEPLOY_HOOK, "x-hooks: {pre_deploy: {KEY}}"),
        at(&schema::HOOK, "pre_start: [{KEY}]"),
    ]
}

/// `text` with `KEY` filled in and the key's own line, if it stands in the text twice, taken away.
fn fill(text: &str, key: &str, value: &str) -> String {
    let mut text = text.to_owned();
    for twin in
        ["image: nginx\n", "target: 80, ", "target: /x, ", "source: c, ", "path: a, ", "source: /dev/a, "]
    {
        if twin.split(':').next() == Some(key) {
            text = text.replacen(twin, "", 1).replace("    \n", "");
        }
    }
    for twin in ["type: tmpfs, ", "services: {web: {image: nginx}}\n"] {
        if twin.split(':').next() == Some(key) {
            text = text.replacen(twin, "", 1);
        }
    }
    text.replace("KEY", &format!("{key}: {value}"))
}

#[test]
fn a_wrong_value_of_any_key_that_is_read_is_an_error_there() {
    for (schema, text) in tables() {
        for key in schema.read() {
            let text = fill(&text, key, "[[[wrong]]]");
            let said = findings(&load_text(text.as_str()));
            let is_told = said.lines().any(|line| {
                let path = line.split(' ').nth(2).unwrap_or_default().trim_end_matches(':');
                let last = path.rsplit('.').next().unwrap_or_default();
                let of_key = last == key || last.starts_with(&format!("{key}["));
                line.starts_with("error") && of_key && line.contains("expected")
            });
            assert!(is_told, "`{key}` of {}:\n{text}\n{said}", schema.what);
        }
    }
}

#[test]
fn what_becomes_of_the_other_keys_is_said() {
    for (schema, text) in tables() {
        for key in schema.names() {
            let (level, word) = match schema.fate(key) {
                Some(Fate::Read | Fate::Silent) | None => continue,
                Some(Fate::Noted(_)) => ("note", "ignored"),
                Some(Fate::Ignored(_)) => ("warning", "ignored"),
                Some(Fate::NotYet(_)) => ("error", "not yet"),
                Some(Fate::Refused(_)) => ("error", "unsupported"),
            };
            let text = fill(&text, key, "x");
            let said = findings(&load_text(text.as_str()));
            let is_told = said.lines().any(|line| {
                line.starts_with(level) && line.contains(&format!("{key}:")) && line.contains(word)
            });
            assert!(is_told, "`{key}` of {}:\n{text}\n{said}", schema.what);
        }
    }
}

#[test]
fn unknown_keys_of_every_map_are_errors_and_foreign_extensions_are_silent() {
    for (schema, text) in tables() {
        let text_with = fill(&text, "qwertz", "1");
        let said = findings(&load_text(text_with.as_str()));
        assert!(said.contains("unknown key `qwertz`"), "{}:\n{text_with}\n{said}", schema.what);
        let with_extension = fill(&text, "x-qwertz", "1");
        let said = findings(&load_text(with_extension.as_str()));
        assert!(!said.contains("x-qwertz"), "{}:\n{with_extension}\n{said}", schema.what);
    }
}
