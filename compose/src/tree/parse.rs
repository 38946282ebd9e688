//! Text to tree. The YAML reader is given budgets, so that hostile input is refused early and cheaply.

use std::cell::Cell;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_saphyr::budget::BudgetBreach;
use serde_saphyr::options::{AliasLimits, DuplicateKeyPolicy, MergeKeyPolicy};
use serde_saphyr::{Location, NonFiniteFloatPolicy, Options, Spanned, Tagged};

use super::{DEEPEST, Entry, Kind, Node, Place, Scalar, Tag, Value};
use crate::finding::Report;

/// The most values (scalars, lists, maps) that one file may hold after its aliases are followed.
const MOST_NODES: usize = 100_000;

/// The most items of one list and entries of one map. What follows compares them pair by pair here and there.
const MOST_ITEMS: usize = 2_000;

/// Reads one file. What is wrong with it as YAML is reported; then there is no tree.
pub(crate) fn parse(report: &Report, file: u16, bytes: &[u8]) -> Option<Node> {
    let start = Place { file, line: 0, column: 0 };
    let text = match decode(bytes) {
        Ok(text) => text,
        Err(bad) => {
            let place = Place { file, line: bad.line, column: bad.column };
            report.error(place, "", bad.message);
            return None;
        }
    };
    match read(text) {
        Ok(located) => build(report, Source { file, text }, located),
        Err(None) => {
            report.error(start, "", "there is no memory left to read the file with");
            None
        }
        Err(Some(error)) => {
            let place = error.location().map_or(start, |location| place(file, location));
            let (message, hint) = explain(&error, text, place.line);
            report.add(crate::Level::Error, (place, ""), &message, hint);
            None
        }
    }
}

/// Runs the reader on a stack of its own: it recurses for every level with frames of about 50 KiB in a debug build,
/// and what is left of the caller's stack is unknown.
fn read(text: &str) -> Result<Located, Option<serde_saphyr::Error>> {
    const STACK: usize = 16 << 20;
    std::thread::scope(|scope| {
        let job = || serde_saphyr::from_str_with_options::<Located>(text, options()).map_err(Some);
        let thread = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, job);
        thread.map_err(|_| None)?.join().unwrap_or(Err(None))
    })
}

type Located = Spanned<Tagged<Raw>>;

/// A value as the YAML reader hands it over. Numbers and booleans are cut out of the text again, so that `1.10`
/// stays `1.10`.
enum Raw {
    Null,
    Boolean(bool),
    Number(String),
    Text(String),
    List(Vec<Located>),
    Map(Vec<(Spanned<String>, Located)>),
}

/// The text that positions point into.
#[derive(Clone, Copy)]
struct Source<'a> {
    file: u16,
    text: &'a str,
}

/// Why bytes are not text.
struct NotText {
    line: u32,
    column: u32,
    message: String,
}

fn options() -> Options {
    let mut aliases = AliasLimits::default();
    aliases.max_total_replayed_events = MOST_NODES;
    let budget = serde_saphyr::budget! {
        max_depth: DEEPEST,
        flow_nesting_limit: DEEPEST,
        max_documents: 2,
        max_events: 3 * MOST_NODES,
        max_nodes: MOST_NODES,
        max_aliases: 10_000,
        max_anchors: 10_000,
        max_recorded_anchor_events: 10 * MOST_NODES,
        max_recorded_anchor_bytes: 32 << 20,
        enforce_alias_anchor_ratio: false,
    };
    serde_saphyr::options! {
        budget: budget,
        alias_limits: aliases,
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        merge_keys: MergeKeyPolicy::AsOrdinary,
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        non_finite_float_policy: NonFiniteFloatPolicy::AsString,
        with_snippet: false,
    }
}

/// UTF-8 with or without a byte order mark.
fn decode(bytes: &[u8]) -> Result<&str, NotText> {
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        let message = "the file is UTF-16; save it as UTF-8".to_owned();
        return Err(NotText { line: 1, column: 1, message });
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let good = bytes.get(..error.valid_up_to()).unwrap_or_default();
        let bad = bytes.get(error.valid_up_to()).copied().unwrap_or_default();
        let (line, column) = end_of(good);
        NotText { line, column, message: format!("byte 0x{bad:02x} is not UTF-8") }
    })?;
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
}

fn end_of(good: &[u8]) -> (u32, u32) {
    let text = String::from_utf8_lossy(good);
    let line = text.matches('\n').count() + 1;
    let column = text.rsplit('\n').next().map_or(0, |last| last.chars().count()) + 1;
    (u32::try_from(line).unwrap_or(u32::MAX), u32::try_from(column).unwrap_or(u32::MAX))
}

fn place(file: u16, location: Location) -> Place {
    let cut = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    Place { file, line: cut(location.line()), column: cut(location.column()) }
}

