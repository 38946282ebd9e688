//! `.dockerignore`, as Docker reads it.
//!
//! - One pattern a line, seen from the root of the context; a leading `/` and a trailing `/` mean nothing. Lines that
//!   begin with `#` are comments.
//! - `*` and `?` stay within one name, `**` goes across any number of folders, `[a-z]` and `\` are as in a shell;
//!   braces are ordinary characters.
//! - A pattern that matches a folder excludes everything in it.
//! - `!pattern` takes back what earlier lines excluded; the last line that matches decides.

use globset::{GlobBuilder, GlobMatcher};

/// Which files of a context are not sent.
#[derive(Debug, Default)]
pub(crate) struct Ignore {
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    matcher: GlobMatcher,
    pattern: String,
    exception: bool,
}

/// Why a line is no pattern.
#[derive(Debug, thiserror::Error)]
#[error("line {line}: `{pattern}` is not a pattern")]
pub(crate) struct BadPattern {
    line: usize,
    pattern: String,
    #[source]
    source: globset::Error,
}

// === impl Ignore ===

impl Ignore {
    /// Reads the text of a `.dockerignore`.
    pub(crate) fn parse(text: &str) -> Result<Self, BadPattern> {
        let mut rules = Vec::new();
        for (number, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
            if line.starts_with('#') {
                continue;
            }
            let line = line.trim();
            let (exception, pattern) = match line.strip_prefix('!') {
                Some(pattern) => (true, pattern.trim()),
                None => (false, line),
            };
            let pattern = clean(pattern);
            if pattern.is_empty() {
                continue;
            }
            let matcher = GlobBuilder::new(&without_braces(&pattern))
                .literal_separator(true)
                .backslash_escape(true)
                .build()
                .map_err(|source| BadPattern { line: number + 1, pattern: line.to_owned(), source })?
                .compile_matcher();
            rules.push(Rule { matcher, pattern, exception });
        }
        Ok(Self { rules })
    }

    /// Whether the file or folder at `path`, seen from the context with `/` between names, is left out.
    pub(crate) fn excludes(&self, path: &str) -> bool {
        let mut excluded = false;
        for rule in &self.rules {
            // Only a rule that could change the answer is worth asking.
            if rule.exception == excluded && rule.matches(path) {
                excluded = !rule.exception;
            }
        }
        excluded
    }

    /// Whether nothing under `folder`, which is excluded, can be taken back by an exception.
    pub(crate) fn excludes_all_of(&self, folder: &str) -> bool {
        let inside = format!("{folder}/");
        self.rules
            .iter()
            .filter(|rule| rule.exception)
            .all(|rule| !rule.pattern.starts_with(&inside) && !rule.pattern.contains(['*', '?', '[', '\\']))
    }
}

impl Rule {
    /// Whether it matches `path` or a folder that `path` is in.
    fn matches(&self, path: &str) -> bool {
        let folders = path.match_indices('/').filter_map(|(end, _)| path.get(..end));
        self.matcher.is_match(path) || folders.into_iter().any(|folder| self.matcher.is_match(folder))
    }
}

/// The pattern without `.`, `..`, double and outer slashes.
fn clean(pattern: &str) -> String {
    let mut names: Vec<&str> = Vec::new();
    for name in pattern.split('/') {
        match name {
            "" | "." => {}
            ".." => {
                names.pop();
            }
            name => names.push(name),
        }
    }
    names.join("/")
}

/// Braces mean alternatives to the glob matcher, and nothing to Docker.
fn without_braces(pattern: &str) -> String {
    let mut escaped = String::with_capacity(pattern.len());
    let mut after_backslash = false;
    for c in pattern.chars() {
        match c {
            '{' | '}' if !after_backslash => escaped.extend(['[', c, ']']),
            c => escaped.push(c),
        }
        after_backslash = c == '\\' && !after_backslash;
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left_out(text: &str, paths: &[&'static str]) -> Vec<&'static str> {
        let ignore = Ignore::parse(text).unwrap();
        paths.iter().copied().filter(|path| ignore.excludes(path)).collect()
    }

    #[test]
    fn stars_stay_within_a_name_and_double_stars_do_not() {
        let paths = ["a.log", "x/a.log", "x/y/a.log"];
        assert_eq!(left_out("*.log", &paths), ["a.log"]);
        assert_eq!(left_out("*/*.log", &paths), ["x/a.log"]);
        assert_eq!(left_out("**/*.log", &paths), paths);
        assert_eq!(left_out("x/**", &paths), ["x/a.log", "x/y/a.log"]);
        assert_eq!(left_out("?.log", &paths), ["a.log"]);
    }

    #[test]
    fn a_folder_takes_its_content_along() {
        let paths = ["node_modules", "node_modules/a/b.js", "src/node_modules/c.js"];
        assert_eq!(left_out("node_modules", &paths), ["node_modules", "node_modules/a/b.js"]);
        assert_eq!(left_out("/node_modules/", &paths), ["node_modules", "node_modules/a/b.js"]);
        assert_eq!(left_out("./x/../node_modules", &paths).len(), 2);
        assert_eq!(left_out("**/node_modules", &paths), paths);
    }

    #[test]
    fn the_last_line_that_matches_decides() {
        let paths = ["README.md", "docs/a.md", "docs/keep/b.md"];
        assert_eq!(left_out("*.md\n!README.md", &paths), Vec::<&str>::new());
        assert_eq!(left_out("!README.md\n*.md", &paths), ["README.md"]);
        assert_eq!(left_out("docs\n!docs/keep", &paths), ["docs/a.md"]);
        assert_eq!(left_out("**\n!docs/**\ndocs/keep", &paths), ["README.md", "docs/keep/b.md"]);
    }

    #[test]
    fn comments_empty_lines_and_odd_characters() {
        let paths = ["#a", "{a,b}", "a", "b", "x y", "[z]"];
        assert_eq!(left_out("\u{feff}# a comment\n\n  \n.\n", &paths), Vec::<&str>::new());
        assert_eq!(left_out("{a,b}", &paths), ["{a,b}"]);
        assert_eq!(left_out("  x y  ", &paths), ["x y"]);
        assert_eq!(left_out(r"\[z\]", &paths), ["[z]"]);
        assert_eq!(left_out("[a-b]", &paths), ["a", "b"]);
        assert_eq!(left_out("[^a]", &paths), ["b"]);
        assert_eq!(left_out(r"\#a", &paths), ["#a"]);
    }

    #[test]
    fn a_bad_pattern_is_named() {
        let error = Ignore::parse("ok\n[a").unwrap_err();
        assert_eq!(error.to_string(), "line 2: `[a` is not a pattern");
    }

    #[test]
    fn a_folder_is_skipped_only_if_nothing_in_it_comes_back() {
        assert!(Ignore::parse("target\n!src/x").unwrap().excludes_all_of("target"));
        assert!(!Ignore::parse("target\n!target/keep").unwrap().excludes_all_of("target"));
        assert!(!Ignore::parse("target\n!**/keep").unwrap().excludes_all_of("target"));
    }
}
