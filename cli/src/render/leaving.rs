//! Progress while a node is emptied: one line for each task that is still to leave it, alive on a terminal; elsewhere a
//! plain line whenever something changed.

use std::collections::BTreeMap;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::escape::printable;
use super::style::{self, paint};
use super::{Facts, Screen};

/// How often a spinner turns.
const TICK: Duration = Duration::from_millis(120);

/// What is left to leave a node, a line each, while it is waited for.
pub(crate) struct Leaving {
    shown: Shown,
}

enum Shown {
    Live { all: MultiProgress, bars: BTreeMap<String, ProgressBar> },
    Plain { said: BTreeMap<String, String> },
}

impl Leaving {
    /// What suits these streams.
    pub(crate) fn new(facts: Facts) -> Self {
        let shown = if facts.stderr_terminal {
            let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
            Shown::Live { all, bars: BTreeMap::new() }
        } else {
            Shown::Plain { said: BTreeMap::new() }
        };
        Self { shown }
    }

    /// Shows what is left now: what each of them waits for, by its name.
    pub(crate) fn show(&mut self, left: &BTreeMap<String, String>, screen: &mut Screen) {
        match &mut self.shown {
            Shown::Live { all, bars } => {
                bars.retain(|name, bar| left.contains_key(name) || gone(all, bar, name, screen));
                for (name, waits_for) in left {
                    let bar = bars.entry(name.clone()).or_insert_with(|| spinner(all));
                    bar.set_message(format!("{name}  {}", printable(waits_for)));
                }
            }
            Shown::Plain { said } => {
                said.retain(|name, _| {
                    let stays = left.contains_key(name);
                    if !stays {
                        screen.note(&format!("{name} has left"));
                    }
                    stays
                });
                for (name, waits_for) in left {
                    let text = printable(waits_for);
                    if said.get(name) != Some(&text) {
                        screen.note(&format!("{name}: {text}"));
                        said.insert(name.clone(), text);
                    }
                }
            }
        }
    }

    /// Leaves the screen to ordinary lines.
    pub(crate) fn finish(&mut self) {
        if let Shown::Live { bars, .. } = &mut self.shown {
            for bar in std::mem::take(bars).into_values() {
                bar.finish_and_clear();
            }
        }
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        self.finish();
    }
}

fn spinner(all: &MultiProgress) -> ProgressBar {
    let bar = all.add(ProgressBar::new_spinner());
    bar.enable_steady_tick(TICK);
    let template = ProgressStyle::with_template("{spinner:.yellow} {wide_msg}");
    bar.set_style(template.unwrap_or_else(|_| ProgressStyle::default_spinner()));
    bar
}

/// Takes the line of what has left away; gives `false`.
fn gone(all: &MultiProgress, bar: &ProgressBar, name: &str, screen: &mut Screen) -> bool {
    bar.finish_and_clear();
    all.remove(bar);
    all.suspend(|| screen.note(&format!("{} {name} has left", paint(style::GOOD, "✓"))));
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_progress_says_what_changed_and_no_more() {
        let (mut screen, _, err) = Screen::in_memory(Facts::default());
        let mut leaving = Leaving::new(Facts::default());
        let steps: [&[(&str, &str)]; 4] = [
            &[("web.1", "still there"), ("web.2", "its turn comes later")],
            &[("web.1", "its successor is starting"), ("web.2", "its turn comes later")],
            &[("web.2", "no \u{1b}[2Jroom")],
            &[],
        ];
        for step in steps {
            let left = step.iter().map(|(name, what)| ((*name).to_owned(), (*what).to_owned())).collect();
            leaving.show(&left, &mut screen);
        }
        leaving.finish();
        insta::assert_snapshot!(err.text(), @r"
        web.1: still there
        web.2: its turn comes later
        web.1: its successor is starting
        web.1 has left
        web.2: no \u{1b}[2Jroom
        web.2 has left
        ");
    }
}
