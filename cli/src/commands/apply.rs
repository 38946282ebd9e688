//! `tug apply`: build, show, ask, deploy, wait.

use tug_api::Code;
use tug_api::client::CallError;
use tug_api::transport::TransportError;
use tug_api::user::Accepted;

use super::{confirm, settle};
use crate::arguments::ApplyArguments;
use crate::build;
use crate::context::{Context, guard};
use crate::failure::Failure;
use crate::manifest::{self, Manifest};
use crate::render::{plan, style};
use crate::watch::repeat;

/// What to do where nobody knows what the server did.
const PERHAPS: &str = "it may have been accepted; look with `tug ls`, then apply again";

/// Deploys a manifest.
pub(crate) async fn run(context: &mut Context, arguments: &ApplyArguments) -> Result<(), Failure> {
    let mut manifest = manifest::require(&arguments.manifest, &context.surroundings, &mut context.screen)?;
    check(context, &manifest).await?;
    build::images(context, &mut manifest, &arguments.engine.docker).await?;
    let Some(accepted) = deploy(context, &manifest, arguments.yes).await? else {
        return Err(Failure::new("nothing was changed: the plan was not confirmed"));
    };
    settle::settle(context, &manifest.request.spec.name, &accepted, None, &arguments.waiting).await
}

/// Asks the server whether it would take the project, before anything is built for it: what it refuses, a port of another
/// project for one, need not wait for that.
async fn check(context: &Context, manifest: &Manifest) -> Result<(), Failure> {
    if manifest.builds.is_empty() {
        return Ok(());
    }
    let mut assumed = manifest.clone();
    super::plan::assume_built(context, &mut assumed).await?;
    assumed.pull_no_builds();
    let answer = context.client.plan(&assumed.request).await;
    answer
        .map(drop)
        .map_err(|error| Failure::from(manifest.located(error)).or_hint("nothing was built or changed"))
}

/// Shows the plan, asks if it may be carried out, and hands the project over. `None`: it may not.
pub(crate) async fn deploy(
    context: &mut Context,
    manifest: &Manifest,
    yes: bool,
) -> Result<Option<Accepted>, Failure> {
    let project = &manifest.request.spec.name;
    let preview = context.client.plan(&manifest.request).await;
    let preview = preview.map_err(|error| manifest.located(error))?;
    let nothing = plan::is_empty(&preview);
    context.screen.note(&plan::plan(project, &preview));
    if !yes && !nothing && context.screen.facts.can_ask() && !confirm(context, "Deploy?", true)? {
        return Ok(None);
    }
    let guard = guard(Some(preview.base))?;
    let client = &context.client;
    let mut unknown = false;
    let answer = repeat(async || {
        let answer = client.apply(&manifest.request, &guard).await;
        unknown |= answer.as_ref().is_err_and(may_have_changed_something);
        answer
    });
    let accepted = tokio::select! {
        biased;
        answer = answer => answer.map_err(|error| explained(manifest.located(error), unknown))?,
        // Called off when it is under way, nobody knows how far it came.
        () = context.interrupt.asked() => {
            return Err(context.interrupt.failure(&format!("stopped before {project} was accepted")).hint(PERHAPS));
        }
    };
    if let Some(number) = accepted.number.filter(|_| accepted.changed) {
        context.screen.note(&style::paint(style::DIM, format_args!("{project} version {number} accepted")));
    }
    Ok(Some(accepted))
}

/// Whether the server may have done what was asked although this is its answer.
fn may_have_changed_something(error: &CallError) -> bool {
    match error {
        // After a panic nobody knows how far it came.
        CallError::Api(error) => matches!(error.code, Code::OutcomeUnknown | Code::Internal),
        CallError::Transport(TransportError::Connect { .. })
        | CallError::Request(_)
        | CallError::Encode(_) => false,
        CallError::Transport(_) | CallError::Decode(_) => true,
    }
}

