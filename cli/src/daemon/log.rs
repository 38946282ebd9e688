//! What the daemons log: to standard error, as text for people and as JSON for tools.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::layer;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::arguments::{LogFormat, LogOptions};
use crate::failure::{Failure, USAGE};
use crate::render::Facts;

/// Never more than this of them, whatever the filter says.
const QUIET: [&str; 3] = ["bollard=info", "hyper=info", "h2=info"];

/// Begins to log. `filter` and `format` are for where the user did not say; without a format, it is text on a terminal
/// and JSON elsewhere.
pub(super) fn init(options: &LogOptions, filter: &str, format: Option<LogFormat>) -> Result<(), Failure> {
    let text = options.filter.as_deref().unwrap_or(filter);
    let filter = EnvFilter::try_new(text).map_err(|error| Failure {
        code: USAGE,
        ..Failure::caused(&format!("understand the log filter `{}`", text.escape_default()), &error)
            .hint("write a level such as debug, or target=level pairs such as info,tug_agent=debug")
    })?;
    // Below `info` the client of the Engine logs what containers are made of, their environment included.
    let quiet = |filter: EnvFilter| {
        QUIET.iter().fold(filter, |filter, one| {
            filter.add_directive(one.parse().expect("a constant directive is well formed"))
        })
    };
    let filter = quiet(filter);
    let usual = if io::stderr().is_terminal() { LogFormat::Text } else { LogFormat::Json };
    let registry = tracing_subscriber::registry().with(filter);
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
