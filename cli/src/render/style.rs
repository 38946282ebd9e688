//! The few colours, and what they mean. Everything is readable without them.

use anstyle::{AnsiColor, Style};
use tug_model::status::ServiceState;

/// As wanted.
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
/// On the way.
pub(crate) const BUSY: Style = AnsiColor::Yellow.on_default();
/// Wrong.
pub(crate) const BAD: Style = AnsiColor::Red.on_default().bold();
/// What to do.
pub(crate) const HINT: Style = AnsiColor::Cyan.on_default();
/// Less important.
pub(crate) const DIM: Style = Style::new().dimmed();
/// A heading.
pub(crate) const HEAD: Style = Style::new().bold();
/// No colour.
pub(crate) const PLAIN: Style = Style::new();

/// The colours that tell the services of a merged log apart.
const PREFIXES: [AnsiColor; 6] = [
    AnsiColor::Cyan,
    AnsiColor::Yellow,
    AnsiColor::Green,
    AnsiColor::Magenta,
    AnsiColor::Blue,
    AnsiColor::BrightRed,
];

/// `text` in `style`.
pub(crate) fn paint(style: Style, text: impl std::fmt::Display) -> String {
    format!("{style}{text}{style:#}")
}

/// The colour of a service's state.
pub(crate) fn of_state(state: ServiceState) -> Style {
    match state {
        ServiceState::Ready | ServiceState::Completed => GOOD,
        ServiceState::Progressing | ServiceState::Removing => BUSY,
        ServiceState::Failing => BAD,
    }
}

/// The colour of the `n`th of several things.
pub(crate) fn of_number(n: usize) -> Style {
    PREFIXES.get(n % PREFIXES.len()).map_or(PLAIN, |colour| colour.on_default())
}
