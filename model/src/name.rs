//! Names that people choose and ids that we make, each a type of its own, checked once at the edge.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{shown}` is not a valid {kind}: {rule}")]
pub struct InvalidName {
    kind: &'static str,
    rule: &'static str,
    /// The offending text, escaped and cut short.
    shown: String,
}

impl InvalidName {
    fn new(kind: &'static str, rule: &'static str, text: &str) -> Self {
        let shown = text.chars().take(64).flat_map(char::escape_default).collect();
        Self { kind, rule, shown }
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $kind:literal, $rule:literal, $check:path) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
        #[serde(try_from = "String", into = "String")]
        #[schema(value_type = String)]
        pub struct $type(std::sync::Arc<str>);

        impl $type {
            /// Checks `text` against the rule for this kind of name.
            pub fn parse(text: &str) -> Result<Self, InvalidName> {
                if $check(text) { Ok(Self(text.into())) } else { Err(InvalidName::new($kind, $rule, text)) }
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = InvalidName;
            fn from_str(text: &str) -> Result<Self, InvalidName> {
                Self::parse(text)
            }
        }

        impl TryFrom<String> for $type {
            type Error = InvalidName;
            fn try_from(text: String) -> Result<Self, InvalidName> {
                Self::parse(&text)
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0.to_string()
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

name!(
    /// The name of a project: what `name:` in a Compose file may be.
    ProjectName,
    "project name",
    "use 1 to 63 of a-z, 0-9, - and _, starting with a letter or digit",
    is_project
);
name!(
    /// The name of a service within its project. Compose allows more than host names do, and so do we.
    ServiceName,
    "service name",
    "use 1 to 63 of a-z, A-Z, 0-9, ., - and _, starting with a letter or digit; `all`, `self` and `localhost` are reserved",
    is_service
);
name!(
    /// The key of a network under a project's `networks`.
    NetworkName,
    "network name",
    "use 1 to 63 of a-z, A-Z, 0-9, ., - and _, starting with a letter or digit",
    is_resource
);
name!(
    /// The key of a volume under a project's `volumes`.
    VolumeName,
    "volume name",
    "use 1 to 63 of a-z, A-Z, 0-9, ., - and _, starting with a letter or digit",
    is_resource
);
name!(
    /// The id of a node. It is chosen once by the node and never derived from Docker's engine id.
    NodeId,
    "node id",
    "use 1 to 63 of a-z, 0-9 and -, starting with a letter or digit",
    is_node
);
name!(
    /// The id of a task; also the name of its container. Opaque: nothing parses it.
    TaskId,
    "task id",
    "use 2 to 200 of a-z, A-Z, 0-9, ., - and _, starting with a letter or digit",
    is_task
);
name!(
    /// The SHA-256 of something, as Docker writes it. An image is known by that of its configuration, a layer by that of
    /// its archive.
    Digest,
    "digest",
    "use `sha256:` and 64 of 0-9 and a-f",
    is_digest
);

// === impl Digest ===

impl Digest {
    /// Its hexadecimal digits.
    pub fn hex(&self) -> &str {
        self.as_str().strip_prefix("sha256:").unwrap_or_default()
    }

    /// The first twelve of them, for people.
    pub fn short(&self) -> &str {
        self.hex().get(..12).unwrap_or_default()
    }
}

fn is_project(text: &str) -> bool {
    starts_well(text, 1..=63) && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'))
}

fn is_service(text: &str) -> bool {
    is_resource(text) && !matches!(text, "all" | "self" | "localhost")
}

fn is_resource(text: &str) -> bool {
    starts_well(text, 1..=63) && text.bytes().all(is_wide)
}

fn is_node(text: &str) -> bool {
    starts_well(text, 1..=63) && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
}

fn is_task(text: &str) -> bool {
    starts_well(text, 2..=200) && text.bytes().all(is_wide)
}

fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|hex| {
        hex.len() == 64 && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    })
}

fn is_wide(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_')
}

fn starts_well(text: &str, length: std::ops::RangeInclusive<usize>) -> bool {
    length.contains(&text.len()) && text.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_and_shown_escaped() {
        for good in ["a", "web", "my-app_2", "0x"] {
            assert_eq!(ProjectName::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", "-a", "A", "a b", "..", "a/../b", "é", "a\0", "$(id)", "a;rm", "\x1b[1m"] {
            let error = ProjectName::parse(bad).unwrap_err().to_string();
            assert!(error.contains("project name"), "{error}");
            assert!(error.chars().all(|c| !c.is_control()), "{error:?}");
        }
        assert!(ProjectName::parse(&"a".repeat(64)).is_err());
        assert!(ServiceName::parse("Web.1_a").is_ok());
        assert!(ServiceName::parse("localhost").is_err());
        assert!(TaskId::parse("a").is_err());
    }

    #[test]
    fn a_digest_leads_nowhere_else() {
        let hex = "0f".repeat(32);
        let digest = Digest::parse(&format!("sha256:{hex}")).unwrap();
        assert_eq!((digest.hex(), digest.short()), (hex.as_str(), "0f0f0f0f0f0f"));
        for bad in [hex.clone(), format!("sha256:{}", &hex[1..]), format!("sha256:{}", "0F".repeat(32))] {
            assert!(Digest::parse(&bad).is_err(), "{bad}");
        }
        assert!(Digest::parse(&format!("sha256:../{}", &hex[3..])).is_err());
        assert!(Digest::parse(&format!("sha512:{hex}")).is_err());
    }

    #[test]
    fn a_bad_name_in_json_is_an_error() {
        assert!(serde_json::from_str::<ServiceName>("\"a b\"").is_err());
        assert_eq!(serde_json::to_string(&ServiceName::parse("web").unwrap()).unwrap(), "\"web\"");
    }
}
