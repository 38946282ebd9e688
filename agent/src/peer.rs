//! The agents of other nodes: a port that is published on every node reaches the tasks on all of them, agent to agent.
//!
//! Two agents share one TLS connection (`pool` dials it, `listen` accepts it) and move each connection of a client
//! through it as one HTTP/2 stream: `CONNECT shop.web.1.7:80`. Both show a certificate of the cluster's authority that
//! names a node that has not been removed; nobody else is talked to. What follows after ALPN:
//!
//! | protocol | what is spoken |
//! |---|---|
//! | `tug-tunnel` | HTTP/2, `CONNECT` only: `tunnel` |
//! | `h2` | HTTP/2 requests, answered by a router; [`tug_api::tls::Caller`] says which node asks |
//!
//! They are kept apart so that a big transfer of the second kind is never in the way of the first.
//!
//! **Guarantees.** An end of a stream is an orderly end and a reset is a broken connection, as with TCP, so what holds for
//! connections to tasks of this node holds for all. A peer that is silent for three seconds is given up, and its
//! connections with it.

mod address;
mod line;
mod listen;
mod members;
mod pool;
mod tunnel;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use tokio::sync::watch;

pub use self::address::Address;
pub(crate) use self::listen::{Knock, Listener};
pub use self::members::Members;
pub(crate) use self::pool::{Neighbour, Pool, TunnelError};
pub(crate) use self::tunnel::Tunnel;
use crate::identity::Member;

/// The protocol of the connections that carry tunnels.
const TUNNELS: &[u8] = b"tug-tunnel";
/// The protocol of the connections that carry requests.
const REQUESTS: &[u8] = b"h2";

/// What an agent is told that other agents may talk to.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where it listens for them.
    pub listen: SocketAddr,
    /// Where they reach it, as `host:port`; `None`: at the address by which it reaches the orchestrator, or, when that is on
    /// the same machine, at the machine's own.
    pub advertise: Option<String>,
}

/// Both sides of the conversation, standing still: a balancer runs them.
#[derive(Debug)]
pub struct Peers {
    pub(crate) pool: Arc<Pool>,
    pub(crate) listener: Listener,
}

// === impl Peers ===

impl Peers {
    /// Listens as `config` says and answers requests of `members` with `router`, once the node is a `member` of a cluster.
    /// `local` is the address by which the orchestrator is reached. The second value says where the agent is reached itself.
    pub fn new(
        config: &Config,
        member: watch::Receiver<Option<Member>>,
        local: watch::Receiver<Option<IpAddr>>,
        router: Router,
        members: Members,
    ) -> (Self, Address) {
        let address = Address::new(config, local);
        let pool = Arc::new(Pool::new(member.clone()));
        let listener = Listener::new(config.listen, member, address.clone(), router, members);
        (Self { pool, listener }, address)
    }
}
