//! Tests of whole manifests: text in, findings or spec out.

mod files;
mod hostile;
mod keys;
mod manual;
mod mutate;
mod rules;
mod services;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::{Level, Loaded, MemoryDisk, Outcome, Request, load};

/// Loads `/p/compose.yaml` of this disk with an environment of `A=a`.
fn load_from(disk: &MemoryDisk, change: impl FnOnce(&mut Request<'_>)) -> Outcome {
    let mut request = Request {
        files: Vec::new(),
        project_name: None,
        profiles: Vec::new(),
        environment: BTreeMap::from([("A".to_owned(), "a".to_owned())]),
        env_files: Vec::new(),
        ignore_unsupported: BTreeSet::new(),
        working_directory: "/p".to_owned(),
        disk,
    };
    change(&mut request);
    let outcome = load(&request);
    let has_errors = outcome.findings.iter().any(|finding| finding.level == Level::Error);
    assert_eq!(outcome.project.is_none(), has_errors, "there is a project just where there is no error");
    outcome
}

fn disk(text: impl Into<Vec<u8>>) -> MemoryDisk {
    MemoryDisk::default().with("/p/compose.yaml", text)
}

fn load_text(text: impl Into<Vec<u8>>) -> Outcome {
    load_from(&disk(text), |_| {})
}

/// The findings, one a line, without the name of the only file.
fn findings(outcome: &Outcome) -> String {
    let lines: Vec<String> =
        outcome.findings.iter().map(|f| f.to_string().replace("compose.yaml:", "")).collect();
    lines.join("\n")
}

/// The lines of a manifest with one service whose body this is, indented for it.
fn service(body: &str) -> String {
    let body = body.lines().map(|line| format!("    {line}\n")).collect::<Vec<_>>().concat();
    format!("services:\n  web:\n    image: nginx\n{body}")
}

/// What is said about a service with this body; its first line is line 4, its first column 5.
fn said(body: &str) -> String {
    findings(&load_text(service(body)))
}

fn loaded(text: &str) -> Loaded {
    let outcome = load_text(text);
    let said = findings(&outcome);
    outcome.project.unwrap_or_else(|| panic!("{text}\n{said}"))
}

/// The part of the spec of a service with this body that `pointer` names.
fn spec(body: &str, pointer: &str) -> String {
    let project = loaded(&service(body)).project;
    let json = serde_json::to_value(&project).unwrap();
    json.pointer(&format!("/services/web{pointer}")).map_or_else(|| "absent".to_owned(), Value::to_string)
}

/// Asserts line by line, so that a failure shows the line.
#[track_caller]
fn same_lines(actual: &str, expected: &str) {
    let expected: Vec<&str> = expected.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let actual: Vec<&str> = actual.lines().collect();
    assert_eq!(actual, expected);
}
