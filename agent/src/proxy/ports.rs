//! Which ports are open: the difference between the newest table and the sockets that listen.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tug_model::report::ClosedPort;
use tug_model::spec::service::{PortMode, Protocol};

use super::backends::Route;
use super::keeper::Keeper;
use super::listen::{self, Door};
use super::owner;
use super::registry::Registry;
use crate::holder::Place;
use crate::route::{Table, TableRoute};

/// How long the owner of a port is taken to be the same.
const OWNER_KNOWN: Duration = Duration::from_secs(10);

/// All ports of a balancer.
#[derive(Debug)]
pub(super) struct Ports {
    registry: Arc<Registry>,
    door: Arc<Door>,
    keeper: Keeper,
    open: BTreeMap<Place, OpenPort>,
    closed: BTreeMap<Place, Refused>,
    /// What an earlier agent had open, until a table says whether it is still wanted.
    parked: BTreeMap<Place, TcpListener>,
}

/// A port that listens. Dropping it closes the socket; connections that it accepted go on.
#[derive(Debug)]
struct OpenPort {
    route: Arc<Route>,
    listener: Arc<TcpListener>,
    accepting: JoinHandle<()>,
}

/// A port that could not be opened.
#[derive(Debug)]
struct Refused {
    reason: String,
    owner: Option<String>,
    owner_asked_at: Instant,
}

/// What a table asks for.
#[derive(Debug, Default)]
struct Wanted<'a> {
    routes: BTreeMap<Place, &'a TableRoute>,
    /// Routes whose port another one has.
    doubled: Vec<ClosedPort>,
}

// === impl Ports ===

impl Ports {
    pub(super) fn new(registry: Arc<Registry>, door: Arc<Door>, keeper: Keeper) -> Self {
        let (open, closed, parked) = <_>::default();
        Self { registry, door, keeper, open, closed, parked }
    }

    /// Takes over what the holder kept from an earlier agent. Nothing of it is accepted from or closed before the
    /// first table.
    pub(super) async fn inherit(&mut self) {
        for (place, socket) in self.keeper.inherit().await {
            match listen::adopt(place, socket) {
                Ok(listener) => {
                    self.parked.insert(place, listener);
                }
                Err(error) => tracing::warn!(%place, %error, "a kept socket is of no use"),
            }
        }
        if !self.parked.is_empty() {
            tracing::info!(sockets = self.parked.len(), "took over listening sockets");
        }
    }

    /// Opens, keeps and closes ports until they are as `table` says.
    pub(super) async fn follow(&mut self, table: &Table) {
        let wanted = Wanted::of(table);
        self.set_backends(&wanted, table);
        if !self.keeper.has_inherited() {
            self.inherit().await;
        }
        self.close_all_but(&wanted).await;
        for (place, route) in &wanted.routes {
            if !self.open.contains_key(place) {
                self.open_port(*place, route).await;
            }
        }
        self.forget_parked().await;
        self.keep_all().await;
        let closed = self.closed.iter();
        let closed =
            closed.map(|(place, refused)| ClosedPort { port: place.port, reason: refused.reason.clone() });
        self.registry.set_closed_ports(closed.chain(wanted.doubled).collect());
    }

    /// Whether another look is due although no table came.
    pub(super) fn is_unfinished(&self) -> bool {
        !self.closed.is_empty() || self.open.keys().any(|place| !self.keeper.keeps(*place))
    }

    /// Returns when the holder is gone; never without one.
    pub(super) async fn lost_holder(&mut self) {
        self.keeper.lost().await;
    }

    /// Gives up what an earlier agent had open and no table asked for.
    async fn forget_parked(&mut self) {
        for place in std::mem::take(&mut self.parked).into_keys() {
            tracing::info!(%place, "port closed: it is no longer published");
            self.keeper.forget(place).await;
        }
    }

    /// Closes everything; with `hand_over`, the holder has its duplicates.
    pub(super) async fn close(mut self, hand_over: bool) {
        if hand_over {
            self.keep_all().await;
        }
        for (_, port) in std::mem::take(&mut self.open) {
            port.close().await;
        }
        self.parked.clear();
        if !hand_over {
            self.keeper.release().await;
        }
    }

    /// What needs no waiting comes first: from here on no connection goes to a task that the table does not name.
    fn set_backends(&self, wanted: &Wanted<'_>, table: &Table) {
        self.registry.set_peers(&table.peers);
        for (place, port) in &self.open {
            port.route.set_backends(wanted.routes.get(place).map_or(&[], |route| &route.backends));
        }
        self.registry.set_routed(table.routes.iter().flat_map(|route| &route.backends));
        self.registry.set_applied(table.number);
    }

    async fn close_all_but(&mut self, wanted: &Wanted<'_>) {
        self.closed.retain(|place, _| wanted.routes.contains_key(place));
        let unwanted: Vec<Place> =
            self.open.keys().filter(|place| !wanted.routes.contains_key(place)).copied().collect();
        for place in unwanted {
            if let Some(port) = self.open.remove(&place) {
                port.close().await;
                tracing::info!(%place, "port closed");
            }
            self.keeper.forget(place).await;
        }
    }

