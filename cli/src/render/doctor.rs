//! What `tug doctor` found: a line for each check, and what to do below it.

use super::escape::printable;
use super::lines;
use super::style::{self, paint};
use crate::doctor::{Finding, Level};

/// All findings.
pub(crate) fn findings(findings: &[Finding]) -> String {
    let width = findings.iter().map(|finding| finding.check.len()).max().unwrap_or(0);
    let mut text = String::new();
    for Finding { check, level, message, remedy } in findings {
        let level = match level {
            Level::Ok => paint(style::GOOD, "ok  "),
            Level::Warn => paint(style::BUSY, "warn"),
            Level::Fail => paint(style::BAD, "fail"),
        };
        lines::add(&mut text, &format!("{level}  {check:width$}  {}", printable(message)));
        if let Some(remedy) = remedy {
            let arrow = paint(style::HINT, "→");
            lines::add(&mut text, &format!("{:6}{:width$}  {arrow} {}", "", "", printable(remedy)));
        }
    }
    text
}

/// How it stands altogether.
pub(crate) fn summary(warnings: usize, failures: usize) -> String {
    let many =
        |count: usize, one: &str| if count == 1 { format!("1 {one}") } else { format!("{count} {one}s") };
    match (warnings, failures) {
        (0, 0) => format!("{} this machine is fit for Tug", paint(style::GOOD, "✓")),
        (warnings, 0) => format!("this machine is fit for Tug, with {}", many(warnings, "warning")),
        (0, failures) => format!("this machine is not fit for Tug: {}", many(failures, "failure")),
        (warnings, failures) => format!(
            "this machine is not fit for Tug: {}, {}",
            many(failures, "failure"),
            many(warnings, "warning")
        ),
    }
}

#[cfg(test)]
mod tests {
    use anstream::adapter::strip_str;

    use super::*;

    #[test]
    fn what_is_wrong_is_shown_with_what_to_do() {
        let list = [
            Finding::ok("engine", "Docker 28.2.2, API 1.50"),
            Finding::warn("live-restore", "a restart stops all", "put it on"),
            Finding::fail("port-7443", "used by `ngi\u{1b}nx`", "end it"),
        ];
        insta::assert_snapshot!(strip_str(&findings(&list)), @r"
        ok    engine        Docker 28.2.2, API 1.50
        warn  live-restore  a restart stops all
                            → put it on
        fail  port-7443     used by `ngi\u{1b}nx`
                            → end it
        ");
        insta::assert_snapshot!(summary(1, 2), @"this machine is not fit for Tug: 2 failures, 1 warning");
    }
}
