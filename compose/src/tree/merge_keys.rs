//! `<<`: the keys of other maps, where a map has none of that name itself. Children first, so that a merged map has
//! its own merge keys resolved already. Keys that stand twice in one map are reported here.

use std::collections::{BTreeMap, BTreeSet};

use super::{Entry, Node, Value};
use crate::finding::Report;

/// Resolves merge keys in the whole tree.
pub(crate) fn resolve(report: &Report, node: &mut Node, path: &str) {
    match &mut node.value {
        Value::Null | Value::Scalar(_) => {}
        Value::List(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                resolve(report, item, &format!("{path}[{index}]"));
            }
        }
        Value::Map(entries) => {
            for entry in entries.iter_mut() {
                let inner = join(path, &entry.key);
                resolve(report, &mut entry.value, &inner);
            }
            refuse_duplicates(report, entries, path);
            if entries.iter().any(|entry| entry.key == "<<") {
                *entries = merged(report, std::mem::take(entries), path);
            }
        }
    }
}

/// `path` and one more key.
pub(crate) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn refuse_duplicates(report: &Report, entries: &[Entry], path: &str) {
    let mut first = BTreeMap::new();
    for entry in entries {
        if let Some(line) = first.insert(entry.key.as_str(), entry.place.line) {
            let message = format!("the key `{}` is here again, after line {line}", entry.key);
            report.error_with_hint(entry.place, &join(path, &entry.key), message, "keep one of the two");
        }
    }
}

/// The map's own entries in their order, then those of the merged maps, the first that has a key winning.
fn merged(report: &Report, entries: Vec<Entry>, path: &str) -> Vec<Entry> {
    let (merges, mut result): (Vec<Entry>, Vec<Entry>) = entries.into_iter().partition(|e| e.key == "<<");
    let mut have: BTreeSet<String> = result.iter().map(|entry| entry.key.clone()).collect();
    for merge in merges {
        let maps = match merge.value.value {
            Value::List(items) => items,
            Value::Map(_) | Value::Null | Value::Scalar(_) => vec![merge.value],
        };
        for map in maps {
            let shown = map.shown();
            match map.value {
                Value::Map(inner) => {
                    result.extend(inner.into_iter().filter(|entry| have.insert(entry.key.clone())));
                }
                Value::Null => {}
                Value::Scalar(_) | Value::List(_) => {
                    let message = format!("`<<` merges maps, not {shown}");
                    let hint = "YAML cannot merge lists: write the items out";
                    report.error_with_hint(merge.place, &join(path, "<<"), message, hint);
                }
            }
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{parse, shape};

    #[test]
    fn merges_are_resolved_children_first() {
        let text = "
a: &a {one: 1, two: 2}
b: &b {<<: *a, two: 22}
c: {<<: *b, three: 3}
d:
  <<: [{x: 1}, *b]
  x: 9
e: {<<: null, y: 1}
";
        let report = Report::new(BTreeSet::new());
        let file = report.file("t");
        let mut tree = parse(&report, file, text.as_bytes()).unwrap();
        resolve(&report, &mut tree, "");
        assert_eq!(
            shape(&tree),
            "{a: {one: 1, two: 2}, b: {two: 22, one: 1}, c: {three: 3, two: 22, one: 1}, \
             d: {x: 9, two: 22, one: 1}, e: {y: 1}}"
        );
        assert!(report.into_findings().is_empty());
    }

    #[test]
    fn a_key_twice_and_a_merged_list_are_errors_with_their_lines() {
        let text = "a: 1\nb: &b [1]\nc:\n  <<: *b\na: 2\n";
        let report = Report::new(BTreeSet::new());
        let file = report.file("t");
        let mut tree = parse(&report, file, text.as_bytes()).unwrap();
        resolve(&report, &mut tree, "");
        let lines: Vec<String> = report.into_findings().iter().map(ToString::to_string).collect();
        assert_eq!(
            lines,
            [
                "error: t:4:3: c.<<: `<<` merges maps, not 1, YAML cannot merge lists: write the items out",
                "error: t:5:1: a: the key `a` is here again, after line 1, keep one of the two",
            ]
        );
    }
}
