//! What there is to say about a manifest: `file:line:col: path: message`, and the hint below.

use tug_compose::{Finding, Level};

use super::escape::printable;
use super::lines;
use super::style::{self, paint};

/// One finding, with its hint on a line of its own. An error is not labelled; warnings and notes are.
pub(crate) fn finding(finding: &Finding) -> String {
    let place = if finding.line > 0 {
        format!("{}:{}:{}", printable(&finding.file), finding.line, finding.column)
    } else {
        printable(&finding.file)
    };
    let path = match finding.path.as_str() {
        "" => String::new(),
        path => format!("{}: ", printable(path)),
    };
    let message = printable(&finding.message);
    let message = match finding.level {
        Level::Error => paint(style::BAD, message),
        Level::Warning => format!("{} {message}", paint(style::BUSY, "warning:")),
        Level::Note => format!("{} {message}", paint(style::DIM, "note:")),
    };
    let mut text = String::new();
    lines::add(&mut text, &format!("{}: {path}{message}", paint(style::HEAD, place)));
    if let Some(hint) = &finding.hint {
        lines::add(&mut text, &format!("    {} {}", paint(style::HINT, "hint:"), printable(hint)));
    }
    text
}

/// `2 errors, 1 warning`; `None` when there is neither.
pub(crate) fn summary(findings: &[Finding]) -> Option<String> {
    let count = |level| findings.iter().filter(|finding| finding.level == level).count();
    let parts: Vec<String> = [(Level::Error, "error"), (Level::Warning, "warning")]
        .into_iter()
        .filter_map(|(level, word)| match count(level) {
            0 => None,
            1 => Some(format!("1 {word}")),
            more => Some(format!("{more} {word}s")),
        })
        .collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

#[cfg(test)]
mod tests {
    use anstream::adapter::strip_str;

    use super::*;

    #[test]
    fn a_finding_starts_with_its_place() {
        let error = Finding {
            level: Level::Error,
            file: "compose.yaml".into(),
            line: 7,
            column: 5,
            path: "services.web.imag".into(),
            message: "unknown key".into(),
            hint: Some("did you mean `image`?".into()),
        };
        let warning = Finding {
            level: Level::Warning,
            line: 0,
            column: 0,
            path: String::new(),
            hint: None,
            message: "odd\u{1b}".into(),
            ..error.clone()
        };
        let both: String = [&error, &warning].into_iter().map(finding).collect();
        insta::assert_snapshot!(strip_str(&both).to_string(), @r"
        compose.yaml:7:5: services.web.imag: unknown key
            hint: did you mean `image`?
        compose.yaml: warning: odd\u{1b}
        ");
        assert_eq!(summary(&[error.clone(), error, warning]).unwrap(), "2 errors, 1 warning");
        assert_eq!(summary(&[]), None);
    }
}
