//! From the pieces in which the Engine hands out a log to lines.
//!
//! Each piece begins with its time, holds at most 16 KiB of what was written, and ends with a line end unless the line
//! goes on in the next piece of the same output. A line that is too long is cut, so that no container can make us
//! keep more than that in memory.

use bytes::{Bytes, BytesMut};
use tug_model::quantity::Timestamp;

use super::inspect::parse_time;
use crate::runtime::{LogLine, Stream};

/// Joins pieces to lines.
#[derive(Debug, Default)]
pub(super) struct Lines {
    stdout: Option<Partial>,
    stderr: Option<Partial>,
}

/// Cuts what a terminal wrote, which comes without frames, into pieces that end with their lines.
#[derive(Debug, Default)]
pub(super) struct Cutter {
    begun: BytesMut,
}

/// The beginning of a line.
#[derive(Debug)]
struct Partial {
    at: Timestamp,
    text: BytesMut,
    is_cut: bool,
}

// === impl Lines ===

impl Lines {
    /// Takes a piece; returns the line that it completes.
    pub(super) fn push(&mut self, stream: Stream, piece: &[u8]) -> Option<LogLine> {
        let (at, text) = split_time(piece);
        let (text, is_complete) = match text.strip_suffix(b"\n") {
            Some(line) => (line.strip_suffix(b"\r").unwrap_or(line), true),
            None => (text, false),
        };
        let slot = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        let begun = slot.take();
        let mut partial = begun.unwrap_or_else(|| Partial {
            at: at.unwrap_or_default(),
            text: BytesMut::new(),
            is_cut: false,
        });
        partial.append(text);
        if is_complete {
            Some(partial.finish(stream))
        } else {
            *slot = Some(partial);
            None
        }
    }

    /// The lines that were begun and never ended.
    pub(super) fn finish(&mut self) -> impl Iterator<Item = LogLine> + use<> {
        let stdout = self.stdout.take().map(|partial| partial.finish(Stream::Stdout));
        let stderr = self.stderr.take().map(|partial| partial.finish(Stream::Stderr));
        stdout.into_iter().chain(stderr)
    }
}

// === impl Cutter ===

impl Cutter {
    /// More than a line needs, with its time; the rest of a longer one is dropped.
    const LONGEST: usize = 2 * LogLine::LONGEST;

    /// Takes what came; returns the lines that it completes, each with its end.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Vec<Bytes> {
        let mut lines = Vec::new();
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, is_complete) = part.strip_suffix(b"\n").map_or((part, false), |text| (text, true));
            let room = Self::LONGEST - self.begun.len();
            self.begun.extend_from_slice(text.get(..room).unwrap_or(text));
            if is_complete {
                let mut line = self.begun.split();
                line.extend_from_slice(b"\n");
                lines.push(line.freeze());
            }
        }
        lines
    }

    /// The line that was begun and never ended, if there is one.
    pub(super) fn finish(&mut self) -> Option<Bytes> {
        (!self.begun.is_empty()).then(|| self.begun.split().freeze())
    }
}

// === impl Partial ===

impl Partial {
    fn append(&mut self, text: &[u8]) {
        let room = LogLine::LONGEST - self.text.len();
        self.is_cut |= text.len() > room;
        self.text.extend_from_slice(text.get(..room).unwrap_or(text));
    }

    fn finish(mut self, stream: Stream) -> LogLine {
        if self.is_cut {
            self.text.truncate(LogLine::LONGEST - LogLine::CUT.len());
            self.text.extend_from_slice(LogLine::CUT.as_bytes());
        }
        LogLine { stream, at: self.at, text: Bytes::from(self.text) }
    }
}

/// The time at the beginning of a piece, and the rest.
fn split_time(piece: &[u8]) -> (Option<Timestamp>, &[u8]) {
    // `2026-01-02T03:04:05.123456789Z`; somebody's log driver may leave it out.
    let space = piece.iter().take(40).position(|byte| *byte == b' ');
    let Some((time, rest)) = space.and_then(|space| piece.split_at_checked(space)) else {
        return (None, piece);
    };
    match std::str::from_utf8(time).ok().and_then(parse_time) {
        Some(time) => (Some(time), rest.get(1..).unwrap_or_default()),
        None => (None, piece),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: &str = "1970-01-01T00:00:07.000000000Z ";

    fn push(lines: &mut Lines, stream: Stream, text: &str) -> Option<String> {
        let line = lines.push(stream, format!("{TIME}{text}").as_bytes())?;
        assert_eq!((line.stream, line.at), (stream, Timestamp(7000)));
        Some(String::from_utf8(line.text.to_vec()).unwrap())
    }

    #[test]
    fn pieces_become_lines_per_output() {
        let mut lines = Lines::default();
        assert_eq!(push(&mut lines, Stream::Stdout, "one\n").as_deref(), Some("one"));
        assert_eq!(push(&mut lines, Stream::Stdout, "be"), None);
        assert_eq!(push(&mut lines, Stream::Stderr, "err\r\n").as_deref(), Some("err"));
        assert_eq!(push(&mut lines, Stream::Stdout, "gun\n").as_deref(), Some("begun"));
        assert_eq!(push(&mut lines, Stream::Stdout, "\n").as_deref(), Some(""));
        assert_eq!(push(&mut lines, Stream::Stderr, "last words"), None);
        let rest: Vec<_> = lines.finish().map(|line| line.text).collect();
        assert_eq!(rest, ["last words"]);
        assert_eq!(lines.finish().count(), 0);
    }

    #[test]
    fn a_line_of_the_longest_length_is_whole_and_a_longer_one_is_cut_with_a_mark() {
        let mut lines = Lines::default();
        let full = "x".repeat(LogLine::LONGEST);
        assert_eq!(push(&mut lines, Stream::Stdout, &full), None);
        assert_eq!(push(&mut lines, Stream::Stdout, "\n").as_deref(), Some(&*full));

        for _ in 0..100 {
            assert_eq!(push(&mut lines, Stream::Stdout, &full), None);
        }
        let cut = push(&mut lines, Stream::Stdout, "end\n").unwrap();
        assert_eq!(cut.len(), LogLine::LONGEST);
        assert!(cut.ends_with(LogLine::CUT));
    }

    #[test]
    fn a_piece_without_a_time_is_text() {
        let mut lines = Lines::default();
        for text in ["hello world\n", "\u{7}\u{0}\n", "2026 is a year\n", "\n"] {
            let line = lines.push(Stream::Stdout, text.as_bytes()).unwrap();
            assert_eq!((line.at, &line.text[..]), (Timestamp(0), text.trim_end_matches('\n').as_bytes()));
        }
    }

    #[test]
    fn a_terminals_bytes_are_cut_into_lines_of_a_bounded_length() {
        let mut cutter = Cutter::default();
        assert_eq!(cutter.push(b"one\ntw"), ["one\n"]);
        assert_eq!(cutter.push(b"o\n\n"), ["two\n", "\n"]);
        for _ in 0..1000 {
            assert!(cutter.push(&[0; 1000]).is_empty());
        }
        assert_eq!(cutter.begun.len(), Cutter::LONGEST);
        assert_eq!(cutter.push(b"\n").len(), 1);
        assert_eq!(cutter.finish(), None);
        assert!(cutter.push(b"\0\x01\x02").is_empty());
        assert_eq!(cutter.finish().as_deref(), Some(&b"\0\x01\x02"[..]));
    }
}
