//! The address of a control plane as people write it: `https://HOST:7443`.

use std::fmt;
use std::str::FromStr;

/// The port of a control plane unless another is written.
const PORT: u16 = 7443;

/// Where a control plane is reached by TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Url {
    /// A name, an IPv4 address, or an IPv6 address in brackets.
    pub(crate) host: String,
    port: u16,
}

// === impl Url ===

impl Url {
    /// As `host:port`.
    pub(crate) fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://{}:{}", self.host, self.port)
    }
}

impl FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const FORM: &str = "write https://HOST:7443";
        if text.starts_with("http://") {
            return Err(format!("the API is reached from elsewhere by https only: {FORM}"));
        }
        if text.starts_with("tug_") {
            // Perhaps a token, which is not to be repeated.
            return Err(format!("this is no address: {FORM}"));
        }
        let rest = text.strip_prefix("https://").unwrap_or(text);
        if rest.contains("://") || rest.contains('@') {
            return Err(FORM.to_owned());
        }
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                let port = port.parse().ok().filter(|port| *port > 0).ok_or(FORM)?;
                (host, port)
            }
            Some(_) | None => (rest, PORT),
        };
        let is_name = |host: &str| host.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c));
        let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let is_right = match address {
            Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
            None => !host.is_empty() && host.len() <= 253 && is_name(host),
        };
        if is_right { Ok(Self { host: host.to_owned(), port }) } else { Err(FORM.to_owned()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_people_write_them() {
        let read = |text: &str| text.parse::<Url>().map(|url| url.to_string());
        for (text, expected) in [
            ("https://tug.example.org:8443", "https://tug.example.org:8443"),
            ("https://tug.example.org/", "https://tug.example.org:7443"),
            ("192.0.2.7", "https://192.0.2.7:7443"),
            ("https://[2001:db8::1]", "https://[2001:db8::1]:7443"),
            ("[2001:db8::1]:9", "https://[2001:db8::1]:9"),
        ] {
            assert_eq!(read(text).unwrap(), expected);
        }
        for wrong in
            ["", "https://", "ftp://a", "https://u:p@a", "https://a/b", "a:0", "a:x", "2001:db8::1", "a b"]
        {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        assert!(read("http://a:7443").unwrap_err().contains("by https only"));
        assert!(!read("tug_access_secret").unwrap_err().contains("secret"));
    }
}
