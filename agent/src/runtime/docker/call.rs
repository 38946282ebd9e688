//! One call to the Engine: its client, its deadline, and what its failure means.

use std::fmt::Display;
use std::io;
use std::time::Duration;

use bollard::errors::Error as EngineError;

use super::{Docker, Operation, RuntimeError, deadline};
use crate::runtime::Cause;

/// bollard's own limit, which would cut a long stop short: out of the way, each call has a deadline of its own.
const NO_LIMIT: u64 = 7 * 24 * 3600;

/// A version of the Engine's API.
pub(super) type ApiVersion = (u16, u16);

/// What is tried, on what.
#[derive(Debug, Clone)]
pub(super) struct Call<'a> {
    docker: &'a Docker,
    operation: Operation,
    object: String,
}

// === impl Docker ===

impl Docker {
    /// A call of `operation` on `object`.
    pub(super) fn call(&self, operation: Operation, object: impl Display) -> Call<'_> {
        Call { docker: self, operation, object: object.to_string() }
    }

    fn client(&self) -> Result<bollard::Docker, EngineError> {
        if let Some(client) = self.client.get() {
            return Ok(client.clone());
        }
        let socket = self.socket.to_string_lossy();
        let client = bollard::Docker::connect_with_unix(&socket, NO_LIMIT, bollard::API_DEFAULT_VERSION)?;
        Ok(self.client.get_or_init(|| client).clone())
    }

    /// The newest API version that the Engine speaks, asked once.
    pub(super) async fn api_version(&self, call: &Call<'_>) -> Result<ApiVersion, RuntimeError> {
        if let Some(version) = self.api_version.get() {
            return Ok(*version);
        }
        let version =
            call.within(deadline::READ, |client| async move { client.version().await }).await?.api_version;
        let version = version.as_deref().and_then(parse_version).unwrap_or((1, 41));
        Ok(*self.api_version.get_or_init(|| version))
    }
}

// === impl Call ===

impl Call<'_> {
    /// The client, for what opens a feed.
    pub(super) fn client(&self) -> Result<bollard::Docker, RuntimeError> {
        self.docker.client().map_err(|error| self.failed(error))
    }

    /// What `ask` answers, if it does so in time.
    pub(super) async fn within<T, F>(
        &self,
        limit: Duration,
        ask: impl FnOnce(bollard::Docker) -> F,
    ) -> Result<T, RuntimeError>
    where
        F: Future<Output = Result<T, EngineError>>,
    {
        let client = self.client()?;
        match tokio::time::timeout(limit, Box::pin(ask(client))).await {
            Ok(answer) => answer.map_err(|error| self.failed(error)),
            Err(_) => Err(self.error(Cause::Timeout(limit))),
        }
    }

    /// The error of this call by `cause`.
    pub(super) fn error(&self, cause: Cause) -> RuntimeError {
        RuntimeError::new(self.operation, self.object.clone(), cause)
    }

    /// The error of this call after what the Engine, or the way to it, said.
    pub(super) fn failed(&self, error: EngineError) -> RuntimeError {
        self.error(cause(error))
    }

    /// [`Call::failed`] without a borrow, for feeds.
    pub(super) fn failure(&self) -> impl Fn(EngineError) -> RuntimeError + Send + use<> {
        let (operation, object) = (self.operation, self.object.clone());
        move |error| RuntimeError::new(operation, object.clone(), cause(error))
    }
}

/// What a failure means.
#[expect(clippy::wildcard_enum_match_arm, reason = "bollard has many errors that mean the same to us")]
fn cause(error: EngineError) -> Cause {
    match error {
        EngineError::DockerResponseServerError { status_code, message } => match status_code {
            404 => Cause::NotFound(message),
            409 => Cause::Conflict(message),
            400..500 => Cause::Refused(message),
            _ => Cause::Failed(message),
        },
        EngineError::DockerStreamError { error } => Cause::Failed(error),
        EngineError::SocketNotFoundError(_) => Cause::Missing,
        error @ (EngineError::JsonDataError { .. }
        | EngineError::JsonSerdeError { .. }
        | EngineError::StrParseError { .. }
        | EngineError::URLParseError { .. }
        | EngineError::InvalidURIError { .. }
        | EngineError::URLEncodedError { .. }) => Cause::Failed(error.to_string()),
        error => match io_kind(&error) {
            Some(io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => Cause::Missing,
            Some(io::ErrorKind::PermissionDenied) => Cause::Forbidden,
            _ => Cause::Connection(Box::new(error)),
        },
    }
}

/// The input or output error at the root of `error`, if there is one.
fn io_kind(error: &EngineError) -> Option<io::ErrorKind> {
    // bollard passes some errors on as its own, whose `source` then skips the very error that we are looking for.
    let root: &(dyn std::error::Error + 'static) =
        if let EngineError::IOError { err } = error { err } else { error };
    let mut next = Some(root);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return Some(error.kind());
        }
        next = error.source();
    }
    None
}

fn parse_version(text: &str) -> Option<ApiVersion> {
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    #[test]
    fn a_status_of_the_engine_says_whether_to_try_again() {
        let error = |status_code| {
            let error = EngineError::DockerResponseServerError { status_code, message: "no".to_owned() };
            RuntimeError::new(Operation::Start, "web", cause(error))
        };
        assert!(error(404).is_not_found());
        assert!(error(409).is_conflict());
        assert!(error(400).is_permanent());
        assert!(!error(500).is_permanent());
        for status in [400, 404, 409, 500] {
            assert!(!error(status).is_engine_down());
        }
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        assert!(parse_version("1.41") < parse_version("1.100"));
        assert_eq!(parse_version("banana"), None);
    }

    #[tokio::test]
    async fn a_missing_engine_says_how_to_get_one() {
        let folder = tempfile::tempdir().unwrap();
        let node = tug_model::NodeId::parse("n1").unwrap();
        let docker = Docker::new(&folder.path().join("docker.sock"), node.clone());
        let error = docker.ask_everything().await.unwrap_err();
        assert!(error.is_engine_down());
        assert!(error.source().unwrap().to_string().contains("apt-get install docker.io"));

        // A socket file that nobody listens at is the same.
        let path = folder.path().join("dead.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let error = Docker::new(&path, node).ask_everything().await.unwrap_err();
        assert!(matches!(error.cause, Cause::Missing), "{error:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_engine_that_does_not_answer_is_given_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("docker.sock");
        let _silent = tokio::net::UnixListener::bind(&path).unwrap();
        let docker = Docker::new(&path, tug_model::NodeId::parse("n1").unwrap());
        let error = docker.ask_everything().await.unwrap_err();
        assert!(matches!(error.cause, Cause::Timeout(deadline::PING)), "{error:?}");
    }
}
