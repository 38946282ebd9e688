//! Waiting against a server in this process that loses connections.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::stream;
use http::{Request, Response, StatusCode};
use tower::service_fn;
use tug_api::transport::Channel;
use tug_api::{ApiError, Body};

use super::*;
use crate::render::Facts;
use crate::render::tests::Written;
use crate::sample;

/// What the server answers next to `GET /v1/watch`.
enum Stream {
    /// These items, then the connection breaks.
    Breaks(Vec<WatchItem>),
    /// These items, then nothing, for ever.
    Stays(Vec<WatchItem>),
    /// An error.
    Refuses(Code),
}

struct Server {
    status: Mutex<Option<ProjectStatus>>,
    streams: Mutex<Vec<Stream>>,
    asked: Mutex<Vec<String>>,
}

fn json<T: serde::Serialize>(value: &T) -> Response<Body> {
    Response::new(Body::from(serde_json::to_vec(value).unwrap()))
}

fn refusal(error: &ApiError) -> Response<Body> {
    let status = error.code.status();
    let body = serde_json::json!({ "error": error });
    let mut response = json(&body);
    *response.status_mut() = status;
    response
}

impl Server {
    fn new(status: Option<ProjectStatus>, streams: Vec<Stream>) -> Arc<Self> {
        Arc::new(Self { status: Mutex::new(status), streams: Mutex::new(streams), asked: Mutex::default() })
    }

    fn answer(&self, request: &Request<Body>) -> Response<Body> {
        let uri = request.uri().to_string();
        if uri.ends_with("/status") {
            let status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
            return match &*status {
                Some(status) => json(status),
                None => refusal(&ApiError::not_found("such project")),
            };
        }
        if uri.starts_with("/v1/projects/") {
            return refusal(&ApiError::not_found("stored project"));
        }
        self.asked.lock().unwrap().push(uri);
        let mut streams = self.streams.lock().unwrap();
        if streams.is_empty() {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::BAD_GATEWAY;
            return response;
        }
        match streams.remove(0) {
            Stream::Breaks(items) => tug_api::lines::response(stream::iter(items)),
            Stream::Stays(items) => tug_api::lines::response(stream::iter(items).chain(stream::pending())),
            Stream::Refuses(code) => refusal(&ApiError::new(code, "no")),
        }
    }

    fn context(self: &Arc<Self>) -> (Context, Written) {
        let server = Arc::clone(self);
        let service = service_fn(move |request: Request<Body>| {
            let response = server.answer(&request);
            async move { Ok::<_, Infallible>(response) }
        });
        let (screen, _out, err) = Screen::in_memory(Facts::default());
        (Context::of(Client::new(Channel::service(service)), screen), err)
    }
}

fn deployment() -> Wait {
    Wait {
        project: ProjectName::parse("shop").unwrap(),
        since: Revision(7),
        goal: Goal::Settled(Settled { number: 1, ..Settled::default() }),
        timeout: Duration::from_secs(300),
    }
}

fn busy() -> ProjectStatus {
    let web = sample::service("web", &[sample::healthy(), tug_model::report::Phase::Creating]);
    sample::project_of("shop", vec![web])
}

