//! The only place that writes to the terminal.
//!
//! Data goes to standard output, everything else to standard error. Text is rendered with its colours by the pure
//! functions of the modules below, and [`Screen`] takes the colours away where nobody would see them. Whatever comes
//! from a server or a container passes [`escape::printable`] on its way.

pub(crate) mod doctor;
pub(crate) mod escape;
pub(crate) mod event;
pub(crate) mod finding;
pub(crate) mod leaving;
pub(crate) mod lines;
pub(crate) mod log;
pub(crate) mod node;
pub(crate) mod plan;
pub(crate) mod progress;
pub(crate) mod status;
pub(crate) mod structured;
pub(crate) mod style;
pub(crate) mod table;
pub(crate) mod token;
pub(crate) mod usage;
pub(crate) mod volume;
pub(crate) mod why;

use std::io::{self, IsTerminal, Write};

use anstream::adapter::strip_str;
use anstream::{AutoStream, ColorChoice};

use crate::failure::Failure;

/// What is known about the standard streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Facts {
    /// Somebody can answer questions.
    pub(crate) stdin_terminal: bool,
    /// Standard output is read by a person.
    pub(crate) stdout_terminal: bool,
    /// Standard error is read by a person.
    pub(crate) stderr_terminal: bool,
    /// Standard output bears colours.
    pub(crate) stdout_colour: bool,
    /// Standard error bears colours.
    pub(crate) stderr_colour: bool,
    /// How many characters fit into a line; `None` where it is no terminal.
    pub(crate) width: Option<u16>,
}

/// Standard output and standard error.
pub(crate) struct Screen {
    out: Box<dyn Write + Send>,
    err: Box<dyn Write + Send>,
    /// What they are.
    pub(crate) facts: Facts,
}

// === impl Facts ===

impl Facts {
    /// What the process was started with.
    pub(crate) fn of_process() -> Self {
        let coloured = |choice| !matches!(choice, ColorChoice::Never);
        let size = rustix::termios::tcgetwinsize(io::stdout()).ok();
        Self {
            stdin_terminal: io::stdin().is_terminal(),
            stdout_terminal: io::stdout().is_terminal(),
            stderr_terminal: io::stderr().is_terminal(),
            stdout_colour: coloured(AutoStream::choice(&io::stdout())),
            stderr_colour: coloured(AutoStream::choice(&io::stderr())),
            width: size.map(|size| size.ws_col).filter(|columns| *columns > 0),
        }
    }

    /// Whether a question can be asked and answered.
    pub(crate) fn can_ask(self) -> bool {
        self.stdin_terminal && self.stderr_terminal
    }
}

// === impl Screen ===

impl Screen {
    /// The streams of this process.
    pub(crate) fn of_process() -> Self {
        Self { out: Box::new(io::stdout()), err: Box::new(io::stderr()), facts: Facts::of_process() }
    }

    /// Data for standard output. It ends where `text` ends.
    pub(crate) fn data(&mut self, text: &str) -> Result<(), Failure> {
        if self.facts.stdout_colour {
            self.out.write_all(text.as_bytes())?;
        } else {
            write!(self.out, "{}", strip_str(text))?;
        }
        Ok(self.out.flush()?)
    }

    /// Bytes for standard output, whatever they do to a terminal.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.out.write_all(bytes)?;
        Ok(self.out.flush()?)
    }

    /// Bytes for standard error, whatever they do to a terminal.
    pub(crate) fn raw_error(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.err.write_all(bytes)?;
        Ok(self.err.flush()?)
    }

    /// A line for the person who looks on: standard error. That nobody looks on is no error.
    pub(crate) fn note(&mut self, line: &str) {
        let line = if self.facts.stderr_colour { line.to_owned() } else { strip_str(line).to_string() };
        let _nobody_looks =
            writeln!(self.err, "{}", line.trim_end_matches('\n')).and_then(|()| self.err.flush());
    }

    /// Why a command failed.
    pub(crate) fn failure(&mut self, failure: &Failure) {
        if failure.message.is_empty() {
            return;
        }
        let error = style::paint(style::BAD, "error:");
        self.note(&format!("{error} {}", escape::printable_lines(&failure.message)));
        if let Some(hint) = &failure.hint {
            let label = style::paint(style::HINT, "hint:");
            self.note(&format!("{label} {}", escape::printable_lines(hint)));
        }
    }
}

impl std::fmt::Debug for Screen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Screen").field("facts", &self.facts).finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::{Arc, Mutex, PoisonError};

    use super::*;

    /// What was written to a screen in memory.
    #[derive(Debug, Clone, Default)]
    pub(crate) struct Written(Arc<Mutex<Vec<u8>>>);

    impl Written {
        pub(crate) fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()).unwrap()
        }
    }

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Screen {
        /// A screen whose output and notes can be looked at.
        pub(crate) fn in_memory(facts: Facts) -> (Self, Written, Written) {
            let (out, err) = (Written::default(), Written::default());
            (Self { out: Box::new(out.clone()), err: Box::new(err.clone()), facts }, out, err)
        }
    }

    #[test]
    fn colours_are_for_terminals() {
        let text = format!("{}\n", style::paint(style::GOOD, "fine"));
        let (mut screen, out, _) = Screen::in_memory(Facts::default());
        screen.data(&text).unwrap();
        assert_eq!(out.text(), "fine\n");
        let facts = Facts { stdout_colour: true, ..Facts::default() };
        let (mut screen, out, _) = Screen::in_memory(facts);
        screen.data(&text).unwrap();
        assert_eq!(out.text(), text);
    }

    #[test]
    fn a_failure_is_told_with_its_hint_and_without_control_characters() {
        let (mut screen, out, err) = Screen::in_memory(Facts::default());
        screen.failure(&Failure::new("no \u{1b}[31mservice").hint("try again"));
        assert_eq!(err.text(), "error: no \\u{1b}[31mservice\nhint: try again\n");
        screen.failure(&Failure::silent(141));
        assert_eq!(err.text().lines().count(), 2);
        assert_eq!(out.text(), "");
    }

    #[test]
    fn a_reader_that_has_gone_is_a_quiet_failure() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut screen = Screen { out: Box::new(Closed), err: Box::new(Closed), facts: Facts::default() };
        assert_eq!(screen.data("x").unwrap_err(), Failure::silent(141));
        screen.note("nobody reads this either, and that is fine");
    }
}
