//! `${…}`: variables in the values of a manifest, put in after the YAML has been read, so that a value can never
//! change the shape of the file.

use std::collections::BTreeMap;

use crate::finding::Report;
use crate::tree::{Kind, Node, Scalar, Value, join};

/// How deep defaults may hold variables with defaults.
const DEEPEST: usize = 20;

/// The longest text that variables may make of a value.
const LONGEST: usize = 1 << 20;

/// What came of a text with variables in it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Expanded {
    pub(crate) text: String,
    /// The variables that are not set and have no default.
    pub(crate) unset: Vec<String>,
}

/// Puts variables into every text of the tree. Keys are left as they are.
pub(crate) fn interpolate(
    report: &Report,
    node: &mut Node,
    environment: &BTreeMap<String, String>,
    path: &str,
) {
    let place = node.place;
    match &mut node.value {
        Value::List(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                interpolate(report, item, environment, &format!("{path}[{index}]"));
            }
        }
        Value::Map(entries) => {
            for entry in entries {
                let inner = join(path, &entry.key);
                interpolate(report, &mut entry.value, environment, &inner);
            }
        }
        Value::Scalar(scalar) if scalar.kind == Kind::Text && scalar.text.contains('$') => {
            match expand(&scalar.text, environment) {
                Ok(expanded) => {
                    for name in expanded.unset {
                        let message = format!("the variable `{name}` is not set; an empty string is used");
                        report.warning(place, path, message);
                    }
                    replace(scalar, expanded.text);
                }
                Err(message) => report.broken(place, path, message),
            }
        }
        Value::Null | Value::Scalar(_) => {}
    }
}

fn replace(scalar: &mut Scalar, text: String) {
    if scalar.text != text {
        scalar.written = Some(std::mem::replace(&mut scalar.text, text));
    }
}

/// Expands every form that the Compose Specification knows.
pub(crate) fn expand(text: &str, environment: &BTreeMap<String, String>) -> Result<Expanded, String> {
    let mut expanded = Expanded::default();
    expand_into(text, environment, &mut expanded, 0)?;
    Ok(expanded)
}

fn expand_into(
    text: &str,
    environment: &BTreeMap<String, String>,
    out: &mut Expanded,
    depth: usize,
) -> Result<(), String> {
    if depth > DEEPEST {
        return Err(format!("variables are nested deeper than {DEEPEST}"));
    }
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.text.push_str(before);
        rest = if let Some(after) = after.strip_prefix('$') {
            out.text.push('$');
            after
        } else if let Some(after) = after.strip_prefix('{') {
            let end = closing_brace(after)
                .ok_or_else(|| format!("`${{{}` has no closing brace", crate::finding::printable(after)))?;
            let (inside, after) = after.split_at(end);
            substitute(inside, environment, out, depth)?;
            after.strip_prefix('}').unwrap_or(after)
        } else {
            let length = name_length(after);
            if length == 0 {
                return Err("a single `$` that begins no variable; write `$$` for a dollar sign".to_owned());
            }
            let (name, after) = after.split_at(length);
            put(name, environment, out);
            after
        };
        if out.text.len() > LONGEST {
            return Err("the value is longer than 1 MiB with its variables put in".to_owned());
        }
    }
    out.text.push_str(rest);
    Ok(())
}

/// `inside` is what stands between the braces.
fn substitute(
    inside: &str,
    environment: &BTreeMap<String, String>,
    out: &mut Expanded,
    depth: usize,
) -> Result<(), String> {
    let (name, operation) = inside.split_at(name_length(inside));
    if name.is_empty() {
        return Err(format!("`${{{inside}}}` names no variable; write `$$` for a dollar sign"));
    }
    let value = environment.get(name);
    let (needs_text, operator) = match operation.strip_prefix(':') {
        Some(operator) => (true, operator),
        None => (false, operation),
    };
    let is_there = value.is_some_and(|value| !needs_text || !value.is_empty());
    let mut characters = operator.chars();
    match (characters.next(), characters.as_str()) {
        (None, _) if !needs_text => put(name, environment, out),
        (Some('-' | '?'), _) if is_there => put(name, environment, out),
        (Some('-'), default) => expand_into(default, environment, out, depth + 1)?,
        (Some('+'), other) if is_there => expand_into(other, environment, out, depth + 1)?,
        (Some('+'), _) => {}
        (Some('?'), why) => {
            let mut reason = Expanded::default();
            expand_into(why, environment, &mut reason, depth + 1)?;
            let why = if reason.text.is_empty() { String::new() } else { format!(": {}", reason.text) };
            let state = if value.is_some() { "empty" } else { "not set" };
            return Err(format!("the variable `{name}` must have a value and is {state}{why}"));
        }
        _ => return Err(format!("`${{{inside}}}` is not a form of variable that Compose knows")),
    }
    Ok(())
}

