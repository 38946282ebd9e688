//! Text made line by line.

/// Adds a line to `text`, without what would be invisible at its end.
pub(crate) fn add(text: &mut String, line: &str) {
    text.push_str(line.trim_end());
    text.push('\n');
}
