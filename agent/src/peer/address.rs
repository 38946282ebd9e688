//! Where other agents reach this one: what it was told, or what is seen of the way to the orchestrator; beside an
//! orchestrator on this machine, the machine's own address.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use tokio::sync::watch;

use super::Config;

/// The agent's own address, for others. Cheap to clone; all clones know the same.
#[derive(Debug, Clone)]
pub struct Address {
    advertised: Option<String>,
    /// It is listened on one address only.
    only: Option<IpAddr>,
    local: watch::Receiver<Option<IpAddr>>,
    /// Finds the machine's own address. It is asked each time: an address may change while the agent runs.
    own: fn() -> Option<IpAddr>,
    port: Arc<AtomicU16>,
}

// === impl Address ===

impl Address {
    pub(super) fn new(config: &Config, local: watch::Receiver<Option<IpAddr>>) -> Self {
        Self {
            advertised: config.advertise.clone(),
            only: Some(config.listen.ip()).filter(|ip| !ip.is_unspecified()),
            local,
            own: tug_api::address::likely,
            port: Arc::new(AtomicU16::new(config.listen.port())),
        }
    }

    /// As `host:port`, if it is known.
    pub fn get(&self) -> Option<String> {
        let way = *self.local.borrow();
        // Where an orchestrator is reached by loopback, nobody else reaches anything.
        let seen = || way.or_else(self.own).filter(|ip| !ip.is_loopback());
        let known = || Some(SocketAddr::new(self.only.or_else(seen)?, self.port()).to_string());
        self.advertised.clone().or_else(known)
    }

    /// The port that is listened on; 0 before there is one, where any would do.
    pub(super) fn port(&self) -> u16 {
        self.port.load(Ordering::Relaxed)
    }

    pub(super) fn set_port(&self, port: u16) {
        self.port.store(port, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_advertised_wins_over_what_is_seen() {
        let known = |listen: &str, advertise: Option<&str>, local: Option<&str>| {
            let local = watch::Sender::new(local.map(|ip| ip.parse().unwrap())).subscribe();
            let config = Config { listen: listen.parse().unwrap(), advertise: advertise.map(str::to_owned) };
            let own = || "192.0.2.9".parse().ok();
            Address { own, ..Address::new(&config, local) }.get().unwrap_or_default()
        };
        let here = Some("192.0.2.7");
        assert_eq!(known("0.0.0.0:7444", None, here), "192.0.2.7:7444");
        assert_eq!(known("[::]:7444", None, Some("2001:db8::7")), "[2001:db8::7]:7444");
        assert_eq!(known("0.0.0.0:7444", Some("n1.example:9"), here), "n1.example:9");
        assert_eq!(known("192.0.2.8:7444", None, here), "192.0.2.8:7444");
        assert_eq!(known("0.0.0.0:7444", None, Some("127.0.0.1")), "");
        assert_eq!(known("0.0.0.0:7444", None, None), "192.0.2.9:7444");
        assert_eq!(known("127.0.0.2:7444", None, None), "127.0.0.2:7444");
    }
}
