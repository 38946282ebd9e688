//! `tug version`: this program and the server.

use serde::Serialize;
use tug_api::client::CallError;
use tug_api::transport::TransportError;
use tug_api::user::Info;

use crate::arguments::VersionArguments;
use crate::context::Context;
use crate::failure::{Failure, is_host};
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
        // That none runs here is no error; that one elsewhere is out of reach is.
        Err(CallError::Transport(TransportError::Connect { address, .. })) if !is_host(&address) => None,
        Err(error) => return Err(error.into()),
    };
    let versions = Versions { client: env!("CARGO_PKG_VERSION"), server };
    let text = structured::listed(&versions, arguments.output.format, |_| people(&versions))?;
    let is_other = versions.server.as_ref().is_some_and(|info| info.version != versions.client);
    if is_other {
        context
            .screen
            .note("they differ: use the program of the server's version where something is not understood");
    }
    context.screen.data(&text)
}

fn people(versions: &Versions) -> String {
    let server = versions.server.as_ref().map_or_else(
        || "not running".to_owned(),
        |info| format!("{} (cluster {})", printable(&info.version), printable(&info.cluster)),
    );
    format!("tug {}\nserver {server}\n", versions.client)
}
