//! The OpenAPI document: made from the handlers themselves, served, and checked in as `docs/openapi.json`.

use utoipa::OpenApi;

use super::{exec, fleet, join, link, logs, look, machines, own, projects, tokens, volumes, watch};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Tug",
        description = "What users and agents ask the orchestrator. Every error has the shape of `ErrorBody`; every \
                       answer has the header `x-request-id`. Streams are JSON lines (`application/x-ndjson`). Who asks too \
                       much at once with a token is answered 429, with the header `retry-after`.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    paths(
        own::healthz,
        own::readyz,
        own::metrics,
        own::openapi,
        look::info,
        projects::list,
        projects::read,
        projects::apply,
        projects::remove,
        projects::status,
        projects::plan,
        projects::scale,
        projects::restart,
        look::why,
        exec::exec,
        look::events,
        watch::watch,
        logs::logs,
        fleet::nodes,
        machines::read,
        machines::availability,
        machines::labels,
        machines::remove,
        volumes::forget,
        volumes::list,
        fleet::top,
        tokens::whoami,
        tokens::list,
        tokens::create,
        tokens::remove,
        join::join,
        join::renew,
        join::certificate,
        link::link,
    ),
    tags(
        (name = "projects", description = "What is wanted, and how it stands"),
        (name = "look", description = "What happened, and why"),
        (name = "inside", description = "What containers write, and commands in them"),
        (name = "access", description = "Who may do what, and how machines join"),
        (name = "nodes", description = "The machines"),
        (name = "own", description = "The orchestrator about itself"),
    )
)]
struct Document;

/// The document.
pub fn document() -> utoipa::openapi::OpenApi {
    Document::openapi()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    fn checked_in() -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.json")
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "asked only by whoever writes the document anew, in this test"
    )]
    fn is_to_be_written() -> bool {
        std::env::var("UPDATE_OPENAPI").is_ok()
    }

    #[test]
    fn the_document_that_is_checked_in_is_the_one_that_is_served() {
        let mut text = document().to_pretty_json().unwrap();
        text.push('\n');
        if is_to_be_written() {
            std::fs::write(checked_in(), &text).unwrap();
        }
        let found = std::fs::read_to_string(checked_in()).unwrap_or_default();
        assert!(found == text, "docs/openapi.json is not up to date: run this test with UPDATE_OPENAPI=1");
    }

    #[test]
    fn every_path_that_is_routed_is_in_the_document() {
        let routed: BTreeSet<String> =
            super::super::routes().into_iter().map(|(_, path, ..)| path.to_owned()).collect();
        let documented: BTreeSet<String> = document().paths.paths.into_keys().collect();
        assert_eq!(routed, documented);
    }
}
