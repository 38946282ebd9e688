//! One published port: its listening socket, what a failure to open it means, and the loop that accepts.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener as StdListener};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use super::backends::Route;
use super::connection::{self, Ending, Timing};
use crate::holder::Place;

/// How many connections may wait to be accepted. The system has its own limit, 4096 on most.
const BACKLOG: u32 = 4096;

/// How long nothing is accepted after the system had no room for another connection.
const PAUSE: Duration = Duration::from_millis(100);

/// After how long without a byte a client is asked whether it is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(60);

/// What every connection needs, whatever its port.
#[derive(Debug)]
pub(super) struct Door {
    /// One for each connection that may be open.
    pub(super) permits: Arc<Semaphore>,
    pub(super) connections: TaskTracker,
    pub(super) timing: Arc<Timing>,
    pub(super) ending: Ending,
}

/// Opens the socket of `place`.
///
/// Without an address that is every address, by IPv6 and IPv4, or by IPv4 alone where there is no IPv6.
pub(super) fn open(place: Place) -> io::Result<TcpListener> {
    let Some(address) = place.host_ip else {
        let all = SocketAddr::from((Ipv6Addr::UNSPECIFIED, place.port));
        return match bind(all, false) {
            Err(error) if has_no_ipv6(&error) => {
                bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, place.port)), true)
            }
            result => result,
        };
    };
    bind(SocketAddr::from((address, place.port)), true)
}

/// Takes over a socket that the holder kept, if it is what it is said to be.
pub(super) fn adopt(place: Place, socket: OwnedFd) -> io::Result<TcpListener> {
    if !sockopt::socket_acceptconn(&socket)? {
        return Err(io::Error::other("it does not listen"));
    }
    let listener = StdListener::from(socket);
    if listener.local_addr()?.port() != place.port {
        return Err(io::Error::other("it listens on another port"));
    }
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// Why `place` could not be opened and what to do, for people; `owner` is who has the port, where that is known.
pub(super) fn reason(place: Place, error: &io::Error, owner: Option<&str>) -> String {
    let port = place.port;
    match (error.kind(), owner) {
        (io::ErrorKind::AddrInUse, Some(owner)) => {
            format!("port {port} is in use by {owner}: stop that, or publish another port")
        }
        (io::ErrorKind::AddrInUse, None) => {
            format!("port {port} is in use by another program: stop that, or publish another port")
        }
        (io::ErrorKind::PermissionDenied, _) => format!(
            "no permission to open port {port}: run the agent as root or with CAP_NET_BIND_SERVICE, or publish a port \
             above 1023"
        ),
        (io::ErrorKind::AddrNotAvailable, _) => match place.host_ip {
            Some(address) => {
                format!("this node has no address {address}: publish port {port} on one that it has")
            }
            None => format!("port {port} cannot be opened: {error}"),
        },
        _ => format!("port {port} cannot be opened: {error}"),
    }
}

/// Accepts connections for `route` until it is dropped.
pub(super) async fn accept(listener: Arc<TcpListener>, route: Arc<Route>, door: Arc<Door>) {
    loop {
        // Where no more may be open, clients wait in the system's queue.
        let Ok(permit) = Arc::clone(&door.permits).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((client, _)) => {
                let serving = connection::serve(
                    client,
                    Arc::clone(&route),
                    Arc::clone(&door.timing),
                    door.ending.clone(),
                );
                door.connections.spawn(async move {
                    serving.await;
                    drop(permit);
                });
            }
            Err(error) if is_exhausted(&error) => {
                tracing::warn!(%error, "no connection can be accepted for a moment");
                tokio::time::sleep(PAUSE).await;
            }
            // The client was gone before it was its turn.
            Err(error) => tracing::debug!(%error, "accept"),
        }
    }
}

/// With `one_family`, an IPv6 address is not open to IPv4.
fn bind(address: SocketAddr, one_family: bool) -> io::Result<TcpListener> {
    let socket = if address.is_ipv6() {
        let socket = TcpSocket::new_v6()?;
        sockopt::set_ipv6_v6only(&socket, one_family)?;
        socket
    } else {
        TcpSocket::new_v4()?
    };
    // Old connections that linger in the system are no reason not to listen again.
    socket.set_reuseaddr(true)?;
    // What is set here holds for every accepted connection.
    socket.set_nodelay(true)?;
    socket.set_keepalive(true)?;
    sockopt::set_tcp_keepidle(&socket, KEEP_ALIVE)?;
    sockopt::set_tcp_keepintvl(&socket, KEEP_ALIVE / 6)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn has_no_ipv6(error: &io::Error) -> bool {
    [Errno::AFNOSUPPORT, Errno::ADDRNOTAVAIL]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

fn is_exhausted(error: &io::Error) -> bool {
    let errors = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    errors.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(errno: Errno, host_ip: Option<&str>, owner: Option<&str>) -> String {
        let place = Place { host_ip: host_ip.map(|address| address.parse().unwrap()), port: 80 };
        reason(place, &io::Error::from_raw_os_error(errno.raw_os_error()), owner)
    }

    #[test]
    fn every_reason_says_what_to_do() {
        let in_use = said(Errno::ADDRINUSE, None, Some("process 8 (`nginx`)"));
        assert_eq!(in_use, "port 80 is in use by process 8 (`nginx`): stop that, or publish another port");
        assert!(said(Errno::ADDRINUSE, None, None).contains("another program"));
        assert!(said(Errno::ACCESS, None, None).contains("CAP_NET_BIND_SERVICE"));
        assert!(said(Errno::ADDRNOTAVAIL, Some("10.9.8.7"), None).contains("no address 10.9.8.7"));
        assert!(said(Errno::NOMEM, None, None).starts_with("port 80 cannot be opened: "));
    }

    #[tokio::test]
    async fn only_a_listener_on_the_right_port_is_adopted() {
        let listener = StdListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let place = |port| Place { host_ip: None, port };
        let unbound = TcpSocket::new_v4().unwrap();
        let unbound = std::os::fd::AsFd::as_fd(&unbound).try_clone_to_owned().unwrap();
        assert!(adopt(place(0), unbound).is_err());
        let copy = || OwnedFd::from(listener.try_clone().unwrap());
        assert!(adopt(place(port.wrapping_add(1)), copy()).is_err());
        let adopted = adopt(place(port), copy()).unwrap();
        let connecting = tokio::net::TcpStream::connect(("127.0.0.1", port));
        let (client, accepted) = tokio::join!(connecting, adopted.accept());
        assert!(client.is_ok() && accepted.is_ok());
    }
}
