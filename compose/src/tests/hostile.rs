//! Input that is meant to hurt: refused with a place, and early. What would take long would take minutes here, and
//! the budgets are counted, not timed.

use super::{disk, findings, load_from, load_text};
use crate::PathKind;

#[track_caller]
fn refused(text: impl Into<Vec<u8>>, message: &str) {
    let outcome = load_text(text);
    let said = findings(&outcome);
    assert!(outcome.project.is_none() && said.contains(message), "wanted {message}, got {said:.300}");
}

fn lines(range: std::ops::Range<usize>, line: impl Fn(usize) -> String) -> String {
    range.map(line).collect::<Vec<_>>().concat()
}

#[test]
fn files_that_hold_nothing() {
    for empty in ["", "\n\n", "# only a comment\n", "---\n", "null"] {
        refused(empty, "error: 1:1: the file is empty: it holds no services");
    }
    refused("services:\n", "error: 1:1: the manifest holds no services");
    refused("services: {}\n", "the manifest holds no services");
    refused("name: x\n", "the manifest holds no services");
    refused("just text", "expected a map (the manifest), got \"just text\"");
    refused("- a\n", "expected a map (the manifest), got a list");
    refused("services: [web]\n", "services: expected a map, got a list");
}

#[test]
fn files_that_are_no_text() {
    refused([0xff], "error: 1:1: byte 0xff is not UTF-8");
    refused([0xff, 0xfe, b'a', 0], "the file is UTF-16; save it as UTF-8");
    refused([0x7f, b'E', b'L', b'F', 1, 0, 0xf0], "is not UTF-8");
    let outcome = load_text("\u{feff}services:\n  web: {image: nginx}\n");
    assert!(outcome.project.is_some(), "a byte order mark is accepted: {}", findings(&outcome));
}

#[test]
fn aliases_that_explode() {
    let bomb = lines(1..30, |n| format!("a{n}: &a{n} [{}]\n", vec![format!("*a{}", n - 1); 9].join(", ")));
    let bomb = format!("a0: &a0 [x, x, x, x, x, x, x, x, x]\n{bomb}");
    let merges = lines(1..30, |n| format!("b{n}: &b{n} {{<<: [*b{0}, *b{0}], k{n}: *b{0}}}\n", n - 1));
    let merges = format!("b0: &b0 {{k: v}}\n{merges}");
    refused(bomb, "the aliases expand to more than 100000 values");
    refused(merges, "the aliases expand to more than 100000 values");
    refused("a: &a {b: *a}\n", "error: 1:11: an alias contains itself");
}

#[test]
fn nesting_and_size() {
    refused("[".repeat(1_000_000), "nested deeper than 64");
    refused("{a: ".repeat(10_000), "nested deeper than 64");
    refused("- ".repeat(100_000), "nested deeper than 64");
    refused(format!("a: {}", "x".repeat(1 << 20)), "the file is larger than 1048576 bytes");
    refused("x,".repeat(400_000), "expected a map (the manifest)");
    let list = format!("services: {{web: {{image: a, command: [{}]}}}}", "x,".repeat(100_000));
    refused(list, "a list of more than 2000 items");
    let many = lines(0..5000, |number| format!("  s{number}: {{image: a}}\n"));
    refused(format!("services:\n{many}"), "a map of more than 2000 keys");
    refused(format!("? {}\n: x\n", "k".repeat(5000)), "a key is longer than 1024 bytes");
}

#[test]
fn services_that_extend_each_other_without_end() {
    refused("services: {a: {extends: b}, b: {extends: a}}", "the services extend each other: a -> b -> a");
    let chain = lines(1..1900, |number| format!("  s{number}: {{extends: s{}}}\n", number + 1));
    refused(format!("services:\n{chain}  s1900: {{image: a}}\n"), "a chain of more than 20 services");
    let wide = lines(0..1500, |number| format!("K{number}: v, "));
    let many = lines(0..1900, |number| format!("  s{number}: {{extends: base}}\n"));
    let text = format!("services:\n  base: {{image: a, environment: {{{wide}}}}}\n{many}");
    refused(text, "services that are extended add up to more than 200000 values");
}

#[test]
fn variables_that_explode() {
    let deep = format!("services: {{web: {{image: \"{}x{}\"}}}}", "${B:-".repeat(5000), "}".repeat(5000));
    refused(deep, "variables are nested deeper than 20");
    let long = format!("services: {{web: {{image: a, user: \"{}\"}}}}", "$LONG".repeat(10_000));
    let outcome = load_from(&disk(long), |request| {
        request.environment.insert("LONG".to_owned(), "x".repeat(10_000));
    });
    assert!(findings(&outcome).contains("longer than 1 MiB"), "{:.300}", findings(&outcome));
}

#[test]
fn what_is_no_regular_file_is_never_opened() {
    let text =
        "services: {web: {image: a, env_file: ./fifo, configs: [c]}}\nconfigs: {c: {file: /dev/zero}}\n";
    let disk = disk(text).with_kind("/p/fifo", PathKind::Special).with_kind("/dev/zero", PathKind::Special);
    let said = findings(&load_from(&disk, |_| {}));
    assert_eq!(said.matches("this is a pipe, device or socket, not a regular file").count(), 2, "{said}");
    let special = super::MemoryDisk::default().with_kind("/p/compose.yaml", PathKind::Special);
    let said = findings(&load_from(&special, |_| {}));
    assert!(said.contains("this is a pipe, device or socket, not a regular file"), "{said}");
}

#[test]
fn names_that_attack() {
    let too_long = "a".repeat(64);
    for name in [
        "",
        "-a",
        "A b",
        "..",
        "a/../b",
        &too_long,
        "\u{e9}",
        "$(id)",
        "a;rm",
        "\\e[1m",
        "\\0",
        "all",
        "self",
        "localhost",
    ] {
        let text = format!("services:\n  \"{name}\": {{image: a}}\n");
        let said = findings(&load_text(text.as_str()));
        assert!(
            said.starts_with("error: 2:3: services.") && said.contains("is not a valid service name"),
            "{said}"
        );
        assert!(said.chars().all(|c| !c.is_control()), "{said:?}");
    }
    for name in ["../x", "", "UP", "a b"] {
        let text = format!("name: \"{name}\"\nservices: {{web: {{image: a}}}}\n");
        refused(text, "error: 1:7: name: ");
    }
}

#[test]
fn a_finding_never_carries_control_characters() {
    let outcome = load_text("services: {web: {image: \"a\\e]0;x\\a b\", user: \"\\u202e\", \"p\\e[1m\": 1}}");
    let said = findings(&outcome);
    assert!(said.contains("\\u{1b}"), "{said}");
    assert!(said.chars().all(|c| !c.is_control() || c == '\n'), "{said:?}");
}
