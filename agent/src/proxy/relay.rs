//! Bytes both ways between a client and a backend, and the memory of what was said before anything was answered.
//!
//! Unlike `tokio::io::copy_bidirectional` it holds no buffer while nothing moves (the bytes pass through one buffer per
//! thread), and it can put another backend in the place of one that failed before it answered.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::pipe::Pipe;
use super::request;

/// More than this is not remembered: a request that is longer is not said twice.
const MEMORY: usize = 64 * 1024;

/// How much is read at once.
const CHUNK: usize = 64 * 1024;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; CHUNK].into_boxed_slice());
}

/// A client and the backend that serves it.
#[derive(Debug)]
pub(super) struct Relay {
    client: Pipe,
    backend: Pipe,
    up: Flow,
    down: Flow,
    memory: Memory,
    /// The backend did not take what was written to it.
    is_backend_broken: bool,
    /// How long a client may stay without a byte after the backend has ended.
    half_open: Duration,
    /// Runs while only the client is left.
    half_open_timer: Option<Pin<Box<Sleep>>>,
    /// The last byte went to the client.
    answered_last: bool,
    /// The backend was given all the time it may need.
    is_patient: bool,
}

/// How a relay came to an end, or to a decision.
#[derive(Debug)]
pub(super) enum End {
    /// Both sides have ended: nothing is left to do.
    Closed,
    /// One side broke off: the other must not take what it got for the whole.
    Broken,
    /// The backend failed before it answered a single byte: try another, or pass the failure on.
    Unanswered(Silence),
}

/// How a backend failed before it answered.
#[derive(Debug)]
pub(super) enum Silence {
    /// It closed the connection in an orderly way.
    Closed,
    /// It broke the connection.
    Broken,
}

/// What the client said before the first answer.
#[derive(Debug, Default)]
struct Memory {
    said: Vec<u8>,
    /// `said` is not everything: it was too much, or no request that may be said twice.
    lossy: bool,
    /// Something was answered: nothing is remembered any more.
    over: bool,
}

/// One direction.
#[derive(Debug, Default)]
struct Flow {
    /// What was read and not yet written; empty most of the time, and then without memory.
    pending: Vec<u8>,
    written: u64,
    /// The reader has ended.
    ended: bool,
    /// The writer was told so, or takes no more.
    shut: bool,
    /// An end before the first byte is not passed on, but told.
    tells_silence: bool,
}

/// Which side of a flow failed.
enum Fault {
    Reading,
    Writing,
}

// === impl Relay ===

impl Relay {
    pub(super) fn new(client: Pipe, backend: Pipe, half_open: Duration) -> Self {
        backend.set_options();
        Self {
            client,
            backend,
            up: Flow::default(),
            down: Flow::default(),
            memory: Memory::default(),
            is_backend_broken: false,
            half_open,
            half_open_timer: None,
            answered_last: true,
            is_patient: false,
        }
    }

    /// Moves bytes until there is an end or a decision to make. May be dropped and called again.
    pub(super) async fn run(&mut self) -> End {
        std::future::poll_fn(|cx| self.poll(cx)).await
    }

    /// How many bytes have moved.
    pub(super) fn moved(&self) -> u64 {
        self.up.written + self.down.written
    }

    /// Whether the backend owes the client nothing, as far as one can see from outside.
    pub(super) fn is_at_rest(&self) -> bool {
        self.answered_last && self.up.pending.is_empty() && self.down.pending.is_empty()
    }

    /// Whether another backend may take the place of one that ended in [`End::Unanswered`].
    pub(super) fn can_begin_anew(&self) -> bool {
        self.has_said_nothing() || self.memory.can_be_said_again()
    }

    /// Whether the backend has not been sent a byte.
    pub(super) fn has_said_nothing(&self) -> bool {
        self.up.written == 0
    }

    /// Puts `backend` in the place of one that ended in [`End::Unanswered`], and says to it what was said before.
    pub(super) fn begin_anew(&mut self, backend: Pipe) {
        backend.set_options();
        self.backend = backend;
        if !self.has_said_nothing() {
            self.up.pending = self.memory.said.clone();
        }
        self.up.written = 0;
        self.up.shut = false;
        self.is_backend_broken = false;
        self.is_patient = false;
        self.down = Flow::default();
        self.half_open_timer = None;
    }

