//! Text from servers and containers, made safe for a terminal: what it holds is shown, never obeyed.

/// One line: every control character and every character that turns the direction of the text is written out.
pub(crate) fn printable(text: &str) -> String {
    escape(text, |c| c == '\t')
}

/// The same, but lines stay lines.
pub(crate) fn printable_lines(text: &str) -> String {
    escape(text, |c| matches!(c, '\t' | '\n'))
}

fn escape(text: &str, keep: impl Fn(char) -> bool) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if !is_harmful(c) || keep(c) {
            shown.push(c);
        } else {
            shown.extend(c.escape_default());
        }
    }
    shown
}

/// Whether `c` changes how a terminal shows what follows: C0, C1, DEL, and the bidirectional overrides.
pub(crate) fn is_harmful(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_shown() {
        assert_eq!(printable("plain – ünïcödé\t✓"), "plain – ünïcödé\t✓");
        assert_eq!(
            printable("a\u{1b}]0;title\u{7}b\r\nc\u{9b}1m\u{7f}"),
            r"a\u{1b}]0;title\u{7}b\r\nc\u{9b}1m\u{7f}"
        );
        assert_eq!(printable("\u{202e}evil"), r"\u{202e}evil");
        assert_eq!(printable_lines("a\n\u{1b}b"), "a\n\\u{1b}b");
    }
}
