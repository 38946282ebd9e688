//! The rules of the house that no lint knows. Each is one test and says, for every breach, where it is.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use tug_tests::sim::Story;

/// Lines of a file outside its tests.
const LONGEST_FILE: usize = 500;

struct Source {
    /// Relative to the workspace, `/`-separated.
    path: String,
    text: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

fn sources() -> Vec<Source> {
    let mut files = Vec::new();
    for folder in ["model", "compose", "api", "orchestrator", "agent", "cli", "tests", "xtask", "manifests"] {
        collect(&root().join(folder), &mut files);
    }
    assert!(files.len() > 50, "only {} sources found: is the test looking in the right place?", files.len());
    files
}

fn collect(folder: &Path, files: &mut Vec<Source>) {
    let mut entries: Vec<PathBuf> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "target") {
                collect(&path, files);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let path = path.strip_prefix(root()).unwrap().to_string_lossy().replace('\\', "/");
            files.push(Source { path, text });
        }
    }
}

/// The lines that are part of the product: before the first test module, without comments.
fn code(source: &Source) -> impl Iterator<Item = (usize, &str)> {
    let lines = source.text.lines().enumerate().take_while(|(_, line)| line.trim() != "#[cfg(test)]");
    lines.map(|(number, line)| (number + 1, line)).filter(|(_, line)| !line.trim_start().starts_with("//"))
}

/// Whether `path` holds nothing but tests.
fn is_test(path: &str) -> bool {
    path.starts_with("tests/")
        || path.contains("/tests/")
        || path.ends_with("/tests.rs")
        || path.ends_with("/fake.rs")
        || path.contains("/examples/")
}

fn check(rule: &str, breaches: &[String]) {
    assert!(breaches.is_empty(), "{rule}:\n  {}", breaches.join("\n  "));
}

/// Every line of code under `rooms` that holds one of `words`, except in the files `but`.
fn mentions(rooms: &[&str], words: &[&str], but: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources() {
        let path = source.path.as_str();
        let inside = rooms.iter().any(|room| path.starts_with(room));
        if !inside || is_test(path) || but.iter().any(|exempt| path.starts_with(exempt)) {
            continue;
        }
        for (number, line) in code(&source) {
            if let Some(word) = words.iter().find(|word| line.contains(**word)) {
                found.push(format!("{path}:{number}: `{word}`"));
            }
        }
    }
    found
}

#[test]
fn every_file_says_why_it_exists() {
    let silent: Vec<String> = sources()
        .iter()
        .filter(|source| !source.text.starts_with("//!"))
        .map(|source| source.path.clone())
        .collect();
    check("a file starts with `//!` and says why it exists", &silent);
}

#[test]
fn no_file_is_a_corridor() {
    let long: Vec<String> = sources()
        .iter()
        .filter(|source| !is_test(&source.path))
        .map(|source| {
            let lines = source.text.lines().take_while(|line| line.trim() != "#[cfg(test)]").count();
            (lines, &source.path)
        })
        .filter(|(lines, _)| *lines > LONGEST_FILE)
        .map(|(lines, path)| format!("{path}: {lines} lines"))
        .collect();
    check("a file has at most 500 lines outside its tests; which idea wants a room of its own?", &long);
}

#[test]
fn what_decides_is_pure() {
    let impure = [
        "async fn",
        "async move",
        "tokio::",
        "std::fs",
        "::now()",
        "Instant",
        "SystemTime",
        "rand::",
        "fastrand",
        "getrandom",
        "HashMap",
        "HashSet",
        "std::net::Tcp",
        "std::env",
        "std::process",
    ];
    let rooms = [
        "model/src/",
        "compose/src/",
        "orchestrator/src/plan",
        "agent/src/plan",
        "agent/src/route.rs",
        "agent/src/proxy/pick",
    ];
    let breaches = mentions(&rooms, &impure, &["compose/src/disk.rs"]);
    check(
        "planning, the model and the manifest do no IO and know no clock, no dice and no hash maps",
        &breaches,
    );
}

#[test]
fn libraries_stay_in_their_rooms() {
    let everywhere = ["model/", "compose/", "api/", "orchestrator/", "agent/", "cli/"];
    let rooms: BTreeMap<&str, Vec<&str>> = BTreeMap::from([
        ("bollard", vec!["agent/src/runtime/", "cli/src/build", "cli/src/doctor/look/engine.rs"]),
        ("sled::", vec!["orchestrator/src/store/"]),
        (
            "axum",
            vec![
                "api/",
                "orchestrator/src/rest",
                "orchestrator/src/app",
                "agent/src/http",
                "agent/src/app",
                "agent/src/link",
                "agent/src/image",
                "agent/src/peer",
            ],
        ),
        ("clap", vec!["cli/src/"]),
        (
            "rustls",
            vec![
                "api/src/tls",
                "api/src/serve",
                "api/src/transport.rs",
                "orchestrator/src/app/entrance.rs",
                "agent/src/peer",
            ],
        ),
        ("h2", vec!["agent/src/peer"]),
        ("println!", vec!["cli/src/render"]),
    ]);
    for (library, allowed) in rooms {
        let word = format!("{library}{}", if library.ends_with([':', '!']) { "" } else { "::" });
        let breaches = mentions(&everywhere, &[&word], &allowed);
        check(&format!("`{library}` is used only in {allowed:?}"), &breaches);
    }
}

