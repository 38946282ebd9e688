//! A connection that another agent has passed on, to a task of this node: what the balancer there would do itself if the
//! task were its own, but for looking for another one, which is left to that balancer.

use std::sync::Arc;

use super::connection::{Ending, Timing, drive};
use super::pipe::Pipe;
use super::registry::Registry;
use super::relay::{End, Relay, Silence};
use crate::peer::Knock;

/// Serves `knock` until its connection ends, or ends it after the balancer was stopped. Who is not routed to, or cannot
/// be connected to at once, is refused: there may be others elsewhere.
pub(super) async fn serve(knock: Knock, registry: Arc<Registry>, timing: Arc<Timing>, ending: Ending) {
    let Some(lease) = registry.admit(knock.task(), knock.port()) else {
        tracing::debug!(from = %knock.from(), task = %knock.task(), port = knock.port(), "not served here");
        return knock.refuse();
    };
    let Some(backend) = lease.connect(timing.first_connect).await else {
        return knock.refuse();
    };
    let tunnel = match knock.accept() {
        Ok(tunnel) => Pipe::Tunnel(tunnel),
        // The other side has lost patience, and nothing was said to the task.
        Err(_) => return,
    };
    let mut relay = Relay::new(tunnel, backend, timing.half_open);
    loop {
        match drive(&mut relay, &timing, &ending).await {
            End::Closed => return,
            End::Unanswered(Silence::Closed) => relay.accept_silence(),
            End::Broken | End::Unanswered(Silence::Broken) => return relay.reset(),
        }
    }
}
