//! Files of `KEY=value` lines: `.env` and `env_file`, as Compose reads them.

use std::collections::BTreeMap;

use tug_model::spec::rule;

use crate::interpolate::expand;

/// How values are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Format {
    /// Quotes are taken off, variables put in.
    #[default]
    Dotenv,
    /// Everything after the `=` is the value.
    Raw,
}

/// One line that is wrong.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BadLine {
    pub(crate) line: u32,
    pub(crate) message: String,
}

/// Reads the file. A key without `=` takes its value from `environment`. Variables in values are looked up in
/// `environment` first, then in the lines above.
pub(crate) fn parse(
    text: &str,
    format: Format,
    environment: &BTreeMap<String, String>,
) -> Result<Vec<(String, String)>, Vec<BadLine>> {
    let mut reader = Reader { rest: text.strip_prefix('\u{feff}').unwrap_or(text), line: 1 };
    let mut found = Vec::new();
    let mut bad = Vec::new();
    let mut known = environment.clone();
    while !reader.rest.is_empty() {
        let line = reader.line;
        match reader.next(format, &known) {
            Ok(None) => {}
            Ok(Some((key, value))) => {
                let Some(value) = value.or_else(|| environment.get(&key).cloned()) else { continue };
                if value.contains('\0') {
                    bad.push(BadLine {
                        line,
                        message: format!("the value of `{key}` holds a NUL character"),
                    });
                    continue;
                }
                known.entry(key.clone()).or_insert_with(|| value.clone());
                found.push((key, value));
            }
            Err(message) => {
                bad.push(BadLine { line, message });
                if bad.len() >= 20 {
                    break;
                }
            }
        }
    }
    if bad.is_empty() { Ok(found) } else { Err(bad) }
}

struct Reader<'a> {
    rest: &'a str,
    line: u32,
}

impl<'a> Reader<'a> {
    /// The next line; with a quoted value, as many lines as it has.
    fn next(
        &mut self,
        format: Format,
        known: &BTreeMap<String, String>,
    ) -> Result<Option<(String, Option<String>)>, String> {
        let whole = self.rest.split('\n').next().unwrap_or_default();
        let trimmed = whole.trim();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            self.skip(whole.len());
            return Ok(None);
        }
        let line = trimmed.strip_prefix("export ").map_or(trimmed, str::trim_start);
        let separator = line.find(['=', ':']).filter(|_| format == Format::Dotenv).or_else(|| line.find('='));
        let Some(at) = separator else {
            self.skip(whole.len());
            return rule::variable_name(line).map(|()| Some((line.to_owned(), None)));
        };
        let key = line.get(..at).unwrap_or_default().trim_end();
        let value = line.get(at + 1..).unwrap_or_default();
        if let Err(message) = rule::variable_name(key) {
            self.skip(whole.len());
            return Err(message);
        }
        let value = match format {
            Format::Raw => {
                self.skip(whole.len());
                value.to_owned()
            }
            Format::Dotenv => self.value(whole, value.trim_start(), known)?,
        };
        Ok(Some((key.to_owned(), Some(value))))
    }

    fn value(
        &mut self,
        whole: &'a str,
        value: &str,
        known: &BTreeMap<String, String>,
    ) -> Result<String, String> {
        let Some(quote) = value.chars().next().filter(|c| matches!(c, '"' | '\'')) else {
            self.skip(whole.len());
            let bare = value.find(" #").map_or(value, |at| value.get(..at).unwrap_or_default());
            let bare = if bare.starts_with('#') { "" } else { bare };
            return expand(bare.trim_end(), known).map(|expanded| expanded.text);
        };
        // The line ends with the value, so the quote stands as far from its end as the value is long.
        let from = whole.trim_end().len() - value.len() + 1;
        let after = self.rest.get(from..).unwrap_or_default();
        let Some(end) = closing(after, quote) else {
            self.skip(whole.len());
            return Err(format!("the quote {quote} is never closed"));
        };
        let inside = after.get(..end).unwrap_or_default();
        let behind = after.get(end + 1..).and_then(|text| text.split('\n').next()).unwrap_or_default();
        self.skip(from + end + 1 + behind.len());
        if !(behind.trim().is_empty() || behind.trim_start().starts_with('#')) {
            return Err("there is something after the closing quote".to_owned());
        }
        if quote == '\'' {
            return Ok(inside.to_owned());
        }
        expand(&unescape(inside), known).map(|expanded| expanded.text)
    }

    /// Goes on behind `length` bytes and the end of the line after them.
    fn skip(&mut self, length: usize) {
        let (over, rest) = self.rest.split_at_checked(length).unwrap_or((self.rest, ""));
        let breaks = over.matches('\n').count() + usize::from(rest.starts_with('\n'));
        self.line = self.line.saturating_add(u32::try_from(breaks).unwrap_or(u32::MAX));
        self.rest = rest.strip_prefix('\n').unwrap_or(rest);
    }
}

fn closing(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    for (index, c) in text.char_indices() {
        if c == quote && !escaped {
            return Some(index);
        }
        escaped = c == '\\' && !escaped && quote == '"';
    }
    None
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match characters.next() {
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('t') => out.push('\t'),
            Some('$') => out.push_str("$$"),
            Some(c @ ('"' | '\\')) => out.push(c),
            Some(other) => out.extend(['\\', other]),
            None => out.push('\\'),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(text: &str, format: Format) -> String {
        let environment = BTreeMap::from([("HOST".to_owned(), "h".to_owned())]);
        match parse(text, format, &environment) {
            Ok(pairs) => pairs.iter().map(|(k, v)| format!("{k}={v:?}")).collect::<Vec<_>>().join(" "),
            Err(bad) => {
                bad.iter().map(|bad| format!("{}: {}", bad.line, bad.message)).collect::<Vec<_>>().join("\n")
            }
        }
    }

    #[test]
    fn every_form_of_line_is_read() {
        let text = "# c\n\nA=1\nexport B = two words # c\nC=\"x\\n$A ${NO:-d} \\$A \\\"q\\\"\" # c\nD='$A # not'\nE=\nHOST\nNO\n\
                    F=a#b\nG=\"one\ntwo\"\nH=$HOST\nI: yaml\r\nJ=#c\n";
        assert_eq!(
            show(text, Format::Dotenv),
            r#"A="1" B="two words" C="x\n1 d $A \"q\"" D="$A # not" E="" HOST="h" F="a#b" G="one\ntwo" H="h" I="yaml" J="""#
        );
        assert_eq!(show("A='x' # y\nB=$Z\n", Format::Raw), r#"A="'x' # y" B="$Z""#);
    }

    #[test]
    fn wrong_lines_are_named() {
        let text = "A=1\n=x\nB C=1\nF=a\0b\nD=\"x\nE='a'b\n";
        assert_eq!(
            show(text, Format::Dotenv),
            "2: the name of the variable is empty\n\
             3: the name of the variable `B C` holds the character ` `\n\
             4: the value of `F` holds a NUL character\n\
             5: the quote \" is never closed\n\
             6: there is something after the closing quote"
        );
    }
}
