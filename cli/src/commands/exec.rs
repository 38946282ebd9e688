//! `tug exec`: a command in a replica, with its input, its output, its terminal and its exit code.

pub(crate) mod terminal;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::mpsc;
use tokio_util::codec::{Encoder, FramedRead};
use tokio_util::io::StreamReader;
use tug_api::Body;
use tug_api::error::chain;
use tug_api::frame::{ExecStart, Frame, FrameCodec};
use tug_model::Slot;

use self::terminal::{RawMode, Resizes};
use crate::arguments::ExecArguments;
use crate::context::Context;
use crate::failure::{FAILED, Failure};
use crate::names::{self, Kind};
use crate::render::escape::printable;
use crate::render::{Facts, Screen};

/// How many frames may wait for the connection.
const QUEUE: usize = 16;
/// How many bytes of input go into one frame.
const CHUNK: usize = 32 << 10;

/// Runs the command. The process exits with the command's own code.
pub(crate) async fn run(context: &mut Context, arguments: &ExecArguments) -> Result<(), Failure> {
    let projects = context.client.projects().await?;
    let (target, named) = names::replica(&projects, &arguments.name, Kind::Service)?;
    let service = target.service().ok_or_else(|| Failure::usage("name a service"))?;
    let slot = one_slot(named, arguments.slot)?;
    let tty = wants_terminal(arguments, context.screen.facts);
    let raw = if tty && context.screen.facts.stdin_terminal { Some(RawMode::enter()?) } else { None };
    let (frames, queue) = mpsc::channel(QUEUE);
    let start = Frame::Start(start(arguments, tty));
    frames.try_send(start).map_err(|_| Failure::new("the queue is full before it is used"))?;
    let body = Body::from_stream(encoded(queue));
    let response = context.client.exec(target.project(), service, slot, body).await?;
    let input = tokio::spawn(send_input(tokio::io::stdin(), frames.clone()));
    let sizes = tokio::spawn(send_sizes(tty, frames));
    let interrupt = context.interrupt.clone();
    let ended = tokio::select! {
        biased;
        () = interrupt.asked() => Err(interrupt.failure("")),
        ended = receive(response.into_body(), &mut context.screen) => ended,
    };
    input.abort();
    sizes.abort();
    drop(raw);
    match ended? {
        0 => Ok(()),
        code => Err(Failure::silent(code)),
    }
}

/// The replica that the name or `--slot` says.
fn one_slot(named: Option<Slot>, asked: Option<u32>) -> Result<Option<u32>, Failure> {
    match (named, asked) {
        (Some(Slot(named)), Some(asked)) if named != asked => {
            Err(Failure::usage(format!("the name says replica {named}, and --slot says {asked}")))
        }
        (Some(Slot(slot)), _) | (None, Some(slot)) => Ok(Some(slot)),
        (None, None) => Ok(None),
    }
}

fn wants_terminal(arguments: &ExecArguments, facts: Facts) -> bool {
    arguments.tty || (!arguments.no_tty && facts.stdin_terminal && facts.stdout_terminal)
}

fn start(arguments: &ExecArguments, tty: bool) -> ExecStart {
    ExecStart {
        command: arguments.command.clone(),
        tty,
        stdin: true,
        environment: arguments.environment.clone(),
        user: arguments.user.clone(),
        working_dir: arguments.workdir.clone(),
        size: if tty { terminal::size() } else { None },
    }
}

/// The frames of `queue` as bytes.
fn encoded(queue: mpsc::Receiver<Frame>) -> impl futures_util::Stream<Item = Result<Bytes, std::io::Error>> {
    futures_util::stream::unfold(queue, async |mut queue| {
        let frame = queue.recv().await?;
        let mut bytes = BytesMut::new();
        let encoded = FrameCodec.encode(frame, &mut bytes).map_err(std::io::Error::other);
        Some((encoded.map(|()| bytes.freeze()), queue))
    })
}

/// Passes input on until it ends.
async fn send_input(mut input: impl AsyncRead + Unpin, frames: mpsc::Sender<Frame>) {
    let mut buffer = BytesMut::with_capacity(CHUNK);
    loop {
        buffer.reserve(CHUNK);
        let frame = match input.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => Frame::InputEnd,
            Ok(_) => Frame::Input(buffer.split().freeze()),
        };
        let last = frame == Frame::InputEnd;
        if frames.send(frame).await.is_err() || last {
            return;
        }
    }
}

/// Passes on how large the terminal is whenever that changes. It holds the conversation open after the input's end.
async fn send_sizes(tty: bool, frames: mpsc::Sender<Frame>) {
    let Some(mut resizes) = Resizes::new().filter(|_| tty) else {
        return frames.closed().await;
    };
    while let Some(size) = resizes.next().await {
        if frames.send(Frame::Size(size)).await.is_err() {
            return;
        }
    }
}

