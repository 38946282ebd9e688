//! One connection of a client, from its acceptance to its end.
//!
//! **Which failures are hidden.** The client's connection moves on to another backend when
//!
//! 1. a backend could not be connected to, or failed before a byte of the client was sent to it: any protocol,
//!    until [`Timing::patience`] has passed;
//! 2. a backend failed after it was sent something and before it answered a byte, and all that the client said so far
//!    is remembered and safe to say twice (see [`super::request`]): at most [`REPLAYS`] times, so that a request that
//!    kills its servers does not go through all of them.
//!
//! Every other failure is the client's to see, as it would see it without a balancer: an orderly end as an orderly end,
//! a broken connection as a broken connection.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;
use tug_model::TaskId;

use super::backends::{Lease, Route};
use super::pipe::Pipe;
use super::relay::{End, Relay, Silence};

/// How often a request is said again after a backend failed on it.
const REPLAYS: u32 = 2;

/// The first wait when every backend has failed; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// How long things may take.
#[derive(Debug, Clone)]
pub struct Timing {
    /// For the first try to connect to a backend: what answers at all answers at once, and there may be others.
    pub first_connect: Duration,
    /// For the tries after it.
    pub connect: Duration,
    /// For a client's connection to find a backend that takes it.
    pub patience: Duration,
    /// For a client to end its side after the backend has ended its own.
    pub half_open: Duration,
    /// After the balancer was stopped, while others wait for its end.
    pub hurried: Leave,
    /// After the balancer was stopped, when another one has taken over and nobody waits.
    pub relieved: Leave,
}

/// How long connections may go on after their balancer was stopped.
#[derive(Debug, Clone, Copy)]
pub struct Leave {
    /// A connection on which nothing moves for so long, and whose last byte went to the client, is at rest and closed.
    pub rest: Duration,
    /// Every connection ends after so long.
    pub drain: Duration,
}

/// What a connection is told of the end of its balancer.
#[derive(Debug, Clone)]
pub(super) struct Ending {
    /// It was stopped.
    pub(super) stop: CancellationToken,
    /// Another one has taken over.
    pub(super) relieved: CancellationToken,
}

/// The tries of one connection to find a backend.
#[derive(Debug)]
struct Search<'a> {
    route: &'a Route,
    timing: &'a Timing,
    /// The tasks that it has failed on since the last pause.
    tried: Vec<TaskId>,
    failures: u32,
    pause: Duration,
    deadline: Instant,
    connected_at: Instant,
    replays: u32,
}

// === impl Timing ===

impl Default for Timing {
    fn default() -> Self {
        Self {
            first_connect: Duration::from_millis(250),
            connect: Duration::from_secs(1),
            patience: Duration::from_secs(5),
            half_open: Duration::from_secs(60),
            hurried: Leave { rest: Duration::from_secs(2), drain: Duration::from_secs(10) },
            // What is silent for so long has its own way to come back: so is the habit of proxies.
            relieved: Leave { rest: Duration::from_secs(60), drain: Duration::from_secs(3600) },
        }
    }
}

/// Serves `client` until its connection ends, or ends it after its balancer was stopped.
pub(super) async fn serve(client: TcpStream, route: Arc<Route>, timing: Arc<Timing>, ending: Ending) {
    let client = Pipe::Socket(client);
    let mut search = Search::new(&route, &timing);
    let Some((mut lease, backend)) = search.backend().await else {
        return client.reset();
    };
    let mut relay = Relay::new(client, backend, timing.half_open);
    loop {
        let silence = match drive(&mut relay, &timing, &ending).await {
            End::Closed => return,
            End::Broken => return relay.reset(),
            End::Unanswered(silence) => silence,
        };
        if search.may_go_on(&relay, &silence, &lease) {
            // The old lease is given back only now: until here the client was on its backend.
            drop(lease);
            match search.backend().await {
                Some((next, backend)) => {
                    lease = next;
                    relay.begin_anew(backend);
                    continue;
                }
                None => return relay.reset(),
            }
        }
        match silence {
            Silence::Closed => relay.accept_silence(),
            Silence::Broken => return relay.reset(),
        }
    }
}

