//! Text made line by line.

/// Adds a line to `text`, without what would be invisible at its end.
pub(crate) fn add(text: &mut String, line: &str) {
    text.push_str(line.trim_end());
    text.push('\n');
}

/// So many of something: `1 task`, `2 tasks`.
pub(crate) fn many(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_not_many() {
        assert_eq!([0, 1, 2].map(|count| many(count, "task")), ["0 tasks", "1 task", "2 tasks"]);
    }
}
