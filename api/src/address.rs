//! The addresses of this machine by which other machines may reach it. Nothing is sent to find them.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use if_addrs::Interface;

/// Addresses for documentation (RFC 5737, RFC 3849): nobody has them, so the way there is the way to anybody else.
const ELSEWHERE: [(&str, &str); 2] = [("0.0.0.0:0", "192.0.2.1:9"), ("[::]:0", "[2001:db8::1]:9")];

/// All of them, the most likely first: that of the way to the rest of the world, then the others. Those of loopback and of
/// Docker's own networks, and those that mean something on one cable only, are left out.
pub fn own() -> Vec<IpAddr> {
    let interfaces = if_addrs::get_if_addrs().unwrap_or_else(|error| {
        tracing::warn!(%error, "the addresses of this machine cannot be listed");
        Vec::new()
    });
    ordered(outward(), &interfaces)
}

/// The most likely one.
pub fn likely() -> Option<IpAddr> {
    outward().into_iter().next().or_else(|| own().into_iter().next())
}

/// The addresses from which this machine would talk to the rest of the world. A datagram socket that is connected sends
/// nothing, but has asked the system for the way.
fn outward() -> Vec<IpAddr> {
    let seen = ELSEWHERE.iter().filter_map(|(from, to)| {
        let socket = UdpSocket::bind(from).ok()?;
        socket.connect(to).ok()?;
        Some(socket.local_addr().ok()?.ip())
    });
    seen.filter(|ip| is_for_others(*ip)).collect()
}

fn ordered(outward: Vec<IpAddr>, interfaces: &[Interface]) -> Vec<IpAddr> {
    let listed = interfaces.iter().filter(|it| !is_of_docker(&it.name)).map(Interface::ip);
    let mut addresses = outward;
    for ip in listed.filter(|ip| is_for_others(*ip)) {
        if !addresses.contains(&ip) {
            addresses.push(ip);
        }
    }
    addresses
}

fn is_for_others(ip: IpAddr) -> bool {
    let is_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    !(ip.is_loopback() || ip.is_unspecified() || is_local)
}

/// Whether an interface is one that Docker makes: `docker0`, `docker_gwbridge`, `br-` and twelve digits, and the ends
/// of cables into containers.
fn is_of_docker(interface: &str) -> bool {
    let is_bridge = interface
        .strip_prefix("br-")
        .is_some_and(|id| id.len() == 12 && id.chars().all(|digit| digit.is_ascii_hexdigit()));
    is_bridge || interface.starts_with("docker") || interface.starts_with("veth")
}

/// `address` with the port that it has, or with `port`.
pub fn with_port(ip: IpAddr, port: u16) -> String {
    SocketAddr::new(ip, port).to_string()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use if_addrs::{IfAddr, IfOperStatus, Ifv4Addr};

    use super::*;

    fn interface(name: &str, ip: &str) -> Interface {
        let addr = Ifv4Addr {
            ip: ip.parse().unwrap(),
            netmask: Ipv4Addr::new(255, 255, 255, 0),
            prefixlen: 24,
            broadcast: None,
        };
        Interface {
            name: name.to_owned(),
            addr: IfAddr::V4(addr),
            index: None,
            oper_status: IfOperStatus::Up,
            is_p2p: false,
        }
    }

    #[test]
    fn what_others_cannot_reach_is_left_out_and_the_likely_one_comes_first() {
        let interfaces = [
            interface("lo", "127.0.0.1"),
            interface("eth1", "10.9.0.4"),
            interface("eth0", "192.168.1.5"),
            interface("eth2", "169.254.3.3"),
            interface("docker0", "172.17.0.1"),
            interface("br-0123456789ab", "172.18.0.1"),
            interface("br-lan", "10.8.0.1"),
        ];
        let outward = vec!["192.168.1.5".parse().unwrap()];
        let shown: Vec<String> = ordered(outward, &interfaces).iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["192.168.1.5", "10.9.0.4", "10.8.0.1"]);
    }

    #[test]
    fn this_machine_is_not_told_to_others_as_loopback() {
        assert!(own().iter().all(|ip| is_for_others(*ip)), "{:?}", own());
        assert_eq!(likely(), own().first().copied());
    }
}
