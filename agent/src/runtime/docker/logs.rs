//! What a container wrote, as lines.

use bollard::container::LogOutput;
use bollard::query_parameters::{InspectContainerOptions, LogsOptionsBuilder};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use tug_model::quantity::Timestamp;

use super::lines::Lines;
use super::{ContainerId, Docker, Feed, LogLine, LogQuery, Operation, RuntimeError, deadline};
use crate::runtime::Stream;

// === impl Docker ===

impl Docker {
    pub(super) async fn open_logs(
        &self,
        id: &ContainerId,
        query: LogQuery,
    ) -> Result<Feed<LogLine>, RuntimeError> {
        let call = self.call(Operation::Logs, id);
        // A log that is not there is told at once, and not as the first item of the feed.
        call.within(deadline::READ, |client| async move {
            client.inspect_container(id.as_str(), None::<InspectContainerOptions>).await
        })
        .await?;
        let client = call.client()?;
        let pieces = client.logs(id.as_str(), Some(options(query)));
        let pieces = pieces.map_err(call.failure()).map_ok(Some).chain(stream::once(async { Ok(None) }));
        let mut lines = Lines::default();
        let lines = pieces.map_ok(move |piece| match piece {
            Some(piece) => take(&mut lines, piece).into_iter().collect::<Vec<_>>(),
            None => lines.finish().collect(),
        });
        let since = query.since.unwrap_or_default();
        let lines = lines.map_ok(|lines| stream::iter(lines.into_iter().map(Ok))).try_flatten();
        Ok(lines
            .try_filter(move |line| std::future::ready(line.at >= since || line.at == Timestamp(0)))
            .boxed())
    }
}

/// The Engine counts in whole seconds; the rest of the filtering is ours.
fn options(query: LogQuery) -> bollard::query_parameters::LogsOptions {
    let since = query.since.map_or(0, |since| i32::try_from(since.0 / 1000).unwrap_or(i32::MAX));
    let tail = query.tail.map_or_else(|| "all".to_owned(), |lines| lines.to_string());
    LogsOptionsBuilder::new()
        .stdout(true)
        .stderr(true)
        .timestamps(true)
        .follow(query.follow)
        .since(since)
        .tail(&tail)
        .build()
}

fn take(lines: &mut Lines, piece: LogOutput) -> Option<LogLine> {
    match piece {
        LogOutput::StdErr { message } => lines.push(Stream::Stderr, &message),
        LogOutput::StdOut { message } | LogOutput::Console { message } => {
            lines.push(Stream::Stdout, &message)
        }
        LogOutput::StdIn { .. } => None,
    }
}
