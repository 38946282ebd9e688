//! Who listens on ports of this machine: `/proc` tells, as far as this user may see.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use super::super::Listener;

/// Everybody who listens on one of `ports`.
pub(super) fn on(ports: &[u16]) -> Vec<Listener> {
    let table = |file: &str| fs::read_to_string(file).unwrap_or_default();
    let mut sockets = sockets(&table("/proc/net/tcp"));
    sockets.extend(self::sockets(&table("/proc/net/tcp6")));
    sockets.retain(|socket| ports.contains(&socket.port));
    let owners = if sockets.is_empty() { BTreeMap::new() } else { owners() };
    let listener = |Socket { address, port, inode }: Socket| {
        let owner = owners.get(&format!("socket:[{inode}]")).cloned();
        Listener { address, port, owner }
    };
    sockets.into_iter().map(listener).collect()
}

#[derive(Debug, PartialEq, Eq)]
struct Socket {
    address: IpAddr,
    port: u16,
    inode: u64,
}

/// The sockets that listen, from the text of `/proc/net/tcp` or `tcp6`.
fn sockets(table: &str) -> Vec<Socket> {
    const LISTENING: &str = "0A";
    let of_line = |line: &str| -> Option<Socket> {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        if *fields.get(3)? != LISTENING {
            return None;
        }
        let (address, port) = fields.get(1)?.split_once(':')?;
        let port = u16::from_str_radix(port, 16).ok()?;
        Some(Socket { address: address_of(address)?, port, inode: fields.get(9)?.parse().ok()? })
    };
    table.lines().skip(1).filter_map(of_line).collect()
}

/// An address as the kernel writes it: words of 32 bits in hexadecimal digits, each as this machine keeps it in memory.
fn address_of(digits: &str) -> Option<IpAddr> {
    let words: Vec<u8> = (0..digits.len() / 8)
        .filter_map(|at| u32::from_str_radix(digits.get(at * 8..at * 8 + 8)?, 16).ok())
        .flat_map(u32::to_ne_bytes)
        .collect();
    match digits.len() {
        8 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(words).ok()?).into()),
        32 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(words).ok()?).into()),
        _ => None,
    }
}

/// The name of the program behind each socket, by what its file is a link to.
fn owners() -> BTreeMap<String, String> {
    let mut owners = BTreeMap::new();
    let processes = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
    for process in processes.map(|process| process.path()).filter(|path| is_process(path)) {
        let Ok(name) = fs::read_to_string(process.join("comm")) else { continue };
        // What is another user's cannot be read.
        let files = fs::read_dir(process.join("fd")).into_iter().flatten().filter_map(Result::ok);
        for target in files.filter_map(|file| fs::read_link(file.path()).ok()) {
            if let Some(target) = target.to_str().filter(|target| target.starts_with("socket:")) {
                owners.entry(target.to_owned()).or_insert_with(|| name.trim_end().to_owned());
            }
        }
    }
    owners
}

fn is_process(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.parse::<u32>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn addresses_are_read_as_the_kernel_writes_them() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
             0: 0100007F:0947 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 x\n   \
             1: 0100007F:0947 0100007F:C000 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 x\n   \
             2: 00000000000000000000000001000000:1D13 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 4713 1 x\n   \
             3: broken\n";
        let found: Vec<String> =
            sockets(table).iter().map(|it| format!("{} {} {}", it.address, it.port, it.inode)).collect();
        assert_eq!(found, ["127.0.0.1 2375 4711", "::1 7443 4713"]);
    }

    #[test]
    fn our_own_listener_is_found_with_our_name() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = std::net::TcpListener::bind(address) else { continue };
            let bound = listener.local_addr().unwrap();
            let found = on(&[bound.port()]);
            let name = fs::read_to_string("/proc/self/comm").unwrap();
            let expected =
                Listener { address: bound.ip(), port: bound.port(), owner: Some(name.trim_end().to_owned()) };
            assert!(found.contains(&expected), "{found:?}");
        }
    }
}