    async fn open_port(&mut self, place: Place, table_route: &TableRoute) {
        let opened = match self.parked.remove(&place) {
            Some(listener) => Ok(listener),
            None => listen::open(place),
        };
        match opened {
            Ok(listener) => {
                self.closed.remove(&place);
                let route = Arc::new(Route::new(Arc::clone(&self.registry)));
                route.set_backends(&table_route.backends);
                self.open.insert(place, OpenPort::start(listener, route, &self.door));
                tracing::info!(%place, service = %table_route.service, "port open");
            }
            Err(error) => self.refuse(place, &error).await,
        }
    }

    async fn refuse(&mut self, place: Place, error: &std::io::Error) {
        let known = self.closed.remove(&place).filter(|known| known.owner_asked_at.elapsed() < OWNER_KNOWN);
        let (owner, owner_asked_at) = match known {
            Some(known) => (known.owner, known.owner_asked_at),
            None if error.kind() == std::io::ErrorKind::AddrInUse => {
                let asked = tokio::task::spawn_blocking(move || owner::of_port(place.port)).await;
                (asked.ok().flatten(), Instant::now())
            }
            None => (None, Instant::now()),
        };
        let reason = listen::reason(place, error, owner.as_deref());
        tracing::debug!(%place, %reason, "port not open");
        self.closed.insert(place, Refused { reason, owner, owner_asked_at });
    }

    async fn keep_all(&mut self) {
        let missing: Vec<Place> =
            self.open.keys().filter(|place| !self.keeper.keeps(**place)).copied().collect();
        for place in missing {
            if let Some(port) = self.open.get(&place) {
                self.keeper.keep(place, port.listener.as_fd()).await;
            }
        }
        self.keeper.forget_stale().await;
    }
}

// === impl OpenPort ===

impl OpenPort {
    fn start(listener: TcpListener, route: Arc<Route>, door: &Arc<Door>) -> Self {
        let listener = Arc::new(listener);
        let accepting =
            tokio::spawn(listen::accept(Arc::clone(&listener), Arc::clone(&route), Arc::clone(door)));
        Self { route, listener, accepting }
    }

    /// Returns when the socket is closed, so that the port can be opened anew.
    async fn close(self) {
        self.accepting.abort();
        // It was ended just so: whether it panicked before makes no difference any more.
        let _ = self.accepting.await;
    }
}

// === impl Wanted ===

impl<'a> Wanted<'a> {
    fn of(table: &'a Table) -> Self {
        let mut wanted = Self::default();
        for route in &table.routes {
            let (Some(published), Protocol::Tcp, PortMode::Ingress) =
                (route.port.published, route.port.protocol, route.port.mode)
            else {
                continue;
            };
            let place = Place { host_ip: route.port.host_ip, port: published };
            let other = wanted.routes.iter().find(|(taken, _)| clash(**taken, place));
            if let Some((_, other)) = other {
                let reason = format!(
                    "port {published} of {}/{} is already published by {}/{}: choose another for one of them",
                    route.project, route.service, other.project, other.service
                );
                wanted.doubled.push(ClosedPort { port: published, reason });
            } else {
                wanted.routes.insert(place, route);
            }
        }
        wanted
    }
}

/// Whether two places cannot be open at once.
fn clash(one: Place, other: Place) -> bool {
    let is_every_like = |every: Place, one: Place| match (every.host_ip, one.host_ip) {
        (None, _) => true,
        (Some(IpAddr::V4(every)), Some(IpAddr::V4(_))) => every.is_unspecified(),
        (Some(IpAddr::V6(every)), Some(IpAddr::V6(_))) => every.is_unspecified(),
        (Some(_), _) => false,
    };
    one.port == other.port && (one == other || is_every_like(one, other) || is_every_like(other, one))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(host_ip: Option<&str>, port: u16) -> Place {
        Place { host_ip: host_ip.map(|address| address.parse().unwrap()), port }
    }

    #[test]
    fn the_same_port_clashes_unless_the_addresses_differ() {
        let clashing = [
            (None, None),
            (None, Some("127.0.0.1")),
            (None, Some("::1")),
            (Some("127.0.0.1"), Some("127.0.0.1")),
            (Some("0.0.0.0"), Some("127.0.0.1")),
            (Some("::"), Some("::1")),
        ];
        for (one, other) in clashing {
            assert!(clash(place(one, 80), place(other, 80)), "{one:?} {other:?}");
            assert!(clash(place(other, 80), place(one, 80)), "{other:?} {one:?}");
            assert!(!clash(place(one, 80), place(other, 81)), "{one:?} {other:?}");
        }
        for (one, other) in [(Some("127.0.0.1"), Some("127.0.0.2")), (Some("0.0.0.0"), Some("::"))] {
            assert!(!clash(place(one, 80), place(other, 80)), "{one:?} {other:?}");
        }
    }
}