    /// Passes an orderly end without an answer on to the client, instead of asking again.
    pub(super) fn accept_silence(&mut self) {
        self.memory.end();
    }

    /// Takes both connections apart so that each side sees a broken one, not an orderly end.
    pub(super) fn reset(self) {
        self.client.reset();
        self.backend.reset();
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let before = self.moved();
        // The backend first: if it is gone already, nothing more need be said to it.
        if let Some(end) = self.poll_down(cx) {
            return Poll::Ready(end);
        }
        if let Some(end) = self.poll_up(cx) {
            return Poll::Ready(end);
        }
        if !self.is_patient && (self.memory.over || self.memory.lossy) {
            self.is_patient = true;
            self.backend.set_patient();
        }
        match (self.up.shut, self.down.shut) {
            (true, true) => Poll::Ready(End::Closed),
            // A client that has said everything may wait for its answer as long as it likes.
            (_, false) => Poll::Pending,
            (false, true) => self.poll_half_open(cx, before),
        }
    }

    /// Backend to client. `Some` ends the relay.
    fn poll_down(&mut self, cx: &mut Context<'_>) -> Option<End> {
        if self.down.shut {
            return None;
        }
        let Self { backend, client, memory, .. } = self;
        let before = self.down.written;
        self.down.tells_silence = !memory.over;
        let polled = self.down.poll(cx, backend, client, &mut |_| memory.end());
        self.answered_last |= self.down.written > before;
        match polled {
            Poll::Ready(Ok(Step::Shut)) if self.is_backend_broken => Some(End::Broken),
            Poll::Pending | Poll::Ready(Ok(Step::Shut)) => None,
            Poll::Ready(Ok(Step::EndedBeforeTheFirstByte)) if self.is_backend_broken => {
                Some(End::Unanswered(Silence::Broken))
            }
            Poll::Ready(Ok(Step::EndedBeforeTheFirstByte)) => Some(End::Unanswered(Silence::Closed)),
            Poll::Ready(Err(Fault::Reading)) if !self.memory.over => Some(End::Unanswered(Silence::Broken)),
            Poll::Ready(Err(Fault::Reading | Fault::Writing)) => Some(End::Broken),
        }
    }

    /// Client to backend. `Some` ends the relay.
    fn poll_up(&mut self, cx: &mut Context<'_>) -> Option<End> {
        if self.up.shut {
            return None;
        }
        let Self { backend, client, memory, .. } = self;
        let before = self.up.written;
        let polled = self.up.poll(cx, client, backend, &mut |said| memory.note(said));
        self.answered_last &= self.up.written == before;
        match polled {
            Poll::Pending | Poll::Ready(Ok(_)) => None,
            Poll::Ready(Err(Fault::Reading)) => Some(End::Broken),
            Poll::Ready(Err(Fault::Writing)) => {
                // The backend takes no more, but may have answered before: what it said decides.
                if self.memory.over {
                    self.up.pending = Vec::new();
                }
                self.up.shut = true;
                if self.down.shut {
                    return None;
                }
                self.is_backend_broken = true;
                self.poll_down(cx)
            }
        }
    }

    fn poll_half_open(&mut self, cx: &mut Context<'_>, before: u64) -> Poll<End> {
        let deadline = Instant::now() + self.half_open;
        let has_moved = self.moved() != before;
        let timer = self.half_open_timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if has_moved {
            timer.as_mut().reset(deadline);
        }
        timer.as_mut().poll(cx).map(|()| End::Broken)
    }
}

// === impl Memory ===

impl Memory {
    fn note(&mut self, said: &[u8]) {
        if self.over || self.lossy {
            return;
        }
        self.said.extend_from_slice(said.get(..said.len().min(MEMORY + 1)).unwrap_or_default());
        if self.said.len() > MEMORY || !request::may_be_safe(&self.said) {
            self.lossy = true;
            self.said = Vec::new();
        }
    }

    fn can_be_said_again(&self) -> bool {
        !self.over && !self.lossy && request::is_safe(&self.said)
    }

    fn end(&mut self) {
        if !self.over {
            *self = Self { over: true, ..Self::default() };
        }
    }
}

// === impl Flow ===

/// How far a flow has come.
enum Step {
    /// Its end was passed on.
    Shut,
    /// It ended without a byte, and somebody asked to be told.
    EndedBeforeTheFirstByte,
}

