//! `tug version`: this program and the server.

use serde::Serialize;
use tug_api::client::CallError;
use tug_api::transport::TransportError;
use tug_api::user::Info;

use crate::arguments::VersionArguments;
use crate::context::Context;
use crate::failure::Failure;
use crate::render::escape::printable;
use crate::render::structured;

/// Both versions.
#[derive(Debug, Serialize)]
struct Versions {
    client: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<Info>,
}

/// Shows the versions; that no server runs is no error.
pub(crate) async fn run(context: &mut Context, arguments: &VersionArguments) -> Result<(), Failure> {
    let server = match context.client.info().await {
        Ok(info) => Some(info),
        Err(CallError::Transport(TransportError::Connect { .. })) => None,
        Err(error) => return Err(error.into()),
    };
    let versions = Versions { client: env!("CARGO_PKG_VERSION"), server };
    let text = structured::listed(&versions, arguments.output.format, |_| people(&versions))?;
    context.screen.data(&text)
}

fn people(versions: &Versions) -> String {
    let server = versions.server.as_ref().map_or_else(
        || "not running".to_owned(),
        |info| format!("{} (cluster {})", printable(&info.version), printable(&info.cluster)),
    );
    format!("tug {}\nserver {server}\n", versions.client)
}
