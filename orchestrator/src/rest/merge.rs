//! Merging the output of many tasks: what was written before in the order of its times, then lines as they come.
//!
//! Of each source one line is held, so memory is bounded by the number of sources. While a source still owes its
//! earlier lines, nobody's later lines may pass it; one that has been silent for a while has none, and is not waited
//! for any more.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{BoxStream, FuturesUnordered, StreamExt};
use tokio::time::{Instant, sleep_until};
use tug_api::user::LogRecord;
use tug_model::Timestamp;

type Source = BoxStream<'static, LogRecord>;
type Step = (u64, Option<LogRecord>, Source);

/// Many sources as one.
pub(super) struct Merge {
    waiting: FuturesUnordered<BoxFuture<'static, Step>>,
    /// The next line of each source that has one, oldest first.
    heads: BTreeMap<(Timestamp, u64), (LogRecord, Source)>,
    /// The sources whose earlier lines are waited for, with since when.
    owing: BTreeMap<u64, Instant>,
    /// The sources that were silent once.
    live: BTreeSet<u64>,
    /// How long a source is waited for.
    patience: Duration,
    last: u64,
}

// === impl Merge ===

impl Merge {
    pub(super) fn new(patience: Duration) -> Self {
        Self {
            waiting: FuturesUnordered::new(),
            heads: BTreeMap::new(),
            owing: BTreeMap::new(),
            live: BTreeSet::new(),
            patience,
            last: 0,
        }
    }

    pub(super) fn add(&mut self, source: Source) {
        self.last += 1;
        self.wait_for(self.last, source);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.heads.is_empty()
    }

    /// The next line; `None` when all sources have ended. Nothing is lost when this is dropped before it returns.
    pub(super) async fn next(&mut self) -> Option<LogRecord> {
        loop {
            if self.owing.is_empty()
                && let Some(((_, id), (record, source))) = self.heads.pop_first()
            {
                self.wait_for(id, source);
                return Some(record);
            }
            let patience = self.owing.values().min().map(|since| *since + self.patience);
            let impatient = async {
                match patience {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                step = self.waiting.next() => match step {
                    Some((id, record, source)) => self.arrived(id, record, source),
                    None => return None,
                },
                () = impatient => self.give_up_waiting(),
            }
        }
    }

    fn wait_for(&mut self, id: u64, source: Source) {
        if !self.live.contains(&id) {
            self.owing.insert(id, Instant::now());
        }
        let step = source.into_future().map(move |(record, source)| (id, record, source));
        self.waiting.push(step.boxed());
    }

    fn arrived(&mut self, id: u64, record: Option<LogRecord>, source: Source) {
        self.owing.remove(&id);
        match record {
            Some(record) => {
                self.heads.insert((record.at, id), (record, source));
            }
            None => {
                self.live.remove(&id);
            }
        }
    }

    fn give_up_waiting(&mut self) {
        let now = Instant::now();
        let silent = self.owing.iter().filter(|(_, since)| now.duration_since(**since) >= self.patience);
        let silent: Vec<u64> = silent.map(|(id, _)| *id).collect();
        for id in silent {
            self.owing.remove(&id);
            self.live.insert(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use tokio::sync::mpsc;
    use tug_api::user::LogStream;
    use tug_model::{ProjectName, ServiceName, Slot, TaskId};

    use super::*;

    fn record(at: u64, line: &str) -> LogRecord {
        LogRecord {
            at: Timestamp(at),
            project: ProjectName::parse("p").unwrap(),
            service: ServiceName::parse("s").unwrap(),
            slot: Slot(1),
            task: TaskId::parse("p.s.1.1").unwrap(),
            stream: LogStream::Stdout,
            line: line.to_owned(),
        }
    }

    fn of(records: Vec<LogRecord>) -> Source {
        stream::iter(records).boxed()
    }

    fn channel() -> (mpsc::UnboundedSender<LogRecord>, Source) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let source = stream::unfold(receiver, async |mut receiver| Some((receiver.recv().await?, receiver)));
        (sender, source.boxed())
    }

    async fn next(merge: &mut Merge) -> String {
        merge.next().await.map_or_else(|| "end".to_owned(), |record| record.line)
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_written_before_comes_in_the_order_of_its_times() {
        let mut merge = Merge::new(Duration::from_millis(200));
        merge.add(of(vec![record(1, "a1"), record(4, "a4"), record(4, "a4b")]));
        merge.add(of(vec![]));
        merge.add(of(vec![record(2, "b2"), record(3, "b3"), record(9, "b9")]));
        let mut lines = Vec::new();
        while let Some(record) = merge.next().await {
            lines.push(record.line);
        }
        assert_eq!(lines, ["a1", "b2", "b3", "a4", "a4b", "b9"]);
        assert!(merge.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_source_holds_the_others_up_once_and_then_no_more() {
        let mut merge = Merge::new(Duration::from_millis(200));
        let (quiet, source) = channel();
        merge.add(source);
        let (busy, source) = channel();
        merge.add(source);
        for at in 0..1000 {
            busy.send(record(at, "busy")).unwrap();
        }
        let started = Instant::now();
        for _ in 0..1000 {
            assert_eq!(next(&mut merge).await, "busy");
        }
        assert_eq!(started.elapsed(), Duration::from_millis(200), "one wait for a thousand lines");
        quiet.send(record(5, "late")).unwrap();
        assert_eq!(next(&mut merge).await, "late", "as it comes");
        drop((quiet, busy));
        assert_eq!(next(&mut merge).await, "end");
    }
}
