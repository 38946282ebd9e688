//! `docs/manifest.md` against the table of keys: every key is explained there, with what becomes of it, and nothing else is.

use std::collections::{BTreeMap, BTreeSet};

use crate::schema::{self, Fate, Schema};

const MANUAL: &str = include_str!("../../../docs/manifest.md");

/// The tables under a heading of the manual, and the path before their keys.
type Part = (&'static str, Vec<(&'static Schema, &'static str)>);

fn parts() -> [Part; 2] {
    let file = vec![
        (&schema::PROJECT, ""),
        (&schema::TUG, "x-tug."),
        (&schema::INCLUDE, "include[]."),
        (&schema::NETWORK, "networks.NAME."),
        (&schema::EXTERNAL, "networks.NAME.external."),
        (&schema::IPAM, "networks.NAME.ipam."),
        (&schema::IPAM_POOL, "networks.NAME.ipam.config[]."),
        (&schema::VOLUME, "volumes.NAME."),
        (&schema::CONFIG, "configs.NAME."),
        (&schema::SECRET, "secrets.NAME."),
    ];
    [("The file", file), ("A service", service())]
}

fn service() -> Vec<(&'static Schema, &'static str)> {
    vec![
        (&schema::SERVICE, ""),
        (&schema::EXTENDS, "extends."),
        (&schema::ENV_FILE, "env_file[]."),
        (&schema::LOGGING, "logging."),
        (&schema::PORT, "ports[]."),
        (&schema::ATTACHMENT, "networks.NAME."),
        (&schema::MOUNT, "volumes[]."),
        (&schema::MOUNT_BIND, "volumes[].bind."),
        (&schema::MOUNT_VOLUME, "volumes[].volume."),
        (&schema::MOUNT_TMPFS, "volumes[].tmpfs."),
        (&schema::FILE_GRANT, "configs[]."),
        (&schema::DEVICE, "devices[]."),
        (&schema::HEALTHCHECK, "healthcheck."),
        (&schema::PROBE, "x-probe."),
        (&schema::DEPENDENCY, "depends_on.NAME."),
        (&schema::ULIMIT, "ulimits.NAME."),
        (&schema::DEPLOY, "deploy."),
        (&schema::RESOURCES, "deploy.resources."),
        (&schema::LIMITS, "deploy.resources.limits."),
        (&schema::RESERVATIONS, "deploy.resources.reservations."),
        (&schema::RESTART_POLICY, "deploy.restart_policy."),
        (&schema::PLACEMENT, "deploy.placement."),
        (&schema::UPDATE, "deploy.update_config."),
        (&schema::BUILD, "build."),
        (&schema::HOOK, "pre_start[]."),
        (&schema::AUTOSCALE, "x-autoscale."),
        (&schema::SCALE_STEP, "x-autoscale.scale_up."),
        (&schema::INGRESS, "x-ingress[]."),
        (&schema::INGRESS_TLS, "x-ingress[].tls."),
        (&schema::CRON, "x-cron."),
        (&schema::CRON_KEEP, "x-cron.keep."),
        (&schema::HOOKS, "x-hooks."),
        (&schema::DEPLOY_HOOK, "x-hooks.pre_deploy."),
    ]
}

/// The keys of all tables below the heading `title`, each with the word beside it. A key that begins with a dot stands
/// beside the one before it: `` `a.b`, `.c` `` is `a.b` and `a.c`.
fn explained(title: &str) -> BTreeMap<String, String> {
    let heading = format!("\n## {title}\n");
    let (_, below) = MANUAL.split_once(&heading).unwrap_or_else(|| panic!("there is no heading {title}"));
    let section = below.split("\n## ").next().unwrap();
    let mut found = BTreeMap::new();
    for line in section.lines().filter(|line| line.starts_with("| `")) {
        let mut cells = line.trim_matches('|').split(" | ");
        let (keys, word) = (cells.next().unwrap(), cells.next().unwrap().trim());
        let mut parent = String::new();
        for key in keys.split('`').skip(1).step_by(2) {
            let path = match key.strip_prefix('.') {
                Some(key) => format!("{parent}{key}"),
                None => key.to_owned(),
            };
            parent = path.rfind('.').map_or_else(String::new, |dot| path[..=dot].to_owned());
            assert!(
                found.insert(path.clone(), word.to_owned()).is_none(),
                "{title}: `{path}` is there twice"
            );
        }
    }
    found
}

/// The words that a key may have beside it. What is taken in before the table is asked is read, and what is checked by
/// its reader may be refused by it.
fn words(fate: Fate) -> &'static [&'static str] {
    match fate {
        Fate::Read => &["read", "not yet"],
        Fate::Silent => &["silent", "read"],
        Fate::Noted(_) => &["note"],
        Fate::Ignored(_) => &["warning"],
        Fate::NotYet(_) => &["not yet"],
        Fate::Refused(_) => &["refused"],
    }
}

#[test]
fn the_manual_explains_every_key_and_no_other() {
    let mut wrong = Vec::new();
    for (title, tables) in parts() {
        let explained = explained(title);
        let mut known = BTreeSet::new();
        for (schema, before) in tables {
            for key in schema.names() {
                let path = format!("{before}{key}");
                let fate = schema.fate(key).unwrap();
                match explained.get(&path) {
                    None => wrong.push(format!("{title}: `{path}` is missing")),
                    Some(word) if !words(fate).contains(&word.as_str()) => {
                        wrong.push(format!("{title}: `{path}` is said to be {word}, and is {fate:?}"));
                    }
                    Some(_) => {}
                }
                known.insert(path);
            }
        }
        let strange = explained.keys().filter(|path| !known.contains(*path));
        wrong.extend(strange.map(|path| format!("{title}: `{path}` is no key")));
    }
    assert!(wrong.is_empty(), "docs/manifest.md and schema.rs differ:\n  {}", wrong.join("\n  "));
}
