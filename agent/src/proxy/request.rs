//! Whether what a client has said so far may be said again to another backend.
//!
//! Pure. The question is asked when a backend failed after it was sent something and before it answered anything.
//! It may then have acted on what it was sent, so only what RFC 9110 section 9.2.1 calls safe is said twice: requests
//! that ask for nothing but an answer. Everything in doubt (another protocol, line ends that servers read in different
//! ways, a body) is not safe.

/// The methods that RFC 9110 section 9.2.1 calls safe.
const SAFE_METHODS: [&[u8]; 4] = [b"GET", b"HEAD", b"OPTIONS", b"TRACE"];

/// Whether `said`, the first bytes of a connection, can still turn out to be a safe request: all it takes to decide
/// whether they are worth keeping.
pub(super) fn may_be_safe(said: &[u8]) -> bool {
    SAFE_METHODS.iter().any(|method| {
        let shared = method.len().min(said.len());
        said.get(..shared) == method.get(..shared) && said.get(method.len()).is_none_or(|next| *next == b' ')
    })
}

/// Whether `said` is one or more safe HTTP/1 requests, of which the last need not be complete beyond its first line.
pub(super) fn is_safe(said: &[u8]) -> bool {
    let mut rest = said;
    loop {
        match one_request(rest) {
            None => return false,
            Some([]) => return true,
            Some(next) => rest = next,
        }
    }
}

/// Reads one safe request from the start of `said`, and returns what follows it; `None` if it is not one.
fn one_request(said: &[u8]) -> Option<&[u8]> {
    let (first, mut rest) = line(said)?.complete()?;
    if !is_safe_request_line(first) {
        return None;
    }
    loop {
        match line(rest)? {
            Line::Complete(b"", next) => return Some(next),
            Line::Complete(header, next) if is_harmless(header) => rest = next,
            Line::Complete(..) => return None,
            Line::Begun => return Some(&[]),
        }
    }
}

/// A line of a request's head.
enum Line<'a> {
    /// The line without its end, and what follows.
    Complete(&'a [u8], &'a [u8]),
    /// Its end was not said yet.
    Begun,
}

impl<'a> Line<'a> {
    fn complete(self) -> Option<(&'a [u8], &'a [u8])> {
        match self {
            Self::Complete(line, rest) => Some((line, rest)),
            Self::Begun => None,
        }
    }
}

/// The first line of `text`; `None` if it has a line end that is not CR LF.
fn line(text: &[u8]) -> Option<Line<'_>> {
    let Some(at) = text.iter().position(|byte| matches!(byte, b'\r' | b'\n')) else {
        return Some(Line::Begun);
    };
    let (line, end) = text.split_at(at);
    match end {
        [b'\r', b'\n', rest @ ..] => Some(Line::Complete(line, rest)),
        [b'\r'] => Some(Line::Begun),
        _ => None,
    }
}

fn is_safe_request_line(line: &[u8]) -> bool {
    let mut words = line.split(|byte| *byte == b' ');
    let (method, target, version) = (words.next(), words.next(), words.next());
    words.next().is_none()
        && method.is_some_and(|method| SAFE_METHODS.contains(&method))
        && target.is_some_and(|target| !target.is_empty() && target.iter().all(|byte| *byte > b' '))
        && version.is_some_and(|version| matches!(version, b"HTTP/1.0" | b"HTTP/1.1"))
}

/// Whether `header` is well formed and announces no body. A safe request needs none, and servers differ in whether
/// they skip one that is there or take it for the next request.
fn is_harmless(header: &[u8]) -> bool {
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    let mut parts = header.splitn(2, |byte| *byte == b':');
    let (Some(name), Some(value)) = (parts.next(), parts.next()) else {
        return false;
    };
    let is_empty_body = !name.eq_ignore_ascii_case(b"content-length") || value.trim_ascii() == b"0";
    !name.is_empty()
        && name.iter().all(is_token)
        && !name.eq_ignore_ascii_case(b"transfer-encoding")
        && is_empty_body
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GET: &str = "GET /a?b=c HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r\n";

    #[test]
    fn safe_requests_are_safe() {
        for said in [
            GET,
            "HEAD / HTTP/1.0\r\n\r\n",
            "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
            "TRACE / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHos",
            "GET / HTTP/1.1\r\n",
            "GET / HTTP/1.1\r\nHost: a\r",
            "GET / HTTP/1.1\r\ncontent-length:  0 \r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\r\nHEAD / HTTP/1.1\r\n\r\n",
        ] {
            assert!(is_safe(said.as_bytes()), "{said:?}");
        }
    }

    #[test]
    fn everything_else_is_not() {
        for said in [
            "",
            "GET",
            "GET / HTTP/1.1",
            "POST / HTTP/1.1\r\nHost: a\r\n\r\n",
            "PUT / HTTP/1.1\r\n\r\n",
            "DELETE / HTTP/1.1\r\n\r\n",
            "get / HTTP/1.1\r\n\r\n",
            "GETX / HTTP/1.1\r\n\r\n",
            // Other protocols that begin alike.
            "GET key\r\n",
            "GET key\r\nINCR key\r\n",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            // Something else follows before anything was answered.
            "GET / HTTP/1.1\r\n\r\nPOST / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\n\r\nPO",
            // Read in different ways by different servers.
            "GET / HTTP/1.1\nHost: a\n\nPOST / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\n\nPOST / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\rPOST / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n",
            "GET / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc",
            "GET / HTTP/1.1\r\nContent-Length : 0\r\n\r\n",
            "GET / HTTP/1.1\r\nContent-Length: 0\r\nContent-Length: 16\r\n\r\nPOST / HTTP/1.1\r\n",
            "GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
            "GET / HTTP/1.1\r\nContent-Length: \r\n\r\n",
            "GET / HTTP/1.1\r\nno colon\r\n\r\n",
            "GET  / HTTP/1.1\r\n\r\n",
        ] {
            assert!(!is_safe(said.as_bytes()), "{said:?}");
        }
    }

    #[test]
    fn only_what_can_be_safe_is_kept() {
        for said in ["", "G", "GE", "GET", "GET ", GET, "HEAD /", "O"] {
            assert!(may_be_safe(said.as_bytes()), "{said:?}");
        }
        for said in ["GETX", "POST / HTTP/1.1\r\n", "g", "\0", "\u{16}\u{3}\u{1}"] {
            assert!(!may_be_safe(said.as_bytes()), "{said:?}");
        }
    }

    proptest! {
        /// A write that a server could find behind a safe request is found here as well.
        #[test]
        fn a_write_is_never_said_twice(head in "[ -~\r\n]{0,80}", tail in "[ -~\r\n]{0,40}") {
            let said = format!("GET / HTTP/1.1\r\n{head}\r\n\r\nPOST / HTTP/1.1\r\n{tail}");
            prop_assert!(!is_safe(said.as_bytes()));
        }

        /// What is safe was worth keeping at every moment before.
        #[test]
        fn every_beginning_of_a_safe_request_is_kept(cut in 0..GET.len()) {
            prop_assert!(may_be_safe(&GET.as_bytes()[..cut]));
        }

        /// Nothing that a client sends makes it fail.
        #[test]
        fn any_bytes_are_answered(said in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = (is_safe(&said), may_be_safe(&said));
        }
    }
}
