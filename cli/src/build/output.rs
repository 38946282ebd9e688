//! What a build says, shown while it runs: a spinner with the newest line on a terminal, every line elsewhere.

use std::collections::VecDeque;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tug_model::ServiceName;

use crate::render::escape::printable;
use crate::render::{Facts, Screen};

/// How many lines of a failed build are shown.
const LAST_LINES: usize = 20;

/// The lines of one build.
#[derive(Debug)]
pub(super) struct Output {
    service: ServiceName,
    bar: Option<ProgressBar>,
    rest: String,
    last: VecDeque<String>,
}

// === impl Output ===

impl Output {
    pub(super) fn new(service: &ServiceName, facts: Facts) -> Self {
        let bar = facts.stderr_terminal.then(|| {
            let bar = ProgressBar::new_spinner().with_prefix(format!("building {service}"));
            let style = ProgressStyle::with_template("{spinner:.yellow} {prefix}  {wide_msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        Self { service: service.clone(), bar, rest: String::new(), last: VecDeque::new() }
    }

    /// Takes a piece of output, which may end anywhere.
    pub(super) fn take(&mut self, text: &str, screen: &mut Screen) {
        self.rest.push_str(text);
        if !self.rest.ends_with('\n') && !text.contains('\n') && self.rest.len() < 4096 {
            return;
        }
        let whole = std::mem::take(&mut self.rest);
        for line in whole.split(['\n', '\r']).map(str::trim_end).filter(|line| !line.is_empty()) {
            self.line(&printable(line), screen);
        }
    }

    fn line(&mut self, line: &str, screen: &mut Screen) {
        match &self.bar {
            Some(bar) => bar.set_message(line.to_owned()),
            None => screen.note(&format!("{} | {line}", self.service)),
        }
        if self.last.len() == LAST_LINES {
            self.last.pop_front();
        }
        self.last.push_back(line.to_owned());
    }

    /// The build failed: its last lines, where they have not been seen.
    pub(super) fn failed(&mut self, screen: &mut Screen) {
        let rest = std::mem::take(&mut self.rest);
        if !rest.trim().is_empty() {
            self.line(&printable(rest.trim_end()), screen);
        }
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
            for line in &self.last {
                screen.note(&format!("{} | {line}", self.service));
            }
        }
    }

    /// The build succeeded.
    pub(super) fn done(self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_put_together_and_shown_escaped() {
        let (mut screen, _, err) = Screen::in_memory(Facts::default());
        let mut output = Output::new(&ServiceName::parse("web").unwrap(), Facts::default());
        for piece in ["Step 1/2 : ", "FROM scratch\n", "\n", " ---> \u{1b}[0mabc\n", "half"] {
            output.take(piece, &mut screen);
        }
        output.failed(&mut screen);
        insta::assert_snapshot!(err.text(), @r"
        web | Step 1/2 : FROM scratch
        web |  ---> \u{1b}[0mabc
        web | half
        ");
    }
}
