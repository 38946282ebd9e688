//! What nodes and users are told to dial.

use std::net::SocketAddr;

use tug_api::address;

/// Where the control plane is reached by other machines.
#[derive(Debug, Clone, Default)]
pub struct Servers {
    told: Vec<String>,
    listen: Option<SocketAddr>,
}

// === impl Servers ===

impl Servers {
    /// Those that were `told`, as `host:port`; where none were, what follows from the address that is listened on.
    pub fn new(told: Vec<String>, listen: SocketAddr) -> Self {
        Self { told, listen: Some(listen) }
    }

    /// As `host:port`, as things are now: this machine's addresses may change while the control plane runs. Empty: it
    /// listens for nobody.
    pub(super) fn now(&self) -> Vec<String> {
        let Some(listen) = self.listen else { return Vec::new() };
        if !self.told.is_empty() {
            return self.told.clone();
        }
        if !listen.ip().is_unspecified() {
            return vec![listen.to_string()];
        }
        let is_heard = |ip: &std::net::IpAddr| listen.is_ipv6() || ip.is_ipv4();
        let own = address::own().into_iter().filter(is_heard);
        let own: Vec<String> = own.map(|ip| address::with_port(ip, listen.port())).collect();
        if own.is_empty() {
            let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
            return vec![format!("{host}:{}", listen.port())];
        }
        own
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_told_wins_over_what_is_listened_on_and_found() {
        let now = |told: &[&str], listen: &str| {
            let told = told.iter().map(|one| (*one).to_owned()).collect();
            Servers::new(told, listen.parse().unwrap()).now()
        };
        assert_eq!(now(&["tug.example:1"], "192.0.2.7:7443"), ["tug.example:1"]);
        assert_eq!(now(&[], "192.0.2.7:7443"), ["192.0.2.7:7443"]);
        let found = now(&[], "0.0.0.0:7443");
        assert!(!found.is_empty() && found.iter().all(|one| one.ends_with(":7443")), "{found:?}");
        assert!(found.iter().all(|one| !one.contains('[')), "IPv6 is not listened on: {found:?}");
        assert!(Servers::default().now().is_empty());
    }
}