/// The failure that `error` is; `unknown`: one of the attempts may have done what was asked.
fn explained(error: CallError, unknown: bool) -> Failure {
    let failure = Failure::from(error);
    if unknown {
        return failure.hint(PERHAPS);
    }
    failure.or_hint("nothing was changed")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::convert::Infallible;
    use std::io;

    use http::{Method, Request, Response};
    use tower::service_fn;
    use tug_api::client::Client;
    use tug_api::error::ErrorBody;
    use tug_api::transport::Channel;
    use tug_api::user::{ApplyRequest, Preview};
    use tug_api::{ApiError, Body};
    use tug_compose::{Build, Places};
    use tug_model::{Revision, ServiceName};

    use super::*;
    use crate::context::Interrupt;
    use crate::failure::INTERRUPTED;
    use crate::render::{Facts, Screen};

    fn hint(error: CallError) -> String {
        let unknown = may_have_changed_something(&error);
        explained(error, unknown).hint.unwrap()
    }

    #[test]
    fn nothing_was_changed_is_said_only_where_that_is_known() {
        let said = |code| hint(ApiError::new(code, "no").hint("").into());
        let plain = |code| hint(ApiError::new(code, "no").into());
        for code in [Code::Invalid, Code::Conflict, Code::TooLarge, Code::Unavailable, Code::StoreFull] {
            assert_eq!(plain(code), "nothing was changed", "{code:?}");
            assert_eq!(said(code), "", "the server's own hint is better");
        }
        for code in [Code::OutcomeUnknown, Code::Internal] {
            assert!(plain(code).starts_with("it may have been accepted"), "{code:?}");
            assert!(said(code).starts_with("it may have been accepted"), "{code:?}");
        }
        assert!(hint(TransportError::lost("reset").into()).starts_with("it may have been accepted"));
    }

    #[tokio::test]
    async fn an_interruption_while_the_server_decides_says_that_nobody_knows() {
        let interrupt = Interrupt::new();
        let asked = interrupt.clone();
        let service = service_fn(move |request: Request<Body>| {
            let asked = asked.clone();
            async move {
                if request.method() == Method::PUT {
                    asked.ask(INTERRUPTED);
                    std::future::pending::<()>().await;
                }
                let preview = Preview { base: Revision(0), services: Vec::new(), notes: Vec::new() };
                Ok::<_, Infallible>(Response::new(Body::from(serde_json::to_vec(&preview).unwrap())))
            }
        });
        let (screen, _, _) = Screen::in_memory(Facts::default());
        let client = Client::new(Channel::service(service));
        let mut context = Context { interrupt, ..Context::of(client, screen) };
        let spec = serde_json::from_str(r#"{"name": "shop", "services": {}}"#).unwrap();
        let manifest = Manifest {
            request: ApplyRequest { spec, source: Vec::new() },
            builds: BTreeMap::new(),
            places: Places::default(),
        };
        let failure = deploy(&mut context, &manifest, true).await.unwrap_err();
        assert_eq!((failure.code, failure.hint.as_deref()), (INTERRUPTED, Some(PERHAPS)), "{failure:?}");
    }

    #[tokio::test]
    async fn what_the_server_refuses_is_told_before_anything_is_built() {
        let service = service_fn(|request: Request<Body>| async move {
            let plan = request.uri().path().ends_with("/plan");
            let said = if plan {
                ApiError::new(Code::Conflict, "port 80 is taken").field("spec.services.web.ports[0]")
            } else {
                ApiError::not_found("project `shop`")
            };
            let body = ErrorBody { error: said, request_id: String::new() };
            let body = Body::from(serde_json::to_vec(&body).unwrap());
            Ok::<_, Infallible>(Response::builder().status(409).body(body).unwrap())
        });
        let (screen, _, _) = Screen::in_memory(Facts::default());
        let context = Context::of(Client::new(Channel::service(service)), screen);
        let spec = serde_json::from_str(r#"{"name": "shop", "services": {}}"#).unwrap();
        let request = ApplyRequest { spec, source: Vec::new() };
        let mut manifest = Manifest { request, builds: BTreeMap::new(), places: Places::default() };
        check(&context, &manifest).await.unwrap();
        manifest.builds.insert(ServiceName::parse("web").unwrap(), Build::default());
        let failure = check(&context, &manifest).await.unwrap_err();
        assert_eq!(failure.message, "spec.services.web.ports[0]: port 80 is taken");
        assert_eq!(failure.hint.as_deref(), Some("nothing was built or changed"));
    }

    #[test]
    fn a_server_that_was_never_reached_has_changed_nothing_unless_it_was_reached_before() {
        let refused = || TransportError::Connect {
            address: "tug.sock".into(),
            source: io::ErrorKind::ConnectionRefused.into(),
        };
        assert!(hint(refused().into()).starts_with("start one"));
        let later = explained(refused().into(), true).hint.unwrap();
        assert!(later.starts_with("it may have been accepted"), "{later}");
    }
}