fn build(report: &Report, source: Source<'_>, located: Located) -> Option<Node> {
    let Spanned { value: Tagged(raw, tag), defined, .. } = located;
    let place = place(source.file, defined);
    let tag = match tag.as_deref() {
        None => None,
        Some("!reset") => Some(Tag::Reset),
        Some("!override") => Some(Tag::Override),
        Some(tag) if tag.starts_with("tag:yaml.org,2002:") || tag == "!" => None,
        Some(tag) => {
            report.error_with_hint(
                place,
                "",
                format!("unknown tag `{tag}`"),
                "remove it, or quote the value",
            );
            return None;
        }
    };
    let mut whole = true;
    let value = match raw {
        Raw::Null => Value::Null,
        Raw::Text(text) => Value::Scalar(Scalar { text, kind: Kind::Text, written: None }),
        Raw::Boolean(value) => scalar(source, defined, Kind::Boolean, || value.to_string()),
        Raw::Number(value) => scalar(source, defined, Kind::Number, || value),
        Raw::List(items) => {
            let all = items.len();
            let items: Vec<Node> = items.into_iter().filter_map(|item| build(report, source, item)).collect();
            whole &= items.len() == all;
            Value::List(items)
        }
        Raw::Map(pairs) => {
            let all = pairs.len();
            let entry = |(key, value): (Spanned<String>, Located)| {
                let place = self::place(source.file, key.defined);
                build(report, source, value).map(|value| Entry { key: key.value, place, value })
            };
            let entries: Vec<Entry> = pairs.into_iter().filter_map(entry).collect();
            whole &= entries.len() == all;
            Value::Map(entries)
        }
    };
    whole.then_some(Node { place, tag, value })
}

fn scalar(source: Source<'_>, at: Location, kind: Kind, otherwise: impl FnOnce() -> String) -> Value {
    let written = || {
        let from = usize::try_from(at.span().byte_offset()?).ok()?;
        let length = usize::try_from(at.span().byte_len()?).ok()?;
        let text = source.text.get(from..from.checked_add(length)?)?.trim();
        (!text.is_empty()).then(|| text.to_owned())
    };
    Value::Scalar(Scalar { text: written().unwrap_or_else(otherwise), kind, written: None })
}

/// The reader's message in our words, and what to do, where that is known.
fn explain(error: &serde_saphyr::Error, text: &str, line: u32) -> (String, Option<String>) {
    use serde_saphyr::Error;
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the reader has fifty kinds of errors, and may get more"
    )]
    match error.without_snippet() {
        Error::AliasError { error, .. } => explain(error, text, line),
        Error::Budget { breach: BudgetBreach::Depth { .. }, .. } => (too_deep(), None),
        Error::Budget { .. } => (format!("the file holds more than {MOST_NODES} values"), None),
        Error::AliasReplayLimitExceeded { .. } => {
            (format!("the aliases expand to more than {MOST_NODES} values"), None)
        }
        Error::MultipleDocuments { .. } => (
            "a second YAML document begins here".to_owned(),
            Some("put each manifest into a file of its own and give several with -f".to_owned()),
        ),
        Error::RecursiveReferencesRequireWeakTypes { .. } => ("an alias contains itself".to_owned(), None),
        Error::UnknownAnchor { .. } => ("there is no anchor of this name above".to_owned(), None),
        Error::NullIntoString { .. } | Error::Unexpected { .. } => ("a key must be a text".to_owned(), None),
        other => {
            let message = other.to_string();
            if message.contains("recursion limit exceeded") {
                return (too_deep(), None);
            }
            let at_line = text.lines().nth(line.saturating_sub(1) as usize).unwrap_or_default();
            let is_tab = at_line.trim_start_matches(' ').starts_with('\t');
            let hint = is_tab.then(|| "indent with spaces: YAML does not allow tabs".to_owned());
            (without_position(&message).to_owned(), hint)
        }
    }
}

fn too_deep() -> String {
    format!("nested deeper than {DEEPEST}")
}

/// The message without the reader's own line and column, which every finding has in front.
fn without_position(message: &str) -> &str {
    [" at line ", " at byte "]
        .iter()
        .find_map(|cut| message.rfind(cut))
        .map_or(message, |at| message.get(..at).unwrap_or(message))
}

// === Depth ===

thread_local! {
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

/// How many lists and maps the reader is inside of. Aliases are replayed by the reader without a limit on the depth
/// that they add up to, and serde's recursion takes no argument.
struct Depth;

impl Depth {
    fn enter<E: serde::de::Error>() -> Result<Self, E> {
        if DEPTH.get() >= DEEPEST {
            return Err(E::custom(too_deep()));
        }
        DEPTH.set(DEPTH.get() + 1);
        Ok(Self)
    }
}

impl Drop for Depth {
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get().saturating_sub(1));
    }
}