#[test]
fn crates_point_one_way() {
    let allowed: BTreeMap<&str, Vec<&str>> = BTreeMap::from([
        ("model", vec![]),
        ("compose", vec!["tug-model"]),
        ("api", vec!["tug-model"]),
        ("orchestrator", vec!["tug-api", "tug-model"]),
        ("agent", vec!["tug-api", "tug-model"]),
        ("cli", vec!["tug-agent", "tug-api", "tug-compose", "tug-model", "tug-orchestrator"]),
        ("xtask", vec![]),
    ]);
    let mut breaches = Vec::new();
    for (name, allowed) in allowed {
        let manifest = fs::read_to_string(root().join(name).join("Cargo.toml")).unwrap();
        let uses = manifest.lines().filter_map(|line| line.split(['.', ' ', '=']).next());
        for used in uses.filter(|used| used.starts_with("tug-")) {
            if !allowed.contains(&used) {
                breaches.push(format!("{name} uses {used}"));
            }
        }
    }
    check("arrows between crates point at what is used, never back", &breaches);
}

#[test]
fn modules_point_one_way() {
    let forbidden = [
        (
            "orchestrator/src/plan",
            ["crate::store", "crate::control", "crate::rest", "crate::nodes", "crate::app"],
        ),
        (
            "orchestrator/src/store",
            ["crate::plan", "crate::control", "crate::rest", "crate::nodes", "crate::app"],
        ),
        ("orchestrator/src/rest", ["crate::app", "-", "-", "-", "-"]),
        ("orchestrator/src/control", ["crate::rest", "crate::app", "-", "-", "-"]),
        ("orchestrator/src/nodes", ["crate::rest", "crate::app", "crate::control", "-", "-"]),
        ("agent/src/plan", ["crate::control", "crate::app", "crate::link", "crate::http", "crate::proxy"]),
        ("agent/src/runtime", ["crate::control", "crate::app", "crate::link", "crate::http", "crate::plan"]),
        ("agent/src/proxy", ["crate::control", "crate::app", "crate::link", "crate::http", "crate::plan"]),
        ("agent/src/peer", ["crate::control", "crate::app", "crate::link", "crate::http", "crate::proxy"]),
        ("agent/src/link", ["crate::control", "crate::app", "crate::runtime", "-", "-"]),
    ];
    let mut breaches = Vec::new();
    for (room, words) in forbidden {
        let words: Vec<&str> = words.into_iter().filter(|word| *word != "-").collect();
        breaches.extend(mentions(&[room], &words, &[]));
    }
    check("arrows between modules point at what is used, never back", &breaches);
}

#[test]
fn nothing_is_left_for_later() {
    let mut breaches = Vec::new();
    for source in sources().iter().filter(|source| !source.path.ends_with("it/tidy.rs")) {
        for (number, line) in source.text.lines().enumerate() {
            for word in ["todo!", "unimplemented!", "#[ignore", "#[should_panic", "dbg!", "FIXME", "TODO"] {
                if line.contains(word) {
                    breaches.push(format!("{}:{}: `{word}`", source.path, number + 1));
                }
            }
        }
    }
    check("no stub, no skipped test, no note to oneself", &breaches);
}

#[test]
fn the_architecture_document_names_every_room() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let mut missing = Vec::new();
    for krate in ["model", "compose", "api", "orchestrator", "agent", "cli", "tests", "xtask"] {
        for entry in fs::read_dir(root().join(krate).join("src")).unwrap() {
            let name = entry.unwrap().file_name().to_string_lossy().into_owned();
            let module = name.trim_end_matches(".rs");
            if !matches!(module, "lib" | "main" | "bin") && !text.contains(&format!("`{module}")) {
                missing.push(format!("{krate}/src/{name}"));
            }
        }
    }
    missing.sort();
    missing.dedup();
    check("ARCHITECTURE.md names every top-level module", &missing);
}

/// The tests of a file: `module::name`. A module is named like its file, or its folder where all of the file is tests.
fn tests_of(source: &Source) -> Vec<String> {
    let path = source.path.trim_end_matches(".rs").trim_end_matches("/tests");
    let module = path.rsplit('/').next().unwrap_or(path);
    let (mut tests, mut is_test) = (Vec::new(), false);
    for line in source.text.lines().map(str::trim) {
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            is_test = true;
        } else if let Some((_, name)) = line.split_once("fn ").filter(|_| is_test) {
            let name = name.split('(').next().unwrap_or(name);
            tests.push(format!("{module}::{name}"));
            is_test = false;
        }
    }
    tests
}

#[test]
fn every_fault_that_is_listed_names_tests_that_exist() {
    let mut tests: BTreeSet<String> = sources().iter().flat_map(tests_of).collect();
    tests.extend(Story::ALL.iter().map(|story| format!("Story::{story:?}")));
    let page = fs::read_to_string(root().join("docs/faults.md")).unwrap();
    let (mut breaches, mut rows) = (Vec::new(), 0);
    for (number, line) in page.lines().enumerate() {
        let Some((_, shown_by)) = line.trim_end_matches([' ', '|']).rsplit_once('|') else { continue };
        if matches!(shown_by.trim(), "shown by" | "---") {
            continue;
        }
        rows += 1;
        let named: Vec<&str> = shown_by.split('`').skip(1).step_by(2).collect();
        if named.is_empty() {
            breaches.push(format!("docs/faults.md:{}: no test", number + 1));
        }
        let missing = named.iter().filter(|name| !tests.contains(**name));
        breaches.extend(missing.map(|name| format!("docs/faults.md:{}: `{name}`", number + 1)));
    }
    assert!(rows > 30, "only {rows} faults found: is the test looking in the right place?");
    check("docs/faults.md names a test for each fault, and no other", &breaches);
    let untold: Vec<String> = Story::ALL
        .iter()
        .map(|story| format!("`Story::{story:?}`"))
        .filter(|story| !page.contains(story.as_str()))
        .collect();
    check("docs/faults.md names every story of the simulation", &untold);
}
