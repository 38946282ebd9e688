//! How a command fails: what went wrong, what to do about it, and the exit code that tells a script.

use std::error::Error;
use std::io;

use tug_api::client::CallError;
use tug_api::error::chain;
use tug_api::lines::LineError;
use tug_api::tls::{self, Refusal};
use tug_api::transport::TransportError;
use tug_api::{ApiError, Code};

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

/// What may be behind an answer that is not understood.
const VERSIONS: &str = "`tug version` shows whether the server is of another version than this program";

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

    /// The same, saying this where nothing better is said about what to do.
    #[must_use]
    pub(crate) fn or_hint(mut self, hint: &str) -> Self {
        self.hint.get_or_insert_with(|| hint.to_owned());
        self
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Api(error) if error.code == Code::Unauthenticated => unknown_token(),
            CallError::Api(error) => refused(error),
            CallError::Transport(TransportError::Connect { address, source }) => {
                if is_host(&address) {
                    unreachable_host(&address, &source)
                } else {
                    unreachable_socket(&address, &source)
                }
            }
            CallError::Decode(_) => Self::new(chain(&error)).hint(VERSIONS),
            other @ (CallError::Transport(_) | CallError::Request(_) | CallError::Encode(_)) => {
                Self::new(chain(&other))
            }
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

/// Whether what could not be reached is `host:port`, and no socket's path.
pub(crate) fn is_host(address: &str) -> bool {
    let port = address.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
    !address.contains('/') && port.is_some_and(|port| port.is_ok())
}

/// The server says the same of every token that it does not take.
fn unknown_token() -> Failure {
    Failure::new("the server does not know this token, or not any more: it was removed, or has expired")
        .hint("ask an admin for another one (`tug token create`), then `tug login https://HOST:7443` again")
}

/// Nobody answered as who is expected, at the first of the addresses that are known.
fn unreachable_host(address: &str, source: &io::Error) -> Failure {
    let failure = |why: &str| Failure::new(format!("cannot reach https://{address} ({why})"));
    match (tls::refusal(source), source.kind()) {
        (Some(Refusal::Stranger), _) => Failure::new(format!(
            "whoever answers at https://{address} is not the cluster that the token is for"
        ))
        .hint("is the address right? If the cluster was made anew, log in with a token of its own; if not, somebody may \
               be in between: nothing was told to them"),
        (Some(Refusal::OutOfTime), _) => failure("its certificate is not valid at this machine's time")
            .hint("compare the clocks of both machines: `tug doctor`"),
        (Some(Refusal::OtherProtocol), _) => {
            failure("it does not speak TLS as Tug does").hint("is it the port of `tug server --listen`, usually 7443?")
        }
        (None, io::ErrorKind::ConnectionRefused) => failure("connection refused")
            .hint("is `tug server` running there, and does it listen on that address (--listen)?"),
        (None, io::ErrorKind::TimedOut) => failure("no answer").hint("is a firewall in between?"),
        (None, io::ErrorKind::UnexpectedEof) => {
            failure("the connection was closed").hint("is it the port of `tug server --listen`, usually 7443?")
        }
        (None, _) => failure(&source.to_string()).hint("is the name right, and the network up?"),
    }
}

fn unreachable_socket(address: &str, source: &io::Error) -> Failure {
    const START: &str = "start one with `tug server --agent`, name its socket with --socket or TUG_SOCKET, or `tug login` to \
                         one elsewhere (a machine that joined has none of its own)";
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
    fn a_server_elsewhere_is_named_with_what_to_do() {
        let connect = |source| {
            Failure::from(CallError::from(TransportError::Connect { address: "b:7443".into(), source }))
        };
        let refused = connect(io::ErrorKind::ConnectionRefused.into());
        assert_eq!(refused.message, "cannot reach https://b:7443 (connection refused)");
        assert!(refused.hint.is_some_and(|hint| hint.contains("--listen")));
        assert_eq!(
            connect(io::ErrorKind::TimedOut.into()).message,
            "cannot reach https://b:7443 (no answer)"
        );
        let unknown = CallError::from(ApiError::new(Code::Unauthenticated, "no valid token"));
        assert!(Failure::from(unknown).message.contains("removed, or has expired"));
        let nonsense = serde_json::from_str::<u8>("x").unwrap_err();
        assert_eq!(Failure::from(CallError::Decode(nonsense)).hint.as_deref(), Some(VERSIONS));
    }

    #[test]
    fn a_closed_pipe_is_quiet() {
        let failure = Failure::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!((failure.message.as_str(), failure.code), ("", 141));
        assert_eq!(Failure::from(io::Error::from(io::ErrorKind::StorageFull)).code, FAILED);
    }
}
