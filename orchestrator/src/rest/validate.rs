//! Checking a project that is handed in, as if no client had: everything that is wrong with it is told at once, and
//! nothing is written.
//!
//! Types have checked names and shapes already, and `tug_model::spec::rule` knows what holds for single values. What is
//! checked here beside that holds between values. What depends on other projects is checked where the state is at hand.

mod container;
mod graph;
mod mounts;
mod service;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use serde_json::Value;
use tug_api::{ApiError, Code};
use tug_model::spec::Project;
use tug_model::spec::resource::Config;
use tug_model::spec::rule::{self, Verdict, shown};

/// So many mistakes are told at once.
const MOST_TOLD: usize = 100;

/// What is wrong so far.
#[derive(Debug, Default)]
struct Findings(Vec<ApiError>);

/// Checks `project`. Of what lies in the folders `private` no container may be shown anything.
pub(super) fn project(project: &Project, private: &[PathBuf]) -> Result<(), ApiError> {
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
        findings.rule(format!("spec.networks.{name}.engine_name"), rule::engine_name(&network.engine_name));
    }
    for (name, volume) in &project.volumes {
        labels(&volume.labels, &format!("spec.volumes.{name}.labels"), &mut findings);
        findings.rule(format!("spec.volumes.{name}.engine_name"), rule::engine_name(&volume.engine_name));
        mounts::check_volume(volume, private, (&format!("spec.volumes.{name}"), &mut findings));
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

    /// What a rule says of the value of `field`.
    fn rule(&mut self, field: impl Into<String>, verdict: Verdict) {
        if let Err(message) = verdict {
            self.add(field, message);
        }
    }

    /// `value` has to lie within `range`.
    fn range<T: PartialOrd + Display>(
        &mut self,
        field: impl Into<String>,
        value: &T,
        range: &RangeInclusive<T>,
    ) {
        self.rule(field, rule::within(value, range));
    }
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
        findings.rule(format!("{at}.{}", shown(key)), rule::label(key, value));
    }
}
