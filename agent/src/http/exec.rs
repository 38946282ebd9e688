//! `POST /tasks/{id}/exec`: a command inside a task's container, with frames both ways.

use std::io;
use std::pin::Pin;

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_util::codec::{Encoder, FramedRead};
use tokio_util::io::StreamReader;
use tug_api::error::chain;
use tug_api::frame::{ExecStart, Frame, FrameCodec, FrameError, TerminalSize};
use tug_api::{ApiError, Code};

use super::Shared;
use crate::runtime::{self, ExecId, ExecRequest, ExecSession, Output, RuntimeError};

/// Frames that wait to be sent; a command that writes faster than its reader reads is held up.
const QUEUE: usize = 16;

pub(super) async fn exec(
    State(shared): State<Shared>,
    path: Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let inside = shared.inside(&super::task(path)?)?;
    let body = request.into_body().into_data_stream().map_err(io::Error::other);
    let mut frames = Box::pin(FramedRead::new(StreamReader::new(body), FrameCodec));
    let start = match frames.next().await {
        Some(Ok(Frame::Start(start))) => start,
        Some(Ok(_)) | None => {
            return Err(ApiError::new(Code::BadRequest, "the first frame says what to run"));
        }
        Some(Err(error)) => return Err(ApiError::new(Code::BadRequest, chain(&error))),
    };
    if start.command.is_empty() {
        return Err(ApiError::new(Code::BadRequest, "the command is empty"));
    }
    let session = shared
        .asked
        .runtime
        .exec(&inside.container, &wanted(start))
        .await
        .map_err(|error| super::logs::failed(&error))?;
    let (sender, receiver) = mpsc::channel(QUEUE);
    tokio::spawn(converse(shared, session, frames, sender));
    let bytes = stream::unfold(receiver, async |mut receiver| {
        let frame = receiver.recv().await?;
        Some((encode(frame), receiver))
    });
    Ok(Response::new(Body::from_stream(bytes)))
}

fn wanted(start: ExecStart) -> ExecRequest {
    ExecRequest {
        command: start.command,
        tty: start.tty,
        stdin: start.stdin,
        environment: start.environment,
        user: start.user,
        working_dir: start.working_dir,
        size: start.size.map(size),
    }
}

fn size(size: TerminalSize) -> runtime::TerminalSize {
    runtime::TerminalSize { rows: size.rows, columns: size.columns }
}

fn encode(frame: Frame) -> Result<Bytes, FrameError> {
    let mut bytes = BytesMut::new();
    FrameCodec.encode(frame, &mut bytes)?;
    Ok(bytes.freeze())
}

/// Moves what the command writes and what it is given, until it ends or nobody listens. The two directions never wait
/// for each other: a command may stop reading until it has been read.
async fn converse(
    shared: Shared,
    session: ExecSession,
    frames: impl Stream<Item = Result<Frame, FrameError>> + Unpin,
    sender: mpsc::Sender<Frame>,
) {
    let ExecSession { id, output, input } = session;
    let hearing = async {
        hear(&shared, &id, input, frames).await;
        std::future::pending::<()>().await;
    };
    let last = tokio::select! {
        biased;
        () = sender.closed() => return,
        last = speak(&shared, &id, output, &sender) => last,
        () = hearing => return,
    };
    // The listener may have gone at the last moment.
    let _ = sender.send(last).await;
}

/// Passes on what the command writes, and returns what is said last.
async fn speak(
    shared: &Shared,
    id: &ExecId,
    mut output: BoxStream<'static, Result<Output, RuntimeError>>,
    sender: &mpsc::Sender<Frame>,
) -> Frame {
    while let Some(written) = output.next().await {
        match written {
            // The end of the listener is seen elsewhere.
            Ok(written) => drop(sender.send(frame(written)).await),
            Err(error) => return Frame::Failed(chain(&error)),
        }
    }
    match shared.asked.runtime.exec_exit(id).await {
        Ok(Some(code)) => Frame::Exit(code),
        Ok(None) => Frame::Failed("its output ended, but the command goes on".to_owned()),
        Err(error) => Frame::Failed(chain(&error)),
    }
}

/// Passes on what the client says. A command that no longer reads is seen by the end of its output.
async fn hear(
    shared: &Shared,
    id: &ExecId,
    mut input: Pin<Box<dyn AsyncWrite + Send>>,
    mut frames: impl Stream<Item = Result<Frame, FrameError>> + Unpin,
) {
    while let Some(Ok(said)) = frames.next().await {
        match said {
            Frame::Input(bytes) => {
                let _ = input.write_all(&bytes).await;
                let _ = input.flush().await;
            }
            Frame::InputEnd => drop(input.shutdown().await),
            Frame::Size(to) => drop(shared.asked.runtime.exec_resize(id, size(to)).await),
            Frame::Start(_)
            | Frame::Output(_)
            | Frame::ErrorOutput(_)
            | Frame::Exit(_)
            | Frame::Failed(_) => {}
        }
    }
    let _ = input.shutdown().await;
}

fn frame(output: Output) -> Frame {
    match output.stream {
        runtime::Stream::Stdout => Frame::Output(output.bytes),
        runtime::Stream::Stderr => Frame::ErrorOutput(output.bytes),
    }
}
