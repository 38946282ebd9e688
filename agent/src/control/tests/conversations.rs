//! What the orchestrator asks beside assignments and reports; and the link that it asks over.

use std::sync::Mutex;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use axum::routing::get;
use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http::header::{CONNECTION, UPGRADE};
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;
use tokio_util::codec::{Encoder, FramedRead};
use tokio_util::io::StreamReader;
use tug_api::frame::{ExecStart, Frame, FrameCodec};
use tug_api::node::{LINK_PATH, LINK_PROTOCOL, MembersText};
use tug_api::user::LogQuery;
use tug_model::assignment::Run;
use tug_model::endpoints::Stamp;
use tug_model::node::KeyId;
use tug_model::{NanoCpus, Revision};

use super::*;
use crate::link::{Link, Place};

#[tokio::test(start_paused = true)]
async fn a_log_is_followed_across_restarts_until_the_task_has_gone() {
    let machine = Machine::new();
    let agent = machine.agent().await;
    agent.assign(&told(1, &template(), &[1])).await;
    agent.until_healthy(1).await;
    let plain = agent.client.logs(&id(1), &LogQuery::default()).await.unwrap();
    let lines: Vec<String> = plain.map(|line| line.unwrap().line).collect().await;
    assert_eq!(lines, ["starting", "panic: no luck"]);

    let query = LogQuery { follow: true, ..LogQuery::default() };
    let mut log = agent.client.logs(&id(1), &query).await.unwrap();
    for run in 0..3 {
        assert_eq!(log.next().await.unwrap().unwrap().line, "starting", "run {run}");
        assert_eq!(log.next().await.unwrap().unwrap().line, "panic: no luck", "run {run}");
        tokio::time::sleep(Duration::from_secs(11)).await;
        machine.engine.somebody_kills("shop.web.1.1");
    }
    agent.until_healthy(1).await;
    agent.assign(&assignment(2, &template(), &[])).await;
    let rest: Vec<_> = log.collect().await;
    assert!(rest.len() <= 2, "it ends: {rest:?}");

    let Err(CallError::Api(error)) = agent.client.logs(&id(1), &query).await.map(drop) else { panic!() };
    assert_eq!(error.code, Code::NotFound);
    agent.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_log_whose_feed_breaks_is_read_on_and_no_line_comes_twice() {
    let machine = Machine::new();
    let agent = machine.agent().await;
    agent.assign(&told(1, &template(), &[1])).await;
    agent.until_healthy(1).await;
    let query = LogQuery { follow: true, ..LogQuery::default() };
    let mut log = agent.client.logs(&id(1), &query).await.unwrap();
    let opened = machine.engine.logs_opened();
    for line in ["starting", "panic: no luck"] {
        assert_eq!(log.next().await.unwrap().unwrap().line, line);
    }
    for cut in 1..4 {
        machine.engine.cuts_logs();
        let silence = tokio::time::timeout(Duration::from_secs(3), log.next()).await;
        assert!(silence.is_err(), "both lines were read before: {silence:?}");
        assert_eq!(machine.engine.logs_opened(), opened + cut, "opened again, once");
    }
    machine.engine.somebody_kills("shop.web.1.1");
    for line in ["starting", "panic: no luck"] {
        assert_eq!(log.next().await.unwrap().unwrap().line, line);
    }
    agent.end().await;
}

fn frames(frames: &[Frame]) -> Bytes {
    let mut bytes = BytesMut::new();
    for frame in frames {
        FrameCodec.encode(frame.clone(), &mut bytes).unwrap();
    }
    bytes.freeze()
}

#[tokio::test(start_paused = true)]
async fn a_command_reads_and_writes_at_the_same_time_and_its_code_comes_last() {
    let machine = Machine::new();
    let agent = machine.agent().await;
    agent.assign(&told(1, &template(), &[1])).await;
    agent.until_healthy(1).await;
    let start = ExecStart { command: vec!["cat".to_owned()], stdin: true, ..ExecStart::default() };
    let much = Bytes::from(vec![b'x'; 100_000]);
    let said = frames(&[Frame::Start(start), Frame::Input(much.clone()), Frame::InputEnd]);
    let answer = agent.client.exec(&id(1), Body::from(said)).await.unwrap();
    let body = answer.into_body().into_data_stream().map(|chunk| chunk.map_err(std::io::Error::other));
    let heard = FramedRead::new(StreamReader::new(body), FrameCodec).map(Result::unwrap);
    let heard: Vec<Frame> = heard.collect().await;
    assert_eq!(heard.last(), Some(&Frame::Exit(7)));
    let written: usize =
        heard.iter().map(|frame| if let Frame::Output(bytes) = frame { bytes.len() } else { 0 }).sum();
    assert_eq!(written, much.len());

    for wrong in [
        frames(&[Frame::InputEnd]),
        frames(&[Frame::Start(ExecStart::default())]),
        frames(&[Frame::Start(ExecStart { command: vec!["dog".to_owned()], ..ExecStart::default() })]),
        Bytes::from_static(b"\xff\0\0\0\0"),
    ] {
        assert!(matches!(agent.client.exec(&id(1), Body::from(wrong)).await, Err(CallError::Api(_))));
    }
    agent.end().await;
}

#[tokio::test(start_paused = true)]
async fn usage_is_a_rate() {
    let machine = Machine::new();
    let agent = machine.agent().await;
    agent.assign(&told(1, &template(), &[1, 2])).await;
    agent.until_healthy(2).await;
    for _ in 0..2 {
        let usage = agent.client.usage().await.unwrap();
        assert_eq!(usage.iter().map(|usage| usage.task.clone()).collect::<Vec<_>>(), [id(1), id(2)]);
        for usage in usage {
            assert!(usage.cpu.0.abs_diff(NanoCpus(500_000_000).0) < 1000, "{usage:?}");
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    agent.end().await;
}

#[tokio::test(start_paused = true)]
async fn who_belongs_to_the_cluster_only_the_control_plane_may_say_that_is_followed() {
    let machine = Machine::new();
    let agent = machine.agent().await;
    let followed = told(2, &template(), &[1]);
    agent.assign(&followed).await;
    let ours = endpoints_of(&followed, port()).stamp;
    let key = KeyId("ab".repeat(32));
    let members = MembersText::new(&[(&node(), &key)].into());
    agent.client.introduce(&ours, members.clone()).await.unwrap();
    for wrong in [
        Stamp { cluster: "another".to_owned(), ..ours.clone() },
        Stamp { generation: Revision(1), ..ours.clone() },
        Stamp { run: Some(Run { at: Timestamp(9), found: Revision(1) }), ..ours.clone() },
    ] {
        let refused = agent.client.introduce(&wrong, members.clone()).await;
        let Err(CallError::Api(error)) = refused else { panic!("{wrong:?} counts: {refused:?}") };
        assert_eq!(error.code, Code::Conflict, "{wrong:?}");
    }
    agent.end().await;
}

/// The other end of the link: takes the connection over and asks the agent who it is.
fn take_over(request: Request, links: mpsc::UnboundedSender<NodeClient>) -> Response {
    assert_eq!(request.uri().query(), Some("node=n1&boot=b"));
    assert_eq!(request.headers()[UPGRADE], LINK_PROTOCOL);
    tokio::spawn(async move {
        let upgraded = hyper::upgrade::on(request).await.unwrap();
        let (channel, ended) = Channel::over(TokioIo::new(upgraded)).await.unwrap();
        tokio::select! {
            biased;
            () = ended => {}
            () = async {
                links.send(NodeClient::new(channel)).unwrap();
                links.closed().await;
            } => {}
        }
    });
    let response = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS);
    response.header(CONNECTION, "upgrade").header(UPGRADE, LINK_PROTOCOL).body(Body::empty()).unwrap()
}

#[tokio::test]
async fn the_agent_dials_the_roles_turn_round_and_a_lost_link_is_dialled_again() {
    let machine = Machine::new();
    let agent = machine.agent().await;
    let socket = machine.file("tug.sock");
    let place = Place::Socket(socket.clone());
    let (router, local) = (agent.handle.router.clone(), tokio::sync::watch::Sender::new(None));
    let link = Link { place, node: node(), boot: Some("b".to_owned()), router, local, seed: 1 };
    let stop = CancellationToken::new();
    let linked = tokio::spawn(link.run(stop.clone()));

    for round in 0..2 {
        let (sender, mut links) = mpsc::unbounded_channel();
        let sender = Arc::new(Mutex::new(sender));
        let router = Router::new().route(
            LINK_PATH,
            get(move |request: Request| {
                let links = sender.lock().unwrap().clone();
                std::future::ready(take_over(request, links))
            }),
        );
        let listener = tokio::net::UnixListener::bind(&socket).unwrap();
        let down = CancellationToken::new();
        let served = tokio::spawn(tug_api::serve::unix(listener, router, down.clone()));
        let client = links.recv().await.unwrap();
        let mut reports = client.reports().await.unwrap();
        let report = reports.next().await.unwrap().unwrap();
        assert_eq!(report.info.hostname, "testhost", "round {round}");
        drop((reports, client, links));
        down.cancel();
        served.await.unwrap().unwrap();
        std::fs::remove_file(&socket).unwrap();
    }
    stop.cancel();
    linked.await.unwrap();
    agent.end().await;
}
