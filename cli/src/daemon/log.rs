//! What the daemons log: to standard error, as text for people and as JSON for tools.

use std::io::{self, IsTerminal};

use tracing::{Level, Metadata};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt::layer;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::arguments::{LogFormat, LogOptions};
use crate::failure::{Failure, USAGE};
use crate::render::Facts;

/// Those of whom nothing below `info` is logged, whatever the filter says: there the client of the Engine tells what
/// containers are made of, their environment included, and those below it what goes over the wire.
const QUIET: [&str; 3] = ["bollard", "hyper", "h2"];

/// Begins to log. `filter` and `format` are for where the user did not say; without a format, it is text on a terminal
/// and JSON elsewhere.
pub(super) fn init(options: &LogOptions, filter: &str, format: Option<LogFormat>) -> Result<(), Failure> {
    let text = options.filter.as_deref().unwrap_or(filter);
    let filter = EnvFilter::try_new(text).map_err(|error| Failure {
        code: USAGE,
        ..Failure::caused(&format!("understand the log filter `{}`", text.escape_default()), &error)
            .hint("write a level such as debug, or target=level pairs such as info,tug_agent=debug")
    })?;
    let usual = if io::stderr().is_terminal() { LogFormat::Text } else { LogFormat::Json };
    let registry = tracing_subscriber::registry().with(filter).with(filter_fn(may_be_logged));
    let installed = match options.log_format.or(format).unwrap_or(usual) {
        LogFormat::Text => {
            let colours = Facts::of_process().stderr_colour;
            registry.with(layer().with_writer(io::stderr).with_ansi(colours)).try_init()
        }
        LogFormat::Json => {
            let json = layer().json().flatten_event(true).with_current_span(false);
            registry.with(json.with_writer(io::stderr)).try_init()
        }
    };
    installed.map_err(|error| Failure::caused("begin to log", &error))
}

/// What the user's filter cannot allow; it can only forbid more.
fn may_be_logged(what: &Metadata<'_>) -> bool {
    *what.level() <= Level::INFO || !QUIET.iter().any(|quiet| what.target().starts_with(quiet))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Where the log of a test goes.
    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(filter: &str) -> String {
        let written = Written::default();
        let writer = written.clone();
        let lines = layer().with_writer(move || writer.clone()).with_ansi(false).without_time();
        let registry = tracing_subscriber::registry()
            .with(EnvFilter::try_new(filter).unwrap())
            .with(filter_fn(may_be_logged))
            .with(lines);
        tracing::subscriber::with_default(registry, || {
            tracing::debug!(target: "bollard::docker", "an environment");
            tracing::trace!(target: "hyper_util::client", "bytes");
            tracing::trace!(target: "h2::codec", "frames");
            tracing::info!(target: "bollard::docker", "engine");
            tracing::debug!(target: "tug_agent::control", "ours");
        });
        String::from_utf8(written.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn no_filter_lets_the_client_of_the_engine_tell_environments() {
        let engine = " INFO bollard::docker: engine\n";
        let ours = "DEBUG tug_agent::control: ours\n";
        assert_eq!(logged("trace"), format!("{engine}{ours}"));
        assert_eq!(logged("bollard::docker=debug,h2=trace,hyper_util=trace"), engine);
    }

    #[test]
    fn what_the_user_forbids_stays_forbidden() {
        assert_eq!(logged("error"), "");
        assert_eq!(logged("bollard=warn,tug_agent=debug"), "DEBUG tug_agent::control: ours\n");
    }
}