fn put(name: &str, environment: &BTreeMap<String, String>, out: &mut Expanded) {
    match environment.get(name) {
        Some(value) => out.text.push_str(value),
        None => out.unset.push(name.to_owned()),
    }
}

fn name_length(text: &str) -> usize {
    let is_start = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if !is_start {
        return 0;
    }
    text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len())
}

/// Where the brace that was opened before `text` closes.
fn closing_brace(text: &str) -> Option<usize> {
    let mut open = 1_usize;
    let bytes = text.as_bytes();
    let mut before = 0;
    for (index, byte) in bytes.iter().enumerate() {
        match byte {
            b'{' if before == b'$' => open += 1,
            b'}' => open -= 1,
            _ => {}
        }
        if open == 0 {
            return Some(index);
        }
        before = *byte;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(text: &str) -> String {
        let environment = [("A", "a"), ("EMPTY", ""), ("LIST", "$x ${y}")];
        let environment = environment.map(|(key, value)| (key.to_owned(), value.to_owned()));
        match expand(text, &BTreeMap::from(environment)) {
            Ok(Expanded { text, unset }) if unset.is_empty() => text,
            Ok(Expanded { text, unset }) => format!("{text} (unset {})", unset.join(" ")),
            Err(message) => format!("error: {message}"),
        }
    }

    #[test]
    fn every_form_is_expanded() {
        let cases = [
            ("plain", "plain"),
            ("$A-${A}_$$A", "a-a_$A"),
            ("$A_B", " (unset A_B)"),
            ("${NO}", " (unset NO)"),
            ("${A:-d}${NO:-d}${EMPTY:-d}", "add"),
            ("${A-d}${NO-d}[${EMPTY-d}]", "ad[]"),
            ("${A:+r}[${NO:+r}][${EMPTY:+r}]", "r[][]"),
            ("${A+r}[${NO+r}]${EMPTY+r}", "r[]r"),
            ("${A:?w}${EMPTY?w}", "a"),
            ("${NO:-${EMPTY:-${A}b}}c", "abc"),
            ("${NO:-{\"x\": 1}", "{\"x\": 1"),
            ("$LIST", "$x ${y}"),
            ("${NO:-a:b-c?d}", "a:b-c?d"),
            ("é$A", "éa"),
        ];
        for (text, expected) in cases {
            assert_eq!(show(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_variable_is_an_error() {
        let cases = [
            ("${NO:?set it}", "the variable `NO` must have a value and is not set: set it"),
            ("${EMPTY:?}", "the variable `EMPTY` must have a value and is empty"),
            ("${NO?in $A}", "the variable `NO` must have a value and is not set: in a"),
            ("$", "a single `$` that begins no variable; write `$$` for a dollar sign"),
            ("a $1", "a single `$` that begins no variable; write `$$` for a dollar sign"),
            ("${A", "`${A` has no closing brace"),
            ("${}", "`${}` names no variable; write `$$` for a dollar sign"),
            ("${A!x}", "`${A!x}` is not a form of variable that Compose knows"),
            ("${A:x}", "`${A:x}` is not a form of variable that Compose knows"),
            ("${A:}", "`${A:}` is not a form of variable that Compose knows"),
        ];
        for (text, expected) in cases {
            assert_eq!(show(text), format!("error: {expected}"), "{text}");
        }
        let deep = format!("{}x{}", "${NO:-".repeat(100), "}".repeat(100));
        assert!(show(&deep).contains("nested deeper than"));
    }
}