/// Shows output until the command ends; gives its exit code.
async fn receive(body: Body, screen: &mut Screen) -> Result<u8, Failure> {
    let bytes = body.into_data_stream().map(|chunk| chunk.map_err(std::io::Error::other));
    let mut frames = FramedRead::new(StreamReader::new(bytes), FrameCodec);
    while let Some(frame) = frames.next().await {
        let frame =
            frame.map_err(|error| Failure::new(format!("the connection was lost: {}", chain(&error))))?;
        match frame {
            Frame::Output(bytes) => screen.raw(&bytes)?,
            Frame::ErrorOutput(bytes) => screen.raw_error(&bytes)?,
            Frame::Exit(code) => return Ok(exit_code(code)),
            Frame::Failed(reason) => return Err(Failure::new(printable(&reason))),
            Frame::Start(_) | Frame::Input(_) | Frame::InputEnd | Frame::Size(_) => {}
        }
    }
    Err(Failure::new("the connection was lost before the command ended"))
}

/// The exit code of a process is one byte; what does not fit must not look like success.
fn exit_code(code: i64) -> u8 {
    u8::try_from(code).unwrap_or(FAILED)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use clap::Parser;
    use http::{Request, Response};
    use tower::service_fn;
    use tug_api::client::Client;
    use tug_api::transport::Channel;

    use super::*;
    use crate::arguments::{Arguments, Command};
    use crate::sample;

    fn arguments(line: &str) -> ExecArguments {
        let parsed = Arguments::try_parse_from(line.split_whitespace()).unwrap();
        let Command::Exec(arguments) = parsed.command else { panic!("not an exec") };
        arguments
    }

    fn frames(frames: &[Frame]) -> Body {
        let mut bytes = BytesMut::new();
        for frame in frames {
            FrameCodec.encode(frame.clone(), &mut bytes).unwrap();
        }
        Body::from(bytes.freeze())
    }

    #[test]
    fn a_terminal_is_used_where_there_is_one_on_both_sides() {
        let both = Facts { stdin_terminal: true, stdout_terminal: true, ..Facts::default() };
        let piped = Facts { stdin_terminal: false, ..both };
        assert!(wants_terminal(&arguments("tug exec web -- sh"), both));
        assert!(!wants_terminal(&arguments("tug exec web -- sh"), piped));
        assert!(!wants_terminal(&arguments("tug exec -T web -- sh"), both));
        assert!(wants_terminal(&arguments("tug exec -it web -- sh"), piped));
    }

    #[test]
    fn everything_after_the_dashes_is_the_command_s() {
        let start = start(&arguments("tug exec -u app -e A=1 web -- ls -l --all -- x"), false);
        assert_eq!(start.command, ["ls", "-l", "--all", "--", "x"]);
        assert_eq!(
            (start.user.as_deref(), start.environment.as_slice()),
            (Some("app"), &["A=1".to_owned()][..])
        );
    }

    #[tokio::test]
    async fn output_is_passed_on_as_it_is_and_the_exit_code_too() {
        let (mut screen, out, err) = Screen::in_memory(Facts::default());
        let body = frames(&[
            Frame::Output(Bytes::from_static(b"\x1b[1mbold\r\n")),
            Frame::ErrorOutput(Bytes::from_static(b"oops")),
            Frame::Exit(42),
        ]);
        assert_eq!(receive(body, &mut screen).await.unwrap(), 42);
        assert_eq!((out.text().as_str(), err.text().as_str()), ("\x1b[1mbold\r\n", "oops"));
    }

    #[tokio::test]
    async fn what_did_not_run_is_a_failure() {
        let (mut screen, _, _) = Screen::in_memory(Facts::default());
        let failed = receive(frames(&[Frame::Failed("no such\u{1b} program".into())]), &mut screen).await;
        assert_eq!(failed.unwrap_err().message, r"no such\u{1b} program");
        let cut = receive(frames(&[Frame::Output(Bytes::from_static(b"x"))]), &mut screen).await;
        assert!(cut.unwrap_err().message.contains("lost"));
        assert_eq!([0, 255, 256, -1].map(exit_code), [0, 255, 1, 1]);
    }

    #[tokio::test]
    async fn input_goes_in_and_ends() {
        let (sender, mut queue) = mpsc::channel(QUEUE);
        send_input(&b"hello"[..], sender).await;
        assert_eq!(queue.recv().await, Some(Frame::Input(Bytes::from_static(b"hello"))));
        assert_eq!(queue.recv().await, Some(Frame::InputEnd));
        assert_eq!(queue.recv().await, None);
    }

    #[tokio::test]
    async fn the_named_replica_is_asked_and_its_code_is_ours() {
        let service = service_fn(|request: Request<Body>| async move {
            let path = request.uri().to_string();
            if path == "/v1/projects" {
                let projects = vec![sample::project("shop", &["web"])];
                return Ok::<_, Infallible>(Response::new(Body::from(
                    serde_json::to_vec(&projects).unwrap(),
                )));
            }
            assert_eq!(path, "/v1/projects/shop/services/web/exec?slot=2");
            let stream =
                request.into_body().into_data_stream().map(|chunk| chunk.map_err(std::io::Error::other));
            let mut sent = FramedRead::new(StreamReader::new(stream), FrameCodec);
            let Some(Ok(Frame::Start(start))) = sent.next().await else { panic!("no start") };
            assert_eq!(start.command, ["false"]);
            Ok(Response::new(frames(&[Frame::Exit(7)])))
        });
        let (screen, _, _) = Screen::in_memory(Facts::default());
        let mut context = Context::of(Client::new(Channel::service(service)), screen);
        let failure = run(&mut context, &arguments("tug exec --slot 2 web -- false")).await.unwrap_err();
        assert_eq!(failure, Failure::silent(7));
    }
}