/// Runs the relay to its end, and after the stop no longer than it may.
pub(super) async fn drive(relay: &mut Relay, timing: &Timing, ending: &Ending) -> End {
    tokio::select! {
        biased;
        end = relay.run() => return end,
        () = ending.stop.cancelled() => {}
    }
    let stopped = Instant::now();
    loop {
        let is_relieved = ending.relieved.is_cancelled();
        let leave = if is_relieved { timing.relieved } else { timing.hurried };
        let deadline = stopped + leave.drain;
        let moved = relay.moved();
        let until = deadline.min(Instant::now() + leave.rest);
        tokio::select! {
            biased;
            end = relay.run() => return end,
            () = ending.relieved.cancelled(), if !is_relieved => continue,
            () = sleep_until(until) => {}
        }
        if relay.moved() == moved && relay.is_at_rest() {
            return End::Closed;
        }
        if Instant::now() >= deadline {
            return End::Broken;
        }
    }
}

// === impl Search ===

impl<'a> Search<'a> {
    fn new(route: &'a Route, timing: &'a Timing) -> Self {
        Self {
            route,
            timing,
            tried: Vec::new(),
            failures: 0,
            pause: FIRST_PAUSE,
            deadline: Instant::now() + timing.patience,
            connected_at: Instant::now(),
            replays: 0,
        }
    }

    /// A connection to a backend; `None` if none was found in time.
    async fn backend(&mut self) -> Option<(Lease, Pipe)> {
        loop {
            // Subscribed before looking, so that a table that comes in between is not missed.
            let mut news = self.route.news();
            news.mark_unchanged();
            let wait_until = match self.route.lease(&self.tried) {
                None => self.deadline,
                Some(lease) if self.tried.contains(lease.task()) => {
                    self.tried.clear();
                    self.next_pause()
                }
                Some(lease) => match self.connect(lease).await {
                    Some(found) => return Some(found),
                    None => continue,
                },
            };
            // Whether the wait ended by news or by time, the next look decides.
            let _ = timeout_at(wait_until, news.changed()).await;
            if Instant::now() >= self.deadline {
                return None;
            }
        }
    }

    async fn connect(&mut self, lease: Lease) -> Option<(Lease, Pipe)> {
        let limit = if self.failures == 0 { self.timing.first_connect } else { self.timing.connect };
        if let Some(backend) = lease.connect(limit).await {
            self.connected_at = Instant::now();
            return Some((lease, backend));
        }
        self.tried.push(lease.task().clone());
        self.failures += 1;
        None
    }

    /// Whether another backend shall be asked after `lease`'s fell silent. Notes the failure.
    fn may_go_on(&mut self, relay: &Relay, silence: &Silence, lease: &Lease) -> bool {
        if !relay.can_begin_anew() {
            return false;
        }
        self.tried.push(lease.task().clone());
        self.failures += 1;
        match (relay.has_said_nothing(), silence) {
            // A service that tires of a client without a word, or that hangs up on everybody, does as it is meant to.
            (true, Silence::Closed) if self.is_late() || !self.route.has_untried(&self.tried) => {
                return false;
            }
            (true, _) => {}
            (false, _) if self.replays == REPLAYS => return false,
            (false, _) => {
                self.replays += 1;
                // The time that the client spent on the failed backend is not held against the search for the next.
                self.deadline = self.deadline.max(Instant::now() + self.timing.connect);
            }
        }
        lease.suspect();
        true
    }

    /// Whether the backend has had the connection for longer than one on the point of dying would.
    fn is_late(&self) -> bool {
        self.connected_at.elapsed() > self.timing.connect
    }

    /// When to try all backends again.
    fn next_pause(&mut self) -> Instant {
        let pause = self.pause;
        self.pause = LONGEST_PAUSE.min(pause * 2);
        self.deadline.min(Instant::now() + pause)
    }
}
