//! Checking a project that is handed in, as if no client had: everything that is wrong with it is told at once, and
//! nothing is written.
//!
//! Types have checked names and shapes already. What is checked here holds between values, or is a limit. What depends
//! on other projects is checked where the state is at hand.

mod container;
mod graph;
mod image;
mod mounts;
mod service;

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;
use tug_api::{ApiError, Code};
use tug_model::spec::Project;
use tug_model::spec::resource::Config;

/// Labels with this prefix are ours.
const OURS: &str = "tug.";
/// The longest label, key and value together.
const LONGEST_LABEL: usize = 64 << 10;
/// So many mistakes are told at once.
const MOST_TOLD: usize = 100;

/// What is wrong so far.
#[derive(Debug, Default)]
struct Findings(Vec<ApiError>);

/// Checks `project`. `private` is the folder of the control plane, which no container may be shown.
pub(super) fn project(project: &Project, private: Option<&Path>) -> Result<(), ApiError> {
    let mut findings = Findings::default();
    if project.services.is_empty() {
        findings.add("spec.services", "a project has at least one service");
    }
    strings(project, &mut findings);
    for (name, config) in &project.configs {
        if config.content.len() > Config::LARGEST {
            let message = format!("config `{name}` is larger than {} KiB", Config::LARGEST >> 10);
            findings.add(format!("spec.configs.{name}"), message);
        }
    }
    for (name, network) in &project.networks {
        labels(&network.labels, &format!("spec.networks.{name}.labels"), &mut findings);
        engine_name(&network.engine_name, &format!("spec.networks.{name}.engine_name"), &mut findings);
    }
    for (name, volume) in &project.volumes {
        labels(&volume.labels, &format!("spec.volumes.{name}.labels"), &mut findings);
        engine_name(&volume.engine_name, &format!("spec.volumes.{name}.engine_name"), &mut findings);
    }
    for (name, service) in &project.services {
        let at = format!("spec.services.{name}");
        service::check(service, &at, &mut findings);
        container::check(project, service, &format!("{at}.container"), &mut findings);
        mounts::check(project, &service.container, private, (&format!("{at}.container"), &mut findings));
    }
    service::check_ports_between(project, &mut findings);
    graph::check(project, &mut findings);
    findings.0.truncate(MOST_TOLD);
    ApiError::all(findings.0).map_or(Ok(()), Err)
}

// === impl Findings ===

impl Findings {
    fn add(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.0.push(ApiError::new(Code::Invalid, message).field(field));
    }

    fn forbid(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.0.push(ApiError::new(Code::Forbidden, message).field(field));
    }

    /// `number` has to lie within `range`.
    fn range<T: PartialOrd + std::fmt::Display>(
        &mut self,
        field: impl Into<String>,
        number: &T,
        range: std::ops::RangeInclusive<T>,
    ) {
        if !range.contains(number) {
            self.add(field, format!("{number} is out of range: use {} to {}", range.start(), range.end()));
        }
    }
}

/// A text that a user wrote, fit to be shown.
fn shown(text: &str) -> String {
    text.chars().take(64).flat_map(char::escape_debug).collect()
}

/// No text anywhere may hold a NUL: neither the Engine nor the kernel can take it.
fn strings(project: &Project, findings: &mut Findings) {
    let value = serde_json::to_value(project).expect("a project holds nothing that JSON cannot");
    walk(&value, "spec", findings);
}

fn walk(value: &Value, at: &str, findings: &mut Findings) {
    match value {
        Value::String(text) if text.contains('\0') => findings.add(at, "a text may not hold a NUL byte"),
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                walk(item, &format!("{at}[{index}]"), findings);
            }
        }
        Value::Object(entries) => {
            for (key, item) in entries {
                if key.contains('\0') {
                    findings.add(format!("{at}.{}", shown(key)), "a name may not hold a NUL byte");
                }
                walk(item, &format!("{at}.{}", shown(key)), findings);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn labels(labels: &BTreeMap<String, String>, at: &str, findings: &mut Findings) {
    for (key, value) in labels {
        let field = format!("{at}.{}", shown(key));
        if key.is_empty() {
            findings.add(&field, "a label has a name");
        }
        if key.starts_with(OURS) {
            findings.add(&field, format!("labels that begin with `{OURS}` are reserved for Tug"));
        }
        if key.len() + value.len() > LONGEST_LABEL {
            findings.add(&field, format!("a label is at most {} KiB", LONGEST_LABEL >> 10));
        }
    }
}

/// Names of networks and volumes in the Engine, by its own rule.
fn engine_name(name: &str, at: &str, findings: &mut Findings) {
    let well = name.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric)
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'));
    if !well || name.len() > 255 {
        let rule = "use letters, digits, `_`, `.` and `-`, starting with a letter or digit";
        findings.add(at, format!("`{}` is no name for the Engine: {rule}", shown(name)));
    }
}
