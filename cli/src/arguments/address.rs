//! Addresses as people write them: where a daemon listens, and what others dial to reach it.

use std::fmt;
use std::net::{Ipv6Addr, SocketAddr};
use std::str::FromStr;

use crate::failure::Failure;

/// Where a daemon listens for other machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Listening {
    /// Nowhere.
    None,
    /// There.
    At(SocketAddr),
}

/// What others dial: a name or an address, and perhaps a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reached {
    host: String,
    port: Option<u16>,
}

// === impl Listening ===

impl FromStr for Listening {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self::None);
        }
        let address = text.parse().map_err(|_| {
            "write an address of this machine and a port, such as 0.0.0.0:7443, or `none`".to_owned()
        })?;
        Ok(Self::At(address))
    }
}

impl fmt::Display for Listening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::At(address) => address.fmt(f),
        }
    }
}

// === impl Reached ===

impl Reached {
    /// As `host:port`; without a port of its own, with that of `listen`. `option` is what the user wrote it behind.
    pub(crate) fn with_port_of(&self, listen: SocketAddr, option: &str) -> Result<String, Failure> {
        match self.port.unwrap_or_else(|| listen.port()) {
            0 => Err(Failure::usage(format!(
                "{option} {self} needs a port: which one is listened on is not known beforehand"
            ))),
            port => Ok(self.with_port(port)),
        }
    }

    fn with_port(&self, port: u16) -> String {
        format!("{}:{}", self.host, self.port.unwrap_or(port))
    }
}

impl FromStr for Reached {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "write a host's name or address, and a port if need be: b.example.org:7443".to_owned();
        if let Ok(ip) = text.trim_matches(['[', ']']).parse::<Ipv6Addr>() {
            return Ok(Self { host: format!("[{ip}]"), port: None });
        }
        if let Some((host, port)) = text.strip_prefix('[').and_then(|rest| rest.split_once("]:")) {
            let ip = host.parse::<Ipv6Addr>().map_err(|_| wrong())?;
            return Ok(Self { host: format!("[{ip}]"), port: Some(port_of(port).ok_or_else(wrong)?) });
        }
        let (host, port) = match text.split_once(':') {
            Some((host, port)) => (host, Some(port_of(port).ok_or_else(wrong)?)),
            None => (text, None),
        };
        let is_name =
            |host: &str| host.chars().all(|letter| letter.is_ascii_alphanumeric() || "-._".contains(letter));
        if host.is_empty() || host.len() > 253 || !is_name(host) {
            return Err(wrong());
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for Reached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            None => f.write_str(&self.host),
            Some(port) => write!(f, "{}:{port}", self.host),
        }
    }
}

fn port_of(text: &str) -> Option<u16> {
    text.parse().ok().filter(|port| *port > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_people_write_them() {
        let reached = |text: &str| text.parse::<Reached>().map(|one| one.to_string());
        for right in ["a.example", "a_b:1", "192.0.2.7", "[2001:db8::1]", "[2001:db8::1]:9"] {
            assert_eq!(reached(right).unwrap(), right);
        }
        assert_eq!(reached("2001:db8::1").unwrap(), "[2001:db8::1]");
        for wrong in ["", "a:0", "a:x", "a:1:2", "a b", "a/b", "https://a", "u@a"] {
            assert!(reached(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_others_dial_has_the_port_that_is_listened_on() {
        let reached = |text: &str, listen: &str| {
            let reached = text.parse::<Reached>().unwrap();
            reached.with_port_of(listen.parse().unwrap(), "--advertise")
        };
        assert_eq!(reached("a.example", "0.0.0.0:7443").unwrap(), "a.example:7443");
        assert_eq!(reached("a.example:443", "0.0.0.0:7443").unwrap(), "a.example:443");
        assert_eq!(reached("a.example:443", "0.0.0.0:0").unwrap(), "a.example:443");
        assert!(reached("a.example", "0.0.0.0:0").unwrap_err().message.contains("needs a port"));
        assert_eq!("none".parse::<Listening>(), Ok(Listening::None));
        assert!("7443".parse::<Listening>().is_err());
        assert_eq!("0.0.0.0:1".parse::<Listening>().unwrap().to_string(), "0.0.0.0:1");
    }
}
