//! What a container wrote, as lines.

use bollard::container::LogOutput;
use bollard::query_parameters::{InspectContainerOptions, LogsOptionsBuilder};
use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt, TryStreamExt};
use tug_model::quantity::Timestamp;

use super::call::Call;
use super::lines::{Cutter, Lines};
use super::{ContainerId, Docker, Feed, LogLine, LogQuery, Operation, RuntimeError, deadline, raw};
use crate::runtime::Stream;

/// What the Engine hands out of a log, each with its time in front.
type Pieces = BoxStream<'static, Result<(Stream, Bytes), RuntimeError>>;

// === impl Docker ===

impl Docker {
    pub(super) async fn open_logs(
        &self,
        id: &ContainerId,
        query: LogQuery,
    ) -> Result<Feed<LogLine>, RuntimeError> {
        let call = self.call(Operation::Logs, id);
        // A log that is not there is told at once, and not as the first item of the feed.
        let inspect = |client: bollard::Docker| async move {
            client.inspect_container(id.as_str(), None::<InspectContainerOptions>).await
        };
        let config = call.within(deadline::READ, inspect).await?.config.unwrap_or_default();
        let pieces = if config.tty.unwrap_or(false) {
            self.pieces_of_terminal(&call, id, query).await?
        } else {
            pieces_of_frames(&call, id, query)?
        };
        let mut lines = Lines::default();
        let lines = ended(pieces).map_ok(move |piece| match piece {
            Some((stream, piece)) => lines.push(stream, &piece).into_iter().collect::<Vec<_>>(),
            None => lines.finish().collect(),
        });
        let since = query.since.unwrap_or_default();
        let lines = lines.map_ok(|lines| stream::iter(lines.into_iter().map(Ok))).try_flatten();
        let is_wanted = move |line: &LogLine| line.at >= since || line.at == Timestamp(0);
        Ok(lines.try_filter(move |line| std::future::ready(is_wanted(line))).boxed())
    }

    async fn pieces_of_terminal(
        &self,
        call: &Call<'_>,
        id: &ContainerId,
        query: LogQuery,
    ) -> Result<Pieces, RuntimeError> {
        let Asked { follow, since, tail } = Asked::from(query);
        let query =
            format!("stdout=true&stderr=true&timestamps=true&follow={follow}&since={since}&tail={tail}");
        let chunks = call.within(deadline::READ, |_| raw::logs(&self.socket, id.as_str(), &query)).await?;
        let mut cutter = Cutter::default();
        let pieces = ended(chunks.map_err(call.failure())).map_ok(move |chunk| match chunk {
            Some(chunk) => cutter.push(&chunk),
            None => cutter.finish().into_iter().collect(),
        });
        let pieces = pieces.map_ok(|pieces| stream::iter(pieces.into_iter().map(Ok))).try_flatten();
        Ok(pieces.map_ok(|piece| (Stream::Stdout, piece)).boxed())
    }
}

/// A query in the Engine's words.
struct Asked {
    follow: bool,
    /// The Engine counts in whole seconds; the rest of the filtering is ours.
    since: i32,
    tail: String,
}

impl From<LogQuery> for Asked {
    fn from(LogQuery { since, tail, follow }: LogQuery) -> Self {
        Self {
            follow,
            since: since.map_or(0, |since| i32::try_from(since.0 / 1000).unwrap_or(i32::MAX)),
            tail: tail.map_or_else(|| "all".to_owned(), |lines| lines.to_string()),
        }
    }
}

fn pieces_of_frames(call: &Call<'_>, id: &ContainerId, query: LogQuery) -> Result<Pieces, RuntimeError> {
    let Asked { follow, since, tail } = Asked::from(query);
    let options = LogsOptionsBuilder::new().stdout(true).stderr(true).timestamps(true);
    let options = options.follow(follow).since(since).tail(&tail).build();
    let frames = call.client()?.logs(id.as_str(), Some(options)).map_err(call.failure());
    let pieces = frames.try_filter_map(|frame| {
        std::future::ready(Ok(match frame {
            LogOutput::StdErr { message } => Some((Stream::Stderr, message)),
            LogOutput::StdOut { message } | LogOutput::Console { message } => Some((Stream::Stdout, message)),
            LogOutput::StdIn { .. } => None,
        }))
    });
    Ok(pieces.boxed())
}

/// The items, and `None` after the last one.
fn ended<T, E>(
    items: impl stream::Stream<Item = Result<T, E>>,
) -> impl stream::Stream<Item = Result<Option<T>, E>> {
    items.map_ok(Some).chain(stream::once(std::future::ready(Ok(None))))
}
