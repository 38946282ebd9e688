//! JSON and YAML for tools: everything, uncut, and still safe to look at on a terminal.

use std::fmt::Write;

use serde::Serialize;

use super::escape::is_harmful;
use crate::arguments::Format;
use crate::failure::Failure;

/// `value` in the format that was asked for; `table` makes the two for people, and is told whether it is the wide one.
pub(crate) fn listed<T: Serialize + ?Sized>(
    value: &T,
    format: Format,
    table: impl FnOnce(bool) -> String,
) -> Result<String, Failure> {
    match format {
        Format::Table => Ok(table(false)),
        Format::Wide => Ok(table(true)),
        Format::Json => json(value),
        Format::Yaml => yaml(value),
    }
}

/// `value` as indented JSON with a line end.
pub(crate) fn json<T: Serialize + ?Sized>(value: &T) -> Result<String, Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|error| Failure::caused("write JSON", &error))?;
    Ok(escaped(&text, |c| c == '\n'))
}

/// `value` as one line of JSON.
pub(crate) fn json_line<T: Serialize + ?Sized>(value: &T) -> Result<String, Failure> {
    let text = serde_json::to_string(value).map_err(|error| Failure::caused("write JSON", &error))?;
    Ok(escaped(&text, |_| false))
}

/// `value` as YAML.
pub(crate) fn yaml<T: Serialize + ?Sized>(value: &T) -> Result<String, Failure> {
    serde_yaml::to_string(value).map_err(|error| Failure::caused("write YAML", &error))
}

/// JSON leaves C1 and bidirectional controls as they are; they can only stand within strings, where an escape means
/// the same.
fn escaped(json: &str, keep: impl Fn(char) -> bool) -> String {
    let mut text = String::with_capacity(json.len() + 1);
    for c in json.chars() {
        if is_harmful(c) && !keep(c) {
            write!(text, "\\u{:04x}", u32::from(c)).expect("a String takes everything");
        } else {
            text.push(c);
        }
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_means_the_same_and_is_harmless() {
        let value = vec!["a\u{1b}\u{9b}\u{202e}ü\n"];
        for text in [json(&value).unwrap(), json_line(&value).unwrap()] {
            assert!(text.chars().all(|c| !is_harmful(c) || c == '\n'), "{text:?}");
            assert_eq!(serde_json::from_str::<Vec<String>>(&text).unwrap(), value);
        }
        assert_eq!(json_line(&value).unwrap().lines().count(), 1);
    }

    #[test]
    fn yaml_means_the_same_and_is_harmless() {
        let value = vec!["a\u{1b}\u{9b}ü\n- x"];
        let text = yaml(&value).unwrap();
        assert!(!text.contains('\u{1b}') && !text.contains('\u{9b}'), "{text:?}");
        assert_eq!(serde_yaml::from_str::<Vec<String>>(&text).unwrap(), value);
    }
}