#[tokio::test(start_paused = true)]
async fn it_goes_on_after_the_server_was_away() {
    let ready = sample::project("shop", &["web"]);
    let server = Server::new(
        Some(busy()),
        vec![
            Stream::Breaks(vec![WatchItem::Bookmark { revision: Revision(9) }]),
            Stream::Refuses(Code::Unavailable),
            Stream::Stays(vec![WatchItem::Status(ready)]),
        ],
    );
    let (mut context, err) = server.context();
    assert_eq!(wait(&mut context, &deployment()).await.unwrap(), Ended::Reached);
    insta::assert_snapshot!(err.text(), @r"
    web 1/2 healthy: creating
    the connection to the server was lost, trying again
    the server is back
    web 1/1 healthy
    ");
    let asked = server.asked.lock().unwrap().clone();
    assert_eq!(
        asked,
        [
            "/v1/watch?since=7&project=shop",
            "/v1/watch?since=9&project=shop",
            "/v1/watch?since=9&project=shop"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn commits_that_are_gone_are_not_asked_for_again() {
    let server = Server::new(
        Some(sample::project("shop", &["web"])),
        vec![Stream::Refuses(Code::Compacted), Stream::Stays(Vec::new())],
    );
    let (mut context, _) = server.context();
    assert_eq!(wait(&mut context, &deployment()).await.unwrap(), Ended::Reached);
    assert_eq!(server.asked.lock().unwrap()[1], "/v1/watch?project=shop");
}

#[tokio::test(start_paused = true)]
async fn a_silent_stream_is_no_reason_to_hang() {
    let server = Server::new(Some(busy()), vec![Stream::Stays(Vec::new())]);
    let (mut context, _) = server.context();
    let waiting = deployment();
    let server_too = Arc::clone(&server);
    let (ended, ()) = tokio::join!(wait(&mut context, &waiting), async move {
        sleep(Duration::from_secs(12)).await;
        *server_too.status.lock().unwrap() = Some(sample::project("shop", &["web"]));
    });
    assert_eq!(ended.unwrap(), Ended::Reached);
}

#[tokio::test(start_paused = true)]
async fn the_timeout_tells_how_things_stood() {
    let server = Server::new(Some(busy()), vec![Stream::Stays(Vec::new())]);
    let (mut context, _) = server.context();
    let start = Instant::now();
    assert_eq!(wait(&mut context, &deployment()).await.unwrap(), Ended::TimedOut(Some(Box::new(busy()))));
    assert_eq!(start.elapsed(), Duration::from_secs(300));
}

#[tokio::test(start_paused = true)]
async fn a_crash_loop_fails_without_a_further_word_from_the_server() {
    let crashing = sample::project_of("shop", vec![sample::service("web", &[sample::crashed(1, "")])]);
    let server = Server::new(Some(crashing.clone()), vec![Stream::Stays(Vec::new())]);
    let (mut context, _) = server.context();
    let start = Instant::now();
    assert_eq!(wait(&mut context, &deployment()).await.unwrap(), Ended::Failed(Box::new(crashing)));
    assert!(start.elapsed() <= judge::PATIENCE + Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_removal_ends_when_the_project_is_gone() {
    let removal = Wait { goal: Goal::Gone(Revision(7)), ..deployment() };
    let gone = WatchItem::Gone { project: removal.project.clone() };
    let server = Server::new(Some(busy()), vec![Stream::Stays(vec![gone])]);
    assert_eq!(wait(&mut server.context().0, &removal).await.unwrap(), Ended::Reached);
    let server = Server::new(None, vec![Stream::Stays(Vec::new())]);
    assert_eq!(wait(&mut server.context().0, &removal).await.unwrap(), Ended::Reached, "it was quicker");
    let server = Server::new(None, vec![Stream::Stays(Vec::new())]);
    assert_eq!(wait(&mut server.context().0, &deployment()).await.unwrap(), Ended::Vanished);
}

#[tokio::test(start_paused = true)]
async fn a_removal_ends_when_the_project_is_applied_again() {
    let removal = Wait { goal: Goal::Gone(Revision(7)), ..deployment() };
    let again = ProjectStatus { revision: Revision(8), ..busy() };
    let server = Server::new(Some(busy()), vec![Stream::Stays(vec![WatchItem::Status(again)])]);
    assert_eq!(wait(&mut server.context().0, &removal).await.unwrap(), Ended::Returned);
}

#[tokio::test(start_paused = true)]
async fn ctrl_c_ends_the_waiting() {
    let server = Server::new(Some(busy()), vec![Stream::Stays(Vec::new())]);
    let (mut context, _) = server.context();
    context.interrupt.ask(130);
    assert_eq!(wait(&mut context, &deployment()).await.unwrap(), Ended::Interrupted);
}

#[tokio::test(start_paused = true)]
async fn a_mutation_is_repeated_while_its_outcome_is_unknown() {
    let mut answers = vec![
        Err(CallError::Api(ApiError::new(Code::OutcomeUnknown, "?"))),
        Err(CallError::Transport(tug_api::transport::TransportError::lost("gone"))),
        Err(CallError::Api(ApiError::new(Code::TooMany, "slower").retry_after(Duration::from_secs(1)))),
        Ok(5),
    ];
    let begun = tokio::time::Instant::now();
    assert_eq!(repeat(async || answers.remove(0)).await.unwrap(), 5);
    assert!(begun.elapsed() >= Duration::from_secs(1), "it waits as it is told");
    let mut asked = 0;
    let refused: Result<(), _> = repeat(async || {
        asked += 1;
        Err(CallError::Api(ApiError::new(Code::Conflict, "changed meanwhile")))
    })
    .await;
    assert!(refused.is_err());
    assert_eq!(asked, 1, "an answer is an answer");
    let mut full: Vec<Result<(), _>> = vec![Err(CallError::Api(ApiError::new(Code::TooMany, "remove some")))];
    assert!(
        repeat(async || full.remove(0)).await.is_err(),
        "and so is a limit that a person has to make room in"
    );
}