impl Flow {
    /// Moves what can be moved. `noted` sees every byte that is read.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut Pipe,
        writer: &mut Pipe,
        noted: &mut dyn FnMut(&[u8]),
    ) -> Poll<Result<Step, Fault>> {
        loop {
            if !self.pending.is_empty() {
                ready!(self.poll_pending(cx, writer))?;
            } else if !self.ended {
                ready!(self.poll_chunk(cx, reader, writer, noted))?;
            } else if self.tells_silence && self.written == 0 {
                return Poll::Ready(Ok(Step::EndedBeforeTheFirstByte));
            } else {
                ready!(Pin::new(&mut *writer).poll_shutdown(cx)).map_err(|_| Fault::Writing)?;
                self.shut = true;
                return Poll::Ready(Ok(Step::Shut));
            }
        }
    }

    /// Reads a chunk and writes of it what the writer takes at once.
    fn poll_chunk(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut Pipe,
        writer: &mut Pipe,
        noted: &mut dyn FnMut(&[u8]),
    ) -> Poll<Result<(), Fault>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut chunk = ReadBuf::new(scratch);
            ready!(Pin::new(reader).poll_read(cx, &mut chunk)).map_err(|_| Fault::Reading)?;
            let read = chunk.filled();
            if read.is_empty() {
                self.ended = true;
                return Poll::Ready(Ok(()));
            }
            noted(read);
            let written = Pin::new(writer).poll_write(cx, read);
            let taken = match &written {
                Poll::Ready(Ok(taken)) => *taken,
                Poll::Ready(Err(_)) | Poll::Pending => 0,
            };
            self.written += taken as u64;
            self.pending.extend_from_slice(read.get(taken..).unwrap_or_default());
            match written {
                Poll::Ready(Err(_)) => Poll::Ready(Err(Fault::Writing)),
                Poll::Ready(Ok(_)) | Poll::Pending => Poll::Ready(Ok(())),
            }
        })
    }

    fn poll_pending(&mut self, cx: &mut Context<'_>, writer: &mut Pipe) -> Poll<Result<(), Fault>> {
        let taken =
            ready!(Pin::new(writer).poll_write(cx, &self.pending)).map_err(|_: io::Error| Fault::Writing)?;
        self.written += taken as u64;
        self.pending.drain(..taken);
        if self.pending.is_empty() {
            self.pending = Vec::new();
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(said: &[&[u8]]) -> Memory {
        let mut memory = Memory::default();
        for part in said {
            memory.note(part);
        }
        memory
    }

    #[test]
    fn a_safe_request_is_remembered_whole_in_however_many_parts_it_came() {
        let memory = memory(&[b"G", b"ET / HT", b"TP/1.1\r\nHost: a\r", b"\n\r\n"]);
        assert!(memory.can_be_said_again());
        assert_eq!(memory.said, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    }

    #[test]
    fn what_is_not_safe_is_not_remembered_whatever_follows() {
        assert!(!memory(&[b"GET / HTTP/1.1\r\n\r\n", b"POST / HTTP/1.1\r\n\r\n"]).can_be_said_again());
        let memory = memory(&[b"POST / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\n\r\n"]);
        assert!(!memory.can_be_said_again());
        assert!(memory.said.is_empty());
    }

    #[test]
    fn too_much_is_not_remembered() {
        let long = [b"GET /".to_vec(), vec![b'a'; MEMORY]].concat();
        let end: &[u8] = b" HTTP/1.1\r\n\r\n";
        assert!(memory(&[&long[..MEMORY - end.len()], end]).can_be_said_again());
        for parts in [
            &[&long[..], end][..],
            &[&long[..MEMORY], end][..],
            &[&long[..], b"GET / HTTP/1.1\r\n", b"\r\n"][..],
        ] {
            assert!(!memory(parts).can_be_said_again());
        }
    }

    #[test]
    fn after_an_answer_nothing_is_remembered() {
        let mut memory = memory(&[b"GET / HTTP/1.1\r\n\r\n"]);
        memory.end();
        assert!(!memory.can_be_said_again() && memory.said.is_empty());
        memory.note(b"GET / HTTP/1.1\r\n\r\n");
        assert!(!memory.can_be_said_again() && memory.said.is_empty());
    }
}