// === impl Deserialize for Raw ===

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Boolean(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Number(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
        Ok(Raw::Number(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Raw, E> {
        Ok(Raw::Number(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Raw, E> {
        Ok(Raw::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Raw, E> {
        Ok(Raw::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Raw, A::Error> {
        let _depth = Depth::enter::<A::Error>()?;
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
            if items.len() > MOST_ITEMS {
                return Err(A::Error::custom(format!("a list of more than {MOST_ITEMS} items")));
            }
        }
        Ok(Raw::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw, A::Error> {
        let _depth = Depth::enter::<A::Error>()?;
        let mut pairs = Vec::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            if key.value.len() > 1024 {
                return Err(A::Error::custom("a key is longer than 1024 bytes"));
            }
            pairs.push((key, map.next_value()?));
            if pairs.len() > MOST_ITEMS {
                return Err(A::Error::custom(format!("a map of more than {MOST_ITEMS} keys")));
            }
        }
        Ok(Raw::Map(pairs))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::tree::shape;

    fn show(bytes: &[u8]) -> String {
        let report = Report::new(BTreeSet::new());
        let file = report.file("t");
        match parse(&report, file, bytes) {
            Some(tree) => shape(&tree),
            None => report.into_findings().iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
        }
    }

    #[test]
    fn scalars_keep_how_they_were_written() {
        assert_eq!(
            show(b"[1.10, 0x1F, 012, yes, 1_000, true, ~, 'x', 22:22, .nan, 1e3, -5, 99999999999999999999]"),
            r#"[1.10, 0x1F, "012", "yes", "1_000", true, null, "x", "22:22", ".nan", 1e3, -5, 99999999999999999999]"#
        );
        assert_eq!(show(b"{1: x, true: y}"), r#"{1: "x", true: "y"}"#);
        assert_eq!(show("\u{feff}a: \u{e9} 1".as_bytes()), "{a: \"\u{e9} 1\"}");
    }

    #[test]
    fn what_is_not_one_yaml_document_is_an_error_with_its_place() {
        let cases: [(&[u8], &str); 12] = [
            (b"a: !foo null\n", "error: t:1:9: unknown tag `!foo`, remove it, or quote the value"),
            (
                b"a: 1\n---\nb: 2\n",
                "error: t:3:1: a second YAML document begins here, put each manifest into a file of its own and \
                 give several with -f",
            ),
            (
                b"a:\n\tb: 1\n",
                "error: t:2:2: tabs disallowed within this context (block indentation), indent with spaces: YAML \
                 does not allow tabs",
            ),
            (b"a: 'x\n", "error: t:1:4: unclosed quote"),
            (b"a: &a [*a]\n", "error: t:1:8: an alias contains itself"),
            (b"a: *b\n", "error: t:1:4: there is no anchor of this name above"),
            (b"~: z\n", "error: t:1:1: a key must be a text"),
            (b"{a: 1, b: [}", "error: t:1:11: mismatched bracket '[' closed by '}'"),
            (b"a: b: c", "error: t:1:5: mapping values are not allowed in this context"),
            (b"a: x\nb: \xc3\xa9\xff", "error: t:2:5: byte 0xff is not UTF-8"),
            (b"\xff\xfea\0", "error: t:1:1: the file is UTF-16; save it as UTF-8"),
            (b"? [a]\n: b\n", "error: t:1:3: a key must be a text"),
        ];
        for (text, expected) in cases {
            assert_eq!(show(text), expected, "{:?}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn hostile_files_are_refused() {
        let too_deep = "nested deeper than 64";
        assert!(show("[".repeat(1_000_000).as_bytes()).contains(too_deep));
        assert!(show(&b"- ".repeat(10_000)).contains(too_deep));
        let mut block = String::new();
        (0..1000).for_each(|depth| block.extend([&" ".repeat(depth), "a:\n"]));
        assert!(show(block.as_bytes()).contains(too_deep), "{}", show(block.as_bytes()));
        assert!(show(&b"a:\n ".repeat(100_000)).contains("a map of more than 2000 keys"));

        let level = |line: &dyn Fn(usize) -> String| {
            let lines: Vec<String> = (1..100).map(line).collect();
            format!("a0: &a0 [x, x, x]\n{}", lines.concat())
        };
        let bomb = level(&|i| format!("a{i}: &a{i} [{}]\n", vec![format!("*a{}", i - 1); 9].join(",")));
        let tower = level(&|i| format!("a{i}: &a{i} [[[*a{}]]]\n", i - 1));
        assert!(
            show(bomb.as_bytes()).contains("the aliases expand to more than"),
            "{}",
            show(bomb.as_bytes())
        );
        assert!(show(tower.as_bytes()).contains(too_deep));
    }

    #[test]
    fn the_deepest_allowed_file_is_read() {
        let text = format!("{}{}", "[".repeat(DEEPEST), "]".repeat(DEEPEST));
        assert_eq!(show(text.as_bytes()), text);
    }
}
