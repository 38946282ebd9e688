//! How a command fails: what went wrong, what to do about it, and the exit code that tells a script.

use std::error::Error;
use std::io;

use tug_api::ApiError;
use tug_api::client::CallError;
use tug_api::error::chain;
use tug_api::lines::LineError;
use tug_api::transport::TransportError;

/// The exit code of a command that did not do what was asked.
pub(crate) const FAILED: u8 = 1;
/// The exit code of a command that was called in a wrong way.
pub(crate) const USAGE: u8 = 2;
/// The exit code of a daemon whose state or configuration cannot be used (`EX_CONFIG`): restarting it is no help.
pub(crate) const CONFIGURATION: u8 = 78;
/// The exit code after Ctrl-C.
pub(crate) const INTERRUPTED: u8 = 130;
/// The exit code when nobody reads the output any more.
const BROKEN_PIPE: u8 = 141;

/// Why a command ends without having done what was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// What went wrong, with its causes; empty when everything has been said already.
    pub(crate) message: String,
    /// What to do.
    pub(crate) hint: Option<String>,
    /// What the process exits with.
    pub(crate) code: u8,
}

// === impl Failure ===

impl Failure {
    /// A failure with exit code 1.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, code: FAILED }
    }

    /// The command was called in a way that makes no sense: exit code 2.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { code: USAGE, ..Self::new(message) }
    }

    /// `what` could not be done because of `cause`.
    pub(crate) fn caused(what: &str, cause: &(dyn Error + 'static)) -> Self {
        Self::new(format!("{what}: {}", chain(cause)))
    }

    /// Nothing is left to say; only the exit code tells.
    pub(crate) fn silent(code: u8) -> Self {
        Self { code, ..Self::new("") }
    }

    /// The same, saying what to do.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Api(error) => refused(error),
            CallError::Transport(TransportError::Connect { address, source }) => {
                unreachable_server(&address, &source)
            }
            other @ (CallError::Transport(_)
            | CallError::Request(_)
            | CallError::Encode(_)
            | CallError::Decode(_)) => Self::new(chain(&other)),
        }
    }
}

impl From<LineError> for Failure {
    fn from(error: LineError) -> Self {
        Self::new(chain(&error))
    }
}

impl From<io::Error> for Failure {
    /// Output that cannot be written. A reader that has gone is no error worth a word.
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::silent(BROKEN_PIPE);
        }
        Self::caused("write the output", &error)
    }
}

/// What the server said, all of it: each mistake of a request on a line of its own.
fn refused(error: ApiError) -> Failure {
    let said = |error: &ApiError| match &error.field {
        Some(field) => format!("{field}: {}", error.message),
        None => error.message.clone(),
    };
    let mut lines = vec![said(&error)];
    lines.extend(error.also.iter().map(said));
    let hint = error.hint.or_else(|| error.also.into_iter().find_map(|other| other.hint));
    Failure { hint, ..Failure::new(lines.join("\n")) }
}

fn unreachable_server(address: &str, source: &io::Error) -> Failure {
    const START: &str = "start one with `tug server --agent`, or name its socket with --socket or TUG_SOCKET";
    let kind = source.kind();
    if kind == io::ErrorKind::PermissionDenied {
        return Failure::new(format!("cannot reach {address}: permission denied")).hint(
            "the socket belongs to the user that runs `tug server`: try again as that user, or with sudo",
        );
    }
    let why = if kind == io::ErrorKind::NotFound {
        "no such file; is `tug server` running?".to_owned()
    } else if kind == io::ErrorKind::ConnectionRefused {
        "nobody listens; is `tug server` running?".to_owned()
    } else {
        source.to_string()
    };
    Failure::new(format!("cannot reach {address}: {why}")).hint(START)
}

#[cfg(test)]
mod tests {
    use tug_api::Code;

    use super::*;

    #[test]
    fn the_server_s_words_and_hints_are_passed_on() {
        let error =
            ApiError::new(Code::Invalid, "port 80 is taken").field("services.web").hint("choose another");
        let error = ApiError::all([error, ApiError::new(Code::Invalid, "no image")]).unwrap();
        let failure = Failure::from(CallError::from(error));
        assert_eq!(failure.message, "services.web: port 80 is taken\nno image");
        assert_eq!((failure.hint.as_deref(), failure.code), (Some("choose another"), FAILED));
    }

    #[test]
    fn a_missing_server_is_named_with_what_to_do() {
        let connect = |kind| {
            let source = io::Error::from(kind);
            Failure::from(CallError::from(TransportError::Connect { address: "/s".into(), source }))
        };
        let failure = connect(io::ErrorKind::NotFound);
        assert_eq!(failure.message, "cannot reach /s: no such file; is `tug server` running?");
        assert!(failure.hint.is_some_and(|hint| hint.contains("--socket")));
        assert_eq!(connect(io::ErrorKind::PermissionDenied).message, "cannot reach /s: permission denied");
    }

    #[test]
    fn a_closed_pipe_is_quiet() {
        let failure = Failure::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!((failure.message.as_str(), failure.code), ("", 141));
        assert_eq!(Failure::from(io::Error::from(io::ErrorKind::StorageFull)).code, FAILED);
    }
}
