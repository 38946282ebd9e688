//! Where an agent dials from. Two machines with one key are a disk and its copy: only the first of them is talked to, or
//! both would run what is meant for one.

use std::fmt;
use std::net::IpAddr;

use tug_model::NodeId;

use super::Nodes;

/// Where an agent dials from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Origin {
    /// Which run of its machine; `None`: it does not say.
    pub boot: Option<String>,
    /// At which address; `None`: on the control plane's own machine.
    pub address: Option<IpAddr>,
}

/// Another machine is connected as the same node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rival {
    /// Where it is.
    pub(crate) origin: Origin,
    /// Whether this is found for the first time.
    pub(crate) is_news: bool,
}

// === impl Origin ===

impl Origin {
    /// Whether it is certain that these are two machines, or two runs of one.
    fn differs(&self, other: &Self) -> bool {
        self.boot.as_ref().zip(other.boot.as_ref()).is_some_and(|(one, another)| one != another)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(address) => address.fmt(f),
            None => f.write_str("the control plane's own machine"),
        }
    }
}

// === impl Nodes ===

impl Nodes {
    /// The other machine that is connected as `node`, if one is. A machine that starts anew finds itself, until the silence
    /// of its last connection is noticed.
    pub(crate) fn rival(&self, node: &NodeId, origin: &Origin) -> Option<Rival> {
        let mut known = self.0.known();
        let connection = known.connections.get_mut(node)?;
        if connection.client.is_none() || !connection.origin.differs(origin) {
            return None;
        }
        let is_news = !std::mem::replace(&mut connection.has_rival, true);
        Some(Rival { origin: connection.origin.clone(), is_news })
    }
}
